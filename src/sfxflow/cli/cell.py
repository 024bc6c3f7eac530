"""Find the unit cell of a dataset for which none is known, from the peaks of its first hits.

A lattice is looked for on each frame for itself. Cells on which frames agree are tried: the conventional cell must index the frames that
it came from, as `sfxflow indexing` would. Several crystal forms are all found; the one with most frames is written, as a CrystFEL .cell
file, and the table of all forms beside it.

Lengths are those for the geometry's camera length: where that is 1 % too long, they are 1 % too large.
"""

import sys
from dataclasses import dataclass

import numpy as np

from sfxflow.cli import options
from sfxflow.errors import InputError
from sfxflow.geometry import panel_arrays
from sfxflow.indexing.conventional import cell_in_group
from sfxflow.indexing.forms import check_frame, find_forms
from sfxflow.indexing.frame import FramePeaks, frame_peaks, panel_inverses, prepare_target, strength_weights
from sfxflow.indexing.unknown_cell import find_cell, search_ball
from sfxflow.io.cell_file import lattice_of, write_cell
from sfxflow.io.files import provenance, provenance_json
from sfxflow.io.found_cell import values_of_cell, values_of_form, write_found_cell
from sfxflow.io.geometry import read_geometry
from sfxflow.io.peaks import PEAK_GROUP, read_peaks
from sfxflow.io.table import open_chunk, read_rows
from sfxflow.parallel import ordered_map
from sfxflow.progress import Progress
from sfxflow.reflections import Status
from sfxflow.settings import Indexing
from sfxflow.symmetry import lattice_group, space_group
from sfxflow.units import wavelength


@dataclass(frozen=True)
class Hit:
    """A frame that is looked at.

    Attributes
    ----------
    file : int
        Number of its peak file.
    frame : int
        Row in that file.
    peaks : FramePeaks
    to_panel : ndarray, shape (p, 3, 3)
    wavelength, pixel_size : float
    """

    file: int
    frame: int
    peaks: FramePeaks
    to_panel: np.ndarray
    wavelength: float
    pixel_size: float


def add_arguments(parser):
    """Arguments of the sub-command."""
    parser.add_argument("--peaks", nargs="+", required=True, metavar="FILE", help="peak files of the dataset")
    parser.add_argument(
        "--geometry",
        nargs="+",
        required=True,
        metavar="FILE",
        help="CrystFEL .geom file, or an NXmx file that holds the geometry: one for all peak files, or one for each in their order",
    )
    parser.add_argument(
        "--space-group", nargs="?", default="", help="space group if it is known: the cell is given in its setting"
    )
    parser.add_argument(
        "--clusters", required=True, metavar="FILE", help="JSON file of all forms that were found, for the report"
    )
    options.add_job(parser, "the unit cell (CrystFEL .cell)")


