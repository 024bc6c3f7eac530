"""The frames of one HDF5 file: events, pixels and values per event, through external links and virtual data sets."""

import contextlib
import itertools
import os
from dataclasses import dataclass

import h5py
import numpy as np

from sfxflow.errors import FrameError, InputError
from sfxflow.geometry import Panel
from sfxflow.io.chunks import PlaneReader
from sfxflow.io.hdf5 import dataset_at, dataset_or_none, listing, missing_link, open_hdf5
from sfxflow.io.masks import good_by_bits, is_per_event, mask_array, mask_plane, panel_slice

_MASKS_KEPT = 4


class Block:
    """The panels that share a dataset and its fixed indices: one plane of the dataset, some rows of the slab.

    Parameters
    ----------
    panels : list of Panel
    """

    def __init__(self, panels):
        first = panels[0]
        self.data, self.dims = first.data, first.dims
        self.rows = max(p.max_ss for p in panels) + 1
        self.columns = max(p.max_fs for p in panels) + 1
        self.first_row = first.slab_ss - first.min_ss
        self.last_panel = max(panels, key=lambda p: (p.max_ss, p.max_fs)).name

    def leading(self, indices):
        """Indices of a plane along all dimensions but ss and fs, of an event's `indices` along the '%' dimensions."""
        remaining = list(indices)
        return [remaining.pop(0) if dim == "%" else dim for dim in self.dims if dim not in ("ss", "fs")]


def blocks_of(detector):
    """The blocks that make up the slab, from its first row on."""
    members: dict[tuple, list[Panel]] = {}
    for panel in detector.panels:
        fixed = tuple(dim for dim in panel.dims if isinstance(dim, int))
        members.setdefault((panel.data, fixed), []).append(panel)
    return sorted((Block(panels) for panels in members.values()), key=lambda block: block.first_row)


@dataclass(frozen=True)
class Plane:
    """Where some rows of a frame's slab lie in an HDF5 file.

    Attributes
    ----------
    file, dataset : str
    leading : tuple of int
        Index in each dimension but the last two, which are ss and fs.
    event_axes : tuple of int
        Those of these dimensions that hold events.
    first_row, rows, columns : int
        Where the plane lies in the slab.
    """

    file: str
    dataset: str
    leading: tuple
    event_axes: tuple
    first_row: int
    rows: int
    columns: int


