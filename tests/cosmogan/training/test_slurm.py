"""The sbatch file as SLURM runs it: two nodes of one task each, SIGUSR1 before the time limit, the same job again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cosmogan.emulator.export import load_checkpoint
from cosmogan.slices import write_example
from tests.cosmogan.training.recipes import DCGAN, recipe

SCRIPTS = Path(__file__).parents[3] / "configs" / "slurm"
SCRIPT = SCRIPTS / "fit.sbatch"
RECIPE = recipe(
    DCGAN, data="batch_size: 2, slices_per_epoch: 24", objective="{class_path: NonSaturating}", max_slices=720
)
# Starts one task per node, as srun does, with the signals that it passes on.
SRUN = """#!/bin/bash
shift  # -K
for task in 0 1; do
    SLURM_PROCID=$task SLURM_NODEID=$task SLURM_LOCALID=0 "$@" &
    echo $! > "$FAKE/task-$task"
done
status=0
wait $(cat "$FAKE/task-0") || status=$?
wait $(cat "$FAKE/task-1") || true
exit $status
"""


def run_script(name: str, folder: Path, *words: str, **job: str) -> subprocess.CompletedProcess[str]:
    """Run an sbatch file with an srun that says what it was given."""
    srun = folder / "srun"
    srun.write_text('#!/bin/sh\necho "cores=$SRUN_CPUS_PER_TASK threads=$OMP_NUM_THREADS $*"\n')
    srun.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **{f"SLURM_{key}": value for key, value in job.items()}}
    return subprocess.run(["bash", str(SCRIPTS / name), *words], env=environment, capture_output=True, text=True)


def test_srun_is_told_the_cores_of_a_task(tmp_path: Path):
    done = run_script("fit.sbatch", tmp_path, "--config", "c", CPUS_PER_TASK="8", NTASKS_PER_NODE="4", NNODES="2")
    expected = "cosmogan fit --config c --resume --trainer.devices 4 --trainer.num_nodes 2"
    assert done.stdout == f"cores=8 threads=8 -K {expected}\n"
    done = run_script("generate.sbatch", tmp_path, "e", "m.h5", CPUS_PER_TASK="4", ARRAY_TASK_ID="3")
    assert done.stdout == "cores=4 threads=4 cosmogan generate e -n 1000000 --seed 0 --shard 3/64 --out m.h5\n"


def test_a_job_without_tasks_per_node_says_so(tmp_path: Path):
    done = run_script("fit.sbatch", tmp_path, "--config", "c", NTASKS="4", NNODES="1")
    assert done.returncode
    assert done.stdout == ""
    assert "set --ntasks-per-node" in done.stderr


def n_slices_seen(folder: Path) -> int:
    return json.loads(load_checkpoint(folder / "run" / "last.ckpt")["cosmogan"])["training"]["n_slices_seen"]


@pytest.mark.distributed
def test_a_job_on_two_nodes_is_requeued_and_goes_on(tmp_path: Path):
    write_example(tmp_path / "slices.h5", n_realisations=3, n_slices=8)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for name, text in (("srun", SRUN), ("scontrol", '#!/bin/sh\necho "$@" >> "$FAKE/requeued"\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    job = {"JOB_ID": "4711", "JOB_NAME": "fit", "NTASKS": "2", "NTASKS_PER_NODE": "1", "NNODES": "2"}
    environment = {
        **os.environ,
        **{f"SLURM_{name}": value for name, value in job.items()},
        "SLURM_CPUS_PER_TASK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "FAKE": str(tmp_path),
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def start() -> subprocess.Popen:
        words = ["--config", str(tmp_path / "recipe.yaml"), "--data.path", str(tmp_path / "slices.h5")]
        command = [shutil.which("bash"), str(SCRIPT), *words, "--out", str(tmp_path / "run")]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    job = start()
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    for task in range(2):
        os.kill(int((tmp_path / f"task-{task}").read_text()), signal.SIGUSR1)
    _, messages = job.communicate(timeout=300)
    assert job.returncode == 128 + signal.SIGUSR1, messages
    assert "Traceback" not in messages
    assert "job 4711 is back in the queue" in messages
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"

    seen = n_slices_seen(tmp_path)
    assert 0 < seen < 720

    # The same job from the queue.
    job = start()
    _, messages = job.communicate(timeout=600)
    assert job.returncode == 0, messages
    assert f"after {seen:,} slices" in messages
    assert n_slices_seen(tmp_path) == 720
