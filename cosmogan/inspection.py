"""The commands that only look: ``check``, ``info`` and ``emulators``."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from cosmogan.errors import UserError
from cosmogan.slices import check_slices, describe_slices
from cosmogan.units import format_length


def check(file: str) -> int:
    """Look for errors in a slice file, reading all of it.

    Parameters
    ----------
    file
        Slice file.

    Returns
    -------
        0 for a good file, 1 for a bad one.

    Raises
    ------
    UserError
        If there is no such file, or it is an emulator.
    """
    if not Path(file).exists():
        raise UserError(f"{file}: no such file")
    if Path(file).suffix == ".safetensors":
        raise UserError(f"{file}: is an emulator; `check` reads slice files, `cosmogan info` describes emulators")
    problems = check_slices(file)
    print("\n".join(problems) if problems else f"{file}: a valid slice file")
    return 1 if problems else 0


def info(file: str) -> None:
    """Say what a slice file or an emulator holds.

    Parameters
    ----------
    file
        Slice file, emulator file or name of a shipped emulator.

    Raises
    ------
    UserError
        If it is neither.
    """
    if Path(file).suffix != ".safetensors" and (Path(file).exists() or Path(file).suffix in (".h5", ".hdf5")):
        print(describe_slices(file))
        return
    from cosmogan.emulator import Emulator
    from cosmogan.networks.base import count_parameters

    emulator = Emulator.load(file)
    meta = emulator.metadata
    h = meta.cosmology.h
    emulator.generator.requires_grad_(True)
    print(f"{file}: emulator of {meta.n_pixels} x {meta.n_pixels} slices")
    print(f"  box size      {format_length(meta.box_size, h)}, slices {format_length(meta.thickness, h)} thick")
    print(f"  pixels        1 + delta at redshift {meta.redshift:g}, smoothed by {meta.smoothing:g} pixels")
    print(f"  generator     {type(emulator.generator).__name__}, {count_parameters(emulator.generator):,} parameters")
    recipe = emulator.training.get("recipe", "")
    rest = {name: value for name, value in emulator.training.items() if name != "recipe"}
    print(f"  training      {json.dumps(rest)}")
    if recipe:
        print("  recipe\n" + textwrap.indent(recipe.strip(), "    "))


def emulators() -> None:
    """List the emulators that ship with the package."""
    from cosmogan.emulator import Emulator, shipped_emulators

    names = shipped_emulators()
    if not names:
        print("No emulator ships with this version yet; `cosmogan fit` and `cosmogan export` make one.")
    for name in names:
        meta = Emulator.load(name).metadata
        print(f"{name}: {meta.n_pixels} x {meta.n_pixels}, {format_length(meta.box_size, meta.cosmology.h)}")
