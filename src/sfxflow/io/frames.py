"""The frames of a run, whatever files they are in, as two-dimensional slabs with a mask of good pixels."""

import bisect
import glob
import itertools
import os
from dataclasses import dataclass

import h5py
import numpy as np

from sfxflow.errors import FrameError, InputError
from sfxflow.io.frame_list import ENDING, read_frame_list
from sfxflow.io.hdf5 import unreadable
from sfxflow.io.hdf5_frames import Hdf5Frames
from sfxflow.io.masks import (
    apply_flags,
    extra_mask,
    flags_beyond_range,
    geometry_mask,
    good_by_bits,
    image_array,
    open_mask_file,
    panel_slice,
    valid_range,
)
from sfxflow.io.remote_files import is_here, local_file
from sfxflow.io.urls import is_remote
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


def open_frames(pattern, detector, mask=None, near=0):
    """Open the frames of a run.

    Parameters
    ----------
    pattern : str
        A file or a glob, whose files are taken in sorted order and their frames count through; an address at a server
        (`sfxflow.io.urls`), whose file is fetched; or a list of frames (.lst), of both kinds of files.
    detector : Detector
    mask : str, optional
        A mask file beside the geometry's (`sfxflow.io.masks.extra_mask`).
    near : int, optional
        A frame of those that will be read: of a list's files at a server no others are fetched.

    Returns
    -------
    Frames

    Raises
    ------
    InputError
        No file matches, or a file can't be fetched or opened or does not fit the geometry.
    """
    if str(pattern).endswith(ENDING):
        return ListedFrames(pattern, detector, mask, near)
    return Frames(matching_files(pattern), detector, mask)


def matching_files(pattern):
    """The files that `pattern` names: itself, or sorted what the glob matches.

    Raises
    ------
    InputError
        None, or a pattern for files at a server.
    """
    pattern = str(pattern)
    if is_remote(pattern):
        if "*" in pattern:
            raise InputError(
                f"{pattern}: which files a server has can't be looked up; name one file, or a list (.lst) with a line "
                "'ADDRESS //EVENT' for each frame"
            )
        return [pattern]
    if os.path.exists(pattern) or not glob.has_magic(pattern):
        return [pattern]
    files = sorted(name for name in glob.glob(pattern) if not os.path.isdir(name))
    if not files:
        raise InputError(f"{pattern}: no file matches; check the folder (now in {os.getcwd()}) and the spelling")
    return files


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


