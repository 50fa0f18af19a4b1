"""Two processes judge the same networks as one does, with the same bits.

Run as a program this file is the work of one process.
"""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cosmogan.slices import write_example
from cosmogan.training.fit import fit
from tests.cosmogan.training.recipes import ROOT, SPECTRAL_PRIOR, recipe, shorten_fits

# Networks that stand still, so that both judge the same; three blocks of mocks, shared unevenly.
# Rates too small to change a weight.
RECIPE = recipe(
    SPECTRAL_PRIOR,
    data="batch_size: 2, slices_per_epoch: 24, n_validation: 3",
    validation="n_mocks: 150",
    max_slices=48,
    generator_lr="1.0e-30",
    critic_lr="1.0e-30",
)
COLUMNS = ("score", "power_spectrum_error", "peaks_error", "coherence", "variety", "critic_gap", "critic_separation")


def run(folder: Path, name: str, *words: str) -> None:
    shorten_fits()
    recipe, slices = folder / "recipe.yaml", folder / "slices.h5"
    fit(["--config", str(recipe), "--data.path", str(slices), "--out", str(folder / name), *words])


def judged(folder: Path) -> list[list[str]]:
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return [[row[name] for name in ("step", *COLUMNS)] for row in rows if row["score"]]


@pytest.mark.distributed
def test_two_processes_judge_as_one(tmp_path: Path):
    write_example(tmp_path / "slices.h5", n_realisations=6, n_slices=27)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for n_processes in (1, 2):
        ranks = [{"LOCAL_RANK": str(rank), "NODE_RANK": "0"} if n_processes > 1 else {} for rank in range(n_processes)]
        program = [sys.executable, "-m", "tests.cosmogan.training.test_callbacks_processes"]
        command = [*program, str(tmp_path), str(n_processes)]
        started = [
            subprocess.Popen(command, cwd=ROOT, env=environment | rank, stderr=subprocess.PIPE, text=True)
            for rank in ranks
        ]
        errors = [process.communicate(timeout=300)[1] for process in started]
        assert [process.returncode for process in started] == [0] * n_processes, "\n".join(errors)
    alone, together = (judged(tmp_path / name) for name in ("1", "2"))
    assert len(alone) == 2
    assert all(value for row in alone for value in row)
    assert together == alone
    assert len(list((tmp_path / "2" / "samples").iterdir())) == 2


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], "--trainer.devices", sys.argv[2])
