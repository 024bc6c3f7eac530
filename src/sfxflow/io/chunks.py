"""Fast reading of two-dimensional parts of HDF5 datasets.

HDF5's own filters take most of the time that reading a frame costs. Where a dataset is compressed with gzip, LZ4 or bitshuffle/LZ4, its
chunks are taken as they are and decoded in this process, bitshuffled ones straight into the frame; any other layout, and anything
unexpected, goes through h5py.
"""

import itertools
import math
import os
import zlib

import h5py
import numpy as np
from numba import njit

from sfxflow.io import lz4_chunks

try:
    from isal import isal_zlib
except ImportError:  # no wheel for this platform: slower, the same result
    isal_zlib = zlib

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

#: A plane of more chunks than this is not announced.
_MOST_ANNOUNCED = 64

#: Numbers of HDF5's filters, and bitshuffle's number for LZ4.
_GZIP, _SHUFFLE, _LZ4, _BITSHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, 32004, 32008
_BITSHUFFLE_LZ4 = 2


class PlaneReader:
    """Reads planes (ss, fs) of a dataset.

    Parameters
    ----------
    dataset : h5py.Dataset
    dims : tuple
        As `Panel.dims`.
    """

    def __init__(self, dataset, dims):
        self.dataset = dataset
        self.dtype = dataset.dtype.newbyteorder("=")
        self._axis_ss, self._axis_fs = dims.index("ss"), dims.index("fs")
        self._leading = [axis for axis in range(len(dims)) if axis not in (self._axis_ss, self._axis_fs)]
        rows_last = (self._axis_ss, self._axis_fs) == (dataset.ndim - 2, dataset.ndim - 1)
        self._filters = _direct_filters(dataset) if rows_last else None
        # h5py asks the library for these each time.
        self._shape, self._chunks, self._virtual = dataset.shape, dataset.chunks, dataset.is_virtual
        self._chunk_values = math.prod(self._chunks) if self._chunks else 0
        self._planes_of_chunk = math.prod(self._chunks[:-2]) if self._chunks else 0
        self._decoded = (None, None)
        self._descriptor = None

    def read(self, leading, out):
        """Read the plane at indices `leading` of the other dimensions into `out`, from its first row and column on.

        Parameters
        ----------
        leading : sequence of int
        out : ndarray, shape (ss, fs)
            Not larger than the plane.

        Raises
        ------
        OSError
            HDF5 can't read or decompress it.
        """
        if self._filters and out.dtype == self.dtype:
            try:
                self._read_chunks(tuple(leading), out)
                return
            except (OSError, RuntimeError, ValueError, zlib.error, isal_zlib.error):
                pass  # a chunk that was never written, or a corrupt one: h5py knows the difference
        self._read_h5py(leading, out)

    def announce(self, leading):
        """Tell the system that a plane will be read soon, so that it comes from the disk while something else is computed.

        Only a hint: where the system, the file's driver or the layout does not allow it nothing happens.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        try:
            for offset, size in self._extents(tuple(leading)):
                if self._descriptor is None:
                    self._descriptor = h5py.h5i.get_file_id(self.dataset.id).get_vfd_handle()
                os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_WILLNEED)
        except (OSError, RuntimeError, ValueError, TypeError):
            # RuntimeError also stands for what a file's driver can't do.
            pass

    def _extents(self, leading):
        """(offset, size) in the file of what a plane's pixels are in."""
        shape, chunks = self._shape, self._chunks
        if (self._axis_ss, self._axis_fs) != (len(shape) - 2, len(shape) - 1) or self._virtual:
            return []
        if chunks is None:
            start = self.dataset.id.get_offset()
            plane = shape[-2] * shape[-1] * self.dataset.dtype.itemsize
            number = int(np.ravel_multi_index(leading, shape[:-2])) if leading else 0
            return [] if start is None else [(start + number * plane, plane)]
        if math.ceil(shape[-2] / chunks[-2]) * math.ceil(shape[-1] / chunks[-1]) > _MOST_ANNOUNCED:
            return []
        corner = tuple(i // c * c for i, c in zip(leading, chunks, strict=False))
        places = itertools.product(range(0, shape[-2], chunks[-2]), range(0, shape[-1], chunks[-1]))
        stored = (self.dataset.id.get_chunk_info_by_coord((*corner, *place)) for place in places)
        return [(chunk.byte_offset, chunk.size) for chunk in stored if chunk.byte_offset is not None]

    def _read_h5py(self, leading, out):
        where = [slice(None)] * self.dataset.ndim
        for axis, index in zip(self._leading, leading, strict=True):
            where[axis] = index
        where[self._axis_ss] = slice(0, out.shape[0])
        where[self._axis_fs] = slice(0, out.shape[1])
        if self._axis_ss < self._axis_fs and out.dtype == self.dtype and out.flags.c_contiguous and out.size:
            self.dataset.read_direct(out, tuple(where))
            return
        plane = self.dataset[tuple(where)]
        out[...] = plane if self._axis_ss < self._axis_fs else plane.T

    def _read_chunks(self, leading, out):
        *chunk_leading, chunk_rows, chunk_columns = self._chunks
        corner = tuple(i // c * c for i, c in zip(leading, chunk_leading, strict=True))
        within = 0
        for i, c in zip(leading, chunk_leading, strict=True):
            within = within * c + i % c
        for row, column in itertools.product(range(0, out.shape[0], chunk_rows), range(0, out.shape[1], chunk_columns)):
            part = out[row : row + chunk_rows, column : column + chunk_columns]
            offset = (*corner, row, column)
            if self._filters == (_BITSHUFFLE,) and part.flags.c_contiguous and part.size == self._chunk_values:
                values = part.reshape(-1).view(_UNSIGNED[self.dtype.itemsize])
                lz4_chunks.decode_bitshuffled(self._raw_chunk(offset), values)
                continue
            chunk = self._chunk(offset)
            if _SHUFFLE in self._filters and self.dtype.itemsize > 1:
                unshuffle_plane(chunk, within, chunk_rows, chunk_columns, part.view(_UNSIGNED[self.dtype.itemsize]))
            else:
                planes = chunk.view(self.dtype).reshape(-1, chunk_rows, chunk_columns)
                part[...] = planes[within, : part.shape[0], : part.shape[1]]

    def _raw_chunk(self, offset):
        """The bytes of a chunk as they lie in the file."""
        skipped_filters, raw = self.dataset.id.read_direct_chunk(offset)
        if skipped_filters:
            raise ValueError("a chunk without some of the dataset's filters")
        return np.frombuffer(raw, dtype=np.uint8)

    def _chunk(self, offset):
        """The decompressed bytes of a chunk; the last one is kept, for chunks that hold several planes."""
        if self._decoded[0] == offset:
            return self._decoded[1]
        raw = self._raw_chunk(offset)
        size = self._chunk_values * self.dtype.itemsize
        if _GZIP in self._filters:
            decoded = np.frombuffer(isal_zlib.decompress(raw, 15, size), dtype=np.uint8)
            if decoded.size != size:
                raise ValueError("a chunk of the wrong size")
        else:
            decoded = np.empty(size, dtype=np.uint8)
            if _BITSHUFFLE in self._filters:
                lz4_chunks.decode_bitshuffled(raw, decoded.view(_UNSIGNED[self.dtype.itemsize]))
            else:
                lz4_chunks.decode_plain(raw, decoded)
        if self._planes_of_chunk > 1:
            self._decoded = (offset, decoded)
        return decoded


def _direct_filters(dataset):
    """Numbers of the dataset's filters if its chunks can be decoded here, else None."""
    if dataset.chunks is None or dataset.is_virtual or dataset.dtype.kind not in "iuf":
        return None
    if dataset.dtype.itemsize not in _UNSIGNED or not dataset.dtype.isnative:
        return None
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    numbers = tuple(number for number, *_ in filters)
    if numbers in ((_GZIP,), (_SHUFFLE, _GZIP)):
        return numbers
    if not lz4_chunks.available:
        return None
    if numbers in ((_LZ4,), (_SHUFFLE, _LZ4)):
        return numbers
    if numbers == (_BITSHUFFLE,):
        # (version, version, bytes of a value, values of a block, compression)
        values = filters[0][2]
        if len(values) > 4 and values[2] == dataset.dtype.itemsize and values[4] == _BITSHUFFLE_LZ4:
            return numbers
    return None


@njit(cache=True, nogil=True)
def unshuffle_plane(raw, plane, rows, columns, out):
    """Undo HDF5's shuffle filter for one plane of a chunk, cropped to `out`.

    Parameters
    ----------
    raw : ndarray of uint8
        The chunk: the first bytes of all its values, then the second bytes, and so on.
    plane : int
        Number of the plane (rows x columns) in the chunk.
    rows, columns : int
        Of the chunk.
    out : ndarray of unsigned integers, shape (<= rows, <= columns)
        Gets the values.
    """
    itemsize = out.itemsize
    n = raw.size // itemsize
    for row in range(out.shape[0]):
        start = (plane * rows + row) * columns
        line = out[row]
        if itemsize == 2:
            low = raw[start : start + out.shape[1]]
            high = raw[n + start : n + start + out.shape[1]]
            for i in range(line.size):
                line[i] = np.uint16(low[i]) | (np.uint16(high[i]) << 8)
        elif itemsize == 4:
            b0 = raw[start : start + out.shape[1]]
            b1 = raw[n + start : n + start + out.shape[1]]
            b2 = raw[2 * n + start : 2 * n + start + out.shape[1]]
            b3 = raw[3 * n + start : 3 * n + start + out.shape[1]]
            for i in range(line.size):
                line[i] = (
                    np.uint32(b0[i])
                    | (np.uint32(b1[i]) << np.uint32(8))
                    | (np.uint32(b2[i]) << np.uint32(16))
                    | (np.uint32(b3[i]) << np.uint32(24))
                )
        else:
            for i in range(line.size):
                value = np.uint64(0)
                for byte in range(itemsize):
                    value |= np.uint64(raw[byte * n + start + i]) << np.uint64(8 * byte)
                line[i] = value
