"""The scoreboard as a page: what is asked of emulators, who meets it, and everything else that was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cosmogan.statistics.power_spectrum import TRUSTED_NYQUIST_FRACTION
from cosmogan.validation.wording import in_units, number, percent

BASELINES = ("lognormal", "copula")
# What a baseline has by construction, so that to beat it there is asked of nobody.
BY_CONSTRUCTION = {"lognormal": ("power_spectrum",), "copula": ("power_spectrum", "histogram", "tail")}
# Share of bins that must lie within two standard deviations, and the largest chi2 per bin.
LEAST_WITHIN, LARGEST_CHI2 = 0.9, 1.5


@dataclass(frozen=True)
class Line:
    """A number of the scoreboard.

    Parameters
    ----------
    row, against, key
        Where it stands in the record: statistic, ``"training"`` or ``"test"``, and which number of it.
    title
        For people.
    show
        How it is written.
    bars
        What is asked at 500 and at 100 Mpc: at most these, or at least where ``least``; None where it is only reported.
    full_size
        What is asked of slices of 256 x 256 pixels, the paper's, where that is something else.
    """

    row: str
    against: str
    key: str
    title: str
    show: Callable[[float], str] = percent
    bars: tuple[float, float] | None = None
    least: bool = False
    full_size: tuple[float, float] | None = None

    def value(self, rows: dict[str, Any]) -> float | None:
        """Return the number of a candidate, None where it was not measured."""
        found: float | None = rows.get(self.row, {}).get(self.against, {}).get(self.key)
        return found

    def bar(self, box: dict[str, Any]) -> float | None:
        """Return what is asked of a box as the record describes it; None where nothing is."""
        bars = self.full_size if self.full_size and box["n_pixels"] == _FULL_SIZE else self.bars
        return None if bars is None or box["side_Mpc"] not in _SIDES else bars[_SIDES.index(box["side_Mpc"])]

    def met(self, rows: dict[str, Any], box: dict[str, Any]) -> bool | None:
        """Return whether a candidate has what is asked; None where nothing is asked, or nothing was measured."""
        bar, value = self.bar(box), self.value(rows)
        if bar is None or value is None:
            return None
        return value >= bar if self.least else value <= bar


_SIDES, _FULL_SIZE = (500, 100), 256
_WITHIN = {"key": "within", "bars": (LEAST_WITHIN, LEAST_WITHIN), "least": True}


def _plain(value: float) -> str:
    return number(value, figures=2)


def _auc(value: float) -> str:
    return f"{0.5 + value:.2f}"


TRAINING = (
    Line(
        "power_spectrum", "training", "largest", "P(k), largest of all bins", bars=(0.03, 0.05), full_size=(0.015, 0.03)
    ),
    Line("power_spectrum", "training", "median", "P(k), median"),
    Line(
        "histogram",
        "training",
        "largest",
        "pixel histogram, largest of all bins",
        bars=(0.04, 0.06),
        full_size=(0.02, 0.03),
    ),
    Line("histogram", "training", "median", "pixel histogram, median"),
    Line(
        "peaks",
        "training",
        "largest",
        "peaks by height, largest of all bins",
        bars=(0.05, 0.08),
        full_size=(0.03, 0.05),
    ),
    Line("peaks", "training", "median", "peaks by height, median"),
    Line(
        "power_spectrum_variance",
        "training",
        "value",
        "variance of P(k) between slices, median",
        bars=(0.10, 0.15),
        full_size=(0.05, 0.08),
    ),
    Line(
        "power_spectrum_correlation",
        "training",
        "value",
        "correlations of P(k), rms",
        _plain,
        bars=(0.08, 0.10),
        full_size=(0.05, 0.06),
    ),
    Line(
        "bispectrum",
        "training",
        "median",
        "bispectrum, median over triangles",
        bars=(0.10, 0.15),
        full_size=(0.07, 0.10),
    ),
    Line("bispectrum", "training", "largest", "bispectrum, largest of all triangles"),
)
TEST = (
    Line("power_spectrum", "test", title="P(k), bins within 2σ", **_WITHIN),
    Line("power_spectrum", "test", "chi2", "P(k), χ² per bin", _plain, bars=(LARGEST_CHI2, LARGEST_CHI2)),
    Line("power_spectrum", "test", "median", "P(k), median"),
    Line("histogram", "test", title="pixel histogram, bins within 2σ", **_WITHIN),
    Line("peaks", "test", title="peaks by height, bins within 2σ", **_WITHIN),
    Line("power_spectrum_variance", "test", "value", "variance of P(k) between slices, median"),
    Line("power_spectrum_correlation", "test", "value", "correlations of P(k), rms", _plain),
    Line("bispectrum", "test", title="bispectrum, triangles within 2σ", **_WITHIN),
    Line(
        "two_sample",
        "test",
        "value",
        "AUC of a network (0.5: cannot tell)",
        _auc,
        bars=(0.15, 0.20),
        full_size=(0.10, 0.15),
    ),
    Line("two_sample", "test", "p", "p-value of that AUC, whole boxes exchanged", _plain),
    Line("two_sample", "test", "summary_auc", "AUC of a logistic classifier of summary statistics", _plain),
    Line("two_sample", "test", "summary_p", "p-value of that AUC", _plain),
)
MEMORISATION = "memorisation"
# Neither in the tables of bars nor a number of its own.
_JUDGED = {line.row for line in (*TRAINING, *TEST)} | {MEMORISATION}


def render(records: Sequence[dict[str, Any]]) -> str:
    """Return the page.

    Parameters
    ----------
    records
        Of ``scoreboard.py``, one per box and size.
    """
    parts = [
        "# Scoreboard\n",
        "Written by `scoreboard.py` from the files in `scoreboard/`, which hold more numbers; do not edit. **Bold: "
        "misses the bar.** Differences are abs(mocks / simulation - 1).\n",
        "- *Against the training mean*: is the network right? *Simulations* are two halves of the training "
        "realisations against each other, rms over many pairs; a network that hits the mean of all may come closer.\n"
        "- *Against test realisations*: is the emulator right? They were first measured when everything had been "
        "decided; docs/reproduce.md has two exceptions. *Simulations* are all training slices as if they were mocks. "
        "σ is that of the bootstrap over test realisations and of the mocks, in squares; χ² per bin takes bins one by "
        "one, although they vary together.\n"
        "- Bins: P(k), rings of width k_F from k_F to 0.9 of Nyquist; histogram, ten per decade from the 0.01th to the "
        "99.99th percentile; peaks, five per decade, those with 500 peaks.\n"
        "- AUC with a p-value below it is that of `cosmogan validate --two-sample` since December 2026: three "
        "networks, up to 1,500 steps each. AUC without one was measured before, after 300 steps, and moves by "
        "0.07 by chance.\n"
        "- *lognormal* and *copula* are `cosmogan baseline` fitted to the same training slices: what an emulator has "
        "to beat, save in what they have by construction.\n",
    ]
    return "\n".join(parts) + "".join("\n" + _box(record) for record in records)


def misses(record: dict[str, Any], name: str) -> list[str]:
    """Return what a candidate misses, with its number and the bar.

    Parameters
    ----------
    record
        Of the box.
    name
        Of the candidate.
    """
    held, box = record["candidates"][name]["rows"], record["box"]
    found = [f"{text} (training mean)" for text in _missed(TRAINING, held, box)]
    found += [f"{text} (test)" for text in _missed(TEST, held, box)]
    copies = held.get(MEMORISATION, {}).get("test", {})
    if copies.get("outcome") == "fail":
        found.append(f"mocks with a copy among the training slices: {percent(copies['value'])}")
    return found


def _missed(lines: Sequence[Line], rows: dict[str, Any], box: dict[str, Any]) -> list[str]:
    found = []
    for line in lines:
        bar = line.bar(box)
        if bar is not None and line.met(rows, box) is False:
            found.append(f"{line.title} {written(line, rows)}, asked {asked(line, bar)}")
    return found


def n_asked(record: dict[str, Any], name: str) -> int:
    """Return how many bars there are that a candidate was measured against."""
    held, box = record["candidates"][name]["rows"], record["box"]
    return sum(line.met(held, box) is not None for line in (*TRAINING, *TEST)) + (MEMORISATION in held)


def not_measured(record: dict[str, Any], name: str) -> list[str]:
    """Return the bars that a candidate was not measured against."""
    held, box = record["candidates"][name]["rows"], record["box"]
    return [x.title for x in (*TRAINING, *TEST) if x.bar(box) is not None and x.value(held) is None]


def beaten_by_baselines(record: dict[str, Any], name: str) -> list[str]:
    """Return the statistics in which a baseline is as good as a candidate.

    Those that the baseline has by construction do not count, nor those in which the candidate differs from simulations
    by no more than these do from each other.
    """
    return [f"{title} ({other} {two:.2g}, {name} {size:.2g})" for title, other, two, size in _beaten(record, name)]


def _beaten(record: dict[str, Any], name: str) -> list[tuple[str, str, float, float]]:
    """Return what `beaten_by_baselines` says: statistic, baseline, its number and that of the candidate."""
    held, found = record["candidates"], []
    for row, own in held[name]["rows"].items():
        floor = _size(record["floor"]["rows"].get(row, {})) if "training" in own else own["test"]["floor"]
        size = _size(own)
        if size is None or (floor is not None and size <= floor):
            continue
        for other in BASELINES:
            theirs = held.get(other, {}).get("rows", {}).get(row)
            if other == name or theirs is None or row in BY_CONSTRUCTION[other]:
                continue
            two = _size(theirs)
            if two is not None and two <= size:
                found.append((own["title"], other, two, size))
    return found


def _size(row: dict[str, Any]) -> float | None:
    """Return the number by which candidates are compared: the median over bins, or the score."""
    against = row.get("training") or row.get("test", {})
    size: float | None = against.get("median", against.get("value"))
    return size


def _box(record: dict[str, Any]) -> str:
    box, candidates, floor = record["box"], record["candidates"], record["floor"]
    emulators = [name for name in candidates if name not in BASELINES]
    low, high = box["k_F"], TRUSTED_NYQUIST_FRACTION * box["k_Nyquist"]
    in_inverse_mpc = f" ({low * box['h']:.3g}-{high * box['h']:.3g} 1/Mpc)" if box["h"] else ""
    mocks = ", ".join(f"{name} {held['n_slices']:,}" for name, held in candidates.items())
    first, second = floor["sets"]
    power = floor["rows"]["power_spectrum"]["training"]
    facts = [
        f"{box['length']}, {box['n_pixels']}² pixels, slices {box['thickness']:.4g} Mpc/h thick, smoothed by a "
        f"Gaussian of {box['smoothing']:g} pixel, z = {box['redshift']:g}; "
        f"k from {low:.3g} to {high:.3g} h/Mpc{in_inverse_mpc}.",
        f"Training: {_set(record['training'])}. Test: {_set(record['test'])}. Mocks: {mocks}.",
        f"Simulations differ from simulations ({first} realisations against {second}) in P(k) by "
        f"{percent(power['median'])} in the median bin and {percent(power['largest'])} in the worst.",
        _times(candidates, record["simulation"], record["machine"]),
    ]
    names = list(candidates)
    parts = [f"## {record['name']}\n", "\n".join(f"- {fact}" for fact in facts) + "\n"]
    parts += ["### Against the mean of the training slices\n", _table(TRAINING, record, names) + "\n"]
    parts += ["### Against test realisations\n", _table(TEST, record, names) + _memorisation(record, names)]
    chance = _missed(TEST, record["simulations"]["rows"], box)
    if chance:
        parts.append(
            f"The training slices themselves miss, as mocks: {'; '.join(chance)}. There the test differs from the "
            "training by more than is likely, and so will whatever was learnt well.\n"
        )
    for name in emulators:
        met = n_asked(record, name) - len(misses(record, name))
        text = f"**{name}** meets {met} of {n_asked(record, name)} bars."
        worse: dict[str, list[str]] = {}
        for title, other, _, _ in _beaten(record, name):
            worse.setdefault(other, []).append(title)
        text += "".join(f" As good or better, {other}: {'; '.join(titles)}." for other, titles in worse.items())
        if not worse:
            text += " Where it differs from simulations by more than these from each other it beats the baselines."
        parts.append(text + "\n")
    parts += ["### Everything else\n", _others(record, names)]
    parts.append(f"\n```\n{record['command']}\n```\n")
    return "\n".join(parts)


def _set(held: dict[str, Any]) -> str:
    text = f"{held['n_slices']:,} slices of {len(held['realisations'])} realisations"
    if "learnt" in held:
        text += f", a part of the {len(held['learnt'])} that emulators learnt from"
    return text


def _times(candidates: dict[str, Any], simulation: dict[str, Any] | None, machine: str) -> str:
    timed = [(name, held["sampling_seconds"]) for name, held in candidates.items() if held.get("sampling_seconds")]
    text = f"Processor time per slice on {machine}: "
    text += ", ".join(f"{name} {1e3 * seconds:.2g} ms" for name, seconds in timed) or "no emulator timed"
    if simulation is None:
        return text + ", simulation not timed."
    per_slice = simulation["seconds_per_slice"]
    text += (
        f"; simulation {1e3 * per_slice:.3g} ms ({simulation['n_slices']} slices of one run of "
        f"{simulation['particles']}³ particles, {simulation['seconds']:.0f} s, cut and smoothed)"
    )
    faster = [f"{name} {per_slice / seconds:.0f}" for name, seconds in timed]
    return text + (f"; times faster: {', '.join(faster)}." if faster else ".")


def _table(lines: Sequence[Line], record: dict[str, Any], names: Sequence[str]) -> str:
    box = record["box"]
    head = ["", "bar", "simulations", *names]
    table = [_row(head), _row(["---"] * len(head))]
    for line in lines:
        bar = line.bar(box)
        itself = record["floor"] if line.against == "training" else record["simulations"]
        cells = [line.title, "" if bar is None else asked(line, bar), written(line, itself["rows"])]
        for name in names:
            rows = record["candidates"][name]["rows"]
            text = written(line, rows)
            cells.append(f"**{text}**" if line.met(rows, box) is False else text)
        table.append(_row(cells))
    return "\n".join(table)


def asked(line: Line, bar: float) -> str:
    """Return a bar as it is written, such as ``"≤ 3.0%"``."""
    return ("≥ " if line.least else "≤ ") + line.show(bar)


def written(line: Line, rows: dict[str, Any]) -> str:
    """Return a number as it is written, ``"-"`` where it was not measured."""
    value = line.value(rows)
    return "-" if value is None else line.show(value)


def _memorisation(record: dict[str, Any], names: Sequence[str]) -> str:
    cells = ["mocks with a copy among the training slices", "as test slices"]
    rows = [record["candidates"][name]["rows"].get(MEMORISATION) for name in names]
    known = next((row for row in rows if row), None)
    cells.append("-" if known is None or known["test"]["floor"] is None else percent(known["test"]["floor"]))
    for row in rows:
        text = "-" if row is None else percent(row["test"]["value"])
        cells.append(f"**{text}**" if row is not None and row["test"]["outcome"] == "fail" else text)
    return "\n" + _row(cells) + "\n"


def _others(record: dict[str, Any], names: Sequence[str]) -> str:
    """Return all that no bar is set for: differences to the training mean, and scores of `cosmogan validate`."""
    candidates, itself = record["candidates"], record["simulations"]["rows"]
    every = {row: one for name in names for row, one in candidates[name]["rows"].items() if row not in _JUDGED}
    head = ["", "simulations", *names]
    table = ["Median, largest bin (against the training mean); bins within 2σ of test realisations.\n"]
    table += [_row(head), _row(["---"] * len(head))]
    floor = record["floor"]["rows"]
    for row, one in every.items():
        if "training" in one:
            own = floor.get(row, {}) | {"test": itself.get(row, {}).get("test", {})}
            table.append(_row([one["title"], *(_three(r) for r in (own, *_rows(candidates, names, row)))]))
    table += ["", "Scores against test realisations; simulations: what those show among themselves.\n"]
    table += [_row(head), _row(["---"] * len(head))]
    for row, one in every.items():
        if "training" not in one:
            cells = [one["title"], _score(one, "floor")]
            table.append(_row([*cells, *(_score(r, "value") for r in _rows(candidates, names, row))]))
    return "\n".join(table) + "\n"


def _rows(candidates: dict[str, Any], names: Sequence[str], row: str) -> list[dict[str, Any]]:
    return [candidates[name]["rows"].get(row, {}) for name in names]


def _three(row: dict[str, Any]) -> str:
    training, test = row.get("training", {}), row.get("test", {})
    numbers = (training.get("median"), training.get("largest"), test.get("within"))
    return "-" if numbers[0] is None else "{}, {}; {}".format(*("-" if x is None else percent(x) for x in numbers))


def _score(row: dict[str, Any], key: str) -> str:
    value = row.get("test", {}).get(key)
    return "-" if value is None else in_units(value, row.get("units", ""))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
