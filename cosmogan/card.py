"""What an emulator says of itself: a table of facts and a model card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosmogan.networks.base import count_parameters
from cosmogan.units import format_length

if TYPE_CHECKING:
    from cosmogan.emulator import Emulator


def emulator_facts(emulator: Emulator) -> dict[str, str]:
    """Return what an emulator makes and how it was trained, one line of text per name."""
    meta, training, generator = emulator.metadata, emulator.training, emulator.generator
    h = meta.cosmology.h
    realisations = training.get("realisations", [])
    trained = [f"{training['n_slices_seen']:,} slices seen"] if "n_slices_seen" in training else []
    if realisations:
        trained.append(f"{len(realisations)} realisations ({_ranges(realisations)})")
    if "objective" in training:
        trained.append(f"{training['objective']} objective")
    if training.get("refitted"):
        trained.append("P(k) and pixels refitted to the training slices")
    multiple = generator.side_multiple
    sizes = f"any multiple of {multiple} pixels from {emulator.trained_metadata.n_pixels}" if multiple else "this one"
    facts = {
        "slices": f"{meta.n_pixels} x {meta.n_pixels} pixels of 1 + delta",
        "box size": format_length(meta.box_size, h),
        "thickness": format_length(meta.thickness, h),
        "k range": f"{meta.fundamental:.4g} - {meta.nyquist:.4g} h/Mpc (fundamental - Nyquist)",
        "redshift": f"{meta.redshift:g}",
        "smoothing": f"{meta.smoothing:g} pixels",
        "cosmology": ", ".join(f"{name} {value:g}" for name, value in meta.cosmology.known().items()) or "unknown",
        "other sizes": sizes,
        "generator": f"{type(generator).__name__}, {count_parameters(generator, trainable=False):,} parameters",
        "training": ", ".join(trained) or "unknown",
    }
    if emulator.warning:
        facts["beware"] = emulator.warning
    return facts


def model_card(emulator: Emulator) -> str:
    """Return a model card in Markdown, composed of the emulator's metadata and training record."""
    facts = "\n".join(f"- {name}: {text}" for name, text in emulator_facts(emulator).items())
    recipe = emulator.training.get("recipe", "").strip()
    parts = ["# Emulator of slices of the cosmic web", facts]
    parts += ["How good its slices are is not recorded in it: `cosmogan validate` compares them with simulations."]
    parts += [f"## Recipe of its training\n\n```yaml\n{recipe}\n```"] if recipe else []
    return "\n\n".join(parts) + "\n"


def _ranges(numbers: list[int]) -> str:
    """Return integers as text, neighbours joined.

    Examples
    --------
    >>> _ranges([1, 2, 3, 7])
    '1-3, 7'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
