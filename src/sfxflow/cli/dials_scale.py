"""Scale the reflections of any engine with dials.scale, and merge them.

The tables are written as experiments and reflections, one experiment a crystal, with the correction for polarisation and a Gaussian
partiality of the excitation error, which DIALS divides by. Of what dials.scale leaves, scaled observations that it did not reject, the
weighted means are taken here: of all crystals, and of odd and even ones, so that half sets are crystals and CC1/2 means the same for
every merger (dials.merge splits the measurements of each reflection). --settings is a JSON object with the sections dials_scale and, of
merging only anomalous: then Friedel mates are scaled and averaged apart.
"""

import numpy as np

from sfxflow.cli import crystfel_merging, dials_merging, options, program_job
from sfxflow.cli.dials_job import Programs
from sfxflow.io.dials_chunks import write_dials
from sfxflow.io.dials_files import Flag, read_refl
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hkl import ReflectionList
from sfxflow.merging.means import weighted_means
from sfxflow.point_group import point_group_name
from sfxflow.programs.dials import environment, require_dials, scale_arguments
from sfxflow.programs.running import ProgramError
from sfxflow.symmetry import to_asu

_GIVEN, _SCALED = "given", "scaled"


def add_arguments(parser):
    """Arguments of the sub-command."""
    dials_merging.add_arguments(parser)


def run(args):
    """Scale and merge; see the module's docstring."""
    settings, merging = program_job.sections(args, "dials_scale", "merging")
    anomalous = merging.anomalous
    dials_merging.check_d_min(args)
    arguments = scale_arguments(settings, args.d_min, f"{_GIVEN}.expt", f"{_GIVEN}.refl", _SCALED, anomalous)
    cell, group = options.cell_and_group(args.cell, args.space_group)
    detector = read_geometry(args.geometry[0])
    program = require_dials("dials.scale")
    crystals = crystfel_merging.read_crystals(args)
    n = len(crystals.chunk)
    given, scale, observations = np.zeros(n, bool), np.full(n, np.nan), np.zeros(n, np.int64)
    lists, remark = {}, "no crystals"
    with program_job.working_directory(args) as (directory, log):
        if not crystals.left_out.all():
            names = write_dials(
                directory / f"{_GIVEN}.expt",
                directory / f"{_GIVEN}.refl",
                dials_merging.usable_tables(args, crystals, given, len(detector.panels)),
                detector,
                group.hall,
                partiality=settings.partiality,
            )
            remark = "fewer than two crystals: dials.scale has nothing to scale"
        if given.sum() > 1:
            programs = Programs(log, environment(directory), program_job.seconds_of(args.time_limit))
            programs.run(directory, arguments, f"{_SCALED}.expt", f"{_SCALED}.refl")
            columns, owner = _scaled(directory / f"{_SCALED}.refl", names, np.flatnonzero(given))
            lists = _merged(columns, owner, given, group, settings, anomalous, scale, observations)
            remark = ""
    rows = dials_merging.crystal_rows(crystals, given, scale, observations)
    model = "gaussian" if settings.partiality else "unity"
    about = f"{program} dials.scale"
    used = {"dials_scale": vars(settings), "merging": {"anomalous": anomalous}}
    dials_merging.write(args, cell, group, crystals, lists, rows, model, about, arguments[1:], used, remark, anomalous)


def _scaled(path, names, numbers):
    """Columns of the scaled reflections, and the number of each one's crystal."""
    columns, identifiers = read_refl(path)
    place = dict(zip(names, numbers, strict=True))
    owner = np.full(max(identifiers, default=-1) + 1, -1)
    for key, name in identifiers.items():
        if name not in place:
            raise ProgramError(f"dials.scale: {path.name} has the experiment {name}, which was not given to it")
        owner[key] = place[name]
    return columns, owner[columns["id"]]


def _merged(columns, owner, given, group, settings, anomalous, scale, observations):
    """Reflection lists of all crystals and of the half sets; fills in scale and observations of each crystal."""
    factor = columns["inverse_scale_factor"]
    flags = columns["flags"].astype(np.int64)
    used = ((flags & Flag.scaled) != 0) & ((flags & Flag.not_merged) == 0) & (factor > 0)
    used &= columns["intensity.scale.variance"] > 0
    owner, factor = owner[used], factor[used]
    hkl = to_asu(columns["miller_index"][used], group, friedel=not anomalous)
    intensity = columns["intensity.scale.value"][used] / factor
    sigma = np.sqrt(columns["intensity.scale.variance"][used]) / factor
    observations += np.bincount(owner, minlength=len(observations))
    with np.errstate(invalid="ignore"):
        scale[:] = np.bincount(owner, factor, len(scale)) / observations
    # Odd and even among the crystals that were given, whatever was rejected since.
    half = ((np.cumsum(given) - 1) % 2)[owner]
    name, lists = point_group_name(group, friedel=not anomalous), {}
    for part, chosen in (("", half >= 0), ("_half1", half == 0), ("_half2", half == 1)):
        unique, mean, error, count = weighted_means(hkl[chosen], intensity[chosen], sigma[chosen])
        enough = count >= (settings.min_measurements if part == "" else 1)
        nothing = np.full(enough.sum(), np.nan)
        lists[part] = ReflectionList(name, unique[enough], mean[enough], error[enough], count[enough], nothing, [])
    return lists
