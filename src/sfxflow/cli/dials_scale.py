"""Scale the reflections of any engine with dials.scale, and merge them.

The tables are written as experiments and reflections, one experiment a crystal, corrected for polarisation. Of what dials.scale leaves,
scaled observations that it did not reject, the weighted means are taken here: of all crystals, and of odd and even ones, so that half sets
are crystals and CC1/2 means the same for every merger (dials.merge splits the measurements of each reflection).
"""

import sys

import numpy as np

from sfxflow.ambiguity.operators import in_assigned_modes
from sfxflow.cli import crystfel_job, crystfel_merging, options
from sfxflow.cli.dials_job import Programs
from sfxflow.errors import InputError
from sfxflow.io.dials_chunks import write_dials
from sfxflow.io.dials_files import Flag, read_refl
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hkl import ReflectionList
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.merging.means import weighted_means
from sfxflow.merging.observations import ccp4_asymmetric_unit
from sfxflow.point_group import point_group_name
from sfxflow.programs.dials import environment, require_dials, scale_arguments
from sfxflow.settings import settings_from_json

_GIVEN, _SCALED = "given", "scaled"


def add_arguments(parser):
    """Arguments of the sub-command."""
    parser.add_argument("--integrated", nargs="+", required=True, metavar="FILE", help="chunk files with reflections")
    parser.add_argument(
        "--geometry", nargs="+", required=True, metavar="FILE", help="geometry (.geom or NXmx) of the runs"
    )
    parser.add_argument("--dataset", required=True, metavar="NAME", help="name of the dataset")
    options.add_cell(parser)
    parser.add_argument("--d-min", nargs="?", type=float, metavar="D", help="highest resolution to keep, angstrom")
    parser.add_argument(
        "--assignment", nargs="?", metavar="FILE", help="ways to index of the crystals, from sfxflow ambiguity"
    )
    crystfel_job.add_program(parser)
    options.add_job(parser, "merged file to write")


def run(args):
    """Scale and merge; see the module's docstring."""
    settings = settings_from_json("dials_scale", args.settings)
    if args.d_min is not None and not args.d_min > 0:
        raise InputError(f"--d-min {args.d_min}: a resolution in angstrom above 0 is expected")
    arguments = scale_arguments(settings, args.d_min, f"{_GIVEN}.expt", f"{_GIVEN}.refl", _SCALED)
    cell, group = options.cell_and_group(args.cell, args.space_group)
    detector = read_geometry(args.geometry[0])
    program = require_dials("dials.scale")
    crystals = crystfel_merging.read_crystals(args)
    n = len(crystals.chunk)
    lists, remark = {}, "no crystals"
    scale, observations = np.full(n, np.nan), np.zeros(n, np.int64)
    given = np.zeros(n, bool)
    if not crystals.left_out.all():
        with crystfel_job.working_directory(args) as (directory, log):
            names = write_dials(
                directory / f"{_GIVEN}.expt",
                directory / f"{_GIVEN}.refl",
                _chunks(args, crystals, given, len(detector.panels)),
                detector,
                group.hall,
                partiality=settings.partiality,
            )
            programs = Programs(log, environment(directory), crystfel_job.seconds_of(args.time_limit))
            if given.sum() > 1:
                programs.run(directory, arguments, f"{_SCALED}.expt", f"{_SCALED}.refl")
                columns, identifiers = read_refl(directory / f"{_SCALED}.refl")
                number = np.full(max(identifiers, default=-1) + 1, -1)
                place = dict(zip(names, np.flatnonzero(given), strict=True))
                for key, name in identifiers.items():
                    number[key] = place[name]
                lists = _merged(columns, number[columns["id"]], given, group, settings, scale, observations)
                remark = ""
            else:
                remark = "fewer than two crystals: dials.scale has nothing to scale"
    rows = {
        "chunk": crystals.chunk,
        "crystal": crystals.crystal,
        "scale": scale,
        "B": np.full(n, np.nan),
        "width": np.full(n, np.nan),
        "n_observations": observations,
        "n_rejected": np.where(observations > 0, crystals.n_reflections - observations, 0),
        "status": _status(crystals, given, observations),
    }
    if crystals.ways:
        rows |= {"mode": crystals.ways.crystals["mode"], "mode_margin": crystals.ways.crystals["margin"]}
    crystfel_merging.write(
        args, cell, group, crystals, lists, rows, "gaussian" if settings.partiality else "unity", f"{program} dials.scale", arguments[1:], {"dials_scale": vars(settings)},
        remark,
    )  # fmt: skip