class Hdf5Frames:
    """The frames of one HDF5 file.

    Parameters
    ----------
    path : path-like
    detector : Detector

    Attributes
    ----------
    n_frames : int
    frame_shape : tuple of int
        Rows and columns of a plane in the file.
    pixels_in_file : int
        Pixels of all planes that belong to a frame.

    Raises
    ------
    InputError
        The file can't be opened, lacks a dataset that the geometry names, or does not fit the geometry.
    """

    def __init__(self, path, detector):
        self.path = str(path)
        self._detector = detector
        self._blocks = blocks_of(detector)
        self._handle = open_hdf5(path)
        self._readers = {}
        self._virtual = {}
        self._values = {}
        self._masks = {}
        self._sources = {}
        self._last_event = (None, None)
        try:
            self._events = self._list_events()
            self.n_frames = sum(count for _, _, count in self._events)
            self._check_values()
        except BaseException:
            self.close()
            raise

    def close(self):
        """Close the file and what was opened through it."""
        for source in self._sources.values():
            source.close()
        self._handle.close()

    # ---- events

    def _list_events(self):
        """(names in place of '%' in the path, sizes of the '%' dimensions, number of events) of each expanded path."""
        block = self._blocks[0]
        paths = [()] if "%" not in block.data else self._expanded(block)
        events = []
        for names in paths:
            sizes = None
            for each in self._blocks:
                shape = self._checked_shape(each, names)
                of_this = tuple(size for size, dim in zip(shape, each.dims, strict=True) if dim == "%")
                if sizes is not None and of_this != sizes:
                    raise InputError(
                        f"{self.path}: {_filled(each.data, names)} has {of_this} events, {_filled(block.data, names)} has {sizes}"
                    )
                sizes = of_this
            events.append((names, sizes, int(np.prod(sizes, dtype=np.int64))))
        return events

    def _expanded(self, block):
        """Names that stand for '%' in a dataset path of this file, in the order of the names."""
        found = []

        def descend(group, parts, names):
            if not parts:
                return
            candidates = sorted(group) if parts[0] == "%" else [parts[0]]
            for name in candidates:
                thing = group.get(name)
                chosen = (*names, name) if parts[0] == "%" else names
                if isinstance(thing, h5py.Group):
                    descend(thing, parts[1:], chosen)
                elif isinstance(thing, h5py.Dataset) and len(parts) == 1 and thing.ndim == len(block.dims):
                    found.append(chosen)
                elif thing is None and (missing := missing_link(group, name)):
                    raise InputError(f"{self.path}: {group.name}/{name} is a link to {missing}, which can't be opened")

        descend(self._handle, block.data.strip("/").split("/"), ())
        if not found:
            raise InputError(
                f"{self.path}: no dataset fits {block.data} of the geometry ({len(block.dims)} dimensions); "
                f"the file has {listing(self._handle)}"
            )
        return found

    def _checked_shape(self, block, names):
        """Shape of a block's dataset, after the check that all its panels lie within."""
        dataset = dataset_at(self._handle, _filled(block.data, names), "the frames, as the geometry says")
        where = f"{self.path}: {dataset.name}"
        if dataset.dtype.kind not in "iuf":
            raise InputError(f"{where}: the frames are of type {dataset.dtype}; numbers are expected")
        if dataset.ndim != len(block.dims):
            dims = ", ".join(map(str, block.dims))
            raise InputError(
                f"{where} has {dataset.ndim} dimensions {dataset.shape}, the geometry describes {len(block.dims)} ({dims})"
            )
        rows, columns = (dataset.shape[block.dims.index(dim)] for dim in ("ss", "fs"))
        if block.rows > rows or block.columns > columns:
            raise InputError(
                f"{where}: the frames have {rows} x {columns} pixels (ss x fs), but the geometry needs {block.rows} x {block.columns} "
                f"(panel {block.last_panel}): it belongs to another detector, or ss and fs are swapped"
            )
        for dim, size in zip(block.dims, dataset.shape, strict=True):
            if isinstance(dim, int) and dim >= size:
                raise InputError(
                    f"{where}: the shape is {dataset.shape}, but panel {block.last_panel} has the index {dim}"
                )
        self.frame_shape = (rows, columns)
        self.pixels_in_file = rows * columns * len(self._blocks)
        return dataset.shape

    def _event(self, i):
        """(names in the path, indices along the '%' dimensions) of frame `i`."""
        if i == self._last_event[0]:
            return self._last_event[1]
        within = i
        for names, sizes, count in self._events:
            if within < count:
                # Of the same frame several things are asked one after the other.
                self._last_event = (i, (names, _indices(within, sizes)))
                return self._last_event[1]
            within -= count
        raise IndexError(i)

    def event(self, i):
        """The event's name as CrystFEL writes it: 'name/name//index/index'; '' in a file of one frame."""
        names, indices = self._event(i)
        if not names and not indices:
            return ""
        return "/".join(names) + "//" + "/".join(map(str, indices))

    # ---- pixels

    @property
    def dtype(self):
        """Type of the slab's pixels, in the machine's byte order."""
        names = self._events[0][0] if self._events else ()
        types = [self._handle[_filled(block.data, names)].dtype for block in self._blocks]
        return np.result_type(*types).newbyteorder("=")

    def read(self, i, slab):
        """Read frame `i` into `slab`; pixels of no dataset are left as they are.

        Raises
        ------
        FrameError
            The frame can't be read.
        """
        names, indices = self._event(i)
        for block in self._blocks:
            path = _filled(block.data, names)
            try:
                reader, leading = self._reader(path, block, block.leading(indices))
                reader.read(leading, slab[block.first_row : block.first_row + block.rows, : block.columns])
            except (OSError, RuntimeError, ValueError, KeyError) as error:
                raise FrameError(f"{self.path} {self.event(i)}: {path} can't be read ({_short(error)})") from None
            except InputError as error:
                raise FrameError(str(error)) from None

    def planes(self, i):
        """Where frame `i` lies: a list of `Plane`, or None if the last two dimensions of a dataset are not ss and fs."""
        names, indices = self._event(i)
        found = []
        for block in self._blocks:
            if block.dims[-2:] != ("ss", "fs"):
                return None
            axes = tuple(axis for axis, dim in enumerate(block.dims) if dim == "%")
            where = tuple(int(index) for index in block.leading(indices))
            path, dataset = os.path.abspath(self.path), _filled(block.data, names)
            found.append(Plane(path, dataset, where, axes, block.first_row, block.rows, block.columns))
        return found

    def announce(self, i):
        """Tell the system that frame `i` will be read soon; no more than a hint."""
        names, indices = self._event(i)
        for block in self._blocks:
            # One dataset for each event: opening the next one early would close this one.
            if "%" in block.data:
                return
            with contextlib.suppress(OSError, RuntimeError, ValueError, KeyError, InputError):
                reader, leading = self._reader(_filled(block.data, names), block, block.leading(indices))
                reader.announce(leading)

    def _reader(self, path, block, leading):
        """The reader of a dataset and the indices in it; of a virtual data set, those of the file that has the frame."""
        key = (path, block.dims)
        if key not in self._readers:
            if "%" in block.data:
                self._readers.clear()  # one dataset for each event: keeping them open would add up
            dataset = self._handle[path]
            self._readers[key] = PlaneReader(dataset, block.dims)
            if dataset.is_virtual:
                self._virtual[path] = virtual_pieces(dataset)
        pieces = self._virtual.get(path)
        if not pieces or block.dims[0] != "%":
            return self._readers[key], leading
        for piece in pieces:
            if piece.start <= leading[0] < piece.stop:
                if (piece, block.dims) not in self._readers:
                    source = self._source(piece.file)
                    dataset = dataset_at(source, piece.dataset, f"frames of {path} in {self.path}")
                    self._readers[piece, block.dims] = PlaneReader(dataset, block.dims)
                return self._readers[piece, block.dims], [leading[0] - piece.start + piece.source_start, *leading[1:]]
        raise ValueError("the virtual data set has no source for it")

    def _source(self, path):
        if path not in self._sources:
            self._sources[path] = open_hdf5(path)
        return self._sources[path]

    # ---- masks and values per event

    def has_mask_per_event(self, panel, mask, other=None):
        """True if the mask array (here, or in the file `other`) has an entry for each event."""
        handle = self._handle if other is None else other
        if "%" in mask.data:
            return True
        dataset = dataset_at(handle, mask.data, f"mask of panel {panel.name}, as the geometry says")
        return is_per_event(mask, dataset.shape, panel.dims)

    def and_mask(self, good, panel, mask, i=0, other=None):
        """Set `good` (a slab) to False where a panel's mask array says so, for frame `i`.

        Raises
        ------
        InputError
            The mask is not there or of another shape.
        """
        names, indices = self._event(i)
        handle = self._handle if other is None else other
        path = _filled(mask.data, names)
        key = (handle.filename, path, panel.dims.index("fs"), indices)
        if key not in self._masks:
            # The panels take their parts one after the other: a few arrays at hand spare reading each again and again.
            if len(self._masks) >= _MASKS_KEPT:
                self._masks.clear()
            dataset = dataset_at(handle, path, f"mask of panel {panel.name}, as the geometry says")
            try:
                self._masks[key] = mask_array(dataset, panel.dims, indices)
            except (OSError, RuntimeError, ValueError, IndexError) as error:
                where = f"{handle.filename}: {path}: the mask of {self.event(i) or 'the frame'}"
                raise InputError(f"{where} can't be read ({_short(error)})") from None
        plane = mask_plane(self._masks[key], panel, f"{handle.filename}: {path}")
        good[panel_slice(panel)] &= good_by_bits(plane, mask.good_bits, mask.bad_bits)

    def _check_values(self):
        for path, meaning in ((self._detector.photon_energy, "photon energy"), (self._detector.clen, "camera length")):
            if isinstance(path, str) and "%" not in path:
                dataset_at(self._handle, path, f"{meaning}, as the geometry says")

    def value(self, path, i, meaning):
        """A number of frame `i`: the scalar at `path`, or the entry of the event in an array.

        Raises
        ------
        FrameError
            There is none.
        """
        names, indices = self._event(i)
        path = _filled(path, names)
        if path not in self._values:
            dataset = dataset_or_none(self._handle, path)
            if dataset is None:
                raise FrameError(f"{self.path}: no dataset {path} ({meaning})")
            if names:
                self._values.clear()
            try:
                self._values[path] = np.asarray(dataset[()], dtype=np.float64)
            except (OSError, TypeError, ValueError) as error:
                raise FrameError(
                    f"{self.path}: {path} ({meaning}) can't be read as numbers ({_short(error)})"
                ) from None
        values = self._values[path]
        # As CrystFEL does it: dimensions of size 1 are passed over, the others take the event's indices in turn.
        remaining = iter(indices)
        try:
            return float(values[tuple(0 if size == 1 else next(remaining) for size in values.shape)])
        except (IndexError, StopIteration, RuntimeError):
            raise FrameError(
                f"{self.path}: {path} ({meaning}) has the shape {values.shape} and no entry for {self.event(i) or 'the frame'}"
            ) from None


