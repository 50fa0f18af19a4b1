"""Pixel value to network value and back, one file per map; fitted on training slices only.

The classes are named here because recipes and emulator files hold their paths as ``cosmogan.transforms.NAME``.
"""

from cosmogan.transforms.base import AbstractTransform
from cosmogan.transforms.gaussianising import GaussianisingTransform
from cosmogan.transforms.logarithm import LogTransform
from cosmogan.transforms.rodriguez2018 import Rodriguez2018Transform
from cosmogan.transforms.tables import interpolate, thin

__all__ = [
    "AbstractTransform",
    "GaussianisingTransform",
    "LogTransform",
    "Rodriguez2018Transform",
    "interpolate",
    "thin",
]
