"""Indexing ambiguity: the ways to index a lattice whose symmetry is higher than the crystal's, and which of them a crystal got."""

import gemmi
import numpy as np

from sfxflow.simulate.crystals import standard_reciprocal

#: Largest obliquity of a twin law, degree.
_OBLIQUITY = 0.5


def twin_laws(cell, group):
    """Rotations of the lattice that are not the crystal's, one for each way to index it beside the right one.

    Parameters
    ----------
    cell : sequence of 6 floats
    group : gemmi.SpaceGroup

    Returns
    -------
    ndarray, shape (n, 3, 3)
        The identity first, then the inverses of gemmi's twin laws (`gemmi.find_twin_laws`); h' = h @ law. No two of them differ by a rotation
        of the crystal before them, as gemmi's differ by none after them. Elements may be halves or thirds in centred cells; reflections that
        the centring allows still get whole numbers.
    """
    laws = gemmi.find_twin_laws(gemmi.UnitCell(*cell), group, _OBLIQUITY, False)
    return np.linalg.inv([np.eye(3), *(np.array(law.rot) / gemmi.Op.DEN for law in laws)])


def indexed_as(reciprocal, cell, group, laws):
    """Number of the law by which a lattice is indexed if its axes are laid as near to the laboratory's as its symmetry lets them.

    All choices of axes that the lattice's symmetry makes alike are compared, and the one with the smallest rotation from the standard
    setting is taken: a rule that looks at positions only, as an engine does. Crystals that lie at random get each law equally often.

    Parameters
    ----------
    reciprocal : ndarray, shape (3, 3)
        Columns a*, b*, c* of the right indexing.
    cell : sequence of 6 floats
    group : gemmi.SpaceGroup
    laws : ndarray, shape (n, 3, 3)
        From `twin_laws`.

    Returns
    -------
    int
    """
    if len(laws) == 1:
        return 0
    own = np.array([np.array(op.rot) // op.DEN for op in group.operations().sym_ops])
    # Indices h @ own @ law belong to axes with reciprocal @ inverse(transpose(own @ law)).
    changes = np.linalg.inv(np.einsum("pij,tjk->tpki", own, laws))
    turned = np.einsum("ij,tpjk,kl->tpil", reciprocal, changes, np.linalg.inv(standard_reciprocal(cell)))
    nearest = np.argmax(np.trace(turned, axis1=2, axis2=3))
    return int(nearest // len(own))
