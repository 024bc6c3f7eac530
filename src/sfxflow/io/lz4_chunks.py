"""Decoding of LZ4 chunks, bitshuffled or not, straight into a frame.

Bitshuffle (HDF5's filter 32008; Masui et al. 2015, Astronomy and Computing 12, 181, doi:10.1016/j.ascom.2015.07.002) cuts a chunk into
blocks, gathers the lowest bits of a block's values, then the next bits, and so on, and compresses each block with LZ4. Undoing it through
HDF5 costs several passes over the frame; here a block stays in the processor's first cache between LZ4 and the frame, and the upper
bits, which are zero nearly everywhere in a frame, are passed over.

LZ4 itself is the library's own function, as the `hdf5plugin` package brings it. Where it can't be found, `available` is False.
"""

import ctypes
import os
import sys

import hdf5plugin
import numpy as np
from llvmlite import binding
from numba import njit, types

_SYMBOL = "sfxflow_lz4_decompress_safe"


def _find_lz4():
    """True if LZ4_decompress_safe was found and given to the compiler under the name `_SYMBOL`."""
    if sys.byteorder != "little":
        return False
    filename = hdf5plugin.get_config().registered_filters.get("bshuf", "")
    if not os.path.isfile(filename):
        return False
    try:
        address = ctypes.cast(ctypes.CDLL(filename).LZ4_decompress_safe, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return False
    binding.add_symbol(_SYMBOL, address)
    return True


#: Whether chunks can be decoded here.
available = _find_lz4()

_lz4_decompress = types.ExternalFunction(_SYMBOL, types.int32(types.intp, types.intp, types.int32, types.int32))

#: Masks of the steps that transpose 8 words, seen as 8 x 8 bits in each byte and then as 8 x 8 bytes (Warren, Hacker's Delight, 7-3).
_BITS_1, _BITS_2, _BITS_4 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
_BYTES_1, _BYTES_2, _BYTES_4 = (
    np.uint64(0x00FF00FF00FF00FF),
    np.uint64(0x0000FFFF0000FFFF),
    np.uint64(0x00000000FFFFFFFF),
)
_1, _2, _4, _8, _16, _32 = (np.uint64(1 << i) for i in range(6))
_ZERO = np.uint64(0)


@njit(cache=True, nogil=True, inline="always")
def _swap(first, second, shift, mask):
    """Exchange the bits of `first` above `shift` with those of `second` below, where `mask` says."""
    moved = ((first >> shift) ^ second) & mask
    return first ^ (moved << shift), second ^ moved


@njit(cache=True, nogil=True)
def _values_of_bits(bits, values):
    """Bytes of a block from their bits.

    Parameters
    ----------
    bits : ndarray of uint64, shape (8, n)
        Row i: bits i of 64 n values.
    values : ndarray of uint64, shape (n, 8)
        Gets the values, eight to a word.

    Returns
    -------
    bool
        False if all are zero.
    """
    any_set = False
    for i in range(values.shape[0]):
        a, b, c, d = bits[0, i], bits[1, i], bits[2, i], bits[3, i]
        e, f, g, h = bits[4, i], bits[5, i], bits[6, i], bits[7, i]
        upper = e | f | g | h
        if a | b | c | d | upper == _ZERO:
            for j in range(8):
                values[i, j] = _ZERO
            continue
        any_set = True
        a, b = _swap(a, b, _1, _BITS_1)
        c, d = _swap(c, d, _1, _BITS_1)
        a, c = _swap(a, c, _2, _BITS_2)
        b, d = _swap(b, d, _2, _BITS_2)
        if upper != _ZERO:
            e, f = _swap(e, f, _1, _BITS_1)
            g, h = _swap(g, h, _1, _BITS_1)
            e, g = _swap(e, g, _2, _BITS_2)
            f, h = _swap(f, h, _2, _BITS_2)
        a, e = _swap(a, e, _4, _BITS_4)
        b, f = _swap(b, f, _4, _BITS_4)
        c, g = _swap(c, g, _4, _BITS_4)
        d, h = _swap(d, h, _4, _BITS_4)
        a, b = _swap(a, b, _8, _BYTES_1)
        c, d = _swap(c, d, _8, _BYTES_1)
        e, f = _swap(e, f, _8, _BYTES_1)
        g, h = _swap(g, h, _8, _BYTES_1)
        a, c = _swap(a, c, _16, _BYTES_2)
        b, d = _swap(b, d, _16, _BYTES_2)
        e, g = _swap(e, g, _16, _BYTES_2)
        f, h = _swap(f, h, _16, _BYTES_2)
        a, e = _swap(a, e, _32, _BYTES_4)
        b, f = _swap(b, f, _32, _BYTES_4)
        c, g = _swap(c, g, _32, _BYTES_4)
        d, h = _swap(d, h, _32, _BYTES_4)
        values[i, 0], values[i, 1], values[i, 2], values[i, 3] = a, b, c, d
        values[i, 4], values[i, 5], values[i, 6], values[i, 7] = e, f, g, h
    return any_set


@njit(cache=True, nogil=True)
def _big_endian(raw, at, n_bytes):
    value = np.int64(0)
    for i in range(at, at + n_bytes):
        value = (value << 8) | np.int64(raw[i])
    return value


@njit(cache=True, nogil=True)
def _decode_bitshuffled(raw, out):
    """`decode_bitshuffled`, with False for a chunk that is not well formed."""
    itemsize = out.itemsize
    if raw.size < 12 or _big_endian(raw, 0, 8) != out.size * itemsize:
        return False
    block = _big_endian(raw, 8, 4) // itemsize
    if block < 8 or block % 8 != 0 or block > (1 << 24):
        return False
    # Rows of whole words, for blocks whose number of values is no multiple of 64.
    shuffled = np.empty(block * itemsize, dtype=np.uint8)
    bits = np.zeros((8, (block + 63) // 64), dtype=np.uint64)
    values = np.empty(((block + 63) // 64, 8), dtype=np.uint64)
    at, done = 12, 0
    while out.size - done >= 8:
        n = min(block, out.size - done)
        n -= n % 8
        if at + 4 > raw.size:
            return False
        length = _big_endian(raw, at, 4)
        at += 4
        if length > raw.size - at:
            return False
        size = n * itemsize
        if _lz4_decompress(raw.ctypes.data + at, shuffled.ctypes.data, np.int32(length), np.int32(size)) != size:
            return False
        at += length
        row = n // 8
        n_words = (n + 63) // 64
        part = out[done : done + n]
        for byte in range(itemsize):
            planes = shuffled[8 * byte * row : 8 * (byte + 1) * row]
            if row % 8 == 0:
                any_set = _values_of_bits(planes.view(np.uint64).reshape(8, n_words), values[:n_words])
            else:
                in_bytes = bits.view(np.uint8)
                for bit in range(8):
                    for i in range(row):
                        in_bytes[bit, i] = planes[bit * row + i]
                any_set = _values_of_bits(bits[:, :n_words], values[:n_words])
            in_order = values.reshape(-1).view(np.uint8)
            if byte == 0:
                for i in range(n):
                    part[i] = in_order[i]
            elif any_set:
                shift = np.uint64(8 * byte)
                for i in range(n):
                    part[i] |= np.uint64(in_order[i]) << shift
        done += n
    # Fewer than eight values at the end are neither shuffled nor compressed.
    if raw.size - at != (out.size - done) * itemsize:
        return False
    for i in range(done, out.size):
        value = np.uint64(0)
        for byte in range(itemsize):
            value |= np.uint64(raw[at]) << np.uint64(8 * byte)
            at += 1
        out[i] = value
    return True


@njit(cache=True, nogil=True)
def _decode_plain(raw, out):
    """`decode_plain`, with False for a chunk that is not well formed."""
    if raw.size < 12 or _big_endian(raw, 0, 8) != out.size:
        return False
    block = _big_endian(raw, 8, 4)
    if block < 1 or block > 0x7E000000:
        return False
    at, done = 12, 0
    while done < out.size:
        size = min(block, out.size - done)
        if at + 4 > raw.size:
            return False
        length = _big_endian(raw, at, 4)
        at += 4
        if length > raw.size - at:
            return False
        if length == size:  # not compressible: stored as it is
            out[done : done + size] = raw[at : at + size]
        elif _lz4_decompress(raw.ctypes.data + at, out.ctypes.data + done, np.int32(length), np.int32(size)) != size:
            return False
        at += length
        done += size
    return at == raw.size


def decode_bitshuffled(raw, out):
    """Decode a bitshuffle/LZ4 chunk.

    Parameters
    ----------
    raw : ndarray of uint8
        The chunk as it lies in the file.
    out : ndarray of unsigned integers, shape (n,)
        Gets the values, little-endian; the chunk must hold just so many.

    Raises
    ------
    ValueError
        The chunk is damaged, or holds another number of values.
    """
    if not _decode_bitshuffled(raw, out):
        raise ValueError("a damaged bitshuffle/LZ4 chunk")


def decode_plain(raw, out):
    """Decode a chunk of HDF5's LZ4 filter (number 32004).

    Parameters
    ----------
    raw : ndarray of uint8
        The chunk as it lies in the file.
    out : ndarray of uint8, shape (n,)
        Gets the bytes; the chunk must hold just so many.

    Raises
    ------
    ValueError
        The chunk is damaged, or holds another number of bytes.
    """
    if not _decode_plain(raw, out):
        raise ValueError("a damaged LZ4 chunk")
