"""The tables of `sfxflow.reflections` from the frames of a stream, and peaks as `sfxflow.peaks` has them.

What a stream does not say is not made up: significance (log10_p) and root mean square distance of the peaks are NaN, the number of peaks that a
lattice explains is -1. The profile radius is taken as 1.1 sigma(q), the same at every q (`sfxflow.io.stream`), so that mosaicity and bandwidth of the
crystal are 0. A stream of sfxflow's own says all of these in lines that other programs pass over, and they come back as they were.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sfxflow.errors import InputError
from sfxflow.geometry import panel_of, polarisation_factor
from sfxflow.io.geom import parse_geom
from sfxflow.io.stream import OWN_CRYSTAL, OWN_FRAME, PROFILE_SIGMAS
from sfxflow.peaks import PEAK
from sfxflow.reflections import Status
from sfxflow.units import wavelength

#: Half of the last digit that a stream has of a camera length, metre.
_CLEN_STEP = 0.51e-6
NOT_KNOWN = -1
#: Of what sfxflow's own lines say, the whole numbers, and what an int32 holds of them.
_COUNTS, _LARGEST_COUNT = ("number", "n_peaks"), 2**31 - 1


class StreamTables(NamedTuple):
    """Rows for `sfxflow.io.table.ChunkWriter` and peaks for `sfxflow.io.peaks.PeakWriter`.

    Attributes
    ----------
    frames, crystals, reflections : dict
        Columns of `sfxflow.reflections`.
    peaks : list of ndarray of `sfxflow.peaks.PEAK`, or None
        One array a frame; None where the stream has no peak lists. Of a peak's fields a stream knows fs, ss, intensity and panel; snr, maximum and
        background are NaN, n_pixels is -1, saturated False.
    """

    frames: dict
    crystals: dict
    reflections: dict
    peaks: list | None


class PanelPlaces:
    """Panel numbers and slab positions of what a stream says.

    Parameters
    ----------
    panels : list of str
        `StreamReader.panels`; it may grow while the stream is read.
    detector : sfxflow.geometry.Detector
    version : tuple of int
        Of the stream's format.
    where : str
        Name of the stream, for messages.
    """

    def __init__(self, panels, detector, version, where):
        self._panels, self._where = panels, where
        self._number = {panel.name: number for number, panel in enumerate(detector.panels)}
        self._to_slab_fs = np.array([panel.slab_fs - panel.min_fs for panel in detector.panels], dtype=np.float64)
        self._to_slab_ss = np.array([panel.slab_ss - panel.min_ss for panel in detector.panels], dtype=np.float64)
        self._bounds = None
        if version < (2, 3):
            self._bounds = np.array([[p.min_ss, p.max_ss + 1, p.min_fs, p.max_fs + 1] for p in detector.panels])
            if np.any(self._to_slab_fs) or np.any(self._to_slab_ss):
                raise InputError(
                    f"{where}: stream format 2.{version[1]} does not name panels, and this geometry has them in several arrays, so "
                    "that positions do not say which panel is meant; write the stream again with CrystFEL 0.6 or newer"
                )

    def __call__(self, panel, fs, ss):
        """Panel number in the detector and slab position; see `number`."""
        number = self.number(panel, fs, ss)
        return number, fs + self._to_slab_fs[number], ss + self._to_slab_ss[number]

    def number(self, panel, fs, ss):
        """Panel number in the detector.

        Parameters
        ----------
        panel : ndarray of int
            Row of `panels`.
        fs, ss : ndarray
            In the file's arrays.

        Raises
        ------
        InputError
            The detector has no such panel, or none at such a place.
        """
        if self._bounds is not None:
            number = panel_of(self._bounds, fs, ss)
            if np.any(number < 0):
                i = int(np.argmax(number < 0))
                raise InputError(
                    f"{self._where}: fs {fs[i]:g}, ss {ss[i]:g} lies on no panel of the geometry; give the right one"
                )
            return number
        numbers = np.array([self._number.get(name, -1) for name in self._panels], dtype=np.int64)
        number = numbers[panel]
        if np.any(number < 0):
            name = self._panels[panel[int(np.argmax(number < 0))]]
            known = ", ".join(list(self._number)[:8])
            raise InputError(
                f"{self._where}: the geometry has no panel {name!r} ({known}); give the geometry that was indexed with"
            )
        return number


def detector_of_header(header, path):
    """The detector of the geometry that a stream carries; `path` names it in messages.

    Raises
    ------
    InputError
        It carries none, or one that can't be read.
    """
    if not header.geometry.strip():
        raise InputError(f"{path}: carries no geometry; give one with --geometry")
    return parse_geom(header.geometry, f"{path}, its geometry", Path(path).parent)


def mean_coffset(detector):
    """Mean of what is added to the camera length for each panel, metre: programs tell the mean of the sums."""
    return float(np.mean([panel.origin[2] for panel in detector.panels]))


def tables_of_stream(reader, detector=None, polarisation_fraction=0.99, polarisation_angle=0.0, frames_at_a_time=256):
    """Tables of a stream, some frames at a time.

    Parameters
    ----------
    reader : sfxflow.io.stream_reader.StreamReader
    detector : sfxflow.geometry.Detector, optional
        By default that of the stream's own geometry.
    polarisation_fraction, polarisation_angle : float
        As `sfxflow.geometry.polarisation_factor` has them (radian).
    frames_at_a_time : int

    Yields
    ------
    frames : list of sfxflow.io.stream_frames.StreamFrame
    tables : StreamTables
        Of these frames; rows are counted through all that came before.

    Raises
    ------
    InputError
        As `StreamReader`, `detector_of_header` and `PanelPlaces` say.
    """
    detector = detector_of_header(reader.header, reader.path) if detector is None else detector
    places = PanelPlaces(reader.panels, detector, reader.header.version, reader.path)
    frames = iter(reader)
    first_frame = first_crystal = 0
    while block := list(itertools.islice(frames, frames_at_a_time)):
        # What a float32 can't hold is infinite in the table.
        with np.errstate(over="ignore"):
            tables = tables_of_frames(
                block, places, detector, polarisation_fraction, polarisation_angle, first_frame, first_crystal
            )
        first_frame += len(block)
        first_crystal += len(tables.crystals["frame"])
        yield block, tables


def tables_of_frames(
    frames, places, detector, polarisation_fraction, polarisation_angle=0.0, first_frame=0, first_crystal=0
):
    """Tables of some frames of a stream, in its order.

    Parameters
    ----------
    frames : list of sfxflow.io.stream_frames.StreamFrame
    places : PanelPlaces
    detector : sfxflow.geometry.Detector
    polarisation_fraction, polarisation_angle : float
        As `sfxflow.geometry.polarisation_factor` has them (radian).
    first_frame, first_crystal : int
        Rows that the tables hold already.

    Returns
    -------
    StreamTables

    Raises
    ------
    InputError
        A panel is not in the geometry.
    """
    crystals = [crystal for frame in frames for crystal in frame.crystals]
    frame_of_crystal = np.repeat(np.arange(len(frames)), [len(frame.crystals) for frame in frames])
    energy = np.array([frame.photon_energy for frame in frames], dtype=np.float64)
    own = [_own_values(crystal.notes.get(OWN_CRYSTAL)) for crystal in crystals]
    columns = _crystal_columns(crystals, own)
    columns["frame"] = (frame_of_crystal + first_frame).astype(np.int32)
    reflections = _reflection_columns(
        crystals, columns, wavelength(energy[frame_of_crystal]), places, polarisation_fraction, polarisation_angle
    )
    reflections["crystal"] = (reflections["crystal"] + first_crystal).astype(np.uint32)
    has_peaks = any(frame.peaks is not None for frame in frames)
    return StreamTables(
        _frame_columns(frames, energy, detector, first_frame, columns["resolution"], frame_of_crystal),
        columns,
        reflections,
        [_peaks(frame.peaks, places) for frame in frames] if has_peaks else None,
    )


def _own_values(text):
    """Names and numbers of a line of sfxflow's own; none of a line that is damaged."""
    words = text.split() if text else []
    try:
        values = {name: float(value) for name, value in zip(words[::2], words[1::2], strict=True)}
    except ValueError:
        return {}
    return values if all(abs(values.get(name, 0.0)) <= _LARGEST_COUNT for name in _COUNTS) else {}


