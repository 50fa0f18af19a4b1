"""A trained network as people use it: its file and card, and the commands ``export`` and ``generate``."""
