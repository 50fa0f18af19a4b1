"""What an emulator says of itself: a table of facts and a model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cosmogan.emulator.shipped import Shipped
from cosmogan.networks.base import count_parameters
from cosmogan.text import ranges
from cosmogan.units import format_length

if TYPE_CHECKING:
    from cosmogan.emulator.emulator import Emulator


def emulator_facts(emulator: Emulator) -> dict[str, str]:
    """Return what an emulator makes and how it was trained, one line of text per name."""
    meta, training, generator = emulator.metadata, emulator.training, emulator.generator
    h = meta.cosmology.h
    realisations = training.get("realisations", [])
    trained = [f"{training['n_slices_seen']:,} slices seen"] if "n_slices_seen" in training else []
    if realisations:
        trained.append(f"{len(realisations)} realisations ({ranges(realisations)})")
    if "objective" in training:
        trained.append(f"{training['objective']} objective")
    if training.get("refitted"):
        trained.append("P(k) and pixels refitted to the training slices")
    if training.get("refitted_power"):
        trained.append("P(k) refitted to the training slices")
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
    """Return a model card in Markdown, composed of the emulator's metadata and training record.

    An emulator that ships was judged, and its record says so: the card then has data, cost, scores, limits and licence.
    """
    facts = "\n".join(f"- {name}: {text}" for name, text in emulator_facts(emulator).items())
    shipped = Shipped.of(emulator.training)
    recipe = emulator.training.get("recipe", "").strip()
    if shipped is None:
        parts = ["# Emulator of slices of the cosmic web", facts]
        parts += ["How good its slices are is not recorded in it: `cosmogan validate` compares them with simulations."]
    else:
        parts = [f"# {shipped.title}", facts, *_judged(shipped)]
    parts += [f"## Recipe of its training\n\n```yaml\n{recipe}\n```"] if recipe else []
    stages = "\n".join(f"- {stage_text(one)}" for one in emulator.training.get("stages", []))
    parts += [f"It had other settings before:\n\n{stages}"] if stages else []
    return "\n\n".join(parts) + "\n"


def stage_text(stage: dict[str, Any]) -> str:
    """Return in words what a training had for settings, where it went on under others.

    Examples
    --------
    >>> stage_text({"until": 8192, "settings": {"model.critic_lr": 0.0002, "model.max_slices": 65536}})
    'until 8,192 slices model.critic_lr: 0.0002, model.max_slices: 65536'
    """
    settings = ", ".join(f"{name}: {'null' if was is None else was}" for name, was in stage["settings"].items())
    return f"until {stage['until']:,} slices {settings}"


def headline(emulator: Emulator) -> str:
    """Return in a line how good an emulator is; empty where its record does not say."""
    shipped = Shipped.of(emulator.training)
    if shipped is None:
        return ""
    scores = [one for one in shipped.scores if one.headline and one.value != "-"]
    numbers = (f"{one.title} {one.value}" + (f" ({one.asked})" if one.asked else "") for one in scores)
    return f"{shipped.judged}; {', '.join(numbers)}"


def _judged(shipped: Shipped) -> list[str]:
    """Return the sections of a card that tell what an emulator was learnt from, cost and is worth."""
    data, scores = shipped.data, shipped.scores
    training, test = data["training"], data["test"]
    chose = f"; {ranges(training.not_learnt)} of them chose the checkpoint only" if training.not_learnt else ""
    learnt = training.learnt
    # Where not all training slices were at hand to score with.
    chose += f", a part of those that it learnt from, {ranges(learnt)}" if learnt else ""
    baselines = list(dict.fromkeys(name for one in scores for name in one.baselines))
    columns = ["", "asked", "this emulator", "simulations", *baselines]
    sections = [
        "## Data\n\n"
        f"- Training: {training.n_slices:,} slices of realisations {ranges(training.realisations)}{chose}.\n"
        f"- Test: {test.n_slices:,} slices of realisations {ranges(test.realisations)}, which neither "
        "trained it nor chose the checkpoint.\n"
        f"- SHA-256 of the slice files: training {training.sha256[:16]}, test {test.sha256[:16]}.",
        "## Cost\n\n" + "\n".join(f"- {text}" for text in shipped.cost),
        f"## Scores\n\n{shipped.judged.capitalize()}; {shipped.mocks}. Bold: misses what is asked. Differences "
        "are abs(mocks / simulation - 1); simulations are what these differ from each other by, baselines what needs "
        "no training.",
    ]
    for against, title in (("training", "the mean of the training slices"), ("test", "test realisations")):
        rows = [columns, ["---"] * len(columns)]
        for one in scores:
            if one.against == against:
                value = f"**{one.value}**" if one.met is False else one.value
                others = (one.baselines.get(name, "-") for name in baselines)
                rows.append([one.title, one.asked, value, one.simulations, *others])
        sections.append(f"Against {title}:\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows))
    if shipped.memorisation:
        sections.append(shipped.memorisation)
    sections.append("## Limits\n\n" + "\n".join(f"- {text}" for text in shipped.limits))
    sections.append(f"## Licence\n\n{shipped.licence}")
    return sections