def run(args):
    """Find the cell; see the module's docstring."""
    settings = options.stage_settings("cell", args)
    if settings.min_length >= settings.max_length:
        raise InputError(
            f"cell: min_length ({settings.min_length:g}) must be below max_length ({settings.max_length:g})"
        )
    if len(args.geometry) not in (1, len(args.peaks)):
        raise InputError(
            f"--geometry: {len(args.geometry)} files for {len(args.peaks)} peak files; one for all or one for each is expected"
        )
    group = space_group(args.space_group) if args.space_group else None
    hits, n_enough, n_frames = _chosen_hits(args, settings)
    if len(hits) < settings.min_frames:
        raise InputError(
            f"{n_enough} of {n_frames} frames are hits with {settings.min_peaks} peaks or more (cell: min_peaks); a cell is believed "
            f"when {settings.min_frames} frames agree (cell: min_frames). Look at the peak search first, or use more frames; "
            "if the cell is known, set datasets.NAME.cell"
        )
    bases = _search(hits, settings, args.threads)
    n_found = sum(basis is not None for basis in bases)
    print(f"{len(hits)} of {n_enough} hits looked at: a lattice in {n_found}", file=sys.stderr)

    def index(cell, frames):
        return list(ordered_map(_check, _checker, (cell,), [hits[i] for i in frames], args.threads))

    forms = find_forms(bases, index, min_frames=settings.min_frames, min_share=settings.min_share)
    accepted = [form for form in forms if form.accepted]
    if not accepted:
        raise InputError(_nothing_found(forms, len(hits), n_found, settings))
    cell = accepted[0].cell
    if group is not None:
        fitting = cell_in_group(accepted[0].basis, lattice_of(group))
        if fitting is None:
            raise InputError(_contradiction(group, cell))
        cell = fitting
    warnings = _warnings(accepted, len(hits), group)
    values = _described(forms, hits, n_found, cell, group, warnings, args, settings)
    write_found_cell(args.clusters, values)
    write_cell(args.output, cell, provenance_json(dict(vars(settings)), [*args.peaks, *args.geometry]))
    print(f"cell: {_words(cell)}; it indexes {len(accepted[0].indexed)} of {len(hits)} hits", file=sys.stderr)
    for warning in warnings:
        print(f"WARNING: {warning}", file=sys.stderr)


def _chosen_hits(args, settings):
    """Hits to look at, the number of hits with enough peaks and the number of frames."""
    geometries = args.geometry * len(args.peaks) if len(args.geometry) == 1 else args.geometry
    detectors = {name: read_geometry(name) for name in dict.fromkeys(geometries)}
    tables, enough = [], []
    for path in args.peaks:
        with open_chunk(path, "frames", PEAK_GROUP) as handle:
            tables.append(read_rows(handle["frames"]))
        is_hit = np.array([status == Status.hit for status in tables[-1]["status"]], dtype=bool)
        enough.append(np.flatnonzero(is_hit & (tables[-1]["n_peaks"] >= settings.min_peaks)))
    wanted = _shares([len(rows) for rows in enough], settings.n_frames)
    hits = []
    for number, (path, name) in enumerate(zip(args.peaks, geometries, strict=True)):
        rows = enough[number][: wanted[number]]
        hits += _read_hits(path, number, rows, tables[number], detectors[name])
    return hits, sum(map(len, enough)), sum(len(table["status"]) for table in tables)


