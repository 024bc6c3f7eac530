"""How well a wrong geometry is mended: refinement of panels and camera length, and the search for beam centre and camera length.

    python benchmarks/geometry.py [--json FILE]

Peak lists of the simulator (60 spots moved by 0.3 pixel among 10 random ones for the refinement, 40 among 10 for the search), read out by
the true detector and processed with a geometry that is wrong in a known way. Seeds are others than those of the tests.
"""

import time
from dataclasses import replace

import numpy as np
from misplaced import errors_left, experiment, indexed, peak_lists
from table import Row, main

from sfxflow.geometry import panel_arrays
from sfxflow.geometry_refinement.refine import refine_geometry
from sfxflow.geometry_refinement.search import at_place, search_beam
from sfxflow.indexing.frame import prepare_target
from sfxflow.settings import Geometry

SEED = 4107
#: Errors that the search has to mend: shift along x and y, pixel, and relative error of the camera length.
GROSS = ((4.0, 0.0, 0.0), (0.0, 0.0, 0.02), (0.0, 0.0, -0.02), (-2.4, 3.2, -0.02), (3.6, -4.8, 0.02))

#: Crystals, and peaks of each, with which the refinement is measured too.
FEWER = ((60, 20), (60, 60), (100, 20), (100, 60), (300, 20), (1000, 20), (1000, 60))


def refinement(name, changes, n_crystals=300, settings=None, **options):
    """Rows of one refinement from panel errors of 0.5 pixel."""
    made, cell = experiment(name, SEED, geometry_panel_error=0.5, **changes)
    lists = peak_lists(made, n_crystals + 10, **options)
    crystals, _, profile = indexed(lists, made.stated_detector, cell, made.pixel_size)
    crystals = crystals[:n_crystals]
    settings = settings or Geometry()
    refine_geometry(crystals[:50], made.stated_detector, cell, profile, settings, made.pixel_size)  # compiled
    start = time.process_time()
    refined = refine_geometry(crystals, made.stated_detector, cell, profile, settings, made.pixel_size)
    seconds = time.process_time() - start
    before = errors_left(made.detector, made.stated_detector, made.pixel_size)
    after = errors_left(made.detector, refined.detector, made.pixel_size)
    note = f"{len(crystals)} crystals, {before:.2f} pixel before"
    rows = [Row(f"panel errors left, {name}", "<= 0.05 pixel", after, "pixel", after <= 0.05, note)]
    if settings.distance:
        off = abs(refined.detector.clen / made.detector.clen - 1.0)
        start_off = changes["geometry_clen_error"]
        note = f"{100 * start_off:+.0f} % before"
        rows.append(Row(f"camera length off, {name}", "<= 0.05 %", 100 * off, "%", bool(off <= 5e-4), note))
    milliseconds = 1e3 * seconds / len(crystals)
    rows.append(Row(f"CPU a crystal, {name}", "", milliseconds, "ms", None, f"{refined.passes} passes"))
    return rows


def fewer(n_crystals, n_peaks):
    """One row: what fewer crystals and peaks leave."""
    made, cell = experiment("lysozyme", SEED, geometry_panel_error=0.5)
    lists = peak_lists(made, n_crystals, n_peaks=n_peaks)
    crystals, _, profile = indexed(lists, made.stated_detector, cell, made.pixel_size)
    refined = refine_geometry(crystals, made.stated_detector, cell, profile, Geometry(), made.pixel_size)
    left = errors_left(made.detector, refined.detector, made.pixel_size)
    matched = int(refined.before.n_matched.min())
    note = f"{matched} matched peaks on the panel that has fewest"
    return Row(f"panel errors left, {n_crystals} crystals of {n_peaks} + 10 peaks", "", left, "pixel", None, note)


def gross_error(name, shift_x, shift_y, stretch, n_frames=100):
    """Rows of one search: index rates without the error, with it, and with the proposed geometry."""
    changes = {"geometry_shift_x": shift_x, "geometry_shift_y": shift_y, "geometry_clen_error": stretch}
    made, cell = experiment(name, SEED + 1, multi_fraction=0.1, **changes)
    lists = peak_lists(made, n_frames, n_peaks=40)
    pixel_size = made.pixel_size

    def rate(detector):
        own = [replace(peaks, clen=detector.clen) for peaks in lists]
        crystals, n_indexed, profile = indexed(own, detector, cell, pixel_size)
        return 100.0 * n_indexed / n_frames, crystals, profile

    true, _, _ = rate(made.detector)
    given, _, _ = rate(made.stated_detector)
    start = time.process_time()
    arrays = panel_arrays(made.stated_detector)
    found = search_beam(lists[:50], arrays, prepare_target(cell), Geometry(), pixel_size)
    seconds = time.process_time() - start
    place = at_place(made.stated_detector, found.best)
    _, crystals, profile = rate(place)
    settings = Geometry(level="overall", distance=True)
    refined = refine_geometry(crystals, place, cell, profile, settings, pixel_size)
    mended, _, _ = rate(refined.detector)
    shift = (
        np.linalg.norm(np.subtract(refined.detector.panels[0].origin, made.detector.panels[0].origin)[:2]) / pixel_size
    )
    off = 100 * abs(refined.detector.clen / made.detector.clen - 1.0)
    label = f"{name}, centre {np.hypot(shift_x, shift_y):.0f} pixel, distance {100 * stretch:+.0f} % off"
    note = f"{given:.0f} % before, {true:.0f} % with the true geometry; left: {shift:.3f} pixel, {off:.3f} %"
    return [
        Row(f"index rate after the search: {label}", f">= {true:.0f} %", mended, "%", bool(mended >= true), note),
        Row(f"search: {name}", "", seconds, "s CPU", None, f"{found.n_places} places, 50 frames"),
    ]


def measure():
    """All rows."""
    rows = refinement("lysozyme", {})
    rows += refinement("lysozyme", {"geometry_clen_error": 0.01}, settings=Geometry(distance=True))
    rows += refinement("hexagonal", {"geometry_clen_error": -0.01}, settings=Geometry(distance=True))
    rows += refinement("monoclinic", {"geometry_panel_rotation": 0.001})
    rows += [fewer(*case) for case in FEWER]
    for error in GROSS:
        rows += gross_error("lysozyme", *error)
    rows += gross_error("hexagonal", *GROSS[-1])
    rows += gross_error("monoclinic", *GROSS[-2])
    return rows


if __name__ == "__main__":
    main(measure)
