"""Merge a stream with CrystFEL's process_hkl: averages, with a scale for each crystal if asked for.

--settings is a JSON object with the sections process_hkl and integration of config.yaml, and merging; of integration only the polarisation
counts, of merging only anomalous. The point group is always given; the half sets are two more runs, of odd and of even crystals.
"""

from pathlib import Path

from sfxflow.cli import crystfel_merging, program_job
from sfxflow.programs.crystfel import MINIMUM
from sfxflow.programs.crystfel_mergers import HALVES, process_hkl_crystals, process_hkl_options
from sfxflow.programs.running import require_program, run_program

_STATISTICS = "crystals.txt"


def add_arguments(parser):
    """Arguments of the sub-command."""
    crystfel_merging.add_arguments(parser)


def run(args):
    """Merge; see the module's docstring."""
    made = crystfel_merging.prepared(args, "process_hkl")
    settings, crystals = made.settings, made.crystals
    chosen = process_hkl_options(settings, made.point_group, made.integration)
    program = require_program("process_hkl", MINIMUM)
    lists, notes, remark = {}, None, "no crystals"
    if not crystals.left_out.all():
        with program_job.working_directory(args) as (directory, log):
            paths = {"": directory / "merged.hkl"} | {f"_{half}": directory / f"{half}.hkl" for half in HALVES}
            only_one = len(crystals.frame) - crystals.left_out.sum() < 2
            remark = "one crystal: there are no half sets" if only_one else ""
            if only_one:
                paths = {"": paths[""]}
            for part, path in paths.items():
                own = [HALVES[part[1:]]] if part else [f"--stat={_STATISTICS}"]
                print(f"process_hkl: {part[1:] or 'all crystals'}", flush=True)
                run_program(
                    [program.path, "-i", Path(args.stream).absolute(), "-o", path.name, *own, *chosen],
                    directory=directory,
                    log=log,
                    time_limit=program_job.seconds_of(args.time_limit),
                    temporary=True,
                )
            lists = crystfel_merging.written_lists("process_hkl", paths, made.point_group)
            # Crystals are compared with the rest, and told of, only where they are scaled or judged.
            if settings.scale or settings.min_cc is not None:
                with open(directory / _STATISTICS, "rb") as handle:
                    notes = crystfel_merging.noted("process_hkl", crystals, process_hkl_crystals(handle))
    rows = crystfel_merging.crystal_columns(
        crystals, notes, "left out by process_hkl: does not agree with the others (min_cc, scale)"
    )
    about = f"CrystFEL {program.version} process_hkl"
    crystfel_merging.write_prepared(args, "process_hkl", made, lists, rows, "unity", about, chosen, remark)