def _shares(available, wanted):
    """How many of each to take so that `wanted` are taken in all, evenly as far as there are as many."""
    taken = [0] * len(available)
    while sum(taken) < min(wanted, sum(available)):
        open_ones = [i for i, n in enumerate(available) if taken[i] < n]
        each = max(1, (wanted - sum(taken)) // len(open_ones))
        for i in open_ones:
            taken[i] += min(each, available[i] - taken[i], wanted - sum(taken))
    return taken


def _read_hits(path, number, rows, table, detector):
    arrays = panel_arrays(detector)
    pixel_size = options.pixel_size(arrays)
    hits, inverses = [], {}
    with open_chunk(path, "frames", PEAK_GROUP) as handle:
        for row in rows:
            found = read_peaks(handle, row, row + 1)[0]
            if np.any(found["panel"] >= len(arrays.bounds)):
                raise InputError(
                    f"{path}: has peaks on more panels than the geometry has; find the peaks with this geometry again"
                )
            # A number in the geometry holds for all frames, whatever geometry the peaks were found with.
            energy, clen = (
                table[name][row] if isinstance(getattr(detector, name), str) else getattr(detector, name)
                for name in ("photon_energy", "clen")
            )
            length, clen = wavelength(energy), float(clen)
            if clen not in inverses:
                inverses[clen] = panel_inverses(arrays, clen)
            peaks = frame_peaks(arrays, found["panel"], found["fs"], found["ss"], found["intensity"], length, clen)
            hits.append(Hit(number, int(row), peaks, inverses[clen], length, pixel_size))
    return hits


def _search(hits, settings, threads):
    """Reduced cell of each hit, None where none is significant."""
    progress = Progress("hits looked at", len(hits))
    bases = []
    setup = (settings.min_length, settings.max_length)
    for basis, log10_p in ordered_map(_find, search_ball, setup, hits, threads):
        bases.append(basis if basis is not None and log10_p < settings.max_log10_p else None)
        progress.add()
    progress.finish()
    return bases


def _find(ball, hit):
    return find_cell(hit.peaks.q, strength_weights(hit.peaks.intensity), ball)


def _checker(cell):
    return prepare_target(cell)


def _check(target, hit):
    settings = Indexing(max_lattices=1)
    return check_frame(hit.peaks, target, hit.to_panel, hit.wavelength, hit.pixel_size, settings)


def _words(cell):
    parameters = " ".join(f"{value:.2f}" for value in cell.parameters)
    return f"{parameters} ({cell.lattice_type} {cell.centering})"


def _nothing_found(forms, n_hits, n_found, settings):
    """Why there is no cell, and what to do."""
    if not n_found:
        why = f"none of {n_hits} hits shows a lattice with axes of {settings.min_length:g} to {settings.max_length:g} angstrom"
    elif not forms:
        why = f"{n_found} of {n_hits} hits show a lattice, but no {settings.min_frames} of them agree on a cell"
    else:
        tried = [
            f"{_words(form.cell)}, on which {len(form.members)} frames agree, indexes {100 * form.member_share:.0f} % of them ("
            + ", ".join(f"{reason}: {count}" for reason, count in form.reasons.items())
            + ")"
            for form in forms
        ]
        why = "no cell indexes the frames that it came from: " + "; ".join(tried)
    return (
        f"no unit cell found: {why}. Check the beam centre, the camera length and the photon energy, then the peak search (false peaks, "
        "ice rings); other limits of the axes stand in cell: min_length, max_length. If the cell is known, set datasets.NAME.cell"
    )


def _contradiction(group, cell):
    lattice, centering, _ = lattice_of(group)
    return (
        f"space_group: {group.xhm()} needs a {lattice} lattice with centring {centering}, but the cell found is {_words(cell)}; "
        "correct datasets.NAME.space_group, or leave it out"
    )


def _warnings(accepted, n_hits, group):
    """What the user must know before the cell is believed."""
    warnings = []
    first = accepted[0]
    if len(accepted) > 1:
        names = {2: "two", 3: "three", 4: "four"}
        listed = "; ".join(f"{_words(form.cell)} on {len(form.indexed)} hits" for form in accepted)
        warnings.append(
            f"{names.get(len(accepted), len(accepted))} crystal forms: {listed}. The first is used; for another one put its cell into a "
            "dataset of its own"
        )
    if first.pseudo:
        warnings.append(
            f"the lattice nearly has higher symmetry than {first.cell.lattice_type}: all frames miss it by {100 * first.pseudo:.2f} % in "
            f"length, or {np.degrees(first.pseudo):.2f} degrees. If that is an error of the geometry, set datasets.NAME.space_group"
        )
    if len(first.indexed) < 0.5 * n_hits:
        warnings.append(f"the cell indexes only {len(first.indexed)} of {n_hits} hits that were looked at")
    if group is None:
        warnings.append(options.assumed_group(lattice_group(first.cell)))
    return warnings


def _described(forms, hits, n_found, cell, group, warnings, args, settings):
    """Content of the JSON file."""

    files, frames = [hit.file for hit in hits], [hit.frame for hit in hits]
    return {
        "provenance": provenance(dict(vars(settings)), [*args.peaks, *args.geometry]),
        "cell": values_of_cell(cell),
        "space_group": (group or lattice_group(cell)).xhm(),
        "space_group_given": group is not None,
        "hits": len(hits),
        "hits_with_a_lattice": n_found,
        "peak_files": list(args.peaks),
        "warnings": warnings,
        "forms": [values_of_form(form, files, frames) for form in forms],
    }
