"""What the numbers of a field are: decided by the format, by the user, or by the numbers where they leave no doubt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cosmogan.errors import UserError
from data_tools.files.arrays import Field
from data_tools.published.base import PublishedFile, Realisation

# Bytes read at a time when a field is streamed.
_PIECE = 2**25
# A mean over 128^3 or more float32 values of 1 + delta is 1 to some 1e-6; rounding codes and crops lose more.
_MEAN_ROUNDING = 1e-3
# Beyond this, "1 + delta" is not normalised by the mean of what it is the density of.
_MEAN_TOLERANCE = 1e-2
# The matter in a box is that of its cosmology but for what leaves a hydrodynamic simulation's fields.
_EXPECTED_WITHIN = 1.5
# Crops of 8 Mpc/h and more, or many slices, hold the mean of their box within this factor.
_CROP_WITHIN = 3.0
# A matter field has peaks of many times its mean; the logarithm of one has not.
_SMALLEST_CONTRAST = 2.0
# 1 + delta of a float32 delta may end this much below zero.
_BELOW_ZERO = 1e-5
_WAY_OUT = "say what the values are with --quantity counts, density (1 + delta), delta, mass or scaled"
_ALL_WHOLE = 2.0**24
# What masked arrays of NumPy and netCDF write for no value, in float32 and float64.
_FILL_VALUES = {float(kind(fill)) for fill in (1e20, 9.969209968386869e36) for kind in (np.float32, np.float64)}


@dataclass(frozen=True)
class Survey:
    """One look at all values of a field.

    Parameters
    ----------
    mean, deviation, low, high
        Mean, standard deviation, smallest and largest value.
    whole
        Whether all values are whole numbers.
    """

    mean: float
    deviation: float
    low: float
    high: float
    whole: bool


def survey(values: Field, quantity: str | None = None, scale: float | None = None) -> Survey:
    """Look at all values of a field in bounded memory.

    Parameters
    ----------
    values
        The field.
    quantity, scale
        Given, values are looked at after `positive`.

    Raises
    ------
    UserError
        If a value is not finite or the file is damaged.
    """
    total, squares, low, high, whole = 0.0, 0.0, math.inf, -math.inf, True
    for start, piece in pieces(values):
        if piece.dtype.kind == "f" and not np.isfinite(piece).all():
            bad = ~np.isfinite(piece)
            first = start + int(np.argmax(bad.any(axis=(1, 2))))
            raise UserError(
                f"{values.array.name}: {int(bad.sum())} values are NaN or infinite (first in plane {first} of the "
                "realisation); the file is damaged or not what its name says"
            )
        # Beyond 2^24 every float32 is whole, which says nothing.
        exact = piece.dtype.kind in "iu" or float(np.abs(piece).max(initial=0)) < _ALL_WHOLE
        whole = whole and exact and (piece.dtype.kind in "iu" or bool((np.rint(piece) == piece).all()))
        if quantity is not None:
            piece = positive(piece, quantity, scale, values.array.name)
        wide = piece.astype(np.float64, copy=False).ravel()
        with np.errstate(over="ignore"):
            total += float(wide.sum())
            squares += float(wide @ wide)
        low, high = min(low, float(piece.min())), max(high, float(piece.max()))
    if quantity is None and high in _FILL_VALUES:
        raise _filled(values, high)
    size = math.prod(values.shape)
    mean = total / size
    return Survey(mean, math.sqrt(max(squares / size - mean * mean, 0.0)), low, high, whole)


def _filled(values: Field, fill: float) -> UserError:
    """Return the refusal of a field whose largest value stands for no value."""
    places = [(start, piece == piece.dtype.type(fill)) for start, piece in pieces(values)]
    first = next(start + int(np.argmax(mask.any(axis=(1, 2)))) for start, mask in places if mask.any())
    number = sum(int(mask.sum()) for _, mask in places)
    return UserError(
        f"{values.array.name}: {number} values are {fill:.6g} (first in plane {first} of the realisation), which "
        "stands for no value in masked arrays of NumPy and netCDF; a density with holes is no whole box: fill them, or "
        "give a field without"
    )


def pieces(values: Field) -> Iterator[tuple[int, np.ndarray]]:
    """Iterate over ``(first plane, planes)`` of a field."""
    step = max(1, _PIECE // (values.shape[1] * values.shape[2] * values.array.dtype.itemsize))
    for start in range(0, values.shape[0], step):
        yield start, values.read(slice(start, min(start + step, values.shape[0])))


def positive(values: np.ndarray, quantity: str, scale: float | None, name: str) -> np.ndarray:
    """Return values proportional to density.

    Parameters
    ----------
    values
        As in the file.
    quantity
        What they are.
    scale
        The a of s(x) = 2x / (x + a) - 1 (Rodriguez et al. 2018).
    name
        Of the field, for messages.

    Raises
    ------
    UserError
        If a value is outside the range of the quantity.
    """
    if quantity == "delta":
        # Half precision would round 1 + delta to a thousandth.
        values = values + np.ones((), np.result_type(values, np.float32))
    elif quantity == "scaled":
        assert scale is not None
        if values.min() < -1 or values.max() >= 1:
            raise UserError(
                f"{name}: values reach from {values.min():g} to {values.max():g}; scaled values lie in [-1, 1)"
            )
        values = scale * (1 + values.astype(np.float64)) / (1 - values.astype(np.float64))
    if values.min() < -_BELOW_ZERO:
        raise UserError(f"{name}: as {quantity}, values fall to {values.min():g}; expected none below zero; {_WAY_OUT}")
    return np.maximum(values, 0)


def decide(file: PublishedFile, realisation: Realisation, seen: Survey) -> tuple[str, str]:
    """Return what the values of a file are and why, going by one realisation.

    Raises
    ------
    UserError
        If that stays in doubt, or contradicts the values.
    """
    name = realisation.values.array.name
    if file.quantity is not None:
        _require_plausible(file, realisation, seen, file.quantity)
        quantity, why = file.quantity, "as asked" if file.asked else f"as the format {file.format_name} has it"
    else:
        quantity, why = _detect(file, realisation, seen)
    if quantity not in file.quantities:
        raise UserError(
            f"{name}: values are {quantity}, {why}, and files of format {file.format_name} hold "
            f"{' or '.join(file.quantities)}; if this one has such a name by chance, say --format plain"
        )
    expected = realisation.expected_means if quantity == "counts" and not file.asked else ()
    if expected and not any(1 / _CROP_WITHIN < seen.mean / mean < _CROP_WITHIN for mean in expected):
        raise UserError(
            f"{name}: holds {seen.mean:.4g} particles per voxel; expected {expected[0]:g}, as published. If it was "
            "made coarser, or is another's, say --box-size and --mean, or --format plain"
        )
    return quantity, why


def _detect(file: PublishedFile, realisation: Realisation, seen: Survey) -> tuple[str, str]:
    name = realisation.values.array.name
    shown = f"values from {seen.low:.4g} to {seen.high:.4g}, mean {seen.mean:.6g}, deviation {seen.deviation:.6g}"
    if seen.low < -1:
        raise UserError(
            f"{name}: {shown}; neither counts nor a density is below -1. If this is a logarithm, or standardised, undo "
            "that first"
        )
    if seen.low == seen.high:
        raise UserError(f"{name}: holds {seen.low:g} everywhere, which is no density field; {_WAY_OUT}, if it is one")
    if seen.low >= 0:
        if seen.whole and realisation.values.array.packed:
            raise UserError(f"{name}: {shown}, whole numbers but scaled by the file's attributes; {_WAY_OUT}")
        if seen.whole and seen.high <= 1:
            raise UserError(f"{name}: holds zeros and ones only: a mask, or counts of few particles; {_WAY_OUT}")
        dtype = realisation.values.array.dtype
        if seen.whole and dtype.kind in "iu" and dtype.itemsize < 4 and seen.high == np.iinfo(dtype).max:
            raise UserError(
                f"{name}: reaches {seen.high:g}, the largest number of type {dtype}: an image, a mask, or counts cut "
                f"off there; {_WAY_OUT}"
            )
        if seen.whole:
            return "counts", f"detected: whole numbers, {shown}"
        if abs(seen.mean - 1) < _MEAN_ROUNDING:
            return "density", f"detected: {shown}, so 1 + delta"
    # A field divided by its standard deviation has a mean of 0 as well.
    elif abs(seen.mean) < _MEAN_ROUNDING and seen.high > 1 and abs(seen.deviation - 1) > _MEAN_ROUNDING:
        return "delta", f"detected: {shown}, so delta"
    elif file.scale is not None and seen.high < 1:
        return "scaled", f"detected: {shown}, so scaled with a = {file.scale:g}"
    raise UserError(f"{name}: {shown}, which does not tell what they are; {_WAY_OUT}")


def _require_plausible(file: PublishedFile, realisation: Realisation, seen: Survey, quantity: str) -> None:
    name = realisation.values.array.name
    if quantity == "scaled" and file.scale is None:
        raise UserError(f"{name}: scaled values need the a of s(x) = 2x / (x + a) - 1; give it with --scale")
    if quantity == "counts" and not (seen.whole and seen.low >= 0):
        raise UserError(f"{name}: counts are whole numbers >= 0; found values from {seen.low:g} to {seen.high:g}")
    mean = {"density": seen.mean, "delta": 1 + seen.mean}.get(quantity)
    tolerance = _MEAN_TOLERANCE if file.layout == "cubes" and file.periodic else 0.5
    if mean is not None and file.mean is None and abs(mean - 1) > tolerance:
        raise UserError(
            f"{name}: values of mean {seen.mean:.4g} are not {'1 + delta' if quantity == 'density' else 'delta'} "
            "normalised by the mean of the whole box; a density in another unit is --quantity mass"
        )
    if quantity == "mass" and not file.asked:
        _require_mass(name, seen, realisation.expected_means)


def _require_mass(name: str, seen: Survey, expected: tuple[float, ...]) -> None:
    shown = f"{name}: values from {seen.low:.4g} to {seen.high:.4g}, mean {seen.mean:.4g},"
    way_out = "If they are masses all the same, say --quantity mass"
    if seen.low < 0 or seen.high < _SMALLEST_CONTRAST * seen.mean:
        raise UserError(f"{shown} are not those of a mass; was a logarithm taken, or the mean? {way_out}")
    if expected and not any(1 / _EXPECTED_WITHIN < seen.mean / mean < _EXPECTED_WITHIN for mean in expected):
        means = " or ".join(f"{mean:.3g}" for mean in expected)
        raise UserError(
            f"{shown} are not the matter in this box, of mean {means} (by its unit) for the parameters of this "
            f"simulation. Is the table of parameters another's? {way_out}"
        )
