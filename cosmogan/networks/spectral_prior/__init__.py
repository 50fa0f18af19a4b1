"""The spectral prior: a U-Net that corrects a Gaussian field of the right power spectrum.

The class is named here because recipes and emulator files hold its path as
``cosmogan.networks.spectral_prior.SpectralPriorGenerator``.
"""

from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator

__all__ = ["SpectralPriorGenerator"]
