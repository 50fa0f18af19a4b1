"""The command ``cosmogan validate``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cosmogan.errors import UserError


def validate(
    files: list[str] | None = None,
    *,
    out: str,
    mocks: list[str] | None = None,
    reference: list[str] | None = None,
    training: list[str] | None = None,
    floor: list[str] | None = None,
    thresholds: str | None = None,
    two_sample: bool = False,
    paired: bool = False,
    bootstrap: int = 200,
    seed: int = 0,
    strict: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
) -> int:
    """Compare mock slices with simulation slices and write a report: numbers, figures and a page.

    Parameters
    ----------
    files
        Slice files in pairs: MOCKS REFERENCE [MOCKS REFERENCE ...], one pair per box. Short for --mocks and --reference
        with one file of mocks per box.
    out
        Folder for ``report.json``, the figures and ``index.html``.
    mocks
        Slice files of mocks that compete, as NAME=FILE; a name may stand for one file per box. Each is compared with
        the reference of its box.
    reference
        Slice files of simulations that none of the mocks has seen, one per box.
    training
        Slice files that the mocks were learnt from, one per box, to look for copies of their slices and to say how far
        the mocks are from them.
    floor
        Slice files of more simulations of the same boxes, another code's will do: where they have more realisations
        than the reference, floor and errors are taken from them.
    thresholds
        YAML file of the largest differences that pass, by statistic; for what it leaves out, those of the package.
    two_sample
        Two-sample test, too: a network learns to tell mocks from simulation; takes minutes per set of mocks.
    paired
        Comparison of phases, too: slice i of the mocks shares the initial conditions of slice i of the reference.
    bootstrap
        Draws of realisations for the errors.
    seed
        Seed of these draws and of the slices shown.
    strict
        Exit with code 1 unless everything passes.
    overwrite
        Replace an earlier report.
    device
        Device to compute on: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.

    Returns
    -------
        The exit code: 0, or 1 under ``strict`` if something does not pass.

    Raises
    ------
    UserError
        If the files do not belong together, cannot be compared, or ``out`` may not be written.
    """
    from cosmogan.machine.devices import choose_device
    from cosmogan.validation.compare import compare_candidates
    from cosmogan.validation.report.report import require_report_folder, write_report
    from cosmogan.validation.report.table import format_table
    from cosmogan.validation.thresholds import load_thresholds
    from cosmogan.validation.verdict import judge_all, worst_outcome

    asked = load_thresholds(thresholds)
    target = choose_device(device)
    # Before the work, not after it.
    require_report_folder(out, overwrite=overwrite)
    boxes = _boxes(files or [], mocks or [], reference or [])
    for path in training or []:
        _box_of(path, boxes).training = path
    for path in floor or []:
        _box_of(path, boxes).floor = path
    comparisons = [
        comparison
        for box in boxes
        for comparison in compare_candidates(
            box.candidates,
            box.reference,
            training=box.training,
            floor=box.floor,
            two_sample=two_sample,
            paired=paired,
            n_bootstrap=bootstrap,
            seed=seed,
            device=target,
        )
    ]
    page = write_report(comparisons, out, asked, overwrite=overwrite)
    print(format_table(comparisons, asked))
    print(f"report: {page}")
    outcomes = {worst_outcome(list(judge_all(comparison, asked).values())) for comparison in comparisons}
    return 1 if strict and outcomes != {"pass"} else 0


@dataclass(kw_only=True)
class _Box:
    """Files that belong to one reference."""

    reference: str
    candidates: dict[str, Path | str] = field(default_factory=dict)
    training: str | None = None
    floor: str | None = None


def _boxes(files: list[str], mocks: list[str], reference: list[str]) -> list[_Box]:
    if files and (mocks or reference):
        raise UserError(
            f"files: {files[0]} and others without an option stand beside --mocks or --reference; use either pairs "
            "MOCKS REFERENCE or the two options"
        )
    if not mocks and not reference:
        if not files or len(files) % 2:
            raise UserError(
                f"files: expected pairs MOCKS REFERENCE [MOCKS REFERENCE ...], got {len(files)} "
                f"file{'' if len(files) == 1 else 's'}; name the simulation's slices after each file of mocks"
            )
        boxes = [_Box(reference=r, candidates={"mocks": m}) for m, r in zip(files[::2], files[1::2], strict=True)]
    else:
        if not mocks or not reference:
            raise UserError("--mocks and --reference go together: name files of mocks and of simulations")
        boxes = [_Box(reference=path) for path in reference]
        for word in mocks:
            name, equals, path = word.partition("=")
            path, name = (path, name) if equals else (word, Path(word).stem)
            if not name or not path:
                raise UserError(f"--mocks {word}: expected NAME=FILE, such as dcgan=mocks.h5")
            box = _box_of(path, boxes)
            if name in box.candidates:
                raise UserError(
                    f"--mocks: {box.candidates[name]} and {path} are both called {name} and belong to {box.reference}; "
                    "give them different names as NAME=FILE"
                )
            box.candidates[name] = path
        for box in boxes:
            if not box.candidates:
                raise UserError(f"{box.reference}: none of the files of mocks belongs to this reference; leave it out")
    return boxes


def _box_of(path: str, boxes: list[_Box]) -> _Box:
    """Return the box whose reference has slices like those of a file."""
    from cosmogan.slices import SliceReader
    from cosmogan.validation.compare import differences

    clauses = []
    with SliceReader(path) as reader:
        for box in boxes:
            with SliceReader(box.reference) as simulation:
                different = differences(reader, simulation)
            if not different:
                return box
            clauses.append(f"against {box.reference}: {'; '.join(different)}")
    raise UserError(
        f"{path} cannot be compared with any reference: {'. '.join(clauses)}. "
        "Make both with the same settings, or compare with another file"
    )