class _Piece(tuple):
    """A stretch of frames of a virtual data set and where they come from."""

    __slots__ = ()
    start = property(lambda self: self[0])
    stop = property(lambda self: self[1])
    file = property(lambda self: self[2])
    dataset = property(lambda self: self[3])
    source_start = property(lambda self: self[4])


def virtual_pieces(dataset):
    """Where the frames (first dimension) of a virtual data set come from.

    HDF5 gives fill values, not an error, where a source file is missing or broken; so the sources are read directly.

    Parameters
    ----------
    dataset : h5py.Dataset
        Virtual.

    Returns
    -------
    list of _Piece, or None
        None if it is not made of whole frames; then all its source files are there.

    Raises
    ------
    OSError
        It is not made of whole frames and a source file is missing.
    """
    folder = os.path.dirname(dataset.file.filename)
    pieces, whole = [], True
    for source in dataset.virtual_sources():
        path = dataset.file.filename if source.file_name == "." else os.path.join(folder, source.file_name)
        low, high = (np.array(bound) for bound in source.vspace.get_select_bounds())
        n_selected = source.vspace.get_select_npoints()
        covers = n_selected == np.prod(high - low + 1) and (high[1:] - low[1:] + 1 == dataset.shape[1:]).all()
        whole = whole and bool(covers)
        start = 0
        if source.src_space.get_select_type() != h5py.h5s.SEL_ALL:
            source_low, source_high = (np.array(bound) for bound in source.src_space.get_select_bounds())
            start = int(source_low[0])
            same_form = len(source_low) == len(low) and (source_high - source_low == high - low).all()
            whole = whole and bool(same_form) and not source_low[1:].any()
        pieces.append(_Piece((int(low[0]), int(high[0]) + 1, path, source.dset_name, start)))
    if whole:
        return pieces
    for piece in pieces:
        if not h5py.is_hdf5(piece.file):
            raise OSError(f"its source {piece.file} is missing or not HDF5")
    return None


def _indices(number, sizes):
    """Index along each dimension of the entry of this number, the last dimension changing fastest."""
    indices = []
    for size in reversed(sizes):
        number, index = divmod(number, int(size))
        indices.append(index)
    return tuple(reversed(indices))


def _filled(path, names):
    """`path` with the event's names in place of '%', as many as it has."""
    for name in itertools.islice(names, path.count("%")):
        path = path.replace("%", name, 1)
    return path


def _short(error):
    return " ".join(str(error).split()) or type(error).__name__