def _frame_columns(frames, energy, detector, first_frame, resolution, frame_of_crystal):
    n = len(frames)
    own = [_own_values(frame.notes.get(OWN_FRAME)) for frame in frames]
    n_lattices = np.bincount(frame_of_crystal, minlength=n)
    status = np.where([frame.is_hit for frame in frames], Status.hit, Status.blank)
    best = np.full(n, np.inf)
    np.fmin.at(best, frame_of_crystal, resolution.astype(np.float64))
    best[~np.isfinite(best)] = np.nan
    clen = np.array([frame.clen for frame in frames], dtype=np.float64) - mean_coffset(detector)
    if not isinstance(detector.clen, str):
        clen[np.isnan(clen) | (np.abs(clen - detector.clen) < _CLEN_STEP)] = detector.clen
    return {
        "frame": np.array([values.get("number", first_frame + i) for i, values in enumerate(own)], dtype=np.int64),
        "file": [readable(frame.file) for frame in frames],
        "event": ["" if frame.event in ("//", "(null)") else readable(frame.event) for frame in frames],
        "status": np.where(n_lattices > 0, Status.indexed, status).astype(np.uint8),
        "n_peaks": np.array([frame.n_peaks for frame in frames], dtype=np.int32),
        "n_lattices": n_lattices.astype(np.int32),
        "resolution": np.array(
            [values.get("resolution", d) for values, d in zip(own, best, strict=True)], dtype=np.float32
        ),
        "photon_energy": energy,
        "clen": np.array(
            [values.get("clen", length) for values, length in zip(own, clen, strict=True)], dtype=np.float64
        ),
        "message": [""] * n,
    }


