"""Scale and merge the reflections of any engine with cctbx.xfel.merge, under MPI.

The tables are written as pairs of .expt and .refl files, even and odd crystals in files of even and odd numbers: so cctbx.xfel.merge
makes its half sets. With --reference crystals are scaled to it and post-refined (mark0), without it they are averaged (mark1). The
files that it leaves (iobs_all.mtz, iobs_odd.mtz, iobs_even.mtz) do not say how often a reflection was measured: n counts the
observations that were given. --settings is a JSON object with the sections cctbx_xfel_merge and, of merging only anomalous, which
gives a warning: Friedel mates are merged.
"""

import shutil
import sys

import numpy as np

from sfxflow.cli import crystfel_merging, dials_merging, options, program_job
from sfxflow.cli.dials_job import Programs
from sfxflow.cli.figures_of_merit import read_reference
from sfxflow.errors import InputError
from sfxflow.io.dials_chunks import write_dials
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hkl import ReflectionList
from sfxflow.io.mtz import Header, read_intensities, write_merged_mtz
from sfxflow.merging.means import weighted_means
from sfxflow.merging.observations import ccp4_asymmetric_unit
from sfxflow.point_group import point_group_name
from sfxflow.programs.dials import xfel_merge_arguments
from sfxflow.programs.running import PACKAGES, ProgramError

_PREFIX, _REFERENCE = "iobs", "reference.mtz"
#: Part of the merged file to cctbx' name of the file; odd crystals are its first half.
_FILES = {"": "all", "_half1": "odd", "_half2": "even"}


def add_arguments(parser):
    """Arguments of the sub-command."""
    dials_merging.add_arguments(parser)
    parser.add_argument("--reference", nargs="?", metavar="FILE", help="intensities to scale to (.hkl, .mtz)")
    parser.add_argument("--mpi", default="mpirun", metavar="PROGRAM", help="what starts the processes (mpirun, srun)")
    parser.add_argument("--tasks", type=int, default=1, metavar="N", help="processes")


def run(args):
    """Scale and merge; see the module's docstring."""
    settings, merging = program_job.sections(args, "cctbx_xfel_merge", "merging")
    if merging.anomalous:
        print(
            f"WARNING: {args.dataset}: cctbx_xfel_merge merges Friedel mates; merging.anomalous is of the other mergers",
            file=sys.stderr,
        )
    dials_merging.check_d_min(args)
    cell, group = options.cell_and_group(args.cell, args.space_group)
    detector = read_geometry(args.geometry[0])
    _require(args.mpi)
    crystals = crystfel_merging.read_crystals(args)
    n = len(crystals.chunk)
    given, observations = np.zeros(n, bool), np.zeros(n, np.int64)
    lists, remark, arguments = {}, "no crystals", []
    with program_job.working_directory(args) as (directory, log):
        tables = list(dials_merging.usable_tables(args, crystals, given, len(detector.panels)))
        if given.sum() > 1:
            reference = _write_reference(directory / _REFERENCE, args.reference, cell, group, crystals.wavelength)
            _write_parts(directory, tables, detector, group, max(2, 2 * args.tasks))
            arguments = xfel_merge_arguments(
                settings, cell.parameters, group.short_name(), args.d_min, reference, _PREFIX
            )
            Programs(log, {"OMP_NUM_THREADS": "1"}, program_job.seconds_of(args.time_limit)).run(
                directory, [*args.mpi.split(), "-n", str(args.tasks), *arguments], f"{_PREFIX}_all.mtz"
            )
            lists = _lists(directory, tables, group)
            remark = "" if len(lists) == 3 else "cctbx.xfel.merge wrote no half sets"
            observations[given] = crystals.n_reflections[given]
        elif n:
            remark = "fewer than two crystals: there is nothing to scale"
    rows = dials_merging.crystal_rows(crystals, given, np.full(n, np.nan), observations)
    dials_merging.write(
        args, cell, group, crystals, lists, rows, "unity", "cctbx.xfel.merge", arguments,
        {"cctbx_xfel_merge": vars(settings)}, remark,
    )  # fmt: skip


def _require(mpi):
    for program in ("cctbx.xfel.merge", mpi.split()[0]):
        if shutil.which(program) is None:
            part = f"; it is part of {PACKAGES[program]}" if program in PACKAGES else ", which starts the processes"
            raise ProgramError(
                f"{program}: no such program on PATH{part}: install it, or load its module, and start again; "
                "`sfxflow doctor` shows what is found"
            )


def _write_parts(directory, tables, detector, group, n_files):
    """Crystal c of all goes into file c modulo `n_files`, which is even: odd crystals are in files of odd numbers."""
    first = np.cumsum([0, *(len(crystals["frame"]) for _, crystals, _ in tables)])
    for number in range(min(n_files, int(first[-1]))):
        parts = []
        for (frames, crystals, reflections), start in zip(tables, first, strict=False):
            own = (start + np.arange(len(crystals["frame"]))) % n_files == number
            if not own.any():
                continue
            renumbered = np.cumsum(own) - 1
            rows = own[reflections["crystal"]]
            chosen = {name: values[rows] for name, values in reflections.items()}
            chosen["crystal"] = renumbered[chosen["crystal"]]
            parts.append((frames, {name: values[own] for name, values in crystals.items()}, chosen))
        name = f"crystals_{number:04d}"
        write_dials(directory / f"{name}.expt", directory / f"{name}.refl", parts, detector, group.hall)


def _write_reference(path, given, cell, group, mean_wavelength):
    """The reference as MTZ with the column IMEAN; None where none is given."""
    if not given:
        return None
    reference, _ = read_reference(given)
    hkl, _ = ccp4_asymmetric_unit(reference.hkl, group)
    header = Header("reference", "reference", group, cell.parameters, mean_wavelength, [])
    sigma = np.where(reference.sigI > 0, reference.sigI, 1.0)
    write_merged_mtz(path, header, hkl, [("IMEAN", "J", reference.I), ("SIGIMEAN", "Q", sigma)])
    return path.name


def _lists(directory, tables, group):
    """Reflection lists from the program's MTZ files, with the numbers of observations that were given."""
    columns = [np.concatenate([reflections[name] for _, _, reflections in tables]) for name in ("h", "k", "l")]
    asymmetric, _ = ccp4_asymmetric_unit(np.column_stack(columns).astype(np.int32), group)
    unique, _, _, count = weighted_means(asymmetric, np.zeros(len(asymmetric)), np.ones(len(asymmetric)))
    counted = {tuple(hkl): int(n) for hkl, n in zip(unique.tolist(), count, strict=True)}
    lists = {}
    for part, name in _FILES.items():
        path = directory / f"{_PREFIX}_{name}.mtz"
        if not path.is_file():
            continue
        try:
            found = read_intensities(path)
        except InputError as error:
            raise ProgramError(f"cctbx.xfel.merge: ended as if all were well, but {error}") from None
        hkl, _ = ccp4_asymmetric_unit(found.hkl, group)
        n = np.array([counted.get(tuple(index), 0) for index in hkl.tolist()], np.int32)
        nothing = np.full(len(hkl), np.nan)
        lists[part] = ReflectionList(point_group_name(group), hkl, found.I, found.sigI, n, nothing, [])
    return lists
