"""Logs of a run that is killed and resumed are those of one that never was."""

import time
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cosmogan.errors import UserError
from cosmogan.training.log import MetricsFile, run_loggers

# As a run logs them: columns that come late, one of them only beyond the checkpoint at 40.
ROWS = [
    (10, {"loss": 0.1}),
    (20, {"loss": 1 / 3, "rate": 2e-4}),
    (40, {"loss": float("nan"), "rate": 1e-4}),
    (40, {"score": 1.5}),
    (50, {"loss": 0.2, "penalty": 7.0, "abscissa": 1.0}),
    (60, {"loss": 1e-12, "rate": 1e-4}),
]
CHECKPOINT = 40


def write(folder: Path, rows: list[tuple[int, dict[str, float]]], *, n_slices_seen: int = 0) -> bytes:
    log = MetricsFile(folder, n_slices_seen=n_slices_seen)
    for step, metrics in rows:
        log.log_metrics(metrics, step)
    log.save()
    log.finalize("success")
    return log.path.read_bytes()


def test_rows_are_on_disk_as_soon_as_they_are_logged(tmp_path: Path):
    log = MetricsFile(tmp_path)
    log.log_metrics({"b": 2.0, "a": 1.0}, 16)
    assert log.path.read_text() == "step,a,b\n16,1,2\n"
    log.log_metrics({"c": 3.0}, 32)
    assert log.path.read_text() == "step,a,b,c\n16,1,2,\n32,,,3\n"


def test_a_log_killed_at_any_byte_and_resumed_is_that_of_an_uninterrupted_run(tmp_path: Path):
    whole = write(tmp_path / "whole", ROWS)
    kept = [row for row in ROWS if row[0] <= CHECKPOINT]
    redone = [row for row in ROWS if row[0] > CHECKPOINT]
    cut = tmp_path / "cut" / "metrics.csv"
    # The file as it was at each time after the checkpoint, before and after new columns, cut in the middle of rows.
    states = set()
    for n in range(len(redone) + 1):
        state = write(tmp_path / "cut", kept + redone[:n])
        last = len(state.splitlines(keepends=True)[-1]) if n else 0
        states |= {state[: len(state) - part] for part in range(last + 1)}
    assert len(states) > 20
    for state in states:
        cut.write_bytes(state)
        assert write(tmp_path / "cut", redone, n_slices_seen=CHECKPOINT) == whole
    # Twin: a checkpoint that has seen less.
    cut.write_bytes(whole)
    assert write(tmp_path / "cut", redone, n_slices_seen=30) != whole


def test_a_new_run_replaces_the_file(tmp_path: Path):
    once = write(tmp_path, ROWS[:2])
    assert write(tmp_path, ROWS[:2]) == once


def test_a_log_that_went_missing_begins_at_the_checkpoint(tmp_path: Path):
    assert write(tmp_path, ROWS[-1:], n_slices_seen=CHECKPOINT) == b"step,loss,rate\n60,1e-12,0.0001\n"


def test_the_file_of_another_program_is_refused(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text("epoch,step\n0,49\n")
    with pytest.raises(UserError, match=r"first column to be 'step'.*move it away"):
        write(tmp_path, ROWS, n_slices_seen=CHECKPOINT)
    assert (tmp_path / "metrics.csv").read_text() == "epoch,step\n0,49\n"


def test_our_file_is_always_among_the_loggers(tmp_path: Path):
    other = CSVLogger(tmp_path)
    for named, others in (
        (None, [TensorBoardLogger]),
        (True, [TensorBoardLogger]),
        (False, []),
        (other, [CSVLogger]),
        ([other, other], [CSVLogger, CSVLogger]),
    ):
        chosen = run_loggers(tmp_path, named, n_slices_seen=0)
        assert [type(logger) for logger in chosen] == [MetricsFile, *others]


def test_tensorboard_forgets_what_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    starts = iter(range(3))

    def log(steps: list[int], value: float, n_slices_seen: int) -> list[tuple[int, float]]:
        # Files are read in the order of the seconds in their names.
        start, now = next(starts), time.monotonic
        monkeypatch.setattr(time, "time", lambda: start + now())
        _, board = run_loggers(tmp_path, None, n_slices_seen=n_slices_seen)
        for step in steps:
            board.log_metrics({"loss": value}, step)
        board.save()
        board.finalize("success")
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        return [(event.step, event.value) for event in events.Scalars("loss")]

    log([10, 40, 60], 1.0, 0)
    assert log([60, 80], 2.0, CHECKPOINT) == [(10, 1.0), (40, 1.0), (60, 2.0), (80, 2.0)]
    # Started over in the same folder.
    assert log([10], 3.0, 0) == [(10, 3.0)]
