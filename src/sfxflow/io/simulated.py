"""Files of a simulated experiment: frames as CXI or NXmx, and the truth."""

import contextlib
import errno
import os
import re
import shutil
import threading
import zlib
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from sfxflow.cell import Cell
from sfxflow.errors import InputError
from sfxflow.io.cell_file import lattice_of, write_cell
from sfxflow.io.files import provenance_json, written_whole
from sfxflow.io.geom_writer import write_geom
from sfxflow.io.simulated_truth import truth_rows, write_anomalous_truth, write_truth_list, write_truth_table
from sfxflow.simulate.detector import DATA_PATH, ENERGY_PATH, MASK_PATH
from sfxflow.simulate.geometry_errors import has_errors
from sfxflow.units import wavelength

FORMATS = ("cxi", "nxmx", "nxmx_links")
COMPRESSIONS = ("gzip", "bitshuffle", "none")
#: Left on the disk for what HDF5 and the text files need beside the frames.
_SPARE_BYTES = 2**20


class SimulatedFiles:
    """Writes the files of a simulated experiment into a folder; used as a context, it removes what it wrote if that fails.

    Parameters
    ----------
    folder : path-like
    experiment : sfxflow.simulate.experiment.Experiment
    n_frames : int
    layout : str
        One of `FORMATS`: CXI; NXmx, the master a virtual data set; NXmx, the master with a link to each data file.
    compression : str
        One of `COMPRESSIONS`.
    frames_per_file : int
    settings : dict
        For the provenance.

    Raises
    ------
    InputError
        The folder can't be made, or holds frames that this experiment would leave standing beside its own; errors of the geometry in
        another layout than CXI.
    """

    def __init__(
        self, folder, experiment, n_frames, layout="cxi", compression="gzip", frames_per_file=1000, settings=None
    ):
        self.folder = Path(folder)
        self.experiment = experiment
        self.n_frames = n_frames
        self.layout = layout
        self.compression = compression
        self.frames_per_file = frames_per_file
        self.provenance = provenance_json(settings)
        n_files = -(-n_frames // frames_per_file)
        if layout == "cxi":
            self._data_names = [f"frames_{number:02d}.h5" for number in range(n_files)]
        else:
            self._data_names = [f"data_{number + 1:06d}.h5" for number in range(n_files)]
        self._written, self._truth, self._laser = [], [], []
        if layout != "cxi" and has_errors(experiment):
            raise InputError(f"--format {layout}: a wrong geometry (geometry_...) is written beside CXI frames only")
        self._make_folder()

    def _make_folder(self):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"--output {self.folder}: is a file, or lies below one; a folder is expected") from None
        except OSError as error:
            raise InputError(f"--output {self.folder}: the folder can't be made ({error.strerror})") from None
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise InputError(f"--output {self.folder}: no permission to write into this folder")
        own = {*self._data_names, "frames_master.h5"}
        others = [
            path.name
            for path in sorted(self.folder.iterdir())
            if re.fullmatch(r"frames_\d+\.h5|frames_master\.h5|data_\d{6}\.h5", path.name) and path.name not in own
        ]
        if others:
            raise InputError(
                f"--output {self.folder}: holds {others[0]} of another simulation, which would stay beside this one;"
                " remove it or choose another folder"
            )

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is not None:
            for path in self._written:
                with contextlib.suppress(OSError):
                    path.unlink()

    def encoded(self, image):
        """The bytes of a frame's HDF5 chunk. gzip is made here, because HDF5 itself works on one frame at a time only."""
        image = image.astype(image.dtype.newbyteorder("<"), copy=False)
        if self.compression == "none":
            return image.tobytes()
        if self.compression == "gzip":
            shuffled = image.view(np.uint8).reshape(-1, image.dtype.itemsize).T
            return zlib.compress(np.ascontiguousarray(shuffled), 1)
        with h5py.File(f"encoded by {threading.get_ident()}", "w", driver="core", backing_store=False) as memory:
            data = memory.create_dataset("data", data=image, chunks=image.shape, **hdf5plugin.Bitshuffle())
            memory.flush()
            return data.id.read_direct_chunk((0, 0))[1]

    def write(self, frames):
        """Write everything.

        Parameters
        ----------
        frames : iterable of (bytes, FrameTruth)
            In order; frames as `encoded` gives them.
        """
        frames = iter(frames)
        energies = []
        for number, name in enumerate(self._data_names):
            first = number * self.frames_per_file
            n = min(self.frames_per_file, self.n_frames - first)
            with self._file(name) as handle:
                energies.append(self._write_frames(handle, name, frames, first, n))
                if self.layout == "cxi":
                    self._write_cxi(handle, energies[-1])
                    self._write_laser(handle["entry_1"], first, n)
        if self.layout != "cxi":
            with self._file("frames_master.h5") as handle:
                self._write_master(handle, np.concatenate(energies))
                self._write_laser(handle["entry"], 0, self.n_frames)
        self._write_texts()

    @contextlib.contextmanager
    def _file(self, name):
        """An HDF5 file, written whole."""
        path = self.folder / name
        try:
            with written_whole(path) as temporary, h5py.File(temporary, "w", libver=("v110", "v110")) as handle:
                handle.attrs["provenance"] = self.provenance
                yield handle
        except RuntimeError as error:
            # HDF5, closing a file that could not be written: the system's error stands in its message only.
            number = re.search(r"errno = (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        self._written.append(path)

    def _check_space(self, n_bytes):
        """HDF5 can't always close a file when a disk is full; so it is not let run into that."""
        if shutil.disk_usage(self.folder).free < n_bytes + _SPARE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def _write_frames(self, handle, name, frames, first, n):
        """Frames `first` to `first + n`; returns their photon energies."""
        shape = self.experiment.detector.shape
        path = DATA_PATH if self.layout == "cxi" else "/entry/data/data"
        filters = {
            "gzip": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
            "bitshuffle": hdf5plugin.Bitshuffle(),
            "none": {},
        }[self.compression]
        data = handle.create_dataset(
            path, (n, *shape), _little_endian(self.experiment.dtype), chunks=(1, *shape), **filters
        )
        data.attrs["units"] = f"{self.experiment.adu_per_photon:g} per photon"
        master = name if self.layout == "cxi" else "frames_master.h5"
        energies = np.empty(n)
        for i in range(n):
            frame, truth = next(frames)
            self._check_space(len(frame))
            data.id.write_direct_chunk((i, 0, 0), frame)
            energies[i] = truth.photon_energy
            self._laser.append((truth.laser_on, truth.delay))
            event = i if self.layout == "cxi" else first + i
            self._truth += truth_rows(truth, master, f"//{event}", self.experiment.pixel_size)
        return energies

    def _write_cxi(self, handle, energies):
        handle["cxi_version"] = 150
        handle[DATA_PATH].attrs["axes"] = "experiment_identifier:y:x"
        handle.create_dataset(MASK_PATH, data=self._mask().astype(np.uint8), compression="gzip", shuffle=True)
        handle[MASK_PATH].attrs["meaning"] = "1 is a bad pixel"
        handle[ENERGY_PATH] = energies
        handle[ENERGY_PATH].attrs["units"] = "eV"
        source = handle[ENERGY_PATH].parent
        source["energy"] = energies * 1.602176634e-19
        source["energy"].attrs["units"] = "J"
        detector = handle.create_group("/entry_1/instrument_1/detector_1")
        detector["distance"] = self.experiment.stated_detector.clen
        detector["distance"].attrs["units"] = "m"
        for axis in "xy":
            detector[f"{axis}_pixel_size"] = self.experiment.pixel_size
            detector[f"{axis}_pixel_size"].attrs["units"] = "m"
        detector["data"] = h5py.SoftLink(DATA_PATH)
        detector["mask"] = h5py.SoftLink(MASK_PATH)

    def _write_laser(self, entry, first, n):
        """A value per frame, as a facility writes it."""
        if not self.experiment.laser_fraction:
            return
        is_on, delay = zip(*self._laser[first : first + n], strict=True)
        entry["laser_on"] = np.array(is_on, dtype=np.uint8)
        entry["laser_on"].attrs["meaning"] = "1: the laser was on"
        _quantity(entry, "laser_delay", np.array(delay), "ps")

    def _mask(self):
        return self.experiment.bad_pixels_map.known

    def _write_master(self, handle, energies):
        experiment = self.experiment
        entry = _group(handle, "entry", "NXentry")
        entry["definition"] = "NXmx"
        entry["definition"].attrs["version"] = "1.0"
        entry["start_time"] = datetime.now(UTC).isoformat(timespec="seconds")
        entry["title"] = f"simulated {experiment.name}"
        handle.attrs["default"] = "entry"
        self._link_frames(_group(entry, "data", "NXdata"))
        _group(entry, "source", "NXsource")["name"] = "simulated X-ray source"
        sample = _group(entry, "sample", "NXsample")
        sample["name"] = experiment.name
        sample["depends_on"] = "."
        instrument = _group(entry, "instrument", "NXinstrument")
        instrument["name"] = "sfxflow simulate"
        beam = _group(instrument, "beam", "NXbeam")
        _quantity(beam, "incident_wavelength", wavelength(energies), "angstrom")
        full_width = experiment.detector.bandwidth * wavelength(experiment.photon_energy)
        _quantity(beam, "incident_wavelength_spread", full_width, "angstrom")
        sample["beam"] = h5py.SoftLink("/entry/instrument/beam")
        self._write_detector(_group(instrument, "detector", "NXdetector"))

    def _link_frames(self, group):
        experiment = self.experiment
        shape = (self.n_frames, *experiment.detector.shape)
        group.attrs["signal"] = "data" if self.layout == "nxmx" else "data_000001"
        sizes = [min(self.frames_per_file, self.n_frames - i) for i in range(0, self.n_frames, self.frames_per_file)]
        if self.layout == "nxmx_links":
            for name in self._data_names:
                group[name.removesuffix(".h5")] = h5py.ExternalLink(name, "/entry/data/data")
            return
        layout = h5py.VirtualLayout(shape, experiment.dtype)
        first = 0
        for name, n in zip(self._data_names, sizes, strict=True):
            layout[first : first + n] = h5py.VirtualSource(name, "/entry/data/data", (n, *shape[1:]), experiment.dtype)
            first += n
        group.create_virtual_dataset("data", layout)

    def _write_detector(self, group):
        experiment = self.experiment
        detector = experiment.stated_detector
        for axis in "xy":
            _quantity(group, f"{axis}_pixel_size", experiment.pixel_size, "m")
        _quantity(group, "distance", detector.clen, "m")
        _quantity(group, "sensor_thickness", 4.5e-4, "m")
        group["sensor_material"] = "Si"
        group["description"] = "simulated pixel detector"
        group["saturation_value"] = _rounded_up(experiment.saturation * experiment.adu_per_photon, experiment.dtype)
        if experiment.bad_pixels == "negative":
            group["underload_value"] = 0
        group.create_dataset("pixel_mask", data=self._mask().astype(np.uint32), compression="gzip", shuffle=True)
        group["depends_on"] = f"{group.name}/transformations/camera_length"
        transformations = _group(group, "transformations", "NXtransformations")
        length = _quantity(transformations, "camera_length", detector.clen, "m")
        length.attrs.update(transformation_type="translation", vector=(0.0, 0.0, 1.0), depends_on=".")
        for number, panel in enumerate(detector.panels):
            module = _group(group, f"module_{number:02d}", "NXdetector_module")
            module["data_origin"] = np.array([panel.min_ss, panel.min_fs])
            module["data_size"] = np.array([panel.n_ss, panel.n_fs])
            offset = _quantity(module, "module_offset", float(np.linalg.norm(panel.origin)), "m")
            offset.attrs.update(
                transformation_type="translation",
                vector=np.array(panel.origin) / np.linalg.norm(panel.origin),
                depends_on=length.name,
            )
            for name, step in (("fast_pixel_direction", panel.fs), ("slow_pixel_direction", panel.ss)):
                direction = _quantity(module, name, float(np.linalg.norm(step)), "m")
                direction.attrs.update(
                    transformation_type="translation",
                    vector=np.array(step) / np.linalg.norm(step),
                    offset=(0.0, 0.0, 0.0),
                    offset_units="m",
                    depends_on=offset.name,
                )

    def _write_texts(self):
        """Geometry, cell and truth; the table of the frames last: where it is, everything is."""
        experiment = self.experiment
        if self.layout == "cxi":
            self._text("detector.geom", lambda path: write_geom(path, experiment.stated_detector, self.provenance))
        else:
            (self.folder / "detector.geom").unlink(missing_ok=True)
        lasered, anomalous = experiment.laser_fraction, experiment.heavy_atoms
        optional = {
            "true.geom": self._write_true_geom if has_errors(experiment) else None,
            f"{experiment.name}_second.cell": partial(self._write_cell, 1) if experiment.second_fraction else None,
            "truth_on.hkl": self._list_writer(write_truth_list, 1, 0) if lasered else None,
            "truth_second.hkl": self._list_writer(write_truth_list, 0, 1) if experiment.second_fraction else None,
            "truth_anomalous.hkl": self._list_writer(write_anomalous_truth, 0, 0) if anomalous else None,
            "truth_on_anomalous.hkl": (
                self._list_writer(write_anomalous_truth, 1, 0) if lasered and anomalous else None
            ),
        }
        self._text(f"{experiment.name}.cell", partial(self._write_cell, 0))
        self._text("truth.hkl", self._list_writer(write_truth_list, 0, 0))
        for name, write in optional.items():
            if write is None:
                (self.folder / name).unlink(missing_ok=True)
            else:
                self._text(name, write)
        self._text("truth.tsv", lambda path: write_truth_table(path, self._truth, self.provenance))

    def _write_true_geom(self, path):
        write_geom(path, self.experiment.detector, self.provenance)

    def _write_cell(self, form, path):
        parameters, group = self.experiment.forms[form]
        write_cell(path, Cell(*parameters, *lattice_of(group)), self.provenance)

    def _list_writer(self, write, state, form):
        """A function of a path that writes the intensities of a crystal form in a state."""
        factors, group = self.experiment.factors_of(state, form), self.experiment.forms[form][1]
        return lambda path: write(path, factors, group, self.provenance)

    def _text(self, name, write):
        write(self.folder / name)
        self._written.append(self.folder / name)


def _little_endian(dtype):
    return np.dtype(dtype).newbyteorder("<")


def _group(parent, name, nx_class):
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _quantity(group, name, value, unit):
    group[name] = value
    group[name].attrs["units"] = unit
    return group[name]


def _rounded_up(value, dtype):
    return float(value) if dtype == "float32" else int(np.ceil(value))
