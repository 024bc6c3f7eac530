"""What the stages of the engine dials share: frames processed in parts, each in a directory of its own, as many at a time as there are threads.

Where a program fails the part is quartered, and quartered again: a frame that DIALS can't stand costs itself, not the chunk. Where all
quarters fail it is not a frame's fault, and the job ends with the program's last lines.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sfxflow.cli import options
from sfxflow.geometry import lab_positions
from sfxflow.programs.running import ProgramError, run_program, with_last_lines

#: Most frames that a program gets at once: reading its own files takes DIALS long, and longer for more.
_PART = 50


class Programs(NamedTuple):
    """How programs are run in a job.

    Attributes
    ----------
    log : path
        Gets what they write.
    environment : dict
    time_limit : float or None
        Seconds.
    """

    log: Path
    environment: dict
    time_limit: float | None

    def run(self, directory, arguments, *expected):
        """Run a program that must leave at least one file of each of the patterns `expected`.

        Its exit status is not believed: dials.import gives 0 without having written anything, others 1 after all was written.

        Raises
        ------
        ProgramError
            A file is missing.
        """
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"\n==== in {directory}: {' '.join(map(str, arguments))}\n")
        finished = run_program(
            arguments,
            directory=directory,
            log=self.log,
            time_limit=self.time_limit,
            environment=self.environment,
            accepted=range(126),
        )
        missing = [pattern for pattern in expected if not list(Path(directory).glob(pattern))]
        if missing:
            raise ProgramError(
                with_last_lines(
                    f"{arguments[0]}: ended with status {finished.returncode} and wrote no {missing[0]}",
                    finished,
                    self.log,
                )
            )
        return finished


def parts_of(numbers, threads):
    """Lists of consecutive frames, at least one for each thread and none longer than a program should get."""
    size = max(1, min(_PART, -(-len(numbers) // max(threads, 1))))
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def process_parts(work, directory, numbers, threads, progress):
    """Process frames in parts.

    Parameters
    ----------
    work : function
        work(directory, numbers) gives a dict of number to result, which may leave frames out.
    directory : path
        Of the job; each part gets a new directory in it.
    numbers : list of int
    threads : int
        Parts at a time.
    progress : sfxflow.progress.Progress

    Returns
    -------
    results : dict
    failed : dict of int to str
        Frames upon which a program failed, and what it said.

    Raises
    ------
    ProgramError
        A program fails whatever frames it gets.
    """
    results, failed = {}, {}
    pool = ThreadPoolExecutor(max(1, threads))
    try:
        parts = parts_of(numbers, threads)
        names = [Path(directory, f"part{i:04d}") for i in range(len(parts))]
        for found, lost in pool.map(lambda name, part: _process(work, name, part), names, parts):
            results |= found
            failed |= lost
            for _ in range(len(found) + len(lost)):
                progress.add()
    finally:
        # After an error no further part begins.
        pool.shutdown(wait=True, cancel_futures=True)
    return results, failed


def _process(work, directory, numbers):
    directory.mkdir()
    try:
        return work(directory, numbers), {}
    except ProgramError as error:
        return _quartered(work, directory, numbers, error)


def _quartered(work, directory, numbers, error):
    """The same of a part that failed, in up to four pieces; the error again if all of them fail."""
    size = -(-len(numbers) // 4)
    pieces = [numbers[i : i + size] for i in range(0, len(numbers), size)]
    if len(pieces) == 1:
        raise error
    results, errors = {}, {}
    for i, piece in enumerate(pieces):
        own = directory / f"piece{i}"
        own.mkdir()
        try:
            results |= work(own, piece)
        except ProgramError as of_piece:
            errors[i] = of_piece
    if len(errors) == len(pieces):
        raise error
    failed = {}
    for i, of_piece in errors.items():
        try:
            found, lost = _quartered(work, directory / f"piece{i}", pieces[i], of_piece)
            results |= found
            failed |= lost
        except ProgramError:
            failed |= dict.fromkeys(pieces[i], _first_line(of_piece))
    return results, failed


def _first_line(error):
    return str(error).splitlines()[0].removesuffix(":")


def resolution_limits(peaks, arrays, clen, settings):
    """Which peaks lie within min_res and max_res, pixel from the beam, as the built-in search takes them."""
    if not settings.min_res and settings.max_res is None:
        return np.ones(len(peaks), bool)
    xyz = lab_positions(arrays, peaks["panel"], peaks["fs"], peaks["ss"], clen)
    radius = np.hypot(xyz[:, 0], xyz[:, 1]) / options.pixel_size(arrays)
    return (radius >= settings.min_res) & (radius <= (np.inf if settings.max_res is None else settings.max_res))
