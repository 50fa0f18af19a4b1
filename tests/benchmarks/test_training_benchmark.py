"""The benchmark of a training step: loops take turns, failures of one end all; it runs at toy size."""

import importlib
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "speed"
# Processor time in seconds that one of the loops below takes for a step; the other takes microseconds.
_WORK = 0.05


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("training_loops")


def test_loops_take_turns_and_are_timed_apart(loops: ModuleType) -> None:
    """Two steps each in turn; the first turn, in which loops start, is not measured; computing is told from waiting."""
    steps: list[str] = []

    def loop(name: str, seconds: float) -> object:
        def train(turn: object) -> None:
            going = True
            while going:
                until = time.process_time() + seconds
                while time.process_time() < until:
                    pass
                steps.append(name)
                going = turn.step()  # type: ignore[attr-defined]

        return train

    relay = loops.Relay({"slow": loop("slow", _WORK), "idle": loop("idle", 0.0)}, n_turns=3, steps_per_turn=2)
    measured = relay.run()
    assert steps == ["slow", "slow", "idle", "idle"] * 4
    assert {name: len(seconds) for name, seconds in measured.items()} == {"slow": 3, "idle": 3}
    assert min(measured["slow"]) >= _WORK
    assert max(measured["idle"]) < _WORK


def test_failure_of_one_loop_ends_all(loops: ModuleType) -> None:
    """Whichever fails, at the start or in a step."""

    def endless(turn: object) -> None:
        while turn.step():  # type: ignore[attr-defined]
            pass

    def failing(turn: object) -> None:
        turn.step()  # type: ignore[attr-defined]
        raise ArithmeticError("here")

    for order in ({"a": endless, "b": failing}, {"b": failing, "a": endless}):
        with pytest.raises(ArithmeticError, match="here"):
            loops.Relay(order, n_turns=3, steps_per_turn=1).run()


@pytest.mark.slow
def test_parts_run_at_toy_size(
    loops: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every loop of ours trains, and what is written is what is printed."""
    training = importlib.import_module("training")
    case = training.Case("DCGAN", "rodriguez2018/box100", 32, 4, 1)
    monkeypatch.setattr(training, "CASES", {"cpu": (case,)})
    monkeypatch.setattr(training, "_CONVOLUTIONS", ((8, 8),))
    out = tmp_path / "training.json"
    monkeypatch.setattr(sys, "argv", ["training.py", "engine", "data", "options", "--turns", "1", "--out", str(out)])
    training.main()
    printed, results = capsys.readouterr().out, json.loads(out.read_text())
    assert list(results) == ["engine", "data", "options"]
    for part in results.values():
        for name, seconds in part[case.title]["seconds"].items():
            assert len(seconds) == 1
            assert f"| {case.title} | {name} | {1e3 * seconds[0]:.4g} " in printed
    # Of the networks alone: nothing but the critic's and the generator's step, no penalty in this recipe.
    assert results["engine"][case.title]["pair"] > 0
    assert results["engine"][case.title]["penalty"] == 0
