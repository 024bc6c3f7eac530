"""A geometry that is wrong in a known way: what an experiment writes, while the truth stays with the simulation."""

from dataclasses import replace

import numpy as np

#: Settings of an Experiment that make its written geometry differ from the true one.
ERRORS = (
    "geometry_shift_x",
    "geometry_shift_y",
    "geometry_clen_error",
    "geometry_panel_error",
    "geometry_panel_rotation",
)


def has_errors(settings):
    """Whether the written geometry differs from the true one."""
    return any(getattr(settings, name) != 0.0 for name in ERRORS)


def stated_detector(detector, settings, rng):
    """The detector as the geometry file states it.

    Parameters
    ----------
    detector : sfxflow.geometry.Detector
        The true one; its camera length must be a number.
    settings : Experiment
        Its section 'geometry'.
    rng : numpy.random.Generator

    Returns
    -------
    sfxflow.geometry.Detector
        Every panel is moved by the common shift and by one of its own, and turned in its plane about its middle. The panels' own shifts
        and rotations have mean zero, so that the common shift is the whole error of the beam's position.
    """
    if not has_errors(settings):
        return detector
    n = len(detector.panels)
    own = settings.geometry_panel_error * _centred(rng.standard_normal((n, 2)))
    turns = settings.geometry_panel_rotation * _centred(rng.standard_normal(n))
    shifts = (own + (settings.geometry_shift_x, settings.geometry_shift_y)) * settings.pixel_size
    panels = tuple(_moved(*each) for each in zip(detector.panels, shifts, turns, strict=True))
    return replace(detector, panels=panels, clen=detector.clen * (1.0 + settings.geometry_clen_error))


def _centred(values):
    return values - values.mean(axis=0)


def _moved(panel, shift, angle):
    """`panel` turned by `angle` about the normal through its middle, and moved by `shift` (x, y, metre)."""
    origin, fs, ss = (np.array(vector) for vector in (panel.origin, panel.fs, panel.ss))
    normal = np.cross(fs, ss)
    normal *= np.sign(normal[2]) / np.linalg.norm(normal)
    half = 0.5 * (panel.n_fs * fs + panel.n_ss * ss)
    turned_fs, turned_ss, turned_half = (_turned(vector, normal, angle) for vector in (fs, ss, half))
    origin = origin + half - turned_half + (*shift, 0.0)
    return replace(panel, origin=tuple(origin), fs=tuple(turned_fs), ss=tuple(turned_ss))


def _turned(vector, axis, angle):
    """Rodrigues' rotation of a vector that is perpendicular to the unit vector `axis`."""
    return np.cos(angle) * vector + np.sin(angle) * np.cross(axis, vector)
