"""Index the hits of a peak file with DIALS, and integrate their reflections.

The peaks of any engine are given to dials.ssx_index, and its crystals to dials.ssx_integrate; or dials.stills_process does all, with
spots that it finds again in the hits. --settings is a JSON object with the sections dials, indexing, integration and peaks of config.yaml.
Excitation errors and polarisation are computed here, from DIALS' orientations and the geometry; intensities are DIALS' sums.
"""

import sys
from collections import Counter
from typing import NamedTuple

import numpy as np

from sfxflow.cell import inverse_resolution, parameters_of
from sfxflow.cli import dials_job, options
from sfxflow.cli.program_job import add_program, photons_of, seconds_of, sections, tell_gain, working_directory
from sfxflow.dials_tables import rays, reflection_rows
from sfxflow.errors import InputError
from sfxflow.indexing.given_lattices import common_widths
from sfxflow.io.dials_files import Flag, read_expt, read_refl
from sfxflow.io.dials_job import EXPERIMENTS, STRONG, present, restore_beams, spots_of_frame, write_spots
from sfxflow.io.files import provenance_json
from sfxflow.io.frames import open_frames
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.peaks import PEAK_GROUP, read_peaks
from sfxflow.io.table import ChunkWriter, open_chunk, read_rows
from sfxflow.programs.dials import (
    environment,
    require_dials,
    ssx_index_arguments,
    ssx_integrate_arguments,
    stills_process_arguments,
)
from sfxflow.progress import Progress
from sfxflow.reflections import Status
from sfxflow.units import wavelength

_INDEXED = "indexed"
#: Reflections with one of these marks are left out.
_UNUSABLE = Flag.dont_integrate | Flag.overloaded | Flag.bad_foreground | Flag.failed_background | Flag.failed_summation
#: Crystals that are written at once.
_BLOCK = 64


class Lattice(NamedTuple):
    """One crystal that DIALS found, or why it is not kept.

    Attributes
    ----------
    reciprocal : ndarray, shape (3, 3)
    q, excitation_error : ndarray
        Of the spots that it explains, 1/angstrom.
    rms_position : float
        Pixel.
    reflections : dict of ndarray
        Columns as `sfxflow.reflections.REFLECTIONS`, crystal 0.
    n_left_out : int
    doubt : str
    """

    reciprocal: np.ndarray
    q: np.ndarray
    excitation_error: np.ndarray
    rms_position: float
    reflections: dict
    n_left_out: int = 0
    doubt: str = ""


def add_arguments(parser):
    """Arguments of the sub-command."""
    parser.add_argument("--peaks", required=True, help="peak file of any engine")
    options.add_frames(parser)
    options.add_cell(parser)
    add_program(parser)
    options.add_job(parser, "file of the integrated reflections (HDF5)")


def run(args):
    """Index and integrate; see the module's docstring."""
    dials, indexing, integration, peaks = sections(args, "dials", "indexing", "integration", "peaks")
    detector = read_geometry(args.geometry)
    cell, group = options.cell_and_group(args.cell, args.space_group)
    with open_chunk(args.peaks, "frames", PEAK_GROUP) as handle:
        account = read_rows(handle["frames"])
    by_process = dials.indexing == "stills_process"
    program = require_dials(*(("dials.stills_process",) if by_process else ("dials.ssx_index", "dials.ssx_integrate")))
    with (
        working_directory(args) as (directory, log),
        open_frames(args.frames, detector, args.mask, near=args.first) as frames,
    ):
        wanted = options.frame_range(args, frames.n_frames)
        if list(account["frame"]) != list(wanted):
            raise InputError(
                f"{args.peaks}: does not hold the frames {wanted.start} to {wanted.stop - 1}; find the peaks of this chunk again"
            )
        inputs = [args.peaks, args.geometry, args.cell, *([args.mask] if args.mask else []), *frames.files_of(wanted)]
        hits = [i for i, status in enumerate(account["status"]) if status == Status.hit]
        gain, origin = photons_of(detector, frames, [wanted[i] for i in hits], dials.gain)
        tell_gain(gain, origin)
        job = _Job(args, detector, cell, group, (dials, indexing, integration, peaks), gain, wanted.start)
        job.programs = dials_job.Programs(log, environment(directory), seconds_of(args.time_limit))
        progress = Progress("hits indexed", len(hits))
        results, failed = dials_job.process_parts(
            job.process if by_process else job.index, directory, [wanted[i] for i in hits], args.threads, progress
        )
        progress.finish()
    counts = Counter()
    _account(account, hits, wanted.start, results, failed, counts)
    messages = [account["message"][i] for i in hits if account["status"][i] == Status.failed]
    options.check_failures(len(messages), max(len(hits), 1), dials.max_bad_frames, messages)
    given = {"dials": dials, "indexing": indexing, "integration": integration, "peaks": peaks}
    with hdf5_written_whole(args.output) as handle:
        writer = ChunkWriter(
            handle,
            provenance_json({name: vars(values) for name, values in given.items()}, inputs),
            ["frames", "crystals", "reflections"],
        )
        handle.attrs["program"] = program
        handle.attrs["options"] = "; ".join(" ".join(command) for command in job.commands())
        handle.attrs["gain"], handle.attrs["gain_from"] = gain, origin
        handle.attrs["cell"], handle.attrs["space_group"] = cell.parameters, group.xhm()
        handle.attrs["peaks_from"] = "found again by dials.stills_process" if by_process else "the peak file"
        handle.attrs["warning"] = ""
        _write(writer, account, results, wanted.start)
    n_indexed = int(np.count_nonzero(np.asarray(account["status"]) == Status.indexed))
    reasons = "".join(f"; {reason}: {count}" for reason, count in counts.most_common() if reason)
    print(
        f"{len(hits)} hits: {n_indexed} indexed, {int(np.sum(account['n_lattices']))} lattices ({program}){reasons}",
        file=sys.stderr,
    )


