"""The tables of `sfxflow.reflections` from DIALS' files and into them."""

import numpy as np

from sfxflow.cell import inverse_resolution, parameters_of
from sfxflow.dials_tables import (
    TO_LAB,
    gaussian_partiality,
    mosaic_model_of_widths,
    panel_positions,
    rays,
    reflection_rows,
    widths_of_mosaic_model,
)
from sfxflow.errors import InputError
from sfxflow.io.dials_files import (
    Flag,
    beam_model,
    crystal_model,
    detector_model,
    detector_of,
    identifier,
    image_set,
    read_expt,
    read_refl,
    write_expt,
    write_refl,
)
from sfxflow.reflections import Status
from sfxflow.units import HC_EV_ANGSTROM, wavelength

#: Columns that an integrated reflection table must have.
_NEEDED = ("id", "miller_index", "intensity.sum.value", "intensity.sum.variance", "panel", "xyzcal.px", "flags")
_INTEGRATED = Flag.predicted | Flag.observed | Flag.indexed | Flag.integrated_sum


def read_dials(expt, refl, detector=None, polarisation_fraction=0.99, polarisation_angle=0.0, gain=1.0):
    """Tables from integrated experiments and reflections of stills.

    Parameters
    ----------
    expt, refl : path-like
    detector : sfxflow.geometry.Detector, optional
        The geometry, with the panels in DIALS' order; without it that of the first experiment, panels one below the other.
    polarisation_fraction, polarisation_angle : float
        As `sfxflow.geometry.polarisation_factor` takes them.
    gain : float
        Detector units a photon, if DIALS was not told when it estimated the variances.

    Returns
    -------
    frames, crystals, reflections : dict
        Columns as in `sfxflow.reflections`. Frames are those with an experiment, in order; n_peaks and log10_p are not known to
        DIALS' files, nor is rms_position. Widths are those of the mosaic model, NaN where there is none.
    detector : sfxflow.geometry.Detector

    Raises
    ------
    InputError
        A file can't be read, they do not belong together, or the reflections are not integrated.
    """
    experiments, models = read_expt(expt)
    columns, identifiers = read_refl(refl)
    missing = [name for name in _NEEDED if name not in columns]
    if missing and len(columns.get("id", ())):
        raise InputError(f"{refl}: has no column {missing[0]}; integrated reflections are expected")
    with_crystal = [one for one in experiments if one.reciprocal is not None]
    names = [one.identifier for one in with_crystal]
    if unknown := [name for name in identifiers.values() if name not in names]:
        raise InputError(f"{refl}: has reflections of the experiment {unknown[0]}, which {expt} does not have")
    if detector is None:
        detector = detector_of(models) if models["detector"] else None
    shots = list(dict.fromkeys((one.file, one.index) for one in experiments))
    frames = _frames(shots, experiments, models, with_crystal)
    order = sorted(range(len(with_crystal)), key=lambda c: shots.index((with_crystal[c].file, with_crystal[c].index)))
    with_crystal = [with_crystal[c] for c in order]
    reciprocal = np.array([one.reciprocal for one in with_crystal]).reshape(-1, 3, 3)
    place = {one.identifier: c for c, one in enumerate(with_crystal)}
    crystal_of_id = np.full(max(identifiers, default=-1) + 2, -1)
    for number, name in identifiers.items():
        crystal_of_id[number] = place[name]
    if missing or detector is None:
        columns = {name: np.zeros((0, 3) if name in ("miller_index", "xyzcal.px") else 0, np.int64) for name in _NEEDED}
    if len(columns["id"]) and int(columns["id"].max()) >= len(crystal_of_id) - 1:
        raise InputError(f"{refl}: rows with the number {columns['id'].max()}, for which there is no experiment")
    owner = crystal_of_id[columns["id"]]
    flags = columns["flags"].astype(np.int64)
    usable = ((flags & Flag.integrated_sum) != 0) & (columns["intensity.sum.variance"] > 0) & (owner >= 0)
    chosen = np.flatnonzero(usable)
    chosen = chosen[np.argsort(owner[chosen], kind="stable")]
    if len(chosen) and int(columns["panel"][chosen].max()) >= len(detector.panels):
        raise InputError(f"{refl}: has reflections on panel {columns['panel'].max()} of {len(detector.panels)}")
    lengths = np.array([one.wavelength for one in with_crystal])
    reflections = reflection_rows(
        columns,
        chosen,
        owner[chosen],
        reciprocal,
        lengths,
        detector,
        (polarisation_fraction, polarisation_angle),
        gain,
    )
    return frames, _crystals(with_crystal, reciprocal, shots, reflections), reflections, detector


