"""Frames of several files as two-dimensional slabs with a mask of good pixels."""

import bisect
import itertools
from dataclasses import dataclass

import h5py
import numpy as np

from sfxflow.errors import FrameError, InputError
from sfxflow.io.hdf5 import unreadable
from sfxflow.io.hdf5_frames import Hdf5Frames
from sfxflow.io.image_frame import ImageFrame
from sfxflow.io.masks import (
    apply_flags,
    extra_mask,
    flags_beyond_range,
    geometry_mask,
    good_by_bits,
    open_mask_file,
    panel_slice,
    valid_range,
)
from sfxflow.io.remote_files import local_file
from sfxflow.units import HC_EV_ANGSTROM

#: So many frames are tried for one that can be read, to see how a detector marks its bad pixels.
_FRAMES_TRIED = 20


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes
    ----------
    data : ndarray, shape of the slab
        In the file's type.
    good : ndarray of bool or None
        Good pixels of this frame, beside `Frames.mask` and `Frames.valid_range`; None if these say it all.
    photon_energy : float
        eV.
    clen : float
        Metre.
    """

    data: np.ndarray
    good: np.ndarray | None
    photon_energy: float
    clen: float


class Frames:
    """Frames of several files, read one at a time. Not to be shared between processes: each opens its own.

    Parameters
    ----------
    files : list of str
    detector : Detector
    extra : str, optional
        Mask file of the user.

    Attributes
    ----------
    n_frames : int
    files : list of str
    mask : ndarray of bool, shape of the slab
        True where pixels are good on all frames: the geometry's panels, bad regions and static masks, and the user's mask.
    valid_range : tuple of float
        A pixel v is valid if low <= v <= high; NaN is not.
    dtype : numpy.dtype
        Of the frames, in the machine's byte order.
    pixels_in_file : int
        Pixels of a frame in the file, whether the geometry has them or not.
    """

    def __init__(self, files, detector, extra=None):
        self.files = list(files)
        self.detector = detector
        self._current = (None, None)
        self._valid_range = None
        #: A frame that can be read where the first ones can't.
        self._near = 0
        self._looked_at = {}
        self._in_events = None
        self._mask_files = {}
        self._starts = [0, *itertools.accumulate(self._count())]
        self.n_frames = self._starts[-1]
        if not self.n_frames:
            raise InputError(f"{self.files[0]}: holds no frames")
        first = self._reader(0)
        self.dtype = first.dtype
        self.pixels_in_file = first.pixels_in_file
        self._static, self._per_event = self._sorted_masks(first)
        own = self._own_mask(first)
        self.mask = geometry_mask(detector) & own
        for panel, array_mask, handle in self._static:
            if handle is not None:
                _and_mask_of_file(self.mask, panel, array_mask, handle, first)
        if extra:
            self.mask &= extra_mask(extra, detector, first.frame_shape)
        self._own = {0: own}
        self._covered = bool(_covered(detector).all())

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Close all files."""
        if self._current[1] is not None:
            self._current[1].close()
        self._current = (None, None)
        for handle in self._mask_files.values():
            if isinstance(handle, h5py.File):
                handle.close()
        self._mask_files.clear()

    def files_of(self, wanted):
        """Names of the files that hold the frames `wanted`, in the order of the run."""
        return [self.files[number] for number in sorted({self._place(i)[0] for i in wanted})]

    def origin(self, i):
        """(file, event) of frame `i`; the event is empty in files of one frame."""
        number, within = self._place(i)
        if not self._needs_opening():
            return self.files[number], ""
        return self.files[number], self._reader(number).event(within)

    def read(self, i, out=None):
        """Frame `i`.

        Parameters
        ----------
        i : int
        out : ndarray of `dtype`, shape of the slab, optional
            Memory for the pixels, from `memory`, of a frame that is not needed any more: to ask the system for new memory for each frame
            takes as long as to search it for peaks.

        Raises
        ------
        FrameError
            It can't be read, or its photon energy or camera length is missing or impossible; the message says why.
        InputError
            Its file can't be fetched.
        """
        number, within = self._place(i)
        # A server that does not answer is no fault of the frame: the job has to be repeated.
        local_file(self.files[number])
        self.valid_range  # noqa: B018 -- reads a frame, which may be this one, and so may open another file
        try:
            reader = self._reader(number)
        except InputError as error:
            raise FrameError(str(error)) from None
        data, self._looked_at = self._looked_at.get((number, within)), {}
        if data is None:
            data = self.memory() if out is None else out
            reader.read(within, data)
        return Frame(
            data=data,
            good=self._good(number, within, reader, data),
            photon_energy=self._photon_energy(reader, within),
            clen=self._clen(reader, within),
        )

    def memory(self):
        """Memory for one frame, zero between the panels; `read` fills nothing but the panels."""
        return (np.empty if self._covered else np.zeros)(self.detector.shape, dtype=self.dtype)

    def planes(self, i):
        """Where the pixels of frame `i` lie in an HDF5 file (`sfxflow.io.hdf5_frames.Plane`), None if that can't be said so."""
        number, within = self._place(i)
        return self._reader(number).planes(within)

    def beam(self, i):
        """(photon energy in eV, camera length in metre) of frame `i`, without its pixels.

        Raises
        ------
        FrameError
            One of them is missing or impossible, or the file can't be opened; the message says why.
        InputError
            Its file can't be fetched.
        """
        number, within = self._place(i)
        local_file(self.files[number])
        try:
            reader = self._reader(number)
        except InputError as error:
            raise FrameError(str(error)) from None
        return self._photon_energy(reader, within), self._clen(reader, within)

    def masks_differ(self, wanted):
        """True if mask arrays make other pixels bad on some of the frames `wanted` than on the others."""
        if self._per_event:
            return True
        if all(handle is not None for _, _, handle in self._static):
            return False
        numbers = dict.fromkeys(self._place(i)[0] for i in wanted)
        return any(not np.array_equal(self._own_mask(self._reader(number)), self._own[0]) for number in numbers)

    def announce(self, i):
        """Say that frame `i` will be read soon, so that it comes from the disk while something else is computed; no more than a hint."""
        if 0 <= i < self.n_frames:
            number, within = self._place(i)
            if self._current[0] == number:
                self._current[1].announce(within)

    @property
    def valid_range(self):
        """Lowest and highest valid pixel value, floats."""
        if self._valid_range is None:
            self._valid_range = valid_range(self.detector, self.dtype, self._first_readable)
            self._flags = flags_beyond_range(self.detector, self.dtype, *self._valid_range)
        return self._valid_range

    # ---- files

    def _needs_opening(self):
        """True if only the files themselves can say how many frames they hold."""
        if self._in_events is None:
            panel = self.detector.panels[0]
            self._in_events = ("%" in panel.dims or "%" in panel.data) and h5py.is_hdf5(local_file(self.files[0]))
        return self._in_events

    def _count(self):
        """Number of frames of each file."""
        if not self._needs_opening():
            return [1] * len(self.files)
        return [self._reader(number).n_frames for number in range(len(self.files))]

    def _reader(self, number):
        """The open file of this number; the one opened before is closed."""
        if self._current[0] != number:
            if self._current[1] is not None:
                self._current[1].close()
            self._current = (None, None)
            self._current = (number, _open_file(local_file(self.files[number]), self.detector))
        return self._current[1]

    def _place(self, i):
        """(number of the file, number of the frame in it)."""
        if not 0 <= i < self.n_frames:
            raise IndexError(f"frame {i} of {self.n_frames}")
        number = bisect.bisect_right(self._starts, i) - 1
        return number, int(i) - self._starts[number]

    def _first_readable(self):
        """Array of the first frame that can be read, None if none of the first can."""
        for i in [*range(min(self.n_frames, _FRAMES_TRIED)), self._near]:
            number, within = self._place(i)
            data = np.zeros(self.detector.shape, dtype=self.dtype)
            try:
                self._reader(number).read(within, data)
            except (FrameError, InputError):
                continue
            self._looked_at = {(number, within): data}
            return data
        return None

    # ---- good pixels

    def _sorted_masks(self, reader):
        """The geometry's mask arrays as (panel, mask, open mask file or None): those for all events and those for each."""
        static, per_event = [], []
        for panel in self.detector.panels:
            if panel.no_index:
                continue
            for array_mask in panel.masks:
                handle = None
                if array_mask.file is not None:
                    if array_mask.file not in self._mask_files:
                        self._mask_files[array_mask.file] = open_mask_file(array_mask.file)
                    handle = self._mask_files[array_mask.file]
                is_array = isinstance(handle, np.ndarray)
                varies = not is_array and reader.has_mask_per_event(panel, array_mask, handle)
                (per_event if varies else static).append((panel, array_mask, handle))
        return static, per_event

    def _own_mask(self, reader):
        """Good pixels by the mask arrays that lie in the data file itself."""
        good = np.ones(self.detector.shape, dtype=bool)
        for panel, array_mask, handle in self._static:
            if handle is None:
                reader.and_mask(good, panel, array_mask)
        return good

    def _good(self, number, within, reader, data):
        """Good pixels of one frame where `mask` and `valid_range` do not say it all, else None."""
        self.valid_range  # noqa: B018 -- finds the flags that are left
        try:
            if number not in self._own:
                own = self._own_mask(reader)
                self._own[number] = None if np.array_equal(own, self._own[0]) else own
            differs = number > 0 and self._own[number] is not None
            if not (differs or self._per_event or self._flags):
                return None
            good = self._own[number].copy() if differs else np.ones(data.shape, dtype=bool)
            for panel, array_mask, handle in self._per_event:
                reader.and_mask(good, panel, array_mask, within, handle)
        except InputError as error:
            raise FrameError(str(error)) from None
        apply_flags(good, data, self._flags)
        return good

    # ---- values per event

    def _photon_energy(self, reader, within):
        detector = self.detector
        meaning, unit = ("wavelength", "angstrom") if detector.photon_energy_is_wavelength else ("photon energy", "eV")
        value = self._number(reader, within, detector.photon_energy, detector.photon_energy_scale, meaning, unit)
        return HC_EV_ANGSTROM / value if detector.photon_energy_is_wavelength else value

    def _clen(self, reader, within):
        return self._number(reader, within, self.detector.clen, self.detector.clen_scale, "camera length", "m")

    def _number(self, reader, within, source, scale, meaning, unit):
        value = reader.value(source, within, meaning) if isinstance(source, str) else source
        value *= scale
        if not (value > 0 and np.isfinite(value)):
            raise FrameError(f"{reader.path} {reader.event(within)}: the {meaning} is {value} {unit}")
        return value


