"""CrystFEL's programs: which options they get, and what their output says.

The only place where a setting of sfxflow becomes an option of CrystFEL. Nothing that matters is left to a default, which another version
may change; `extra` comes last, so that it may overrule what was given before.
"""

import re
import shlex
from signal import SIGUSR1

from sfxflow.errors import InputError
from sfxflow.programs.running import ProgramError, with_last_lines

#: Lowest version of CrystFEL: the options here are those of 0.10 to 0.12.
MINIMUM = "0.10.0"
#: Signal upon which indexamajig ends in order.
STOP_SIGNAL = SIGUSR1
#: indexamajig's exit status when it has processed nothing: the frames' messages say more.
NOTHING_PROCESSED = 5

#: Stands for no threshold and for no limit of the resolution in pixels: 0 does not mean that in every version.
_NO_THRESHOLD, _NO_LIMIT = -1e9, 1000000
#: Options that sfxflow gives, with reasons for people why they can't be in `extra`.
_OWN = {
    **dict.fromkeys(("-i", "--input"), "the frames are those of the run"),
    **dict.fromkeys(("-o", "--output"), "sfxflow reads the stream"),
    **dict.fromkeys(("-g", "--geometry"), "the geometry is that of the run (runs.tsv)"),
    **dict.fromkeys(("-p", "--pdb"), "the cell is that of the dataset (datasets.NAME.cell)"),
    **dict.fromkeys(("-j", "--temp-dir"), "threads and folders belong to the job"),
    "--peaks": "see crystfel.peak_search",
    "--indexing": "see crystfel.indexing",
    "--min-peaks": "see peaks.min_peaks",
    "--no-non-hits-in-stream": "blanks have to be in the stream, or they would count as lost",
    "--no-peaks-in-stream": "the peaks are needed",
    "--no-refls-in-stream": "the reflections are needed",
    **dict.fromkeys(("-y", "--symmetry"), "the point group is that of the dataset (datasets.NAME.space_group)"),
}

_PROCESSED = re.compile(r"(?:Final: )?(\d+) images processed, (\d+) hits")
_KILLED = re.compile(r"Worker \d+ was killed by signal (\d+)")
_EVENT = re.compile(r"(?:Event ID was: .*|\(event )//(\d+)\)?")
_NO_PEAKS = re.compile(r"Peak search failed for image .*\(event //(\d+)\)")
_REMARK = re.compile(r"warning|unrecognised|failed|couldn't|error", re.IGNORECASE)
#: The trace of the HDF5 library, and what is always said.
_NOISE = re.compile(r"\s*(HDF5-DIAG|#\d{3}:|major:|minor:)|WARNING: Forcing --no-check-cell because reference")


def peak_options(peaks, crystfel):
    """Options of indexamajig for the peak search.

    Parameters
    ----------
    peaks : sfxflow.settings.Peaks
    crystfel : sfxflow.settings.Crystfel

    Returns
    -------
    list of str
    """
    threshold = _NO_THRESHOLD if peaks.threshold is None else peaks.threshold
    return [
        "--peaks=peakfinder8",
        f"--threshold={threshold:g}",
        f"--min-snr={peaks.min_snr:g}",
        f"--min-pix-count={peaks.min_pix_count}",
        f"--max-pix-count={peaks.max_pix_count}",
        f"--local-bg-radius={peaks.local_bg_radius}",
        f"--min-res={round(peaks.min_res)}",
        f"--max-res={_NO_LIMIT if peaks.max_res is None else round(peaks.max_res)}",
        f"--min-peaks={peaks.min_peaks}",
        *([] if peaks.use_saturated else ["--no-use-saturated"]),
        "--indexing=none",
        *extra_options(crystfel.peaks_extra, "crystfel.peaks_extra"),
    ]


