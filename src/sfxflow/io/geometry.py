"""The detector from whatever file describes it: a CrystFEL geometry (.geom) or an NXmx file."""

import h5py

from sfxflow.io.geom import read_geom
from sfxflow.io.nexus import detector_from_nexus


def read_geometry(path):
    """Detector of a CrystFEL geometry file or of an NXmx file; the content decides which.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Detector

    Raises
    ------
    InputError
        The file can't be read or does not describe a detector.
    """
    if h5py.is_hdf5(path):
        return detector_from_nexus(path)
    return read_geom(path)