def _frames(shots, experiments, models, with_crystal):
    first = {}
    for one in experiments:
        first.setdefault((one.file, one.index), one)
    lattices = [sum((one.file, one.index) == shot for one in with_crystal) for shot in shots]
    clens = {number: detector_of(models, number).clen for number in {one.detector for one in experiments}}
    n = len(shots)
    return {
        "frame": np.arange(n),
        "file": [file for file, _ in shots],
        "event": ["" if index is None else f"//{index}" for _, index in shots],
        "status": np.array([Status.indexed if found else Status.hit for found in lattices], np.uint8),
        "n_peaks": np.zeros(n, np.int32),
        "n_lattices": np.array(lattices, np.int32),
        "resolution": np.full(n, np.nan),
        "photon_energy": np.array([HC_EV_ANGSTROM / first[shot].wavelength for shot in shots]),
        "clen": np.array([clens[first[shot].detector] for shot in shots]),
        "message": [""] * n,
    }


def _crystals(experiments, reciprocal, shots, reflections):
    n = len(experiments)
    domain = np.array([one.domain_size for one in experiments])
    mosaicity = np.array([one.half_mosaicity for one in experiments])
    radius, mosaicity = widths_of_mosaic_model(domain, mosaicity)
    hkl = np.column_stack([reflections[name] for name in "hkl"])
    resolution = np.full(n, np.nan)
    for c in np.unique(reflections["crystal"]):
        own = hkl[reflections["crystal"] == c]
        resolution[c] = 1.0 / inverse_resolution(own, parameters_of(reciprocal[c])).max()
    return {
        "frame": np.array([shots.index((one.file, one.index)) for one in experiments], np.int32),
        "reciprocal": reciprocal,
        "cell": np.array([parameters_of(matrix) for matrix in reciprocal]).reshape(-1, 6),
        "profile_radius": radius,
        "mosaicity": mosaicity,
        "bandwidth": np.zeros(n),
        "shift": np.zeros((n, 2)),
        "excess": np.zeros(n),
        "n_peaks": np.zeros(n, np.int32),
        "log10_p": np.full(n, np.nan),
        "rms_position": np.full(n, np.nan),
        "resolution": resolution,
    }


