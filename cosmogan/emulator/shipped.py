"""What is known of an emulator that ships beyond its training: what it was judged on, its scores, cost and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cosmogan.errors import UserError

# Entry of an emulator's training record.
ENTRY = "shipped"


@dataclass(frozen=True, kw_only=True)
class JudgedFile:
    """A slice file that the emulator was fitted to or judged against.

    Parameters
    ----------
    n_slices, realisations, sha256
        Number of slices, their realisations and the checksum of the file.
    not_learnt
        Realisations that chose the checkpoint only.
    learnt
        Realisations that it learnt from, where not all of them were at hand to score with.
    """

    n_slices: int
    realisations: list[int]
    not_learnt: list[int]
    sha256: str
    learnt: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class ShippedScore:
    """A line of the scoreboard, values as text.

    Parameters
    ----------
    title
        Name of what is compared.
    against
        Slices that it is compared with: ``"training"`` or ``"test"``.
    value
        Score of the emulator; ``"-"`` where it was not measured.
    asked, met
        Bar to meet, empty for none, and whether it is met; None without a bar or a value.
    simulations
        Difference of simulations from each other.
    baselines
        Scores of mocks that need no training, by the name of the method.
    headline
        Whether `cosmogan emulators` prints it.
    """

    title: str
    against: str
    value: str
    asked: str
    met: bool | None
    simulations: str
    baselines: dict[str, str]
    headline: bool


@dataclass(frozen=True, kw_only=True)
class PowerCheck:
    """What a few slices must look like, whatever computes them.

    Parameters
    ----------
    mean_density
        Mean of many slices.
    n_slices
        Number of slices to make.
    bins, k, power, reach
        Places of some bins of P(k), their wave numbers (h/Mpc), P(k) there and the largest difference that chance makes
        ((Mpc/h)^2).
    """

    mean_density: float
    n_slices: int
    bins: list[int]
    k: list[float]
    power: list[float]
    reach: list[float]


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """Record of an emulator that ships; written by benchmarks/emulators/ship.py, read by its card.

    Parameters
    ----------
    name, title
        Name of the emulator, and the heading of its card.
    data
        Slice files by their part: ``"training"`` and ``"test"``.
    cost
        Sentences on what training, simulations and sampling take.
    judged, mocks
        Numbers of the bars that are met, and of the mocks.
    scores
        Lines of the scoreboard.
    memorisation, limits, licence
        Sentences on copies of training slices (empty where they were not looked for), limits and licence.
    check
        Numbers that its slices are tested by.
    """

    name: str
    title: str
    data: dict[str, JudgedFile]
    cost: list[str]
    judged: str
    mocks: str
    scores: list[ShippedScore]
    memorisation: str
    limits: list[str]
    licence: str
    check: PowerCheck

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> Shipped | None:
        """Return what the training record of an emulator holds of it; None where it does not ship."""
        return cls.from_dict(training[ENTRY]) if ENTRY in training else None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Shipped:
        """Return the record that `to_dict` made a dictionary of.

        Raises
        ------
        UserError
            If entries are missing or unknown.
        """
        try:
            data = {part: JudgedFile(**held) for part, held in record["data"].items()}
            scores = [ShippedScore(**line) for line in record["scores"]]
            parts = {"data": data, "scores": scores, "check": PowerCheck(**record["check"])}
            return cls(**{**record, **parts})
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"the emulator's record of its scores is that of another version of cosmogan ({error}); use the "
                "version that wrote it"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds of it: numbers, texts, lists and dictionaries."""
        record = asdict(self)
        for held in record["data"].values():
            if held["learnt"] is None:
                del held["learnt"]
        return record
