"""Fast reading of two-dimensional parts of HDF5 datasets.

HDF5's own gzip and shuffle filters take most of the time that reading a frame costs. Where a dataset has these filters, its chunks
are taken as they are, inflated by the ISA-L library and unshuffled straight into the frame; any other layout, and anything
unexpected, goes through h5py.
"""

import itertools
import zlib

import h5py
import numpy as np
from numba import njit

try:
    from isal import isal_zlib
except ImportError:  # no wheel for this platform: slower, the same result
    isal_zlib = zlib

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


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
        self._shuffled = bool(dataset.shuffle)
        self._fast = _is_plain_gzip(dataset) and (self._axis_ss, self._axis_fs) == (dataset.ndim - 2, dataset.ndim - 1)
        self._inflated = (None, None)

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
        if self._fast and out.dtype == self.dtype:
            try:
                self._read_chunks(tuple(leading), out)
                return
            except (OSError, RuntimeError, ValueError, zlib.error, isal_zlib.error):
                pass  # a chunk that was never written, or a corrupt one: h5py knows the difference
        self._read_h5py(leading, out)

    def _read_h5py(self, leading, out):
        where = [slice(None)] * self.dataset.ndim
        for axis, index in zip(self._leading, leading, strict=True):
            where[axis] = index
        where[self._axis_ss] = slice(0, out.shape[0])
        where[self._axis_fs] = slice(0, out.shape[1])
        plane = self.dataset[tuple(where)]
        out[...] = plane if self._axis_ss < self._axis_fs else plane.T

    def _read_chunks(self, leading, out):
        *chunk_leading, chunk_rows, chunk_columns = self.dataset.chunks
        corner = tuple(i // c * c for i, c in zip(leading, chunk_leading, strict=True))
        within = 0
        for i, c in zip(leading, chunk_leading, strict=True):
            within = within * c + i % c
        for row, column in itertools.product(range(0, out.shape[0], chunk_rows), range(0, out.shape[1], chunk_columns)):
            chunk = self._chunk((*corner, row, column))
            part = out[row : row + chunk_rows, column : column + chunk_columns]
            if self._shuffled and self.dtype.itemsize > 1:
                unshuffle_plane(chunk, within, chunk_rows, chunk_columns, part.view(_UNSIGNED[self.dtype.itemsize]))
            else:
                planes = chunk.view(self.dtype).reshape(-1, chunk_rows, chunk_columns)
                part[...] = planes[within, : part.shape[0], : part.shape[1]]

    def _chunk(self, offset):
        """The inflated bytes of a chunk; the last one is kept, for chunks that hold several planes."""
        if self._inflated[0] == offset:
            return self._inflated[1]
        skipped_filters, compressed = self.dataset.id.read_direct_chunk(offset)
        if skipped_filters:
            raise ValueError("a chunk without some of the dataset's filters")
        size = int(np.prod(self.dataset.chunks)) * self.dtype.itemsize
        inflated = np.frombuffer(isal_zlib.decompress(compressed, 15, size), dtype=np.uint8)
        if inflated.size != size:
            raise ValueError("a chunk of the wrong size")
        if np.prod(self.dataset.chunks[:-2]) > 1:
            self._inflated = (offset, inflated)
        return inflated


def _is_plain_gzip(dataset):
    """True if the dataset's chunks are compressed with gzip, after shuffle or not, and with nothing else."""
    if dataset.chunks is None or dataset.is_virtual or dataset.dtype.kind not in "iuf":
        return False
    if dataset.dtype.itemsize not in _UNSIGNED or not dataset.dtype.isnative:
        return False
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    return filters in ([h5py.h5z.FILTER_DEFLATE], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE])


@njit(cache=True)
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
