"""Slices to a trained network: the command ``cosmogan fit``, its step, data, callbacks and run folder."""
