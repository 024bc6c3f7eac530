"""Index the hits of a peak file with a known cell, and refine each lattice.

Every hit is indexed for itself first; then the profile of the reflections and the shift of the pattern, which all crystals share, are
estimated from all lattices, and each lattice is refined again with them.
"""

import sys
from collections import Counter
from dataclasses import replace

import numpy as np

from sfxflow.cell import parameters_of
from sfxflow.cli import options
from sfxflow.errors import InputError
from sfxflow.geometry import panel_arrays
from sfxflow.indexing.acceptance import believed, judge_run, proposed_cell
from sfxflow.indexing.frame import (
    DEFAULT_LOG10_P,
    frame_peaks,
    index_candidates,
    panel_inverses,
    prepare_target,
    searched_peaks,
    strength_weights,
)
from sfxflow.indexing.pool import pool_lattices
from sfxflow.indexing.refine import refine_lattice
from sfxflow.indexing.significance import FALSE_RATE, calibrated_cut, chance_fit, copies_of
from sfxflow.io.files import provenance_json
from sfxflow.io.geometry import read_geometry
from sfxflow.io.hdf5 import hdf5_written_whole
from sfxflow.io.peaks import PEAK_GROUP, read_peaks
from sfxflow.io.table import ChunkWriter, open_chunk, read_rows
from sfxflow.parallel import ordered_map
from sfxflow.progress import Progress
from sfxflow.reflections import Status
from sfxflow.units import wavelength

#: Frames that are read or written at once.
_BLOCK = 64
#: So many lattices are enough to pool the profile from.
_POOLED_LATTICES = 1000
#: A hit with so many peaks should be indexable; if nearly none of several such hits is, the cell does not fit.
_STRONG_PEAKS = 25
_STRONG_HITS = 3
_FITTING_SHARE = 0.1
#: Why a frame has no lattice in the end: peaks that one accepted alone, none with what all lattices have in common.
_LOST = "no lattice left with the pooled profile and offsets"


def add_arguments(parser):
    """Arguments of the sub-command."""
    parser.add_argument("--peaks", required=True, help="peak file")
    parser.add_argument(
        "--geometry", required=True, help="CrystFEL .geom file, or an NXmx file that holds the geometry"
    )
    options.add_cell(parser)
    options.add_job(parser, "file of the indexed crystals (HDF5)")


def run(args):
    """Index the peaks; see the module's docstring."""
    settings = options.stage_settings("indexing", args)
    detector = read_geometry(args.geometry)
    cell, group = options.cell_and_group(args.cell, args.space_group)
    with open_chunk(args.peaks, "frames", PEAK_GROUP) as handle:
        frames = read_rows(handle["frames"])
    # The file says which photon energy and camera length the crystals belong to.
    frames |= _beam_of_frames(detector, frames)
    hits = [i for i, status in enumerate(frames["status"]) if status == Status.hit]

    setup = (args.peaks, detector, cell, settings)
    cut, origin = _significance_cut(setup, frames, hits, args.threads)
    setup = (args.peaks, detector, cell, replace(settings, max_log10_p=cut))
    progress = Progress("hits indexed", len(hits))
    candidates, refused = {}, {}
    for i, (found, reason) in zip(hits, ordered_map(_index, _prepare, setup, hits, args.threads), strict=True):
        candidates[i], refused[i] = found, reason
        progress.add()
    progress.finish()

    verdict = judge_run([lattice["evidence"] for found in candidates.values() for lattice in found])
    lattices, reasons = {}, Counter()
    for i, found in candidates.items():
        lattices[i], doubt = _believed(found, verdict)
        if not lattices[i]:
            frames["message"][i] = doubt or refused[i]
            reasons[doubt or refused[i]] += 1

    warning = _misfit(frames, lattices, reasons, cell, verdict)
    profile = _pool(lattices, frames, detector)
    with hdf5_written_whole(args.output) as handle:
        writer = ChunkWriter(
            handle,
            provenance_json(dict(vars(settings)), [args.peaks, args.geometry, args.cell]),
            ["frames", "crystals"],
        )
        handle.attrs["warning"] = warning
        handle.attrs["max_log10_p"] = cut
        handle.attrs["max_log10_p_from"] = origin
        handle.attrs["cell"] = cell.parameters
        handle.attrs["space_group"] = group.xhm()
        indexed = [(i, found) for i, found in lattices.items() if found]
        refined = ordered_map(_refine, _prepare, (*setup, profile), indexed, args.threads)
        rows, n_lattices = [], 0
        for (i, _), of_frame in zip(indexed, refined, strict=True):
            if not of_frame:
                frames["message"][i] = _LOST
                reasons[_LOST] += 1
                continue
            rows += of_frame
            n_lattices += len(of_frame)
            frames["status"][i] = Status.indexed
            frames["n_lattices"][i] = len(of_frame)
            frames["resolution"][i] = min(row["resolution"] for row in of_frame)
            if len(rows) >= _BLOCK:
                _append(writer, rows)
                rows = []
        _append(writer, rows)
        writer.append("frames", frames)
    n_indexed = int(np.count_nonzero(frames["status"] == Status.indexed))
    print(
        f"significance: log10 P below {cut:.1f} ({origin})\n"
        f"{len(hits)} hits: {n_indexed} indexed, {n_lattices} lattices"
        + "".join(f"; {reason}: {count}" for reason, count in reasons.most_common()),
        file=sys.stderr,
    )
    if warning:
        print(f"WARNING: {warning}", file=sys.stderr)


