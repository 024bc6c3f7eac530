"""Scale and merge a stream with CrystFEL's partialator.

--settings is a JSON object with the sections partialator and integration of config.yaml, and merging; of integration only the polarisation
counts, of merging only anomalous. The point group is always given, the half sets are partialator's own (odd and even crystals). partialator says which crystals it has
rejected, not why, and not their scales.
"""

import re
from pathlib import Path

from sfxflow.cli import crystfel_merging, program_job
from sfxflow.programs.crystfel import MINIMUM
from sfxflow.programs.crystfel_mergers import partialator_crystals, partialator_options
from sfxflow.programs.running import require_program, run_program

_OUTPUT, _UNMERGED = "merged.hkl", "unmerged.txt"
_TOLD = re.compile(r"Scaling and refinement cycle|Final merge|Overall CChalf")


def add_arguments(parser):
    """Arguments of the sub-command."""
    crystfel_merging.add_arguments(parser)


def run(args):
    """Merge; see the module's docstring."""
    made = crystfel_merging.prepared(args, "partialator")
    settings, crystals = made.settings, made.crystals
    chosen = partialator_options(settings, made.point_group, made.integration, args.threads)
    program = require_program("partialator", MINIMUM)
    lists, notes, remark = {}, None, "no crystals"
    if not crystals.left_out.all():
        with program_job.working_directory(args) as (directory, log):
            arguments = [
                program.path,
                "-i",
                Path(args.stream).absolute(),
                "-o",
                _OUTPUT,
                f"--unmerged-output={_UNMERGED}",
                *chosen,
            ]
            run_program(
                arguments,
                directory=directory,
                log=log,
                time_limit=program_job.seconds_of(args.time_limit),
                temporary=True,
                on_line=lambda line: print(line, flush=True) if _TOLD.match(line) else None,
            )
            paths = {part: directory / f"{_OUTPUT}{ending}" for part, ending in crystfel_merging.ENDINGS.items()}
            remark = ""
            if len(crystals.frame) - crystals.left_out.sum() < 2:
                paths, remark = {"": paths[""]}, "one crystal: there are no half sets"
            lists = crystfel_merging.written_lists("partialator", paths, made.point_group)
            with open(directory / _UNMERGED, "rb") as handle:
                notes = crystfel_merging.noted("partialator", crystals, partialator_crystals(handle))
    rows = crystfel_merging.crystal_columns(crystals, notes, "not read by partialator (min_res, or no profile radius)")
    about = f"CrystFEL {program.version} partialator"
    crystfel_merging.write_prepared(args, "partialator", made, lists, rows, settings.model, about, chosen, remark)
