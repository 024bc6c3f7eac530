"""Rows of numbers as text in columns of fixed width, as C's printf writes them, at the speed of a compiled program."""

import functools

import numpy as np
from numba import njit

#: Numbers from here on have no decimals that a double could hold; they are refused.
LARGEST = 9e12


def text_rows(integers, values, formats, names, name_of_row, gap):
    """Rows of `%4i %4i ... %10.2f ... name`, separated by blanks, each ended by a line feed.

    Parameters
    ----------
    integers : ndarray of int64, shape (n, a)
        Written with 4 characters each.
    values : ndarray of float64, shape (n, b)
        Below `LARGEST`; NaN is written as nan.
    formats : sequence of (int, int), length b
        Width and decimals of each value.
    names : sequence of str
    name_of_row : ndarray of int, shape (n,)
        Number of the name that ends each row.
    gap : sequence of int, length b + 1
        Blanks before each value and before the name.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        A value is too large.
    """
    letters, lengths = _encoded(tuple(names))
    formats, gap = _as_arrays(tuple(formats), tuple(gap))
    # 16 digits, a sign, a point and what is wider.
    longest = integers.shape[1] * 21 + len(formats) * 18 + formats[:, 0].sum() + gap.sum() + letters.shape[1] + 1
    out = np.empty(len(values) * longest, dtype=np.uint8)
    n = _fill(
        out, np.ascontiguousarray(integers, dtype=np.int64), np.ascontiguousarray(values, dtype=np.float64),
        formats, letters, lengths, np.ascontiguousarray(name_of_row, dtype=np.int64), gap,
    )  # fmt: skip
    if n < 0:
        raise ValueError(f"numbers of {LARGEST:g} and more can't be written")
    return out[:n].tobytes()


@functools.lru_cache(maxsize=8)
def _encoded(names):
    """Names as rows of bytes, and their lengths."""
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    lengths = np.array([len(name) for name in encoded], dtype=np.int64)
    letters = np.zeros((len(encoded), max(lengths, default=0)), dtype=np.uint8)
    for row, name in enumerate(encoded):
        letters[row, : len(name)] = np.frombuffer(name, dtype=np.uint8)
    return letters, lengths


@functools.lru_cache(maxsize=8)
def _as_arrays(formats, gap):
    return np.array(formats, dtype=np.int64).reshape(-1, 2), np.array(gap, dtype=np.int64)


@njit(cache=True)
def _fill(out, integers, values, formats, letters, lengths, name_of_row, gap):
    at = 0
    for row in range(values.shape[0]):
        for column in range(integers.shape[1]):
            at = _blanks(out, at, 1 if column else 0)
            number = integers[row, column]
            at = _number(out, at, number < 0, np.uint64(abs(number)), 4, 0)
        for column in range(values.shape[1]):
            at = _blanks(out, at, gap[column])
            width, decimals = formats[column, 0], formats[column, 1]
            value = values[row, column]
            if np.isnan(value):
                at = _blanks(out, at, width - 3)
                out[at], out[at + 1], out[at + 2] = 110, 97, 110
                at += 3
                continue
            if abs(value) >= LARGEST:
                return -1
            # A float32 times a small power of ten is exact in a double, and rint rounds halves to even as printf does.
            scaled = np.uint64(np.rint(abs(value) * 10.0**decimals))
            at = _number(out, at, np.signbit(value), scaled, width, decimals)
        at = _blanks(out, at, gap[values.shape[1]])
        name = name_of_row[row]
        for letter in range(lengths[name]):
            out[at] = letters[name, letter]
            at += 1
        out[at] = 10
        at += 1
    return at


@njit(cache=True)
def _blanks(out, at, n):
    for _ in range(n):
        out[at] = 32
        at += 1
    return at


@njit(cache=True)
def _number(out, at, is_negative, scaled, width, decimals):
    """`scaled` with a point before its last `decimals` digits, right-aligned in `width` characters."""
    ten = np.uint64(10)
    n_digits, rest = 1, scaled // ten
    while rest > 0:
        n_digits += 1
        rest //= ten
    n_digits = max(n_digits, decimals + 1)
    length = n_digits + (1 if decimals else 0) + (1 if is_negative else 0)
    at = _blanks(out, at, max(width - length, 0))
    if is_negative:
        out[at] = 45
        at += 1
    end = at + n_digits + (1 if decimals else 0)
    place = end - 1
    for digit in range(n_digits):
        if decimals and digit == decimals:
            out[place] = 46
            place -= 1
        out[place] = np.uint8(48) + np.uint8(scaled % ten)
        scaled //= ten
        place -= 1
    return end
