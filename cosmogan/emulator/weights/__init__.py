"""Weights that ship with the package, one model card each."""
