"""Indexing ambiguity: which of several ways to index each crystal agrees with the other crystals.

Where the lattice has more symmetry than the crystal, the positions of the peaks do not tell which of several indexings is right; only the
intensities do. `operators` finds the ways, `observations` makes columns of the engines' tables, `spectral` and `likelihood` compare the
crystals with each other, `reference` with known intensities, and `resolve` runs all of it.
"""
