"""Simulate frames with known truth.

Writes frames (CXI layout, or an NXmx master with its data files), the detector's geometry, the cell and the truth: truth.hkl holds the
squared structure factors, truth.tsv what made each frame. The same seed gives the same frames, whatever the number of threads.
"""

import json
import os

from sfxflow.errors import InputError
from sfxflow.io.simulated import COMPRESSIONS, FORMATS, SimulatedFiles
from sfxflow.progress import Progress
from sfxflow.simulate.frames import simulate_many
from sfxflow.simulate.presets import PRESETS, preset


def add_arguments(parser):
    """Arguments of `sfxflow simulate`."""
    parser.add_argument("--preset", required=True, help=f"what is simulated: {', '.join(PRESETS)}")
    parser.add_argument("--n-frames", type=int, default=240, help="number of frames")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for the files; it is made if it is missing"
    )
    parser.add_argument("--format", choices=FORMATS, default="cxi", help="layout of the frame files")
    parser.add_argument("--compression", choices=COMPRESSIONS, default="gzip", help="of the frames")
    parser.add_argument("--frames-per-file", type=int, default=1000, help="frames in one file")
    parser.add_argument("--threads", type=int, default=1, help="frames made at the same time")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        nargs="+",
        metavar="KEY=VALUE",
        help="change settings of the preset; docs/simulator.md lists them",
    )


def run(args):
    """Run `sfxflow simulate`."""
    for option in ("n_frames", "frames_per_file", "threads"):
        if getattr(args, option) < 1:
            raise InputError(f"--{option.replace('_', '-')} {getattr(args, option)}: at least 1 is expected")
    overrides = _overrides([item for group in args.set for item in group])
    experiment = preset(args.preset, seed=args.seed, **overrides)
    settings = {"preset": args.preset, "seed": args.seed, "n_frames": args.n_frames, "set": overrides}
    with SimulatedFiles(
        args.output, experiment, args.n_frames, args.format, args.compression, args.frames_per_file, settings
    ) as files:
        made = simulate_many(experiment, args.n_frames, args.threads, files.encoded)
        progress = Progress("frames simulated", args.n_frames)
        files.write(_counted(made, progress))
        progress.finish()
    count = f"{args.n_frames} frame{'s' if args.n_frames > 1 else ''}"
    print(f"{count} of {experiment.name}, with geometry, cell and truth: {os.path.join(args.output, '')}")


def _counted(frames, progress):
    for frame in frames:
        progress.add()
        yield frame


def _overrides(items):
    """KEY=VALUE as a dict; a value is a number or true or false where it can be read as one."""
    values = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise InputError(f"--set {item}: KEY=VALUE is expected, for example photons=500")
        if key == "seed":
            raise InputError("--set seed: give --seed instead")
        try:
            values[key] = json.loads(text)
        except json.JSONDecodeError:
            values[key] = text
    return values
