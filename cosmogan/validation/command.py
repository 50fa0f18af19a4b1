"""The command ``cosmogan validate``."""

from __future__ import annotations

from cosmogan.errors import UserError


def validate(
    files: list[str],
    *,
    out: str,
    bootstrap: int = 200,
    seed: int = 0,
    threshold: float = 0.05,
    strict: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
) -> int:
    """Compare mock slices with simulation slices and write a report: numbers, figures and a page.

    Parameters
    ----------
    files
        Slice files in pairs: MOCKS REFERENCE [MOCKS REFERENCE ...], one pair per box.
    out
        Folder for ``report.json``, the figures and ``index.html``.
    bootstrap
        Draws of realisations for the errors.
    seed
        Of these draws and of the slices shown.
    threshold
        A statistic passes when, in each third of its range, the median absolute relative difference is at most this,
        or at most that between two halves of the simulation.
    strict
        Exit with code 1 unless every statistic passes.
    overwrite
        Replace an earlier report.
    device
        Where to compute, such as ``cpu`` or ``cuda``.

    Returns
    -------
        The exit code: 0, or 1 under ``strict`` if a statistic does not pass.

    Raises
    ------
    UserError
        If the files do not come in pairs, cannot be compared, or ``out`` may not be written.
    """
    from cosmogan.validation.compare import compare
    from cosmogan.validation.report import format_table, require_report_folder, write_report
    from cosmogan.validation.verdict import judge

    if not files or len(files) % 2:
        raise UserError(
            f"files: expected pairs MOCKS REFERENCE [MOCKS REFERENCE ...], got {len(files)} "
            f"file{'' if len(files) == 1 else 's'}; name the simulation's slices after each file of mocks"
        )
    if not 0 <= threshold < float("inf"):
        raise UserError(f"threshold: expected a relative difference >= 0 such as 0.05, got {threshold}")
    _require_device(device)
    # Before the work, not after it.
    require_report_folder(out, overwrite=overwrite)
    comparisons = [
        compare(mocks, reference, n_bootstrap=bootstrap, seed=seed, device=device)
        for mocks, reference in zip(files[::2], files[1::2], strict=True)
    ]
    page = write_report(comparisons, out, overwrite=overwrite, threshold=threshold)
    print(format_table(comparisons, threshold=threshold))
    print(f"report: {page}")
    passed = all(judge(entry, threshold=threshold).passed for c in comparisons for entry in c.statistics)
    return 1 if strict and not passed else 0


def _require_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError):
        expected = "cpu or cuda" if torch.cuda.is_available() else "cpu (no CUDA device is visible)"
        raise UserError(f"device: {device!r} cannot be used here; expected {expected}") from None
