"""Look into the files and write a config that runs: DIR/config/config.yaml, DIR/config/runs.tsv and copies of the profiles.

The frames are opened and counted, one is read, and geometry, mask, cell and space group are checked against each other, before
anything is written. One --data is one run: a file, or a pattern in quotes.
"""

import json
import os
import re
import shutil
from pathlib import Path

import yaml

import sfxflow
from sfxflow.cli.run_rows import COLUMNS, add_data, as_name, free_name, look_into, patterns_of, written_path
from sfxflow.errors import InputError
from sfxflow.io.cell_file import check_cell, read_cell
from sfxflow.io.files import provenance_json, written_whole
from sfxflow.settings import STAGES
from sfxflow.symmetry import space_group


def add_arguments(parser):
    """Arguments of `sfxflow init`."""
    add_data(parser)
    parser.add_argument(
        "--geometry", metavar="FILE", help="CrystFEL geometry (.geom); without it NXmx files describe themselves"
    )
    parser.add_argument(
        "--cell",
        metavar="FILE",
        help="unit cell: CrystFEL .cell, or a PDB file with CRYST1; without it the cell is found from the peaks",
    )
    parser.add_argument(
        "--space-group",
        metavar="NAME",
        help="space group, for example P43212; without it the one with all rotations of the lattice, which may be too many",
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="name of the dataset; otherwise that of the cell file or the run"
    )
    parser.add_argument("--d-min", type=float, metavar="A", help="highest resolution of the merged data, angstrom")
    parser.add_argument("--mask", metavar="FILE", help="mask beside the geometry's: bad where it is not 0")
    parser.add_argument("--output", default=".", metavar="DIR", help="folder to work in")
    parser.add_argument(
        "--force", action="store_true", help="overwrite config.yaml and runs.tsv (edited profiles are kept)"
    )


def run(args):
    """Check everything, then write."""
    directory = Path(args.output)
    if directory.exists() and not directory.is_dir():
        raise InputError(f"--output: {directory} is a file, a folder is expected")
    targets = [directory / "config" / name for name in ("config.yaml", "runs.tsv")]
    existing = [str(path) for path in targets if path.exists()]
    if existing and not args.force:
        raise InputError(f"{' and '.join(existing)}: already there; --force overwrites, --output names another folder")
    if args.d_min is not None and not 0.3 <= args.d_min <= 50:
        raise InputError(f"--d-min: {args.d_min} angstrom is not a resolution limit of diffraction data")
    group = space_group(args.space_group) if args.space_group else None
    if args.cell:
        cell = read_cell(args.cell)
        if group is not None:
            check_cell(cell, group, args.cell)
    dataset = _checked_name(args.dataset) if args.dataset else as_name(Path(args.cell).stem) if args.cell else None

    rows = []
    for pattern in [pattern for given in args.data for pattern in patterns_of(given)]:
        row = look_into(pattern, args.geometry, args.mask, free_name(pattern, [r["run"] for r in rows]))
        dataset = dataset or row["run"]
        rows.append(row | {"dataset": dataset})
    # The frame files stand in the table, with their number of frames; there can be thousands.
    described = [
        *([args.cell] if args.cell else []),
        *(row[column] for row in rows for column in ("geometry", "mask") if row[column]),
    ]
    origin = provenance_json(vars_of(args), dict.fromkeys(described))
    config = {
        "cell": written_path(args.cell, directory) if args.cell else None,
        "space_group": args.space_group or None,
    }
    if args.d_min is not None:
        config["d_min"] = args.d_min
    for row in rows:
        for column in ("frames", "geometry", "mask"):
            row[column] = written_path(row[column], directory)

    with written_whole(targets[0]) as config_file, written_whole(targets[1]) as runs_file:
        config_file.write_text(config_text(dataset, config, origin), encoding="utf-8")
        runs_file.write_text(runs_text(rows, origin), encoding="utf-8")
    print(f"wrote {targets[0]} and {targets[1]}")
    if not args.cell:
        print(f"no cell is given: it will be found from the peaks of {dataset}")
    if group is None:
        print("no space group is given: one with all rotations of the lattice will be assumed; set it when it is known")
    print(_copy_profiles(directory))


def vars_of(args):
    """The command's options as settings for the provenance."""
    return {name: value for name, value in vars(args).items() if name not in ("run", "command")}


def _checked_name(name):
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name):
        raise InputError(
            f"--dataset: {name!r} is not a name of letters, digits and _ . + - that begins with a letter or digit"
        )
    return name


# ---- writing


def config_text(dataset, values, origin):
    """Text of config.yaml."""
    datasets = yaml.safe_dump({dataset: values}, sort_keys=False, allow_unicode=True, width=10**6)
    stages = "\n".join(f"{stage}: {{}}" for stage in STAGES)
    indented = "\n".join(f"  {line}" for line in datasets.splitlines())
    return f"""\
# What is measured and how it is processed, written by `sfxflow init` and yours to edit. Paths are relative to the working directory.
# provenance: {origin}

# Programs that go from frames to integrated reflections, and from there to merged ones. Each gets results of its own.
engines: [builtin]
mergers: [builtin]

# The runs: frames that were taken together with one geometry.
runs: config/runs.tsv

# Frames that one job processes. A job should last minutes.
chunk_size: 2000

# What is merged together: cell, space group, and d_min (the highest resolution of the merged data, angstrom) on request. A cell that is
# null is found from the peaks (`snakemake cell` stops there); a space group that is null is taken from the lattice: set it when you know.
# More keys: reference (intensities to compare with, .mtz or .hkl), split (groups that are scaled together and merged apart: docs/splits.md).
datasets:
{indented}

# Settings of the stages; what is left out has its default. `sfxflow STAGE --help` and docs/reference/config.md list them all.
{stages}
"""


def runs_text(rows, origin):
    """Text of runs.tsv."""
    lines = ["# One row a run; more columns are kept. Written by `sfxflow init`.", f"# provenance: {origin}"]
    lines.append("\t".join(COLUMNS))
    lines += ["\t".join(str(row[column]) for column in COLUMNS) for row in rows]
    return "\n".join(lines) + "\n"


def _copy_profiles(directory):
    """Copy the checkout's profiles and make their links; says what was done and what to type next."""
    checkout = Path(sfxflow.__file__).resolve().parents[2]
    sources = sorted((checkout / "profiles").glob("*/profile.yaml"))
    if not sources or not (checkout / "Snakefile").exists():
        return (
            "sfxflow is installed without its checkout, so there are no profiles to copy; "
            "get the repository and run: snakemake -s REPOSITORY/Snakefile --cores all"
        )
    for source in sources:
        name = source.parent.name
        target = directory / "profiles" / name / "profile.yaml"
        if not target.exists():
            with written_whole(target) as temporary:
                shutil.copyfile(source, temporary)
        link = directory / name
        if name != "default" and not os.path.lexists(link):
            _link(Path("profiles") / name, link)
    where = (
        f"cd {json.dumps(str(directory)) if ' ' in str(directory) else directory} && " if str(directory) != "." else ""
    )
    return f"next: {where}snakemake -s {checkout / 'Snakefile'} --profile local"


def _link(target, link):
    """A symbolic link to a folder, or a copy where the file system has no links."""
    try:
        link.symlink_to(target, target_is_directory=True)
    except OSError:
        shutil.copytree(link.parent / target, link)
