"""Frames that other people simulated and measured: a check of the defaults, which were not chosen on them."""

import gzip

import h5py
import numpy as np
import pytest
from scipy.spatial import cKDTree

from sfxflow.geometry import panel_arrays
from sfxflow.io.geom import read_geom
from sfxflow.io.masks import geometry_mask
from sfxflow.peaks import estimate_gain, find_peaks, prepare
from sfxflow.settings import Peaks

COUNTS = (0, np.inf)


def recorded_peaks(path):
    """(file, event) to fs, ss, intensity of the peaks in a stream."""
    frames, rows = {}, None
    with gzip.open(path, "rt") as lines:
        for line in lines:
            if line.startswith("Image filename:"):
                file = line.split("/")[-1].strip()
            elif line.startswith("Event:"):
                event = int(line.split("//")[1])
                frames[file, event] = np.zeros((0, 3))
            elif line.startswith("Peaks from peak search"):
                next(lines)
                rows = []
            elif line.startswith("End of peak list"):
                frames[file, event] = np.array(rows, dtype=float).reshape(-1, 3)
                rows = None
            elif rows is not None:
                fs, ss, _, intensity, _ = line.split()
                rows.append((fs, ss, intensity))
    return frames


@pytest.fixture(scope="module")
def simulated(shared_data):
    folder = shared_data / "data" / "crystfel_sim"
    if not (folder / "det.geom").exists():
        pytest.skip("no shared/data/crystfel_sim beside the checkout")
    detector = read_geom(folder / "det.geom")
    with h5py.File(folder / "mask.h5") as handle:
        good = geometry_mask(detector) & (handle["mask"][:] == 0)
    kinds = {}
    for line in (folder / "truth_frames.tsv").read_text().splitlines()[1:]:
        file, event, kind = line.split("\t")[:3]
        kinds[file, int(event[2:])] = kind
    return folder, prepare(panel_arrays(detector), good, detector.clen), kinds


def frames_of(folder):
    for path in sorted(folder.glob("run1_*.h5")):
        with h5py.File(path) as handle:
            for event, frame in enumerate(handle["entry/data/data"]):
                yield (path.name, event), frame


def test_hits_and_blanks_of_another_simulator(simulated):
    folder, prepared, kinds = simulated
    wrong, n_on_blanks = [], []
    for name, frame in frames_of(folder):
        n = len(find_peaks(frame, prepared, Peaks(), COUNTS))
        if (n >= Peaks().min_peaks) != (kinds[name] == "hit"):
            wrong.append((name, kinds[name], n))
        if kinds[name] == "blank":
            n_on_blanks.append(n)
    assert not wrong
    assert len(n_on_blanks) == 50
    assert max(n_on_blanks) <= 2


def test_peaks_are_those_of_crystfel(simulated, shared_data):
    folder, prepared, kinds = simulated
    stream = shared_data / "reference" / "crystfel" / "asdf.stream.gz"
    if not stream.exists():
        pytest.skip("no shared/reference/crystfel beside the checkout")
    recorded = recorded_peaks(stream)
    assert recorded.keys() == kinds.keys()
    settings = Peaks(threshold=4.0, min_snr=4.0, min_pix_count=2, max_pix_count=60, local_bg_radius=4)
    n_recorded = n_found = n_same = n_agreed = 0
    distances, ratios = [], []
    for name, frame in frames_of(folder):
        found, theirs = find_peaks(frame, prepared, settings, COUNTS, gain=1.0), recorded[name]
        n_recorded, n_found = n_recorded + len(theirs), n_found + len(found)
        n_agreed += (len(found) >= 15) == (len(theirs) >= 15)
        if len(found) and len(theirs):
            distance, nearest = cKDTree(np.c_[found["fs"], found["ss"]]).query(theirs[:, :2])
            same = distance < 1.0
            n_same += same.sum()
            distances.extend(distance[same])
            ratios.extend(found["intensity"][nearest[same]] / theirs[same, 2])
    assert n_recorded > 16000
    assert n_same >= 0.998 * n_recorded
    assert n_found <= 1.002 * n_recorded
    assert n_agreed == len(kinds)
    assert np.median(distances) < 0.01
    assert np.median(ratios) == pytest.approx(1.0, abs=0.01)


def test_hits_and_blanks_of_a_real_detector(shared_data):
    folder = shared_data / "data" / "thaumatin_i24"
    if not (folder / "thaumatin_i24.h5").exists():
        pytest.skip("no shared/data/thaumatin_i24 beside the checkout")
    detector = read_geom(folder / "thaumatin_i24.geom")
    with h5py.File(folder / "thaumatin_i24.h5") as handle:
        good = geometry_mask(detector) & (handle["entry/data/mask"][:] == 0)
        frames = handle["entry/data/data"][:]
    prepared = prepare(panel_arrays(detector), good, detector.clen)
    for gain in (None, 1.0):
        n_peaks = [len(find_peaks(frame, prepared, Peaks(), COUNTS, gain=gain)) for frame in frames]
        assert min(n_peaks[:7]) > 200
        assert 30 <= n_peaks[7] <= 100
        assert max(n_peaks[8:]) <= 2
    gains = [estimate_gain(frame, prepared, COUNTS) for frame in frames]
    assert np.abs(np.array(gains) - 1.0).max() < 0.1
