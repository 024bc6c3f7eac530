"""Files of one frame in formats that fabio reads."""

from sfxflow.errors import FrameError, InputError
from sfxflow.io.masks import image_array


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
