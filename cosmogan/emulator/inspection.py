"""The commands that only look: ``check``, ``info`` and ``emulators``."""

from __future__ import annotations

from pathlib import Path

from cosmogan.errors import UserError
from cosmogan.slices import check_slices, describe_slices, read_provenance
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
    if not problems and (doubt := read_provenance(file).get("not_trustworthy")):
        print(f"{file}: says of itself: {doubt}")
    return 1 if problems else 0


def info(file: str, *, recipe: bool = False, card: bool = False) -> None:
    """Say what a slice file or an emulator holds.

    Parameters
    ----------
    file
        Slice file, emulator file or name of a shipped emulator.
    recipe
        Print the recipe of an emulator's training instead: YAML for `cosmogan fit --config`.
    card
        Print the model card of an emulator instead.

    Raises
    ------
    UserError
        If it is neither, or what is asked for is not there.
    """
    if Path(file).suffix != ".safetensors" and (Path(file).exists() or Path(file).suffix in (".h5", ".hdf5")):
        if recipe or card:
            raise UserError(f"{file}: is not an emulator; --recipe and --card are for emulators")
        print(describe_slices(file))
        return
    from cosmogan.emulator.card import emulator_facts
    from cosmogan.emulator.emulator import Emulator

    emulator = Emulator.load(file)
    if recipe:
        if "recipe" not in emulator.training:
            raise UserError(f"{file}: holds no recipe of its training")
        print(emulator.training["recipe"].strip())
        return
    if card:
        print(emulator.card.strip())
        return
    print(f"{file}: emulator")
    for name, text in emulator_facts(emulator).items():
        print(f"  {name:13s} {text}")
    if "recipe" in emulator.training:
        print("  recipe        with --recipe")


def emulators() -> None:
    """List the emulators that ship with the package: what they make, and how good they are."""
    from cosmogan.emulator.card import headline
    from cosmogan.emulator.emulator import Emulator, find_emulator, shipped_emulators

    names = shipped_emulators()
    if not names:
        print("No emulator ships with this version yet; `cosmogan fit` and `cosmogan export` make one.")
    for name in names:
        emulator = Emulator.load(name)
        meta, size = emulator.metadata, find_emulator(name).stat().st_size
        length = format_length(meta.box_size, meta.cosmology.h)
        print(f"{name}: {meta.n_pixels} x {meta.n_pixels} pixels, {length}, {size / 1e6:.1f} MB")
        if judged := headline(emulator):
            print(f"  {judged}")
    if names:
        print("Their model cards: `cosmogan info NAME --card`.")