class _Job:
    """What the parts of a job share."""

    def __init__(self, args, detector, cell, group, settings, gain, first):
        self.args, self.detector, self.cell, self.gain, self.first = args, detector, cell, gain, first
        self.group = group.short_name() + (f":{group.ext}" if group.ext == "H" else "")
        self.dials, self.indexing, self.integration, self.peaks = settings
        self.programs = None
        # An option that can't be meant is an error before any work.
        self.commands()

    def commands(self):
        """The programs' command lines."""
        d_min = self.integration.d_min
        if self.dials.indexing == "stills_process":
            return [
                stills_process_arguments(
                    self.peaks, self.cell.parameters, self.group, self.dials, self.gain, d_min, EXPERIMENTS
                )
            ]
        return [
            ssx_index_arguments(self.cell.parameters, self.group, self.dials, EXPERIMENTS, STRONG),
            ssx_integrate_arguments(self.dials, self.gain, d_min, f"{_INDEXED}.expt", f"{_INDEXED}.refl"),
        ]

    def index(self, directory, numbers):
        """Lattices of a part's frames by dials.ssx_index and dials.ssx_integrate."""
        with open_chunk(self.args.peaks) as handle:
            start = numbers[0] - self.first
            stop = numbers[-1] - self.first + 1
            peaks = dict(zip(range(numbers[0], numbers[-1] + 1), read_peaks(handle, start, stop), strict=True))
        spots = {}

        def take_spots(number, data, good):
            spots[number] = spots_of_frame(peaks[number], data, good, self.detector)

        with open_frames(self.args.frames, self.detector, self.args.mask, near=self.args.first) as frames:
            presented = present(directory, frames, numbers, take_spots)
        found = dict(presented.failed)
        if not presented.numbers:
            return found
        write_spots(directory, spots, presented.numbers)
        index, integrate = self.commands()
        self.programs.run(directory, index, f"{_INDEXED}.expt", f"{_INDEXED}.refl")
        experiments, _ = read_expt(directory / f"{_INDEXED}.expt")
        if not experiments:
            return found | {number: [] for number in presented.numbers}
        restore_beams(directory / f"{_INDEXED}.expt", directory)
        self.programs.run(directory, integrate, "integrated_*.expt", "integrated_*.refl")
        found |= self.lattices(directory, presented, _INDEXED, "integrated_*")
        for experiment in experiments:
            number = presented.numbers[experiment.index or 0]
            if not found[number]:
                # dials.ssx_integrate leaves out what it can't integrate.
                nothing = np.zeros(0)
                found[number] = [Lattice(experiment.reciprocal, nothing, nothing, np.nan, {"h": nothing})]
        return found

    def process(self, directory, numbers):
        """Lattices of a part's frames by dials.stills_process."""
        with open_frames(self.args.frames, self.detector, self.args.mask, near=self.args.first) as frames:
            presented = present(directory, frames, numbers)
        found = dict(presented.failed)
        if not presented.numbers:
            return found
        # Where nothing is indexed there are no files of that name, only a log.
        self.programs.run(directory, self.commands()[0], "dials.process.log")
        return found | self.lattices(directory, presented, "idx-*_indexed", "idx-*_integrated")

    def lattices(self, directory, presented, indexed, integrated):
        """Number of each frame to its lattices, from the files that match the patterns."""
        matched = self._matched_spots(directory, indexed)
        found = {number: [] for number in presented.numbers}
        for path in sorted(directory.glob(f"{integrated}.expt")):
            experiments, _ = read_expt(path)
            columns, _ = read_refl(path.with_suffix(".refl"))
            flags = columns["flags"].astype(np.int64)
            usable = ((flags & Flag.integrated_sum) != 0) & ((flags & _UNUSABLE) == 0)
            usable &= columns["intensity.sum.variance"] > 0
            for i, experiment in enumerate(experiments):
                number = presented.numbers[experiment.index or 0]
                own = columns["id"] == i
                found[number].append(
                    self._lattice(
                        experiment,
                        presented.beams[number][0],
                        matched.get(experiment.identifier),
                        columns,
                        np.flatnonzero(own & usable),
                        int(np.count_nonzero(own & ~usable)),
                    )
                )
        return found

    def _matched_spots(self, directory, pattern):
        """Identifier of each experiment to indices, and distances (pixel), of the spots that its crystal explains."""
        matched = {}
        for path in sorted(directory.glob(f"{pattern}.refl")):
            columns, identifiers = read_refl(path)
            for number, name in identifiers.items():
                own = columns["id"] == number
                apart = (columns["xyzcal.px"] - columns["xyzobs.px.value"])[own, :2]
                matched[name] = columns["miller_index"][own], apart
        return matched

    def _lattice(self, experiment, photon_energy, spots, columns, chosen, n_left_out):
        reciprocal, length = experiment.reciprocal, wavelength(photon_energy)
        hkl, apart = spots if spots is not None else (np.zeros((0, 3), int), np.zeros((0, 2)))
        n = len(hkl)
        _, error = rays(hkl, np.broadcast_to(reciprocal, (n, 3, 3)), np.full(n, length))
        q = np.linalg.norm(hkl @ reciprocal.T, axis=1)
        rms = float(np.sqrt(np.mean(np.sum(apart**2, axis=1)))) if n else np.nan
        rows = reflection_rows(
            columns,
            chosen,
            np.zeros(len(chosen), np.int64),
            reciprocal[None],
            np.array([length]),
            self.detector,
            (self.integration.polarisation_fraction, np.radians(self.integration.polarisation_angle)),
            self.gain,
        )
        rows = self._limited(rows, q, reciprocal)
        return Lattice(reciprocal, q, error, rms, rows, n_left_out, self._doubt(reciprocal))

    def _limited(self, rows, q, reciprocal):
        """Without the reflections beyond push_res."""
        if self.integration.push_res is None or not len(q):
            return rows
        hkl = np.column_stack([rows[name] for name in "hkl"])
        limit = max(_reach(q) + self.integration.push_res, 0.0)
        kept = inverse_resolution(hkl, parameters_of(reciprocal)) <= limit
        return {name: values[kept] for name, values in rows.items()}

    def _doubt(self, reciprocal):
        found, target = parameters_of(reciprocal), np.array(self.cell.parameters)
        if np.any(np.abs(found[:3] / target[:3] - 1) > self.indexing.cell_tolerance) or np.any(
            np.abs(found[3:] - target[3:]) > self.indexing.angle_tolerance
        ):
            return "the cell deviates too much"
        return ""


