"""Tables of numbers in text, each row ended by a name or not, read at the speed of a compiled program: the inverse of `fixed_columns`."""

import math

import numpy as np
from numba import njit

#: Why the kernel stopped at a row.
_DONE, _NO_ROW, _NEW_NAME = 0, 1, 2
#: A decimal number of fewer digits is a whole number that a double holds, and a power of ten up to 22 is one: their quotient is the nearest double.
_MOST_DIGITS = 15
_HASH, _HASH_BITS = 131, (1 << 40) - 1
_POWERS = 10.0 ** np.arange(23)


class BadRow(ValueError):
    """A row that is none; `offset` is the place of its first byte."""

    def __init__(self, offset):
        super().__init__(offset)
        self.offset = offset


class Names:
    """Names in the order of their numbers; a new one gets the next number.

    Parameters
    ----------
    names : iterable of str
    """

    def __init__(self, names=()):
        self.names = list(names)
        self._update()

    def add(self, name):
        """Add a name that is not there."""
        self.names.append(name)
        self._update()

    def _update(self):
        encoded = [name.encode("utf-8", "surrogateescape") for name in self.names]
        self.lengths = np.array([len(name) for name in encoded], dtype=np.int64)
        self.letters = np.zeros((len(encoded), max(self.lengths, default=0)), dtype=np.uint8)
        # A hash table with open addressing, of a power of two and at most a quarter full: rows of tables go from panel to panel.
        self.slots = np.full(4 << max(len(encoded), 4).bit_length(), -1, dtype=np.int64)
        for row, name in enumerate(encoded):
            self.letters[row, : len(name)] = np.frombuffer(name, dtype=np.uint8)
            number = 0
            for letter in name:
                number = (number * _HASH + letter) & _HASH_BITS
            while self.slots[number & (len(self.slots) - 1)] >= 0:
                number += 1
            self.slots[number & (len(self.slots) - 1)] = row


def read_rows(data, start, stop, n_rows, n_columns, names=None):
    """Rows of numbers.

    Parameters
    ----------
    data : ndarray of uint8
    start, stop : int
        Part of `data` that holds whole lines.
    n_rows : int
        How many.
    n_columns : int
        Numbers in each row. '-' is read as NaN.
    names : Names, optional
        Where each row ends with a name; new names are added.

    Returns
    -------
    values : ndarray of float64, shape (n, n_columns)
        The doubles that are nearest to the decimal numbers.
    number : ndarray of int32, shape (n,)
        Number of each row's name; zeros without names.

    Raises
    ------
    BadRow
        A line has more or fewer columns, or one that is no number.
    """
    values, number = np.empty((n_rows, n_columns)), np.zeros(n_rows, dtype=np.int32)
    known = Names() if names is None else names
    row = 0
    while True:
        row, start, why = _fill(
            data,
            start,
            stop,
            row,
            values,
            number,
            names is not None,
            known.letters,
            known.lengths,
            known.slots,
            _POWERS,
        )
        if why == _DONE:
            return values[:row], number[:row]
        end = start + int(np.argmax(data[start:stop] == 10))
        line = data[start:end].tobytes().decode("utf-8", "surrogateescape")
        if why == _NEW_NAME:
            names.add(line.rstrip(" ").rpartition(" ")[2])
            continue
        _slow_row(line, start, values[row], number, row, names)
        row, start = row + 1, end + 1


def _slow_row(line, start, values, number, row, names):
    """A row with a number that the kernel leaves to Python: one of many digits or with an exponent."""
    words = line.split()
    if len(words) != len(values) + (names is not None):
        raise BadRow(start)
    try:
        values[:] = [math.nan if word == "-" else float(word) for word in words[: len(values)]]
    except ValueError:
        raise BadRow(start) from None
    if names is not None:
        if words[-1] not in names.names:
            names.add(words[-1])
        number[row] = names.names.index(words[-1])


@njit(cache=True)
def _fill(data, at, stop, row, values, number, is_named, letters, lengths, slots, powers):
    """Fill rows from `row` on; returns (rows filled so far, place of the line that was not understood, why)."""
    n_columns = values.shape[1]
    while at < stop:
        line = at
        for column in range(n_columns):
            while data[at] == 32:
                at += 1
            is_negative = data[at] == 45
            if is_negative or data[at] == 43:
                at += 1
            mantissa, n_digits, n_decimals = 0, 0, 0
            while 48 <= data[at] <= 57:
                mantissa = 10 * mantissa + (data[at] - 48)
                n_digits += 1
                at += 1
            if data[at] == 46:
                at += 1
                while 48 <= data[at] <= 57:
                    mantissa = 10 * mantissa + (data[at] - 48)
                    n_digits += 1
                    n_decimals += 1
                    at += 1
            if n_digits == 0 or n_digits > _MOST_DIGITS or not (data[at] == 32 or data[at] == 10):
                return row, line, _NO_ROW
            value = mantissa / powers[n_decimals]
            values[row, column] = -value if is_negative else value
        while data[at] == 32:
            at += 1
        if is_named:
            begin, place = at, 0
            while data[at] > 32:
                place = (place * _HASH + data[at]) & _HASH_BITS
                at += 1
            if at == begin or not (data[at] == 32 or data[at] == 10):
                return row, line, _NO_ROW
            found = -1
            while True:
                candidate = slots[place & (slots.size - 1)]
                if candidate < 0:
                    break
                if lengths[candidate] == at - begin:
                    i = 0
                    while i < at - begin and letters[candidate, i] == data[begin + i]:
                        i += 1
                    if i == at - begin:
                        found = candidate
                        break
                place += 1
            if found < 0:
                end = at
                while data[end] == 32:
                    end += 1
                return row, line, _NEW_NAME if data[end] == 10 else _NO_ROW
            number[row] = found
            while data[at] == 32:
                at += 1
        if data[at] != 10:
            return row, line, _NO_ROW
        at += 1
        row += 1
    return row, stop, _DONE