class ListedFrames(Frames):
    """The frames of a list (`sfxflow.io.frame_list`), in its order; otherwise as `Frames`.

    A file that is not there is missed, or fetched from its server, only when a frame of it is read, if the list says which events it has: a
    job on another machine may have no more than the files of its own chunk.

    Parameters
    ----------
    path : str
        The list.
    detector : Detector
    extra : str, optional
        Mask file of the user.
    near : int, optional
        A frame of those that will be read.

    Raises
    ------
    InputError
        A file has no such event, or anything that `Frames` raises.
    """

    def __init__(self, path, detector, extra=None, near=0):
        listed = read_frame_list(path)
        self._listed = None
        self._absent = {}
        for file, event in listed:
            if event and not is_here(file):
                self._absent[file] = self._absent.get(file, 0) + 1
        if near < len(listed) and is_remote(listed[near][0]) and len(self._absent) == len({file for file, _ in listed}):
            local_file(listed[near][0])
            del self._absent[listed[near][0]]
        # The first file tells what all have in common.
        files = sorted(dict.fromkeys(file for file, _ in listed), key=lambda file: file in self._absent)
        super().__init__(files, detector, extra)
        numbers = {file: number for number, file in enumerate(self.files)}
        places, events, named = [], {}, []
        for file, event in listed:
            number = numbers[file]
            n_in_file = int(self._starts[number + 1] - self._starts[number])
            if not event:
                places += [(number, within) for within in range(n_in_file)]
                # Lines without an event stand for as many frames as their file has.
                named += [(file, "")] * n_in_file
                continue
            named.append((file, event))
            if file in self._absent:
                places.append((number, 0))
                continue
            if number not in events:
                events[number] = self._events(number)
            if event not in events[number]:
                raise InputError(f"{path}: {file} has no event {event}; it holds {n_in_file} frames")
            places.append((number, events[number][event]))
        self._listed, self._named = places, named
        self.n_frames = len(places)
        self._near = min(near, self.n_frames - 1)

    def _events(self, number):
        """Event to number within the file."""
        reader = self._reader(number)
        return {reader.event(within): within for within in range(reader.n_frames)}

    def files_of(self, wanted):
        """As `Frames.files_of`; no file is fetched for it."""
        return list(dict.fromkeys(self._named[i][0] for i in wanted))

    def announce(self, i):
        """As `Frames.announce`; no file is fetched for it."""
        if 0 <= i < self.n_frames and self._named[i][0] not in self._absent:
            super().announce(i)

    def origin(self, i):
        """(file, event) of frame `i`, as the list has them."""
        return self._named[i] if self._named[i][1] else super().origin(i)

    def _count(self):
        if not self._needs_opening():
            return [1] * len(self.files)
        return [self._absent.get(file) or self._reader(number).n_frames for number, file in enumerate(self.files)]

    def _place(self, i):
        if self._listed is None:
            return super()._place(i)
        if not 0 <= i < self.n_frames:
            raise IndexError(f"frame {i} of {self.n_frames}")
        file, event = self._named[i]
        if file in self._absent and is_remote(file):
            self._look_into_fetched(file)
        if self._listed[i][1] is None:
            raise FrameError(f"{file} has no event {event}")
        return self._listed[i]

    def _look_into_fetched(self, file):
        """Where in a file at a server its frames are; it is fetched for that."""
        number = self.files.index(file)
        events = self._events(number)
        del self._absent[file]
        for i, (name, event) in enumerate(self._named):
            if name == file:
                self._listed[i] = (number, events.get(event))


class ImageFrame:
    """A file with a single frame in a format that fabio reads (CBF, EDF, TIFF, ...), with the methods of `Hdf5Frames`."""

    n_frames = 1

    def __init__(self, path, detector):
        self.path = str(path)
        self._detector = detector
        self._array = image_array(path)
        self.frame_shape = self._array.shape
        self.dtype = self._array.dtype.newbyteorder("=")
        self.pixels_in_file = self._array.size
        rows, columns = detector.shape
        datasets = {(p.data, tuple(d for d in p.dims if isinstance(d, int))) for p in detector.panels}
        if len(datasets) > 1:
            raise InputError(
                f"{path}: a file of one image, but the geometry has panels in {len(datasets)} arrays of an HDF5 file"
            )
        if self._array.ndim != 2 or self.frame_shape[0] < rows or self.frame_shape[1] < columns:
            shape = " x ".join(map(str, self.frame_shape))
            raise InputError(
                f"{path}: the frame has {shape} pixels (ss x fs), but the geometry needs {rows} x {columns}: "
                "it belongs to another detector, or ss and fs are swapped"
            )
        for source, key in ((detector.photon_energy, "photon_energy"), (detector.clen, "clen")):
            if isinstance(source, str):
                raise InputError(
                    f"{path}: the geometry takes {key} from {source}, which only HDF5 files have; give it as a number"
                )

    def close(self):
        """Nothing is open."""

    def event(self, i):
        """Always empty."""
        return ""

    def read(self, i, slab):
        """Copy the frame into `slab`."""
        slab[...] = self._array[: slab.shape[0], : slab.shape[1]]

    def planes(self, i):
        """None: not an HDF5 file."""

    def announce(self, i):
        """The frame is in memory."""

    def has_mask_per_event(self, panel, mask, other=None):
        """Never: an image has one mask."""
        if other is None:
            raise InputError(
                f"{self.path}: the mask {mask.data} of panel {panel.name} can't be in an image file; give mask_file"
            )
        return False

    def value(self, source, i, meaning):
        """Images have no values by path; refused when the file is opened."""
        raise FrameError(f"{self.path}: no {meaning} at {source}")


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
