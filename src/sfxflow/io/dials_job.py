"""What DIALS is given to work on, and what it leaves: the frames of a job as experiments, spots, crystals and reflections."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfxflow.dials_tables import panel_positions, slab_positions
from sfxflow.errors import FrameError, InputError
from sfxflow.io.dials_files import (
    FOREGROUND,
    VALID,
    Flag,
    Shoeboxes,
    beam_model,
    detector_model,
    identifier,
    image_set,
    read_expt,
    read_refl,
    write_expt,
    write_refl,
)
from sfxflow.io.nxmx_master import LARGEST_SHEAR, shear, write_copied, write_linked
from sfxflow.peaks import PEAK
from sfxflow.units import wavelength

FRAMES, EXPERIMENTS, STRONG = "frames.nxs", "imported.expt", "strong.refl"
#: Camera lengths that differ by less, metre, are the same.
_SAME_LENGTH = 1e-7
#: Pixels that a spot has if nothing is known, and half the width of the largest shoebox.
_TYPICAL_PIXELS, _LARGEST_HALF = 5, 8


@dataclass(frozen=True)
class Presented:
    """Frames as DIALS was given them.

    Attributes
    ----------
    numbers : list of int
        Number of each frame within the run.
    beams : dict of int to (float, float)
        Photon energy (eV) and camera length (metre) of each of these numbers.
    failed : dict of int to str
        Frames that could not be read, and why.
    """

    numbers: list
    beams: dict
    failed: dict


def present(directory, frames, numbers, on_frame=None):
    """Write a master file and experiments of some frames of a run.

    Parameters
    ----------
    directory : path
        Gets `FRAMES` and `EXPERIMENTS`.
    frames : sfxflow.io.frames_of_files.Frames
    numbers : sequence of int
        Frames within the run. Each is read once, so that those that can't be read are known.
    on_frame : function, optional
        Called with the number, the pixels and the good pixels of each frame that could be read.

    Returns
    -------
    Presented

    Raises
    ------
    InputError
        A panel's pixels are too far from rectangular for DIALS.
    """
    detector = frames.detector
    if shear(detector) > LARGEST_SHEAR:
        raise InputError(
            f"fs and ss of a panel of the geometry are {np.degrees(shear(detector)):.2f} degrees from a right angle; DIALS knows "
            "rectangular pixels only"
        )
    given, beams, failed, planes, whole = [], {}, {}, [], True
    low, high = frames.valid_range
    for number in numbers:
        try:
            frame = frames.read(number)
        except FrameError as error:
            failed[number] = str(error)
            continue
        if on_frame:
            good = frames.mask if frame.good is None else frames.mask & frame.good
            on_frame(number, frame.data, good & (frame.data >= low) & (frame.data <= high))
        given.append(number)
        beams[number] = frame.photon_energy, frame.clen
        planes.append(frames.planes(number))
        whole = whole and frame.good is None and planes[-1] is not None
    if given:
        _write_frames(Path(directory, FRAMES), frames, given, beams, planes if whole else None)
        _write_experiments(Path(directory), detector, given, beams, frames)
    return Presented(given, beams, failed)


def _write_frames(path, frames, given, beams, planes):
    beam = tuple(np.array([beams[number][i] for number in given]) for i in (0, 1))
    if planes is not None:
        write_linked(path, frames.detector, planes, frames.dtype, beam, frames.mask, frames.valid_range)
        return
    low, high = frames.valid_range

    def each():
        for number in given:
            frame = frames.read(number)
            good = frames.mask if frame.good is None else frames.mask & frame.good
            yield frame.data, good & (frame.data >= low) & (frame.data <= high)

    write_copied(path, frames.detector, each(), len(given), frames.dtype, beam, frames.mask)


def _write_experiments(directory, detector, given, beams, frames):
    lengths, detectors, experiments = [], [], []
    for i, number in enumerate(given):
        clen = beams[number][1]
        same = [j for j, other in enumerate(lengths) if abs(other - clen) < _SAME_LENGTH]
        if not same:
            lengths.append(clen)
            detectors.append(detector_model(detector, clen, trusted_range(frames)))
        which = same[0] if same else len(lengths) - 1
        name = identifier(directory, number)
        experiments.append({"__id__": "Experiment", "identifier": name, "beam": i, "detector": which, "imageset": i})
    write_expt(
        directory / EXPERIMENTS,
        {
            "experiment": experiments,
            "imageset": [image_set(directory / FRAMES, i) for i in range(len(given))],
            "beam": [beam_model(wavelength(beams[number][0])) for number in given],
            "detector": detectors,
        },
    )


def trusted_range(frames):
    """Lowest and highest value as DIALS takes them, which versions include or exclude: half a unit beyond where values are whole."""
    low, high = (float(np.clip(limit, -(2.0**31), 2.0**31)) for limit in frames.valid_range)
    beyond = 0.5 if frames.dtype.kind in "iu" else 0.0
    return max(low, -(2.0**30)) - beyond, high + beyond


def restore_beams(path, directory):
    """Give each experiment the beam and the detector of its frame again: dials.ssx_index leaves all with those of the first.

    Parameters
    ----------
    path : path
        Experiments that a program wrote; overwritten.
    directory : path
        With `EXPERIMENTS`, as they were given.
    """
    _, given = read_expt(Path(directory, EXPERIMENTS))
    found, models = read_expt(path)
    models["beam"], models["detector"] = given["beam"], given["detector"]
    for values, experiment in zip(models["experiment"], found, strict=True):
        values["beam"] = given["experiment"][experiment.index]["beam"]
        values["detector"] = given["experiment"][experiment.index]["detector"]
    write_expt(path, models)


# ---- peaks


def peaks_of_spots(path, detector, n_frames):
    """Peaks of each frame from what dials.find_spots found.

    Parameters
    ----------
    path : path
        Reflection table with shoeboxes.
    detector : sfxflow.geometry.Detector
    n_frames : int

    Returns
    -------
    list of ndarray of `sfxflow.peaks.PEAK`
        DIALS' spots hold the background; the mean of the shoebox's other pixels is taken off.

    Raises
    ------
    InputError
        The file is not there or damaged.
    """
    columns, _ = read_refl(path)
    n = len(columns["id"])
    found = np.zeros(n, PEAK)
    if not n:
        return [found] * n_frames
    position = columns["xyzobs.px.value"]
    panel = columns["panel"].astype(np.int64)
    found["fs"], found["ss"] = slab_positions(detector, panel, position[:, 0], position[:, 1])
    found["panel"] = panel
    boxes = columns["shoebox"]
    for i in range(n):
        inside = (boxes.mask[i] & FOREGROUND) != 0
        around = boxes.data[i][~inside]
        found["background"][i] = background = max(float(np.mean(around)), 0.0) if around.size else 0.0
        values = boxes.data[i][inside]
        found["n_pixels"][i], found["maximum"][i] = values.size, values.max(initial=0)
        found["intensity"][i] = values.sum() - background * values.size
    # Not the variance of the table, which leaves out the background.
    found["snr"] = found["intensity"] / np.sqrt(np.maximum(columns["intensity.sum.value"], 1.0))
    highest = np.array([p.max_adu for p in detector.panels])
    found["saturated"] = found["maximum"] >= highest[panel]
    order = np.argsort(columns["id"], kind="stable")
    limits = np.searchsorted(columns["id"][order], np.arange(n_frames + 1))
    return [found[order[limits[i] : limits[i + 1]]] for i in range(n_frames)]


def spots_of_frame(peaks, data, good, detector):
    """Spots with their pixels, as DIALS' integration wants them, from peaks that anyone found.

    Parameters
    ----------
    peaks : ndarray of `sfxflow.peaks.PEAK`
    data : ndarray
        The frame's slab.
    good : ndarray of bool

    Returns
    -------
    dict
        Columns of a reflection table without `id`. A spot's pixels are the brightest good ones around the peak, as many as it has.
    """
    panel = peaks["panel"].astype(np.int64)
    fast, slow = panel_positions(detector, panel, peaks["fs"], peaks["ss"])
    bbox = np.zeros((len(peaks), 6), np.int64)
    boxes = Shoeboxes(panel, bbox, [], [], [])
    counts = np.where(peaks["n_pixels"] > 0, peaks["n_pixels"], _TYPICAL_PIXELS)
    value, variance = np.zeros(len(peaks)), np.zeros(len(peaks))
    for i, count in enumerate(counts):
        half = min(max(2, int(np.ceil(np.sqrt(count)))), _LARGEST_HALF)
        of_panel = detector.panels[panel[i]]
        column, row = int(fast[i]), int(slow[i])
        first, last = max(column - half, 0), min(column + half + 1, of_panel.n_fs)
        top, bottom = max(row - half, 0), min(row + half + 1, of_panel.n_ss)
        bbox[i] = first, last, top, bottom, 0, 1
        part = np.s_[
            of_panel.slab_ss + top : of_panel.slab_ss + bottom, of_panel.slab_fs + first : of_panel.slab_fs + last
        ]
        pixels, usable = data[part].astype(np.float32), good[part]
        level = np.where(usable, pixels, -np.inf)
        chosen = usable & (level >= np.sort(level, axis=None)[-min(count, level.size)])
        boxes.data.append(np.where(usable, pixels, 0)[None])
        boxes.mask.append((np.where(usable, VALID, 0) + np.where(chosen, FOREGROUND, 0))[None])
        boxes.background.append(np.zeros((1, *pixels.shape), np.float32))
        value[i] = variance[i] = max(float(pixels[chosen].sum()), 1.0)
    position = np.column_stack([fast, slow, np.full(len(peaks), 0.5)])
    return {
        "bbox": bbox,
        "flags": np.full(len(peaks), Flag.strong),
        "intensity.sum.value": value,
        "intensity.sum.variance": variance,
        "n_signal": counts.astype(np.int32),
        "panel": panel,
        "shoebox": boxes,
        "xyzobs.px.value": position,
        # A pixel is as precise as an even distribution over it.
        "xyzobs.px.variance": np.full((len(peaks), 3), 1.0 / 12.0),
    }


def write_spots(directory, spots, numbers):
    """Write `STRONG` for the experiments of `present`.

    Parameters
    ----------
    directory : path
    spots : dict of int to dict
        Columns of each frame (`spots_of_frame`).
    numbers : list of int
        Frames in the order of the experiments.
    """
    given, _ = read_expt(Path(directory, EXPERIMENTS))
    tables = [spots[number] for number in numbers]
    columns = {"id": np.repeat(np.arange(len(tables)), [len(table["panel"]) for table in tables]).astype(np.int32)}
    for name in tables[0]:
        if name == "shoebox":
            boxes = [table[name] for table in tables]
            columns[name] = Shoeboxes(
                np.concatenate([b.panel for b in boxes]),
                np.concatenate([b.bbox for b in boxes]),
                *([box for b in boxes for box in b[i]] for i in (2, 3, 4)),
            )
        else:
            columns[name] = np.concatenate([table[name] for table in tables])
    write_refl(Path(directory, STRONG), columns, {i: e.identifier for i, e in enumerate(given)})
