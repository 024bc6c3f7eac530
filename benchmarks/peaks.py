"""Time of the peak search and of the ring integration against a plain sum over the frame.

    python benchmarks/peaks.py

CPU milliseconds, the least of many repetitions, one core, on simulated frames that stay in the processor's cache as far as they fit.
"""

import time

import numpy as np
from numba import njit
from table import Row, main

from sfxflow.geometry import PanelArrays
from sfxflow.integration.rings import integrate_rings
from sfxflow.peaks import prepare, search_peaks
from sfxflow.settings import Peaks

PIXEL = 75e-6
FRAMES = (((2162, 2068), "uint16"), ((2162, 2068), "int32"), ((2162, 2068), "float32"), ((4096, 512), "int16"))


@njit(cache=True)
def plain_sum(values):
    """Sum in a loop that the compiler makes as fast as memory."""
    total = 0
    for i in range(values.size):
        total += values[i]
    return total


@njit(cache=True, fastmath=True)
def plain_sum_of_reals(values):
    """The same for floating point without NaN."""
    total = np.float32(0)
    for i in range(values.size):
        total += values[i]
    return total


def milliseconds(call, repetitions=40):
    """Least CPU time of `call`, which is called once before."""
    call()
    times = []
    for _ in range(repetitions):
        start = time.process_time_ns()
        call()
        times.append(time.process_time_ns() - start)
    return min(times) / 1e6


def simulate(shape, dtype, n_spots, rng):
    """Frame, good pixels and PanelArrays of a detector with gaps that fills the slab."""
    arrays = PanelArrays(
        np.array([[0, shape[0], 0, shape[1]]], dtype=np.int32),
        np.array([[-shape[1] / 2 * PIXEL, -shape[0] / 2 * PIXEL, 0.0]]),
        np.array([[PIXEL, 0.0, 0.0]]),
        np.array([[0.0, PIXEL, 0.0]]),
    )
    good = np.ones(shape, dtype=bool)
    for row in range(512, shape[0] - 38, 550):
        good[row : row + 38] = False
    ss, fs = np.indices(shape, dtype=np.float32) + 0.5
    radius = np.hypot(fs - shape[1] / 2, ss - shape[0] / 2)
    frame = rng.poisson(2 * np.exp(-radius / 600) + 0.5 * np.exp(-(((radius - 600) / 100) ** 2)))
    row, column = np.indices((9, 9)) + 0.5
    for _ in range(n_spots):
        y, x = (rng.uniform(6, n - 6) for n in shape)
        i, j = int(y) - 4, int(x) - 4
        height = rng.lognormal(4.0, 1.0)
        frame[i : i + 9, j : j + 9] += rng.poisson(height * np.exp(-((row + i - y) ** 2 + (column + j - x) ** 2)))
    dtype = np.dtype(dtype)
    frame = frame.astype(dtype)
    frame[~good] = {"u": np.iinfo(np.uint16).max, "i": -1, "f": np.nan}[dtype.kind]
    return frame, good, arrays


def measure():
    """Peak search on blanks and on frames with 300 spots; ring integration."""
    rng = np.random.default_rng(1)
    rows = []
    for shape, dtype in FRAMES:
        times, counts = [], []
        for n_spots in (0, 300):
            frame, good, arrays = simulate(shape, dtype, n_spots, rng)
            prepared = prepare(arrays, good, 0.1)
            arguments = (frame, prepared, Peaks(), (0, 65000))
            times.append(milliseconds(lambda a=arguments: search_peaks(*a, gain=1.0)))
            counts.append(len(search_peaks(*arguments, gain=1.0)))
        values = np.nan_to_num(frame).ravel()
        floor = milliseconds(lambda v=values: (plain_sum_of_reals if v.dtype.kind == "f" else plain_sum)(v))
        numpy_floor = milliseconds(values.sum)
        name = f"{shape[0] * shape[1] / 1e6:.1f} Mpx {dtype}"
        rows.append(Row(f"{name}: a blank", "", times[0], "ms CPU"))
        rows.append(Row(f"{name}: 300 spots", "", times[1], "ms CPU", None, f"{counts[1]} peaks"))
        reach = 4 if dtype == "uint16" else None
        rows.append(
            Row(
                f"{name}: a blank over a plain sum",
                f"<= {reach}" if reach else "",
                times[0] / floor,
                "",
                times[0] / floor <= reach if reach else None,
                f"the sum takes {floor:.2f} ms; numpy's sum {numpy_floor:.2f} ms",
            )
        )
    frame, good, arrays = simulate((4096, 512), "int16", 0, rng)
    for n in (250, 500):
        fs, ss = rng.uniform(8, 504, n), rng.uniform(8, 4088, n)
        panel = np.zeros(n, dtype=np.int64)
        arguments = (frame, good, (0, np.inf), arrays.bounds, fs, ss, panel, (3.0, 4.0, 6.0), 1.0)
        took = milliseconds(lambda a=arguments: integrate_rings(*a))
        rows.append(Row(f"ring integration of {n} reflections", "", took, "ms CPU"))
    return rows


if __name__ == "__main__":
    main(measure)