def write_dials(expt, refl, chunks, detector, hall, *, partiality=False):
    """Write integrated tables as experiments and reflections of stills.

    Parameters
    ----------
    expt, refl : path-like
    chunks : iterable of (dict, dict, dict)
        frames, crystals and reflections with the columns of `sfxflow.reflections`: of frames file, event, photon_energy and clen,
        of crystals frame, reciprocal, profile_radius and mosaicity, of reflections crystal, h, k, l, I, sigI, excitation_error,
        polarisation, fs, ss, panel and background are used. Frames without a crystal are not written.
    detector : sfxflow.geometry.Detector
    hall : str
        Hall symbol of the space group.
    partiality : bool
        Write the partiality that `sfxflow.dials_tables.gaussian_partiality` gives, in place of 1. Programs divide by it.

    Returns
    -------
    list of str
        Identifier of each crystal's experiment, in order.
    """
    models = {"experiment": [], "imageset": [], "beam": [], "detector": [], "crystal": []}
    detectors, tables = {}, []
    for frames, crystals, reflections in chunks:
        first = len(models["experiment"])
        for c, i in enumerate(crystals["frame"]):
            clen = float(frames["clen"][i])
            if clen not in detectors:
                detectors[clen] = len(detectors)
                models["detector"].append(detector_model(detector, clen))
            number = len(models["experiment"])
            file, event = frames["file"][i], frames["event"][i]
            models["experiment"].append(
                {
                    "__id__": "Experiment",
                    "identifier": identifier(file, event, number),
                    "beam": number,
                    "detector": detectors[clen],
                    "crystal": number,
                    "imageset": number,
                }
            )
            models["beam"].append(beam_model(wavelength(float(frames["photon_energy"][i]))))
            models["imageset"].append(image_set(file, _index_of(event)))
            domain, mosaicity = mosaic_model_of_widths(crystals["profile_radius"][c], crystals["mosaicity"][c])
            models["crystal"].append(crystal_model(crystals["reciprocal"][c], hall, float(domain), float(mosaicity)))
        length = wavelength(np.asarray(frames["photon_energy"], dtype=np.float64)[crystals["frame"]])
        tables.append(_reflection_columns(reflections, crystals, length, detector, first, partiality))
    write_expt(expt, models)
    names = [values["identifier"] for values in models["experiment"]]
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    write_refl(refl, columns, dict(enumerate(names)))
    return names


def _index_of(event):
    """The number of a frame in its file, None where it has none: the last one of the event's name."""
    last = str(event).rsplit("/", 1)[-1]
    return int(last) if last.isdecimal() else None


def _reflection_columns(rows, crystals, length, detector, first, partiality):
    reciprocal = np.asarray(crystals["reciprocal"])
    owner = np.asarray(rows["crystal"], np.int64)
    hkl = np.column_stack([rows[name] for name in "hkl"]).astype(np.int32).reshape(-1, 3)
    n = len(hkl)
    direction, _ = rays(hkl, reciprocal[owner].reshape(-1, 3, 3), length[owner])
    panel = np.asarray(rows["panel"], np.int64)
    fast, slow = panel_positions(detector, panel, np.asarray(rows["fs"], float), np.asarray(rows["ss"], float))
    sizes = np.array([[np.linalg.norm(p.fs), np.linalg.norm(p.ss)] for p in detector.panels])[panel] * 1e3
    position = np.column_stack([fast, slow, np.zeros(n)])
    inverse_d = np.linalg.norm(np.einsum("nij,nj->ni", reciprocal[owner].reshape(-1, 3, 3), hkl.astype(float)), axis=1)
    error = np.asarray(rows["excitation_error"], float)
    recorded = np.ones(n)
    if partiality:
        widths = [np.asarray(crystals[name], float)[owner] for name in ("profile_radius", "mosaicity", "bandwidth")]
        recorded = gaussian_partiality(error, inverse_d, length[owner], widths)
    background = np.nan_to_num(np.asarray(rows["background"], float))
    return {
        "id": (owner + first).astype(np.int32),
        "imageset_id": (owner + first).astype(np.int32),
        "miller_index": hkl,
        "panel": panel,
        "flags": np.full(n, _INTEGRATED),
        "intensity.sum.value": np.asarray(rows["I"], float),
        "intensity.sum.variance": np.asarray(rows["sigI"], float) ** 2,
        "background.mean": background,
        # DIALS multiplies by lp, sfxflow divides by the polarisation factor.
        "lp": 1.0 / np.asarray(rows["polarisation"], float),
        "qe": np.ones(n),
        "partiality": recorded,
        "entering": error > 0,
        "delpsical.rad": error / np.maximum(inverse_d, 1e-9),
        "d": 1.0 / np.maximum(inverse_d, 1e-9),
        # A ray's length is that of the beam's: only its direction is meant.
        "s1": direction / np.linalg.norm(direction, axis=1, keepdims=True) / length[owner][:, None] * TO_LAB,
        "xyzcal.px": position,
        "xyzobs.px.value": position,
        "xyzcal.mm": np.column_stack([fast * sizes[:, 0], slow * sizes[:, 1], np.zeros(n)]),
    }
