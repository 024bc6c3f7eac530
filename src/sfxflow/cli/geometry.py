"""Propose a better detector geometry from the indexed crystals of a dataset; nothing is applied.

Where strong hits are not indexed, the beam centre and the camera length are searched for first, and the strongest hits are indexed there.
Then the panels, or the geometry's rigid groups, are refined in their plane against all crystals, and the whole detector's shift; on
request the camera length, and distances and tilts of the groups. The proposed .geom is the old one but for the numbers that were
refined; what changed, uncertainties, correlations and residuals before and after stand in the proposal (JSON).
"""

import json
from dataclasses import asdict, replace

import h5py
import numpy as np

from sfxflow.cli import options
from sfxflow.errors import InputError
from sfxflow.geometry import panel_arrays
from sfxflow.geometry_refinement.crystals import Crystal, PeakList
from sfxflow.geometry_refinement.proposal import proposal
from sfxflow.geometry_refinement.refine import refine_geometry
from sfxflow.geometry_refinement.search import at_place, index_all, search_beam
from sfxflow.indexing.frame import prepare_target
from sfxflow.indexing.refine import Profile
from sfxflow.io.files import provenance, written_whole
from sfxflow.io.geom_edit import edited_geom, read_text
from sfxflow.io.geom_writer import write_geom
from sfxflow.io.geometry import read_geometry
from sfxflow.io.geometry_proposal import write_proposal
from sfxflow.io.peaks import PEAK_GROUP, read_peaks
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.reflections import Status
from sfxflow.settings import Indexing
from sfxflow.units import wavelength

#: The search runs by itself if a smaller share of the strongest hits is indexed.
_INDEXED_SHARE = 0.9
#: Frames whose peaks are read at once.
_BLOCK = 64
_CRYSTAL_COLUMNS = ("frame", "reciprocal", "profile_radius", "mosaicity", "bandwidth")


def add_arguments(parser):
    """Arguments of the sub-command."""
    parser.add_argument("--peaks", nargs="+", required=True, help="peak files of the runs that share the geometry")
    parser.add_argument(
        "--indexed", nargs="+", required=True, help="their files of indexed crystals, in the same order"
    )
    parser.add_argument(
        "--geometry",
        required=True,
        help="CrystFEL .geom file, or an NXmx file that holds the geometry, as indexed with",
    )
    options.add_cell(parser)
    parser.add_argument("--proposal", required=True, help="what changes and how well it is known (JSON)")
    options.add_job(parser, "proposed geometry (.geom)")


def run(args):
    """Search, refine, propose; see the module's docstring."""
    settings = options.stage_settings("geometry", args)
    if len(args.peaks) != len(args.indexed):
        raise InputError(f"--indexed: {len(args.indexed)} files are given for {len(args.peaks)} peak files")
    detector = read_geometry(args.geometry)
    cell, _ = options.cell_and_group(args.cell, args.space_group)
    arrays = panel_arrays(detector)
    pixel_size = options.pixel_size(arrays)
    inputs = [*args.peaks, *args.indexed, args.geometry, args.cell]
    origin = provenance(asdict(settings), inputs)

    chunks = [_read_chunk(*paths, detector) for paths in zip(args.peaks, args.indexed, strict=True)]
    strong = _strongest(chunks, settings.search_frames)
    if not strong:
        raise InputError("no hits in the peak files: nothing to refine a geometry with")
    start, found, notes = detector, None, []
    target = prepare_target(cell)
    if _search_wanted(settings.search, chunks, strong):
        frames = _peak_lists(chunks, strong, args.peaks, arrays)
        found = search_beam(frames, arrays, target, settings, pixel_size, args.threads)
    if found is not None and found.moved:
        rows = _strongest(chunks, settings.max_crystals)
        frames = _peak_lists(chunks, rows, args.peaks, arrays)
        start = at_place(detector, found.best, float(np.median([frame.clen for frame in frames])))
        if not isinstance(start.clen, str):
            frames = [replace(frame, clen=start.clen) for frame in frames]
        crystals, n_indexed, profile = index_all(
            frames, panel_arrays(start), target, Indexing(), pixel_size, args.threads
        )
        notes.append(
            f"beam centre and camera length were searched: {_percent(_indexed_share(chunks, rows))} of {len(rows)} hits were indexed "
            f"before, {_percent(n_indexed / len(rows))} are at the place that was found"
        )
        if found.best.stretch and not settings.distance:
            notes.append("the search changed the camera length: it is refined too, the cells held to the given one")
            settings = replace(settings, distance=True)
    else:
        crystals, profile = _crystals(chunks, args, arrays, settings.max_crystals)
    if found is not None and not found.found:
        notes.append(
            "the search for the beam centre and the camera length found no place where lattices are significant: check the cell, and "
            "the reach of the search (search_shift, search_distance)"
        )
    if not crystals:
        raise InputError("; ".join(["no crystals to refine the geometry with", *notes]))
    refined = refine_geometry(crystals, start, cell, profile, settings, pixel_size, args.threads)
    values = proposal(refined, detector, pixel_size)
    values["notes"] = [*notes, *values["notes"]]
    values["search"] = _of_search(found, pixel_size)
    _write(args, refined.detector, {"geometry": args.geometry, **values, "provenance": origin})
    _tell(args, values)


