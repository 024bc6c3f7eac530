"""Peak files: every frame's peaks in the CXI layout that Cheetah began and CrystFEL reads, and the frame account.

Under entry_1/result_1 lie nPeaks (n) and, padded to the same width, peakXPosRaw, peakYPosRaw, ... (n, m). CXI counts positions from
the centre of the first pixel; sfxflow from its corner: half a pixel is taken off here and added again on reading.
"""

import numpy as np

from sfxflow.io.hdf5 import raise_if_full
from sfxflow.io.table import ChunkWriter
from sfxflow.peaks import PEAK

#: Group of the peaks.
PEAK_GROUP = "entry_1/result_1"
#: CXI name of each field of a peak, with its type in the file.
_NAMES = {
    "fs": ("peakXPosRaw", "f4"),
    "ss": ("peakYPosRaw", "f4"),
    "intensity": ("peakTotalIntensity", "f4"),
    "snr": ("peakSNR", "f4"),
    "n_pixels": ("peakNPixels", "i4"),
    "maximum": ("peakMaximumValue", "f4"),
    "panel": ("peakPanel", "i4"),
    "background": ("peakBackground", "f4"),
    "saturated": ("peakSaturated", "u1"),
}
_HALF_PIXEL = {"fs", "ss"}


class PeakWriter:
    """Appends frames with their peaks to an open HDF5 file.

    Parameters
    ----------
    handle : h5py.File
    provenance : str
        JSON text.
    """

    def __init__(self, handle, provenance):
        self._handle = handle
        self._frames = ChunkWriter(handle, provenance, ["frames"])
        group = handle.create_group(PEAK_GROUP)
        self._count = group.create_dataset("nPeaks", (0,), "i4", maxshape=(None,), chunks=(4096,))
        self._columns = {
            field: group.create_dataset(name, (0, 1), dtype, maxshape=(None, None), chunks=(64, 64))
            for field, (name, dtype) in _NAMES.items()
        }

    def append(self, frames, peaks):
        """Append frames.

        Parameters
        ----------
        frames : dict
            Columns of `sfxflow.reflections.FRAMES`.
        peaks : list of ndarray of `sfxflow.peaks.PEAK`
            One array a frame.
        """
        if not peaks:
            return
        start = self._frames.n_rows("frames")
        stop = start + len(peaks)
        counts = np.array([len(p) for p in peaks])
        width = max(int(counts.max()), self._columns["fs"].shape[1])
        self._frames.append("frames", frames)
        self._count.resize(stop, axis=0)
        self._count[start:] = counts
        for field, dataset in self._columns.items():
            padded = np.zeros((len(peaks), width), dtype=dataset.dtype)
            for row, found in enumerate(peaks):
                padded[row, : len(found)] = found[field] - (0.5 if field in _HALF_PIXEL else 0)
            dataset.resize((stop, width))
            dataset[start:] = padded
        raise_if_full(self._handle)


def read_peaks(handle, start=0, stop=None, fields=PEAK.names):
    """Peaks of the frames start to stop.

    Parameters
    ----------
    handle : h5py.File
        Peak file.
    start, stop : int
    fields : sequence of str
        Those of `sfxflow.peaks.PEAK` that are wanted.

    Returns
    -------
    list of ndarray of `sfxflow.peaks.PEAK`, with these fields
    """
    group = handle[PEAK_GROUP]
    counts = group["nPeaks"][start:stop]
    width = int(counts.max()) if len(counts) else 0
    columns = {field: group[_NAMES[field][0]][start:stop, :width] for field in fields}
    dtype = np.dtype([(field, PEAK[field]) for field in fields])
    frames = []
    for row, count in enumerate(counts):
        found = np.empty(count, dtype)
        for field, values in columns.items():
            found[field] = values[row, :count] + (0.5 if field in _HALF_PIXEL else 0)
        frames.append(found)
    return frames