def _reach(q):
    """|q| to which a crystal's spots reach, 1/angstrom."""
    return float(np.sort(q)[int(0.98 * (len(q) - 1))])


def _account(account, hits, first, results, failed, counts):
    """Say in the frame account what became of the hits; `results` keeps the lattices that are believed."""
    for i in hits:
        number = first + i
        found = results.get(number, failed.get(number, "DIALS says nothing about this frame"))
        if isinstance(found, str):
            account["status"][i], account["message"][i] = Status.failed, found
            results[number] = []
            counts["failed"] += 1
            continue
        kept = [lattice for lattice in found if not lattice.doubt and len(lattice.reflections["h"])]
        if kept:
            account["status"][i] = Status.indexed
            account["n_lattices"][i] = len(kept)
            account["resolution"][i] = min((1.0 / _reach(one.q) for one in kept if len(one.q)), default=np.nan)
        else:
            doubts = [lattice.doubt or "no reflection could be integrated" for lattice in found]
            account["message"][i] = doubts[0] if doubts else "no lattice found"
            counts[account["message"][i]] += 1
        results[number] = kept


def _write(writer, account, results, first):
    """Crystals and reflections, frame after frame, then the frame account."""
    lattices = [(number - first, lattice) for number in sorted(results) for lattice in results[number]]
    energy = np.asarray(account["photon_energy"])
    shared = ((0.0, 0.0, 0.0), np.zeros(0))
    if lattices:
        length = wavelength(float(np.mean([energy[i] for i, _ in lattices])))
        shared = common_widths([(one.q, one.excitation_error) for _, one in lattices], length)
    (radius, mosaicity, bandwidth), factors = shared
    for start in range(0, len(lattices), _BLOCK):
        rows, reflections = [], []
        for c in range(start, min(start + _BLOCK, len(lattices))):
            i, one = lattices[c]
            rows.append(
                {
                    "frame": i,
                    "reciprocal": one.reciprocal,
                    "cell": parameters_of(one.reciprocal),
                    "profile_radius": factors[c] * radius,
                    "mosaicity": factors[c] * mosaicity,
                    "bandwidth": factors[c] * bandwidth,
                    # Beam and detector are not refined.
                    "shift": (0.0, 0.0),
                    "excess": 0.0,
                    "n_peaks": len(one.q),
                    "log10_p": np.nan,
                    "rms_position": one.rms_position,
                    "resolution": 1.0 / _reach(one.q) if len(one.q) else np.nan,
                }
            )
            reflections.append(one.reflections | {"crystal": np.full(len(one.reflections["h"]), c, np.uint32)})
        writer.append("crystals", {name: [row[name] for row in rows] for name in rows[0]})
        writer.append(
            "reflections", {name: np.concatenate([part[name] for part in reflections]) for name in reflections[0]}
        )
    writer.append("frames", account)
