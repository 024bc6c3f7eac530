"""A written geometry that is wrong by exactly what was asked for."""

import numpy as np
import pytest

from sfxflow.simulate import frames
from sfxflow.simulate.presets import preset

LARGE = {"panel_rows": 12, "panel_columns": 8, "panel_ss": 32, "panel_fs": 48}


def displacement(panel, other):
    """Shift of a panel's middle in x, y, z (metre), and its turn in the plane (radian)."""
    middles = [np.array(p.origin) + 0.5 * (p.n_fs * np.array(p.fs) + p.n_ss * np.array(p.ss)) for p in (panel, other)]
    angles = [np.arctan2(p.fs[1], p.fs[0]) for p in (panel, other)]
    return middles[1] - middles[0], (angles[1] - angles[0] + np.pi) % (2 * np.pi) - np.pi


def test_without_errors_the_written_geometry_is_the_true_one():
    experiment = preset("demo")
    assert experiment.stated_detector is experiment.detector


def test_the_common_shift_moves_every_panel_and_nothing_else():
    experiment = preset("demo", geometry_shift_x=3.0, geometry_shift_y=-1.5)
    for true, stated in zip(experiment.detector.panels, experiment.stated_detector.panels, strict=True):
        shift, turn = displacement(true, stated)
        np.testing.assert_allclose(shift, (3e-4, -1.5e-4, 0.0), atol=1e-12)
        assert abs(turn) < 1e-12
        np.testing.assert_allclose([stated.fs, stated.ss], [true.fs, true.ss], atol=1e-18)
    assert experiment.stated_detector.clen == experiment.clen


def test_panels_own_errors_have_the_standard_deviation_asked_for_and_mean_zero():
    experiment = preset("demo", **LARGE, geometry_panel_error=0.5, geometry_panel_rotation=1e-3, geometry_shift_x=2.0)
    pairs = zip(experiment.detector.panels, experiment.stated_detector.panels, strict=True)
    shifts, turns = zip(*(displacement(*pair) for pair in pairs), strict=True)
    shifts = np.array(shifts) / experiment.pixel_size
    np.testing.assert_allclose(shifts.mean(axis=0), (2.0, 0.0, 0.0), atol=1e-9)
    assert np.mean(turns) == pytest.approx(0.0, abs=1e-6)
    # 96 panels: a standard deviation is known to 7 %.
    assert (shifts[:, :2] - (2.0, 0.0)).std() == pytest.approx(0.5, rel=0.2)
    assert np.std(turns) == pytest.approx(1e-3, rel=0.3)


def test_panels_keep_their_shape():
    experiment = preset("demo", geometry_panel_rotation=0.02, geometry_panel_error=1.0)
    for true, stated in zip(experiment.detector.panels, experiment.stated_detector.panels, strict=True):
        fs, ss = np.array(stated.fs), np.array(stated.ss)
        assert np.linalg.norm(fs) == pytest.approx(np.linalg.norm(true.fs), rel=1e-12)
        assert abs(fs @ ss) < 1e-12 * (fs @ fs)
        normals = [np.cross(p.fs, p.ss) / np.linalg.norm(np.cross(p.fs, p.ss)) for p in (true, stated)]
        np.testing.assert_allclose(*normals, atol=1e-12)


def test_the_camera_length_is_wrong_by_its_part():
    experiment = preset("demo", geometry_clen_error=0.02)
    assert experiment.stated_detector.clen == pytest.approx(1.02 * experiment.detector.clen, rel=1e-12)


def test_frames_do_not_change():
    small = {"panel_rows": 2, "panel_ss": 64, "panel_fs": 96, "d_min": 5.0, "clen": 0.05}
    right = preset("demo", seed=5, **small)
    wrong = preset("demo", seed=5, geometry_panel_error=2.0, geometry_clen_error=0.01, **small)
    np.testing.assert_array_equal(frames.simulate_frame(right, 1)[0], frames.simulate_frame(wrong, 1)[0])