def _chunks(args, crystals, given, n_panels):
    """Tables of each chunk file without what can't be used; marks in `given` the crystals that are in them."""
    for number, path in enumerate(args.integrated):
        with open_chunk(path, "frames", "crystals", "reflections") as handle:
            frames = read_rows(handle["frames"])
            own = read_rows(handle["crystals"])
            reflections = read_rows(handle["reflections"])
        of_chunk = np.flatnonzero(crystals.chunk == number)
        left_out = crystals.left_out[of_chunk]
        if crystals.ways:
            mode = crystals.ways.of_file(number, len(of_chunk))[0]
            own, reflections = in_assigned_modes(own, reflections, crystals.ways.operators, mode, left_out)
        if len(reflections["panel"]) and int(reflections["panel"].max()) >= n_panels:
            raise InputError(
                f"{path}: has reflections on panel {reflections['panel'].max()}, but --geometry has {n_panels} panels; give the "
                "geometry that was integrated with"
            )
        usable = np.isfinite(reflections["I"]) & (reflections["sigI"] > 0) & (reflections["polarisation"] > 0)
        kept = np.zeros(len(of_chunk), bool)
        kept[np.unique(reflections["crystal"][usable])] = True
        given[of_chunk[kept]] = True
        renumbered = np.cumsum(kept) - 1
        reflections = {name: values[usable] for name, values in reflections.items()}
        reflections["crystal"] = renumbered[reflections["crystal"]]
        yield frames, {name: values[kept] for name, values in own.items()}, reflections


def _merged(columns, owner, given, group, settings, scale, observations):
    """Reflection lists of all crystals and of the half sets; fills in scale and observations of each crystal."""
    factor = columns["inverse_scale_factor"]
    flags = columns["flags"].astype(np.int64)
    used = ((flags & Flag.scaled) != 0) & ((flags & Flag.not_merged) == 0) & (factor > 0)
    used &= columns["intensity.scale.variance"] > 0
    owner, factor = owner[used], factor[used]
    hkl, _ = ccp4_asymmetric_unit(columns["miller_index"][used], group)
    intensity = columns["intensity.scale.value"][used] / factor
    sigma = np.sqrt(columns["intensity.scale.variance"][used]) / factor
    observations += np.bincount(owner, minlength=len(observations))
    with np.errstate(invalid="ignore"):
        scale[:] = np.bincount(owner, factor, len(scale)) / observations
    # Odd and even among the crystals that were given, whatever was rejected since.
    half = ((np.cumsum(given) - 1) % 2)[owner]
    name, lists = point_group_name(group), {}
    for part, chosen in (("", half >= 0), ("_half1", half == 0), ("_half2", half == 1)):
        unique, mean, error, count = weighted_means(hkl[chosen], intensity[chosen], sigma[chosen])
        enough = count >= (settings.min_measurements if part == "" else 1)
        lists[part] = ReflectionList(
            name, unique[enough], mean[enough], error[enough], count[enough], np.full(enough.sum(), np.nan), []
        )
    return lists


def _status(crystals, given, observations):
    status = np.full(len(given), "merged", dtype=object)
    status[observations == 0] = "rejected by the program"
    status[~given] = "no usable reflection"
    status[crystals.left_out] = "way to index uncertain"
    if not observations.any():
        print("dials.scale left no observation", file=sys.stderr)
    return list(status)
