"""What an emulator says of itself: a table of facts and a model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cosmogan.emulator.shipped import Shipped
from cosmogan.networks.base import count_parameters
from cosmogan.statistics.power_spectrum import TRUSTED_NYQUIST_FRACTION
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
    if emulator.boxes is not None:
        facts["start"] = f"{emulator.provenance['start']}; {emulator.boxes.per_box} slices of a box"
    if emulator.warning:
        facts["beware"] = emulator.warning
    return facts


def model_card(emulator: Emulator) -> str:
    """Return a model card in Markdown, composed of the emulator's metadata and training record.

    All cards have the same headings in the same order. An emulator that ships was judged, and its record says so: the
    card then has scores and licence, and says what of its slices to trust.
    """
    facts, shipped = emulator_facts(emulator), Shipped.of(emulator.training)
    name = shipped.name if shipped else emulator.file.name if emulator.file else "emulator.safetensors"
    made = [f"- {key}: {text}" for key, text in facts.items() if key not in ("generator", "training", "beware")]
    trained = [f"- {facts['generator']}; {facts['training']}."]
    stages = "; ".join(stage_text(one) for one in emulator.training.get("stages", []))
    trained += [f"- Other settings before: {stages}."] if stages else []
    sections = {
        "What it makes": "\n".join(made),
        "How to use it": f"`cosmogan generate {name} -n 1000 --out mocks.h5`, or in Python "
        f'`cosmogan.Emulator.load("{name}").sample(1000)`.',
    }
    if shipped is None:
        sections["When to trust it"] = (
            "How good its slices are is not recorded in it: `cosmogan validate` compares them with simulations."
        )
        limit = "At another box, cosmology or redshift than those above."
        sections["When not to trust it"] = facts.get("beware", limit)
    else:
        # What simulations cost is on the scoreboard.
        cost = [text for text in shipped.cost if not text.startswith("Simulations: ")]
        trained += [*_judged_by(shipped), *(f"- {text}" for text in cost)]
        sections |= _trust(emulator, shipped)
    trained += [f"- Its recipe: `cosmogan info {name} --recipe`."] if "recipe" in emulator.training else []
    sections["How it was trained"] = "\n".join(trained)
    if shipped is not None:
        sections |= {"Scores": _scores(shipped), "Licence": shipped.licence}
    title = shipped.title if shipped else "Emulator of slices of the cosmic web"
    return "\n\n".join([f"# {title}", *(f"## {heading}\n\n{text}" for heading, text in sections.items())]) + "\n"


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


def _trust(emulator: Emulator, shipped: Shipped) -> dict[str, str]:
    """Return the sections that say what of an emulator's slices to trust, and what not."""
    meta = emulator.metadata
    met: dict[str, list[bool]] = {}
    for one in shipped.scores:
        if one.met is not None:
            # "P(k), largest of all bins" is a number of P(k).
            met.setdefault(one.title.partition(",")[0].partition(" (")[0], []).append(one.met)
    good, missed = ([name for name, bars in met.items() if all(bars) == wanted] for wanted in (True, False))
    trusted = [
        f"- k from {meta.fundamental:.3g} to {TRUSTED_NYQUIST_FRACTION * meta.nyquist:.3g} h/Mpc "
        f"({TRUSTED_NYQUIST_FRACTION:g} of Nyquist).",
        f"- What meets all its bars below: {', '.join(good) or 'nothing'}.",
    ]
    trusted += [f"- {shipped.memorisation}"] if shipped.memorisation else []
    # Records of before December 2026 repeat the misses among the limits.
    limits = [text for text in shipped.limits if not text.startswith("It misses: ")]
    limits = [f"What misses a bar below: {', '.join(missed)}."] * bool(missed) + limits
    limits += [emulator.warning] if emulator.warning else []
    return {"When to trust it": "\n".join(trusted), "When not to trust it": "\n".join(f"- {text}" for text in limits)}


def _judged_by(shipped: Shipped) -> list[str]:
    """Return what an emulator was fitted to and judged by, in lines of a list."""
    training, test = shipped.data["training"], shipped.data["test"]
    chose = f"; {ranges(training.not_learnt)} chose the checkpoint only" if training.not_learnt else ""
    # Where not all training slices were at hand to score with.
    chose += f", of the {ranges(training.learnt)} that it learnt from" if training.learnt else ""
    return [
        f"- Training slices: {training.n_slices:,} of realisations {ranges(training.realisations)}{chose} "
        f"(SHA-256 {training.sha256[:16]}).",
        f"- Test slices: {test.n_slices:,} of realisations {ranges(test.realisations)}, which neither trained it nor "
        f"chose the checkpoint (SHA-256 {test.sha256[:16]}).",
    ]


def _scores(shipped: Shipped) -> str:
    """Return the scores that something is asked of, beside those of simulations."""
    # Records of before December 2026 name the program where it was.
    mocks = shipped.mocks.partition(" by ")[0]
    titles = {one.title for one in shipped.scores if one.value != "-"}
    old = any(title.startswith("AUC") for title in titles) and not any(title.startswith("p-value") for title in titles)
    network = " The network of the AUC learnt for 300 steps; that of `cosmogan validate` looks longer." if old else ""
    rows = ["| | bar | emulator | simulations |", "|---|---|---|---|"]
    for against, title in (("training", "the mean of the training slices"), ("test", "test realisations")):
        rows.append(f"| *Against {title}* | | | |")
        for one in shipped.scores:
            # Of the two-sample test also what has no bar.
            told = one.asked or (one.title.startswith(("p-value", "AUC")) and one.value != "-")
            if one.against == against and told:
                value = f"**{one.value}**" if one.met is False else one.value
                rows.append(f"| {one.title} | {one.asked} | {value} | {one.simulations} |")
    return (
        f"{shipped.judged.capitalize()}; {mocks}. Bold misses its bar. Differences are abs(mocks / simulation - 1), "
        f"beside those of simulations from each other.{network} More: benchmarks/emulators/scoreboard.md.\n\n"
        + "\n".join(rows)
    )
