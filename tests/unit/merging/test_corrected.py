"""Observations for an unmerged file: the merger's own model, evaluated the plain way."""

import numpy as np
import pytest

from sfxflow.merging.corrected import excitation_in_widths, on_curve, scale_used
from sfxflow.merging.partiality import first_curve


def test_scale_used_undoes_the_model():
    polarisation, scale, b, q = np.array([0.8, 1.0]), np.array([2.0, 0.5]), np.array([10.0, -4.0]), np.array([0.2, 0.5])
    observed = 100.0 * polarisation * scale * np.exp(-2 * b * (q / 2) ** 2)
    np.testing.assert_allclose(observed * scale_used(polarisation, scale, b, q), 100.0)


def test_curve_of_a_gaussian():
    curve = first_curve("gaussian", 0.25, 3.5).arrays()
    x = np.array([0.0, 0.5, -1.0, 2.03, 3.49, 3.7, -20.0])
    found = on_curve(x, np.array([0.01, 0.1, 0.2, 0.3, 0.4, 0.49, 0.6]), curve)
    np.testing.assert_allclose(found[:5], np.exp(-(x[:5] ** 2) / 2), atol=1e-3)
    assert found[5:].tolist() == [0.0, 0.0]


def test_curve_changes_with_resolution():
    curve = first_curve("gaussian", 0.25, 3.5).arrays()
    curve["partiality"] = curve["partiality"] * np.linspace(1.0, 2.0, len(curve["q"]))[:, None]
    found = on_curve(np.zeros(len(curve["q"])), curve["q"], curve)
    np.testing.assert_allclose(found, np.linspace(1.0, 2.0, len(found)))


def excitation(q, wavelength):
    """1/lambda - |q + z/lambda|."""
    return 1 / wavelength - np.linalg.norm(q + [0, 0, 1 / wavelength])


@pytest.mark.parametrize(
    ("rotation", "energy"), [((2e-4, 0.0), 0.0), ((0.0, -3e-4), 0.0), ((0.0, 0.0), 5e-4), ((1e-4, 2e-4), -2e-4)]
)
def test_refined_excitation_error_is_that_of_the_turned_lattice_at_the_changed_energy(rotation, energy):
    """The model is linear and holds on the Ewald sphere: to second order in the changes."""
    wavelength = 1.3
    for theta, phi in [(0.1, 0.3), (0.3, 2.0), (0.2, -2.5)]:
        q_length = 2 * np.sin(theta) / wavelength
        q = q_length * np.array([np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), -np.sin(theta)])
        assert abs(excitation(q, wavelength)) < 1e-9
        turned = q + np.cross([*rotation, 0.0], q)
        expected = excitation(turned, wavelength / (1 - energy))
        found = excitation_in_widths(
            np.zeros(1), q[None], np.array([q_length]), wavelength, 1.0, 1.0, np.array([rotation]), np.array([energy])
        )
        assert found[0] == pytest.approx(expected, abs=3e-7)
        assert abs(expected) > 1e-6
