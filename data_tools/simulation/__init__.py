"""Seeds to particles: the COLA run and the command ``cosmogan simulate``."""
