"""Convert between CrystFEL streams, integrated tables, peak files, unmerged MTZ and DIALS' files.

The ends of the names say what is what: .stream (or .stream.gz, to read), .integrated.h5, .peaks.h5 or .cxi, .mtz (unmerged), and .expt with .refl
beside it. What both formats can hold is kept, to the digits that they have; docs/streams.md says what each can't hold.

A stream brings its geometry and its target cell; other files need --geometry, and --cell to become a stream. An integrated table that was
made from a stream keeps the stream's lines beside the tables, and becomes the same stream again. With --peaks the peaks of a peak file go into a
stream, and those of a stream into a peak file. With --frames the tables have a row for each frame of a run, in its order, as other stages
expect them; all of the stream is in memory then.

  sfxflow convert --input run.stream --output run.integrated.h5
  sfxflow convert --input run.stream --output run.peaks.h5
  sfxflow convert --input 0000.integrated.h5 --output run.mtz --cell lyso.cell --space-group P43212
"""

import copy
import tempfile
from pathlib import Path

from sfxflow.cli.convert_streams import (
    stream_to_dials,
    stream_to_mtz,
    stream_to_peaks,
    stream_to_stream,
    stream_to_table,
)
from sfxflow.cli.convert_tables import (
    dials_to_table,
    mtz_to_table,
    peaks_to_stream,
    table_to_dials,
    table_to_mtz,
    table_to_stream,
)
from sfxflow.errors import InputError

#: Ends of names, and what such a file is.
_ENDS = {
    ".stream": "stream",
    ".stream.gz": "stream",
    ".peaks.h5": "peaks",
    ".cxi": "peaks",
    ".h5": "table",
    ".mtz": "mtz",
    ".expt": "dials",
    ".refl": "dials",
}


def add_arguments(parser):
    """Arguments of `sfxflow convert`."""
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="FILE", help="file to convert; .expt and .refl together"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write; its end says the format")
    parser.add_argument("--geometry", metavar="FILE", help="geometry (.geom or NXmx); a stream's own where not given")
    parser.add_argument("--peaks", metavar="FILE", help="peak file of the same frames, to go into a stream")
    parser.add_argument(
        "--frames",
        metavar="PATTERN",
        help="frame files of the run: a stream's frames get their order, and those that it lacks a row that says so",
    )
    parser.add_argument("--cell", metavar="FILE", help="target cell; a stream's own where not given")
    parser.add_argument("--space-group", nargs="?", default="", help="space group, for an MTZ file, for example P43212")
    parser.add_argument(
        "--polarisation-fraction",
        type=float,
        default=0.99,
        help="fraction of the beam that is polarised along the main direction",
    )
    parser.add_argument(
        "--polarisation-angle",
        type=float,
        default=0.0,
        help="main direction of the electric field, degree from +x to +y",
    )


def run(args):
    """Convert; see the module's docstring."""
    source, target = _kind_of_input(args.input), _kind(args.output)
    if Path(args.output).resolve() in [Path(path).resolve() for path in args.input]:
        raise InputError(f"--output: {args.output} is the file to be converted; give another name")
    if args.frames and (source != "stream" or target not in ("table", "peaks")):
        raise InputError("--frames: is for streams that become an integrated table or a peak file; leave it out")
    if (source, target) in _WAYS:
        _WAYS[source, target](args)
    elif (source, target) in _THROUGH_A_TABLE:
        with tempfile.TemporaryDirectory(prefix=".convert-", dir=Path(args.output).parent) as folder:
            between = copy.copy(args)
            between.output = str(Path(folder) / "between.integrated.h5")
            _WAYS[source, "table"](between)
            between.input, between.output = [between.output], args.output
            _WAYS["table", target](between)
    else:
        possible = sorted({_NAMES[end] for start, end in [*_WAYS, *_THROUGH_A_TABLE] if start == source})
        raise InputError(
            f"{_NAMES[source]} can't be converted to {_NAMES[target]}; it can be to: {', '.join(possible)}"
        )


_NAMES = {
    "stream": "a stream (.stream)",
    "table": "an integrated table (.integrated.h5)",
    "peaks": "a peak file (.peaks.h5)",
    "mtz": "an unmerged MTZ (.mtz)",
    "dials": "DIALS' files (.expt, .refl)",
}


def _kind(path):
    name = str(path).lower()
    for end, kind in _ENDS.items():
        if name.endswith(end):
            return kind
    raise InputError(f"{path}: its name has none of the ends that are known here: {', '.join(_ENDS)}")


def _kind_of_input(paths):
    kinds = {_kind(path) for path in paths}
    if len(paths) > 1 and (kinds != {"dials"} or len(paths) > 2):
        raise InputError(f"--input: {len(paths)} files were given; one is expected, or an .expt and an .refl file")
    return kinds.pop()


_WAYS = {
    ("stream", "stream"): stream_to_stream,
    ("stream", "table"): stream_to_table,
    ("stream", "peaks"): stream_to_peaks,
    ("stream", "mtz"): stream_to_mtz,
    ("table", "stream"): table_to_stream,
    ("table", "mtz"): table_to_mtz,
    ("mtz", "table"): mtz_to_table,
    ("peaks", "stream"): peaks_to_stream,
    ("stream", "dials"): stream_to_dials,
    ("table", "dials"): table_to_dials,
    ("dials", "table"): dials_to_table,
}

#: An MTZ file has no profile radius, without which a stream is of no use.
_THROUGH_A_TABLE = {("dials", "stream"), ("dials", "mtz"), ("mtz", "dials")}
