"""Ways to index by CrystFEL's ambigator, for `sfxflow ambiguity` where the settings ask for it."""

import io
import re
import sys
from pathlib import Path

import numpy as np

from sfxflow.ambiguity.assign import Assignment
from sfxflow.ambiguity.operators import described
from sfxflow.cli import program_job
from sfxflow.errors import InputError
from sfxflow.geometry import Detector, Panel
from sfxflow.io.geom_writer import write_geom
from sfxflow.io.stream import StreamWriter
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.point_group import point_group_name
from sfxflow.programs.crystfel import MINIMUM
from sfxflow.programs.running import ProgramError, require_program, run_program, with_last_lines

#: ambigator's own defaults, given so that they stay.
_ITERATIONS, _CORRELATIONS = 6, 1000
#: A resolution limit beyond all reflections, angstrom. Without any limit, ambigator of CrystFEL 0.12 compares crystals only if they have
#: four reflections beyond 2.5 angstrom in common (in its function corr the count is that of the last range).
_ALL = 0.1
_WITHOUT = re.compile(r"WARNING: (\d+) crystals had no correlation")
_STREAM, _OUTPUT, _ASSIGNMENTS = "crystals.stream", "assigned.stream", "assignments.txt"
_CRYSTAL_COLUMNS = ("frame", "reciprocal", "cell", "profile_radius", "mosaicity", "shift", "excess", "resolution")
_REFLECTION_COLUMNS = ("h", "k", "l", "I", "sigI")


def resolved_by_ambigator(args, counts, cell, group, operators, settings):
    """Ways to index of the crystals of `args.integrated`, as `sfxflow.ambiguity.assign.assign` gives them.

    Parameters
    ----------
    args : argparse.Namespace
        integrated and threads.
    counts : list of int
        Crystals of each file.
    cell : sfxflow.cell.Cell
    group : gemmi.SpaceGroup
    operators : ndarray, shape (2, 3, 3)
    settings : sfxflow.settings.Ambiguity

    Raises
    ------
    InputError
        There are more than two ways to index, or ambigator fails.
    """
    if len(operators) > 2:
        raise InputError(
            f"ambiguity.program: ambigator tells two ways to index apart, here are {len(operators)}; set it to builtin, which tells all"
        )
    n = sum(counts)
    program = require_program("ambigator", MINIMUM)
    mode, n_alone = np.zeros(n, np.int64), 0
    if n:
        with program_job.working_directory(args) as (directory, log):
            n_observations = _write_stream(directory / _STREAM, args.integrated, cell)
            arguments = [
                program.path, _STREAM, "-o", _OUTPUT, "-y", point_group_name(group), f"--operator={described(operators[1])}",
                f"--iterations={_ITERATIONS}", f"--ncorr={_CORRELATIONS}", "-j", str(args.threads),
                f"--end-assignments={_ASSIGNMENTS}", f"--highres={settings.d_min or _ALL:g}",
            ]  # fmt: skip
            without = []
            finished = run_program(
                arguments,
                directory=directory,
                log=log,
                on_line=lambda line: without.extend(_WITHOUT.findall(line)),
                temporary=True,
            )
            mode = _assignments(directory / _ASSIGNMENTS, n)
            n_alone = int(without[-1]) if without else 0
            if n_alone == n:
                raise ProgramError(
                    with_last_lines(
                        f"ambigator: could compare none of {n} crystals with another: too few reflections in common",
                        finished,
                    )
                )
    else:
        n_observations = np.zeros(0, np.int64)
    summary = {
        "told_apart": True,
        "median_margin": 0.0,
        "chance_margin": 0.0,
        "n_rounds": _ITERATIONS,
        "reference_used": "none",
        "n_unusable": 0,
        "remarks": [
            f"resolved by ambigator (CrystFEL {program.version}), which does not say how certain it is: no crystal is left out",
            *(
                [f"{n_alone} crystals have too little in common with others: their way to index is by chance"]
                if n_alone
                else []
            ),
        ],
    }
    print(f"resolved by ambigator (CrystFEL {program.version})", file=sys.stderr)
    return Assignment(mode, np.zeros(n), n_observations, summary)


def _write_stream(path, integrated, cell):
    """The crystals as a stream, all that ambigator reads; gives the number of reflections of each."""
    panel = Panel(
        "p", "/data", ("ss", "fs"), 0, 0, 0, 0, (0.0, 0.0, 0.0), (1e-4, 0.0, 0.0), (0.0, 1e-4, 0.0), 0, 0, 1.0
    )
    detector = Detector((panel,), 9000.0, 0.1)
    geometry = io.StringIO()
    write_geom(geometry, detector)
    n_reflections = []
    with open(path, "wb", buffering=1 << 20) as handle:
        writer = StreamWriter(handle, detector, geometry.getvalue(), cell, "sfxflow ambiguity")
        for name in integrated:
            with open_chunk(name, "frames", "crystals", "reflections") as chunk:
                try:
                    energy = chunk["frames/photon_energy"][()]
                    crystals = read_rows(chunk["crystals"], columns=_CRYSTAL_COLUMNS)
                    reflections = read_rows(chunk["reflections"], columns=_REFLECTION_COLUMNS)
                    owner = chunk["reflections/crystal"][()]
                except (KeyError, OSError) as error:
                    raise InputError(f"{name}: incomplete or damaged ({error}); remove it and run again") from None
            known = crystals["resolution"] > 0
            crystals["resolution"] = np.where(known, crystals["resolution"], np.nan)
            starts = np.searchsorted(owner, np.arange(len(crystals["frame"]) + 1))
            for c, frame in enumerate(crystals["frame"]):
                own = {key: values[starts[c] : starts[c + 1]] for key, values in reflections.items()}
                nothing = np.zeros(len(own["h"]))
                own |= {"peak": nothing, "background": nothing, "fs": nothing, "ss": nothing, "panel": nothing}
                writer.begin_frame(f"{Path(name).name}-{c}", "", True, True, float(energy[frame]), 0.1)
                writer.add_crystal({key: values[c] for key, values in crystals.items()}, own)
                writer.end_frame()
                n_reflections.append(len(nothing))
    return np.array(n_reflections, np.int64)


def _assignments(path, n):
    """0 or 1 of each crystal."""
    try:
        words = path.read_text().split()
    except OSError:
        words = []
    if len(words) != n or set(words) - {"0", "1"}:
        raise ProgramError(
            f"ambigator: ended as if all were well, but says the way to index of {len(words)} crystals, not of {n}; is the disk full?"
        )
    return np.array(words, np.int64)