def readable(text):
    """Text with what is not UTF-8 written out as \\xNN."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _crystal_columns(crystals, own):
    def column(name, otherwise, dtype=np.float32):
        return np.array([values.get(name, o) for values, o in zip(own, otherwise, strict=True)], dtype=dtype)

    n = len(crystals)
    zeros, nan = np.zeros(n), np.full(n, np.nan)
    excess = column("excess", zeros)
    moved = -np.nan_to_num(np.array([crystal.shift for crystal in crystals], dtype=np.float64).reshape(-1, 2)) + 0.0
    scale = 1.0 + excess.astype(np.float64)
    reciprocal = np.array([crystal.reciprocal for crystal in crystals], dtype=np.float64).reshape(-1, 3, 3)
    cell = np.array([crystal.cell for crystal in crystals], dtype=np.float64).reshape(-1, 6)
    cell[:, :3] *= scale[:, None]
    sigma = np.array([crystal.profile_radius for crystal in crystals], dtype=np.float64) / PROFILE_SIGMAS
    return {
        "reciprocal": reciprocal / scale[:, None, None],
        "cell": cell.astype(np.float32),
        "profile_radius": column("profile_radius", sigma),
        "mosaicity": column("mosaicity", zeros),
        "bandwidth": column("bandwidth", zeros),
        "shift": np.column_stack([column("shift_x", moved[:, 0]), column("shift_y", moved[:, 1])]),
        "excess": excess,
        "n_peaks": column("n_peaks", np.full(n, NOT_KNOWN), np.int32),
        "log10_p": column("log10_p", nan),
        "rms_position": column("rms_position", nan),
        "resolution": column("resolution", [crystal.resolution for crystal in crystals]),
    }


def _reflection_columns(crystals, columns, length, places, polarisation_fraction, polarisation_angle):
    owner = np.repeat(np.arange(len(crystals)), [len(crystal.hkl) for crystal in crystals])
    hkl = np.concatenate([np.empty((0, 3), np.int32), *(crystal.hkl for crystal in crystals)])
    values = np.concatenate([np.empty((0, 6)), *(crystal.values for crystal in crystals)])
    panel = np.concatenate([np.empty(0, np.int32), *(crystal.panel for crystal in crystals)])
    panel, fs, ss = places(panel, values[:, 4], values[:, 5])
    k = (1.0 / (length * (1.0 + columns["excess"].astype(np.float64))))[owner]
    outgoing = np.einsum("nij,nj->ni", columns["reciprocal"][owner], hkl.astype(np.float64))
    outgoing[:, 2] += k
    return {
        "crystal": owner,
        "h": hkl[:, 0].astype(np.int16),
        "k": hkl[:, 1].astype(np.int16),
        "l": hkl[:, 2].astype(np.int16),
        "I": values[:, 0].astype(np.float32),
        "sigI": values[:, 1].astype(np.float32),
        "excitation_error": (k - np.linalg.norm(outgoing, axis=1)).astype(np.float32),
        "polarisation": polarisation_factor(outgoing, polarisation_fraction, polarisation_angle).astype(np.float32),
        "fs": fs.astype(np.float32),
        "ss": ss.astype(np.float32),
        "panel": panel.astype(np.uint16),
        "peak": values[:, 2].astype(np.float32),
        "background": values[:, 3].astype(np.float32),
    }


def _peaks(peaks, places):
    """Peaks of a frame as the peak search has them."""
    if peaks is None:
        return np.zeros(0, PEAK)
    found = np.zeros(len(peaks.fs), PEAK)
    found["panel"], found["fs"], found["ss"] = places(peaks.panel, peaks.fs, peaks.ss)
    found["intensity"] = peaks.intensity
    found["snr"], found["maximum"], found["background"], found["n_pixels"] = np.nan, np.nan, np.nan, NOT_KNOWN
    return found
