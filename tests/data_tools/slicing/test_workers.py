"""Several processes and ranks: the same bits as one, and a sentence when one of them fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosmogan.errors import UserError
from cosmogan.machine.ranks import find_rank
from cosmogan.slices import read_slices
from data_tools.slicing import workers
from data_tools.slicing.slice_job import SliceJob, name_run
from data_tools.slicing.slicing import slice_snapshots
from data_tools.slicing.workers import Team
from data_tools.snapshots import open_snapshot
from tests.data_tools.snapshots.gadget_files import write_hdf5

BOX = 100.0
N_FILES = 5


def write_snapshot(folder: Path, seed: int = 0, n: int = 3000, bad: int | None = None) -> str:
    positions = np.random.default_rng(seed).uniform(0, BOX, (n, 3)).astype(np.float32)
    for i, part in enumerate(np.array_split(positions, N_FILES)):
        if i == bad:
            part[7] = np.nan
        masses = np.random.default_rng([seed, i]).uniform(1, 3, len(part)).astype(np.float32)
        path = folder / f"snap{seed}.{i}.hdf5"
        write_hdf5(path, part, n_total=n, n_files=N_FILES)
        with h5py.File(path, "r+") as handle:
            handle["PartType1/Masses"] = masses
    return str(folder / f"snap{seed}.0.hdf5")


def job_of(folder: Path, snapshots: list[str], **changes) -> SliceJob:
    values = {
        "out": folder / "out.h5",
        "snapshots": tuple(snapshots),
        "opening": {},
        "slabs": {"box_size": BOX, "pixels": 8, "slabs": 6, "assignment": "CIC", "n_particles": 3000},
        "weighted": True,
        "passes": ({0: (0, 6), 1: (0, 3)}, {1: (3, 6), 2: (0, 6)}),
        "ranks": 1,
        "processes": 1,
        "run": "a",
    }
    return SliceJob(**(values | changes))


def collected(folder: Path, job: SliceJob, snapshots: list[str]) -> list[np.ndarray]:
    """Run the workers one after the other in this process, and add up."""
    job.folder.mkdir()
    team = Team(job, 0)
    grids = []
    for number, path in enumerate(snapshots):
        for turn in range(len(job.passes)):
            source = open_snapshot(path)
            for worker in range(job.n_workers if job.n_workers > 1 else 0):
                if job.files(source, number, turn, worker):
                    workers.count_share(job, worker, source, number, turn, lambda: None)
            n_added: list[int] = []
            grids += team.collect(source, number, turn, on_particles=n_added.append).grids
            assert sum(n_added) == 3000
    assert list(job.folder.iterdir()) == []
    job.folder.rmdir()
    return grids


@pytest.mark.parametrize("weighted", [False, True])
def test_any_number_of_workers_gives_the_same_bits(tmp_path: Path, weighted: bool):
    snapshots = [write_snapshot(tmp_path, seed) for seed in (0, 1)]
    alone = collected(tmp_path, job_of(tmp_path, snapshots, weighted=weighted), snapshots)
    for processes in (2, 3, 7, 30):
        job = job_of(tmp_path, snapshots, processes=processes, weighted=weighted)
        for mine, theirs in zip(collected(tmp_path, job, snapshots), alone, strict=True):
            assert np.array_equal(mine, theirs)
    # Twin: another snapshot, other bits.
    assert not np.array_equal(alone[0], alone[4])


def test_units_are_shared_out_once(tmp_path: Path):
    snapshots = [write_snapshot(tmp_path, seed) for seed in (0, 1)]
    job = job_of(tmp_path, snapshots, processes=3)
    sources = [open_snapshot(path) for path in snapshots]
    shares = []
    for number, source in enumerate(sources):
        for turn in range(2):
            files = [job.files(source, number, turn, worker) for worker in range(3)]
            assert sorted(file for mine in files for file in mine) == sorted(source.files)
            shares.append([len(mine) for mine in files])
    assert np.ptp(np.sum(shares, axis=0)) <= 1


def test_sums_of_another_run_are_never_taken(tmp_path: Path):
    snapshot = write_snapshot(tmp_path)
    job = job_of(tmp_path, [snapshot])
    names = {job.part(0, 0, 0).name, job_of(tmp_path, [snapshot]).part(0, 0, 0).name}
    assert len(names) == 1
    changes = [{"run": "b"}, {"processes": 2}, {"weighted": False}, {"slabs": {**job.slabs, "pixels": 16}}]
    for change in changes:
        names.add(job_of(tmp_path, [snapshot], **change).part(0, 0, 0).name)
    os.utime(tmp_path / "snap0.3.hdf5", (1, 1))
    names.add(job_of(tmp_path, [snapshot]).part(0, 0, 0).name)
    assert len(names) == len(changes) + 2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, (2, 4)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2)),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, (3, 4)),
        # A batch script outside of srun.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1)),
    ],
)
def test_launchers_are_understood(environment: dict[str, str], expected: tuple[int, int]):
    assert find_rank(environment) == expected


@pytest.mark.parametrize("rank", ["4", "-1", "x"])
def test_nonsense_of_a_launcher_is_a_sentence(rank: str):
    with pytest.raises(UserError, match=r"RANK=.*unset both"):
        find_rank({"RANK": rank, "WORLD_SIZE": "4"})


def test_runs_have_names():
    assert name_run({}, 1) != name_run({}, 1)
    environment = {"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"}
    assert name_run(environment, 4) == name_run(environment, 4)
    assert name_run(environment, 4) != name_run({**environment, "SLURM_STEP_ID": "1"}, 4)


def test_a_silent_rank_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "_PATIENCE", 0.2)
    snapshot = write_snapshot(tmp_path)
    job = job_of(tmp_path, [snapshot], ranks=2)
    job.folder.mkdir()
    workers.count_share(job, 0, open_snapshot(snapshot), 0, 0, lambda: None)
    with pytest.raises(UserError, match="rank 1 of 2 has given no sign of life"):
        Team(job, 0).collect(open_snapshot(snapshot), 0, 0, on_particles=print)


def test_missing_particles_are_noticed(tmp_path: Path):
    snapshot = write_snapshot(tmp_path)
    source = open_snapshot(snapshot)
    job = job_of(tmp_path, [snapshot], processes=2)
    job.folder.mkdir()
    for worker in range(2):
        workers.count_share(job, worker, source, 0, 0, lambda: None)
    with h5py.File(job.part(0, 0, 1), "r+") as handle:
        handle["coverage/n"][0] -= 1
    with pytest.raises(UserError, match="announces 3000 particles and the files hold 2999"):
        Team(job, 0).collect(source, 0, 0, on_particles=print)


@pytest.mark.distributed
@pytest.mark.parametrize("assignment", ["NGP", "CIC"])
def test_processes_give_the_bits_of_one(tmp_path: Path, assignment: str):
    snapshots = [write_snapshot(tmp_path, seed) for seed in (0, 1)]
    sets = []
    for processes in (1, 2, 3):
        out = tmp_path / f"{processes}.h5"
        slice_snapshots(snapshots, out=str(out), pixels=8, slabs=6, assignment=assignment, processes=processes)
        sets.append(out.read_bytes())
        slices = read_slices(out)
    assert sets[0] == sets[1] == sets[2]
    assert slices.slices.mean() == pytest.approx(1, rel=1e-6)
    assert not list(tmp_path.glob("*.workers"))


@pytest.mark.distributed
def test_a_failing_worker_is_one_sentence(tmp_path: Path):
    snapshot = write_snapshot(tmp_path, bad=3)
    with pytest.raises(UserError, match=r"snap0\.3\.hdf5.*NaN"):
        slice_snapshots([snapshot], out=str(tmp_path / "out.h5"), pixels=8, processes=2)
    assert not list(tmp_path.glob("out*"))


def command(snapshot: str, out: Path, *more: str) -> list[str]:
    words = ["slice", snapshot, "--out", str(out), "--pixels", "64", "--assignment", "TSC", *more]
    return [sys.executable, "-m", "cosmogan.cli", *words]


@pytest.mark.distributed
def test_ranks_give_the_bits_of_one(tmp_path: Path):
    snapshot = write_snapshot(tmp_path)
    subprocess.run(command(snapshot, tmp_path / "alone.h5"), check=True)
    ranks = [
        subprocess.Popen(
            command(snapshot, tmp_path / "ranks.h5"), env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "3"}
        )
        for rank in range(3)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0, 0]
    assert (tmp_path / "ranks.h5").read_bytes() == (tmp_path / "alone.h5").read_bytes()
    assert not list(tmp_path.glob("*.workers"))


@pytest.mark.distributed
def test_a_killed_run_leaves_no_half_file(tmp_path: Path):
    snapshot = write_snapshot(tmp_path, n=400_000)
    out = tmp_path / "out.h5"
    words = command(snapshot, out, "--slabs", "512", "--processes", "2")
    run = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("out.h5.workers/*.alive")):
        time.sleep(0.02)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    assert children
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not out.exists()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    assert len(read_slices(out).slices) == 3 * 512
    assert not list(tmp_path.glob("out.h5.*"))
