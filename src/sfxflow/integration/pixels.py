"""The pixels around a reflection: cut out of the frame, and told apart into peak and ring.

A rectangle of a fixed size stands for the disc. Loops over it have no branches and rows of whole vectors, so that the compiler can
take several pixels at once; which of them count is decided by the regions.
"""

import numpy as np
from numba import njit

#: What a pixel is to a reflection: nothing; of its peak; usable and of its ring; of the peak but bad; of the peak but nearer to another.
NOTHING, IN_PEAK, IN_RING, BAD, OF_OTHERS = np.uint8(0), np.uint8(1), np.uint8(2), np.uint8(4), np.uint8(8)

#: Pixels that are handled together.
VECTOR = 8


@njit(cache=True, nogil=True)
def cut_out(data, good, bounds, first_row, first_column, n_rows, n_columns, values, is_good):
    """Pixels of a rectangle, row after row, and whether they are good; those off the panel are not."""
    inside = bounds[0] <= first_row and first_row + n_rows <= bounds[1]
    inside = inside and bounds[2] <= first_column and first_column + n_columns <= bounds[3]
    if inside:
        for row in range(n_rows):
            for column in range(0, n_columns, VECTOR):
                at, to = first_column + column, row * n_columns + column
                pixels, of_mask = data[first_row + row, at : at + VECTOR], good[first_row + row, at : at + VECTOR]
                some_values, some_good = values[to : to + VECTOR], is_good[to : to + VECTOR]
                for i in range(VECTOR):
                    some_values[i] = pixels[i]
                for i in range(VECTOR):
                    some_good[i] = of_mask[i]
        return
    for row in range(n_rows):
        for column in range(n_columns):
            at_row, at_column, to = first_row + row, first_column + column, row * n_columns + column
            on_panel = bounds[0] <= at_row < bounds[1] and bounds[2] <= at_column < bounds[3]
            values[to] = data[at_row, at_column] if on_panel else np.nan
            is_good[to] = good[at_row, at_column] if on_panel else False


@njit(cache=True, nogil=True)
def find_regions(values, is_good, lowest, top, x, column_of, y, row_of, peak2, middle2, outer2, region):
    """What each pixel is to a reflection; `x` and `y` are the first one's, from the reflection."""
    for k in range(region.size):
        squared = (x + column_of[k]) ** 2 + (y + row_of[k]) ** 2
        usable = (values[k] >= lowest) & (values[k] <= top) & is_good[k]
        in_peak = squared <= peak2
        in_ring = (squared >= middle2) & (squared <= outer2) & (squared > peak2) & usable
        of_peak = IN_PEAK if usable else BAD
        region[k] = of_peak if in_peak else (IN_RING if in_ring else NOTHING)


@njit(cache=True, nogil=True)
def give_to_others(region, x, column_of, y, row_of, fs, ss, i, neighbours, inner2):
    """Change the region of pixels in others' peaks: of the peak those that are nearer to the other, of the ring all."""
    for k in range(region.size):
        if region[k] == NOTHING:
            continue
        at_x, at_y = x + column_of[k], y + row_of[k]
        for j in neighbours:
            other = (at_y + (ss[i] - ss[j])) ** 2 + (at_x + (fs[i] - fs[j])) ** 2
            if other > inner2:
                continue
            if region[k] == IN_RING:
                region[k] = NOTHING
                break
            if other < at_x * at_x + at_y * at_y:
                region[k] = OF_OTHERS
                break


@njit(cache=True, nogil=True)
def positions_of(region, wanted, positions):
    """Positions of the pixels of the wanted regions, and their number."""
    n = 0
    for k in range(region.size):
        positions[n] = k
        n += (region[k] & wanted) != 0
    return n


@njit(cache=True, nogil=True)
def touched(data, good, fs, ss, reach):
    """Look once at each row of a reflection's surroundings, so that the memory sends them all while the reflection before is summed.

    Waiting for one row after the other takes a fifth of the whole time. The number that comes back keeps the compiler from leaving it out.
    """
    last = data.shape[1] - 1
    left, right = min(max(int(fs - reach), 0), last), min(max(int(fs + reach), 0), last)
    n = 0
    for row in range(max(int(ss - reach), 0), min(int(ss + reach) + 1, data.shape[0])):
        n += (data[row, left] > 0) + (data[row, right] > 0) + good[row, left]
    return n