def _read_chunk(peaks, indexed, detector):
    """Frames of a peak file with their lattices: columns of frames and of crystals."""
    with open_chunk(peaks, "frames", PEAK_GROUP) as handle:
        n_peaks = handle["frames/n_peaks"][()]
    with open_chunk(indexed, "frames", "crystals") as handle:
        frames = read_rows(handle["frames"], columns=("status", "photon_energy", "clen"))
        crystals = read_rows(handle["crystals"], columns=_CRYSTAL_COLUMNS)
    if len(frames["status"]) != len(n_peaks):
        raise InputError(
            f"{indexed}: holds {len(frames['status'])} frames, but {peaks} {len(n_peaks)}; index these peaks again"
        )
    hits = frames["status"] >= Status.hit
    for name, unit in (("clen", "m"), ("photon_energy", "eV")):
        given, used = getattr(detector, name), frames[name][hits]
        if not isinstance(given, str) and not np.allclose(used, given, rtol=1e-9, atol=0):
            raise InputError(
                f"{indexed}: was indexed with another geometry ({name} {used[0]:.9g} {unit}, now {given:.9g} {unit}); index again"
            )
    return frames | {"n_peaks": n_peaks, "crystals": crystals}


def _strongest(chunks, n):
    """(chunk, row) of the `n` hits with most peaks."""
    hits = [
        (-int(chunk["n_peaks"][row]), number, int(row))
        for number, chunk in enumerate(chunks)
        for row in np.flatnonzero(chunk["status"] >= Status.hit)
    ]
    return [(number, row) for _, number, row in sorted(hits)[:n]]


def _indexed_share(chunks, rows):
    return np.mean([chunks[number]["status"][row] == Status.indexed for number, row in rows])


def _search_wanted(search, chunks, strong):
    return search == "always" or (search == "auto" and _indexed_share(chunks, strong) < _INDEXED_SHARE)


def _peak_lists(chunks, rows, paths, arrays):
    """`PeakList` of each (chunk, row), in order."""
    found = {}
    for number, path in enumerate(paths):
        own = sorted(row for chunk, row in rows if chunk == number)
        if not own:
            continue
        with open_chunk(path) as handle:
            block = (-1, None)
            for row in own:
                start = row - row % _BLOCK
                if block[0] != start:
                    block = (start, read_peaks(handle, start, start + _BLOCK))
                found[number, row] = _peak_list(block[1][row - start], chunks[number], row, path, arrays)
    return [found[row] for row in rows]


def _peak_list(peaks, chunk, row, path, arrays):
    if np.any(peaks["panel"] >= len(arrays.bounds)):
        raise InputError(
            f"{path}: has peaks on more panels than the geometry has; find the peaks with this geometry again"
        )
    columns = (peaks[name].astype(float) for name in ("fs", "ss", "intensity"))
    return PeakList(
        peaks["panel"].astype(np.int64), *columns, wavelength(chunk["photon_energy"][row]), float(chunk["clen"][row])
    )


