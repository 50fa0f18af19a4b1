"""Particles to slices: slabs, mass assignment and the command ``cosmogan slice``."""