def _open_file(path, detector):
    """Reader of one file: `Hdf5Frames`, or `ImageFrame` for what is not HDF5."""
    try:
        with open(path, "rb") as handle:
            empty = not handle.read(1)
    except OSError as error:
        raise InputError(unreadable(path, error)) from None
    if empty:
        raise InputError(unreadable(path, OSError()))
    return Hdf5Frames(path, detector) if h5py.is_hdf5(path) else ImageFrame(path, detector)


def _and_mask_of_file(good, panel, array_mask, handle, reader):
    """Set `good` to False where a mask array in a file of its own says so."""
    if isinstance(handle, np.ndarray):
        part = handle[panel.min_ss : panel.max_ss + 1, panel.min_fs : panel.max_fs + 1]
        if part.shape != (panel.n_ss, panel.n_fs):
            raise InputError(
                f"{array_mask.file}: the mask has the shape {handle.shape}, which does not reach panel {panel.name}"
            )
        good[panel_slice(panel)] &= good_by_bits(part, array_mask.good_bits, array_mask.bad_bits)
    else:
        reader.and_mask(good, panel, array_mask, 0, handle)


def _covered(detector):
    covered = np.zeros(detector.shape, dtype=bool)
    for panel in detector.panels:
        covered[panel_slice(panel)] = True
    return covered