def _crystals(chunks, args, arrays, most):
    """Crystals of the indexed files, at most `most`, evenly spread; widths of their reflections."""
    rows = [(number, i) for number, chunk in enumerate(chunks) for i in range(len(chunk["crystals"]["frame"]))]
    if len(rows) > most:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, most).round().astype(int)]
    if not rows:
        return [], None
    places = [(number, int(chunks[number]["crystals"]["frame"][i])) for number, i in rows]
    lists = dict(
        zip(dict.fromkeys(places), _peak_lists(chunks, list(dict.fromkeys(places)), args.peaks, arrays), strict=True)
    )
    crystals = [
        Crystal(lists[place], chunks[number]["crystals"]["reciprocal"][i])
        for place, (number, i) in zip(places, rows, strict=True)
    ]
    widths = [
        float(np.median([chunks[number]["crystals"][name][i] for number, i in rows]))
        for name in ("profile_radius", "mosaicity", "bandwidth")
    ]
    return crystals, Profile(*widths, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


def _percent(share):
    return f"{100.0 * share:.0f} %"


def _of_search(found, pixel_size):
    if found is None:
        return None
    return {
        "frames": found.n_frames,
        "places": found.n_places,
        "significant_given": found.given.share,
        "significant": found.best.share,
        "shift_x": found.best.shift[0] / pixel_size,
        "shift_y": found.best.shift[1] / pixel_size,
        "clen_change": found.best.stretch,
    }


def _write(args, refined, values):
    """Write the proposed geometry, then the proposal: neither is there without the other."""
    is_text = not h5py.is_hdf5(args.geometry)
    edited = edited_geom(read_text(args.geometry), refined, args.geometry) if is_text else None
    with written_whole(args.proposal) as proposed, written_whole(args.output) as geometry:
        write_proposal(proposed, values)
        if is_text:
            geometry.write_bytes(edited.encode())
        else:
            with open(geometry, "w", encoding="utf-8") as handle:
                write_geom(handle, refined, json.dumps(values["provenance"], sort_keys=True))


def _tell(args, values):
    """What changed, for the terminal."""
    overall, before, after = values["overall"], values["residuals"]["before"], values["residuals"]["after"]
    print(f"{args.geometry}: {values['crystals']} crystals, {after['peaks']} matched peaks")
    print(
        f"  residuals: {_pixels(before['rms'])} rms before, {_pixels(after['rms'])} after; their systematic part "
        f"{_pixels(before['systematic'])} before, {_pixels(after['systematic'])} after"
    )
    print(
        f"  shift of all panels: x {overall['shift_x']:+.3f} +- {overall['shift_x_sigma']:.3f} pixel, "
        f"y {overall['shift_y']:+.3f} +- {overall['shift_y_sigma']:.3f} pixel"
    )
    change, sigma = 1e3 * overall["clen_change_indicated"], 1e3 * overall["clen_change_sigma"]
    applied = (
        "" if overall["clen_refined"] else " is what the crystals say; it is not in the proposal (distance: false)"
    )
    print(f"  camera length: {change:+.3f} +- {sigma:.3f} mm{applied}")
    own = [panel for panel in values["panels"] if panel["matched"]]
    if len(values["groups"]) > 1 and own:
        largest = max(own, key=lambda panel: np.hypot(*_own_shift(panel, overall)))
        x, y = _own_shift(largest, overall)
        print(f"  largest shift of a panel against the others: {largest['name']} x {x:+.3f}, y {y:+.3f} pixel")
    for note in values["notes"]:
        print(f"  NOTE: {note}")
    print(
        f"  proposed: {args.output}. Nothing uses it yet. Compare it with the old file; to use it, copy it beside that under another"
    )
    print("  name and name the copy in the column geometry of runs.tsv: its runs are then processed again")


def _own_shift(panel, overall):
    return panel["shift_x"] - overall["shift_x"], panel["shift_y"] - overall["shift_y"]


def _pixels(value):
    return "none" if value is None else f"{value:.3f} pixel"
