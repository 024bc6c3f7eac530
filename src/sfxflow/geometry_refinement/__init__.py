"""Refinement of the detector's geometry against the lattices of many frames, and the search for gross errors of it."""