def _append(writer, rows):
    if rows:
        writer.append("crystals", {name: [row[name] for row in rows] for name in rows[0]})


def _beam_of_frames(detector, frames):
    """Photon energy and camera length of each frame that was read: a number in the geometry holds for all frames, whatever geometry the
    peaks were found with."""
    beam = {name: frames[name] for name in ("photon_energy", "clen")}
    for name, values in beam.items():
        given = getattr(detector, name)
        if not isinstance(given, str):
            values[np.isfinite(values)] = given
    return beam


class _Indexer:
    """What a worker needs: the peak file, the geometry and the target cell; in the second round the pooled profile."""

    def __init__(self, peak_file, detector, cell, settings, profile):
        self.profile = profile
        self.path = peak_file
        self.handle = open_chunk(peak_file)
        self.arrays = panel_arrays(detector)
        self.pixel_size = options.pixel_size(self.arrays)
        self.target = prepare_target(cell)
        self.settings = settings
        beam = _beam_of_frames(detector, read_rows(self.handle["frames"], columns=("photon_energy", "clen")))
        self.energy, self.clen = beam["photon_energy"], beam["clen"]
        self._block = (-1, None)
        self._inverses = (None, None)

    def peaks(self, i):
        """Peaks of frame `i`, its wavelength and the inverse panel matrices."""
        start = i - i % _BLOCK
        if self._block[0] != start:
            self._block = (start, read_peaks(self.handle, start, start + _BLOCK, ("fs", "ss", "intensity", "panel")))
        found = self._block[1][i - start]
        if np.any(found["panel"] >= len(self.arrays.bounds)):
            raise InputError(
                f"{self.path}: has peaks on more panels than the geometry has; find the peaks with this geometry again"
            )
        clen, length = self.clen[i], wavelength(self.energy[i])
        if self._inverses[0] != clen:
            self._inverses = (clen, panel_inverses(self.arrays, clen))
        peaks = frame_peaks(self.arrays, found["panel"], found["fs"], found["ss"], found["intensity"], length, clen)
        return peaks, length, self._inverses[1]


def _prepare(peak_file, detector, cell, settings, profile=None):
    return _Indexer(peak_file, detector, cell, settings, profile)


def _significance_cut(setup, frames, hits, threads):
    """log10 P that a lattice must be below, and where it comes from."""
    settings = setup[-1]
    if settings.max_log10_p is not None:
        return settings.max_log10_p, "settings"
    copies = copies_of([i for i in hits if frames["n_peaks"][i] >= settings.min_peaks])
    cut = calibrated_cut(list(ordered_map(_chance_fit, _prepare, setup, copies, threads)))
    if cut is None:
        return DEFAULT_LOG10_P, f"default: {len(copies)} copies of hits are too few to calibrate it"
    return cut, f"{FALSE_RATE:.0%} of {len(copies)} copies of hits with scrambled azimuths"


def _chance_fit(indexer, task):
    i, copy = task
    peaks, _, _ = indexer.peaks(i)
    searched = searched_peaks(peaks.intensity)
    weight = strength_weights(peaks.intensity[searched])
    return chance_fit(peaks.q[searched], weight, indexer.target.lattice, [i, copy])


