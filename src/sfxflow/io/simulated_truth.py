"""What made simulated frames: the table of the frames, and the crystals' intensities."""

import numpy as np

from sfxflow.io.files import written_whole
from sfxflow.io.hkl import write_hkl
from sfxflow.point_group import is_centric, point_group_name
from sfxflow.symmetry import rotations

_COLUMNS = (
    "frame",
    "file",
    "event",
    "kind",
    "photon_energy_eV",
    "background",
    "n_lattices",
    "lattice",
    "scale",
    "B",
    "R0",
    "mosaicity",
    *(f"{axis}star_{component}" for axis in "abc" for component in "xyz"),
    "form",
    "mode",
    "state",
    "laser_on",
    "delay_ps",
    "rings",
    "shift_x",
    "shift_y",
    "clen",
)
_NOTES = {
    "background": "mean photons per pixel",
    "scale": "G: photons of a full reflection for one squared electron",
    "B": "square angstrom: intensities fall by exp(-B / (2 d^2))",
    "R0": "1/angstrom",
    "mosaicity": "radian",
    "astar_x ... cstar_z": "reciprocal axes in the laboratory, 1/angstrom",
    "form": "1: of the second crystal form",
    "mode": "twin law by which the lattice is indexed if its axes are laid as near to the laboratory's as it can be; 0: none",
    "state": "1: the crystal is in the state that the laser makes",
    "shift_x, shift_y": "of the pattern by the beam's drift, pixel",
    "clen": "camera length, metre",
}


def truth_rows(truth, file, event, pixel_size):
    """Rows of the table of the frames: one a lattice; a blank has one, its lattice 'none'.

    Parameters
    ----------
    truth : sfxflow.simulate.crystals.FrameTruth
    file, event : str
    pixel_size : float
        Metre.

    Returns
    -------
    list of list of str
    """
    frame = [
        str(truth.index),
        file,
        event,
        truth.kind,
        f"{truth.photon_energy:.4f}",
        f"{truth.background:.5f}",
        str(len(truth.lattices)),
    ]
    more = [
        str(truth.state),
        str(int(truth.laser_on)),
        f"{truth.delay:.6g}",
        truth.rings.kind if truth.rings else "none",
        *(f"{value / pixel_size:.6g}" for value in truth.shift),
        f"{truth.clen:.8g}",
    ]
    if not truth.lattices:
        return [[*frame, "none", *["nan"] * (len(_COLUMNS) - len(frame) - len(more) - 1), *more]]
    return [
        [
            *frame,
            str(number),
            f"{lattice.scale:.6e}",
            f"{lattice.b_factor:.4f}",
            f"{lattice.profile_radius:.6e}",
            f"{lattice.mosaicity:.6e}",
            *(f"{value:.10e}" for value in lattice.reciprocal.T.ravel()),
            str(lattice.form),
            str(lattice.mode),
            *more,
        ]
        for number, lattice in enumerate(truth.lattices)
    ]


def write_truth_table(path, rows, provenance):
    """Write the table of the frames, `rows` from `truth_rows`."""
    with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as handle:
        handle.write(f"# {provenance}\n")
        handle.write("".join(f"# {name}: {meaning}\n" for name, meaning in _NOTES.items()))
        handle.write("\t".join(_COLUMNS) + "\n")
        handle.writelines("\t".join(row) + "\n" for row in rows)


def write_truth_list(path, factors, group, provenance):
    """Write squared structure factors, unique in the Laue group, as a reflection list.

    Parameters
    ----------
    path : path
    factors : sfxflow.simulate.structure.StructureFactors
    group : gemmi.SpaceGroup
    provenance : str
    """
    note = "F squared of the simulated crystal, electron^2"
    _write_list(path, point_group_name(group), factors.unique, factors.unique_intensity, (note, provenance))


def write_anomalous_truth(path, factors, group, provenance):
    """The same with Friedel mates apart; a centric reflection is its own mate and stands once."""
    pair = ~is_centric(factors.unique, rotations(group, friedel=False))
    hkl = np.concatenate([factors.unique, -factors.unique[pair]])
    intensity = np.concatenate([factors.plus, factors.minus[pair]])
    note = "F squared of the simulated crystal, Friedel mates apart, electron^2"
    _write_list(path, point_group_name(group, friedel=False), hkl, intensity, (note, provenance))


def _write_list(path, symmetry, hkl, intensity, notes):
    n = len(hkl)
    write_hkl(path, symmetry, hkl, intensity, np.zeros(n), np.ones(n, dtype=int), notes)