def indexing_options(crystfel, integration):
    """Options of indexamajig for indexing and integration with peaks from a file.

    Parameters
    ----------
    crystfel : sfxflow.settings.Crystfel
    integration : sfxflow.settings.Integration

    Returns
    -------
    list of str
    """
    radii = ",".join(f"{r:g}" for r in (integration.inner_radius, integration.middle_radius, integration.outer_radius))
    tolerance = ",".join([f"{100 * crystfel.cell_tolerance:g}"] * 3 + [f"{crystfel.angle_tolerance:g}"] * 3)
    # 1/angstrom here, 1/nm there.
    push_res = "inf" if integration.push_res is None else f"{10 * integration.push_res:g}"
    return [
        "--peaks=cxi",
        "--no-revalidate",
        # Only hits are given.
        "--min-peaks=0",
        f"--indexing={crystfel.indexing}",
        f"--tolerance={tolerance}",
        "--max-indexer-threads=1",
        *(["--multi"] if crystfel.multi else []),
        *([] if crystfel.retry else ["--no-retry"]),
        *([] if crystfel.refine else ["--no-refine"]),
        *([] if crystfel.check_peaks else ["--no-check-peaks"]),
        *([] if crystfel.check_cell else ["--no-check-cell"]),
        f"--integration={crystfel.integration}",
        f"--int-radius={radii}",
        f"--push-res={push_res}",
        *([] if integration.d_min is None else [f"--highres={integration.d_min:g}"]),
        *extra_options(crystfel.extra, "crystfel.extra"),
    ]


def extra_options(text, where):
    """The words of an `extra` setting.

    Raises
    ------
    InputError
        A quote is not closed, or it has an option that sfxflow gives itself.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{where}: {text!r} can't be split into words ({error})") from None
    for word in words:
        name = word.partition("=")[0]
        short = word[:2] if not word.startswith("--") else name
        for option in (name, short):
            if option in _OWN:
                raise InputError(f"{where}: {word}: this option is given by sfxflow: {_OWN[option]}; take it out")
    return words


class Account:
    """What indexamajig says while it runs.

    Parameters
    ----------
    progress : function
        Called with the number of frames that have been processed since the last call.

    Attributes
    ----------
    n_processed : int
        Frames that it says it has processed.
    reasons : dict
        Row of a frame to why it was lost.
    remarks : dict
        Warnings and errors to how often they came.
    """

    def __init__(self, progress):
        self.n_processed = 0
        self.reasons, self.remarks = {}, {}
        self._progress = progress
        self._killed = None

    def line(self, line):
        """Take note of a line."""
        if found := _PROCESSED.match(line):
            self._progress(int(found[1]) - self.n_processed)
            self.n_processed = int(found[1])
        elif found := _KILLED.match(line):
            self._killed = found[1]
        elif self._killed and (found := _EVENT.search(line)):
            self.reasons[int(found[1])] = f"indexamajig's worker was killed by signal {self._killed}"
            self._killed = None
        elif found := _NO_PEAKS.match(line):
            self.reasons[int(found[1])] = "indexamajig: the peak search failed"
        elif _REMARK.search(line) and not _NOISE.match(line):
            self.remarks[line.strip()] = self.remarks.get(line.strip(), 0) + 1


def check_stream(n_begun, n_ended, account, finished, free_bytes):
    """The stream must hold what indexamajig says it has processed.

    Parameters
    ----------
    n_begun, n_ended : int
        Frames whose first and whose last line stands in the stream.
    account : Account
    finished : sfxflow.programs.running.Finished
    free_bytes : int
        Of the disk that the stream is on.

    Raises
    ------
    ProgramError
        Output was lost.
    """
    if n_begun == n_ended and n_ended >= account.n_processed:
        return
    space = f"; the disk has {free_bytes / 1e6:.0f} MB free: is it full?" if free_bytes < 1e9 else ""
    raise ProgramError(
        with_last_lines(
            f"indexamajig: says it has processed {account.n_processed} frames, but {n_begun} begin and {n_ended} end in its stream: "
            f"output was lost{space}",
            finished,
        )
    )