def _index(indexer, i):
    peaks, length, to_panel = indexer.peaks(i)
    found, reason = index_candidates(peaks, indexer.target, to_panel, length, indexer.pixel_size, indexer.settings)
    return [_summary(lattice, peaks) for lattice in found], reason


def _believed(found, verdict):
    """The lattices of a frame up to the first that is not believed, and why that is not."""
    for n, lattice in enumerate(found):
        doubt = believed(lattice["evidence"], verdict)
        if doubt:
            return found[:n], doubt
    return found, ""


def _summary(lattice, peaks):
    """What is kept of a lattice between the two rounds."""
    refined = lattice.refined
    members = lattice.members & (refined.inlier > 0.01)
    return {
        "reciprocal": refined.reciprocal,
        "log10_p": lattice.log10_p,
        "members": lattice.members,
        "evidence": lattice.evidence,
        "sigma": refined.profile_sigma,
        "pooled": (
            np.linalg.norm(peaks.q[members], axis=1),
            refined.excitation_error[members],
            refined.inlier[members],
            refined.offsets,
        ),
    }


def _pool(lattices, frames, detector):
    found = [lattice.pop("pooled") for several in lattices.values() for lattice in several]
    if not found:
        return None
    step = max(1, len(found) // _POOLED_LATTICES)
    energies = np.array([frames["photon_energy"][i] for i, several in lattices.items() if several])
    return pool_lattices(found[::step], wavelength(energies.mean()), options.pixel_size(panel_arrays(detector)))


def _refine(indexer, task):
    """Rows of the crystals table for a frame: each lattice refined again, on the peaks that no other lattice of the frame has."""
    i, found = task
    profile = indexer.profile
    peaks, length, to_panel = indexer.peaks(i)
    rows = []
    for lattice in found:
        others = np.zeros(len(peaks), dtype=bool)
        for other in found:
            if other is not lattice:
                others |= other["members"]
        own = peaks.subset(lattice["members"] | ~others)
        refined = refine_lattice(
            lattice["reciprocal"],
            indexer.target.cell,
            own,
            to_panel,
            length,
            start_sigma=lattice["sigma"],
            pixel_size=indexer.pixel_size,
            profile=profile,
        )
        true_pairs = refined.inlier > 0.5
        if true_pairs.sum() < indexer.settings.min_peaks:
            continue
        q = np.sort(np.linalg.norm(own.q[true_pairs], axis=1))
        rows.append(
            {
                "frame": i,
                "reciprocal": refined.reciprocal,
                "cell": parameters_of(refined.reciprocal),
                "profile_radius": refined.profile_sigma * profile.radius,
                "mosaicity": refined.profile_sigma * profile.mosaicity,
                "bandwidth": refined.profile_sigma * profile.bandwidth,
                "shift": refined.offsets[:2],
                "excess": refined.offsets[2],
                "n_peaks": int(true_pairs.sum()),
                "log10_p": lattice["log10_p"],
                "rms_position": np.sqrt(2.0) * refined.position_sigma,
                "resolution": 1.0 / q[int(0.98 * (len(q) - 1))],
            }
        )
    return rows


def _misfit(frames, lattices, reasons, cell, verdict):
    """A sentence that says that the cell does not fit, empty if it does or if too few strong hits can tell."""
    strong = [i for i in lattices if frames["n_peaks"][i] >= _STRONG_PEAKS]
    indexed = sum(bool(lattices[i]) for i in strong)
    few = len(strong) < _STRONG_HITS
    if not verdict.refusal and (few or indexed >= _FITTING_SHARE * len(strong)):
        return ""
    of_these = f"{len(lattices)} hits" if few else f"{len(strong)} frames with {_STRONG_PEAKS} peaks or more"
    why = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
    hint = ""
    if verdict.refusal:
        size = "smaller" if verdict.refusal == "sub-lattice" else "larger"
        proposed = proposed_cell(verdict, prepare_target(cell).lattice)
        hint = (
            f"the lattices together say that the primitive cell is {verdict.modulus} times {size}, "
            f"{_in_words(np.round(proposed, 2))} when reduced; "
        )
    return (
        f"the cell {_in_words(cell.parameters)} does not fit: {indexed} of {of_these} accept a lattice ({why}); {hint}"
        "check the cell, then the camera length, the beam centre and the photon energy"
    )


def _in_words(parameters):
    return " ".join(f"{value:g}" for value in parameters)
