import errno
import hashlib
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cosmogan import Emulator
from cosmogan.cli import main
from cosmogan.emulator.generate import generate
from cosmogan.emulator.mock_run import _MOST_WAITING, poisson_counts
from cosmogan.errors import UserError
from cosmogan.machine.lock import OutputLock
from cosmogan.networks.dcgan import DCGANGenerator
from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator
from cosmogan.slices import SliceMetadata, SliceReader, check_slices
from cosmogan.slices.resumable import ResumableWriter
from cosmogan.slices.shards import merge
from cosmogan.transforms import LogTransform
from cosmogan.units import RODRIGUEZ2018

METADATA = SliceMetadata(box_size=70.0, n_pixels=16, thickness=1.1, smoothing=1.0, cosmology=RODRIGUEZ2018)
# Seven blocks of 16, the last one not full.
N = 100
# Slices of 16 x 16 and their checksums.
SLICE_BYTES = 16 * 16 * 4 + 32


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    transform = LogTransform()
    transform.fit(torch.exp(torch.randn(8, 16, 16)))
    path = tmp_path_factory.mktemp("emulator") / "e.safetensors"
    Emulator(DCGANGenerator(16, latent_size=10, width=4, bounded=False), transform, metadata=METADATA).save(path)
    return str(path)


@pytest.fixture(scope="module")
def whole(saved: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an uninterrupted run in one piece."""
    return generate(saved, n=N, out=str(tmp_path_factory.mktemp("whole") / "mocks.h5"), seed=3)


def pixel_hash(path: Path) -> str:
    with SliceReader(path) as reader:
        return hashlib.sha256(reader.stored().tobytes()).hexdigest()


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix not in (".h5", ".safetensors"))


class Killed(BaseException):
    """Ends a run like a kill: nothing in the package catches it."""


def stop_writing_after(n_bytes: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let no more than so many bytes reach files; the write that would be longer is torn."""
    original = os.pwrite
    left = [n_bytes]

    def write(descriptor: int, data: bytes, position: int) -> int:
        some = memoryview(data)[: left[0]]
        left[0] -= len(some)
        if len(some):
            return original(descriptor, some, position)
        raise error

    monkeypatch.setattr("cosmogan.slices.resumable.os.pwrite", write)


def test_generated_files_are_slice_files(saved: str, whole: Path):
    assert check_slices(whole) == []
    assert leftovers(whole.parent) == []
    with SliceReader(whole) as reader:
        assert reader.metadata == METADATA
        assert (reader.realisation == 3).all()
        assert (reader.axis == 255).all()
        assert np.isnan(reader.position).all()
        assert reader.provenance["seed"] == 3
        np.testing.assert_array_equal(reader.read(), Emulator.load(saved).sample(N, seed=3))


def test_generate_keeps_what_is_there(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "mocks.h5"
    generate(saved, n=2, out=str(out))
    before = out.read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        generate(saved, n=3, out=str(out))
    with pytest.raises(UserError, match="GB are free"):
        generate(saved, n=10**12, out=str(tmp_path / "large.h5"))
    generate(saved, n=2, out=str(out))
    assert "is complete already" in capsys.readouterr().err
    assert out.read_bytes() == before
    generate(saved, n=3, out=str(out), overwrite=True)
    with SliceReader(out) as reader:
        assert len(reader) == 3


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_pixels_do_not_depend_on_shards_batches_and_order(
    saved: str, whole: Path, tmp_path: Path, shards: int, batch_size: int
):
    out = tmp_path / "mocks.h5"
    order = list(range(shards))
    random.Random(batch_size).shuffle(order)
    for i in order:
        generate(saved, n=N, out=str(out), seed=3, shard=f"{i}/{shards}", batch_size=batch_size)
    assert len(list(tmp_path.iterdir())) == shards + 1
    assert pixel_hash(out) == pixel_hash(whole)
    assert check_slices(out) == []
    one = merge([str(out)], out=str(tmp_path / "one.h5"))
    assert pixel_hash(one) == pixel_hash(whole)
    with SliceReader(one) as ours, SliceReader(whole) as expected:
        assert ours.provenance == expected.provenance
        assert ours.metadata == expected.metadata
        for name in ("realisation", "axis", "position", "checksums"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name))


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An emulator of any size; torch rounds its slices differently with one thread and with two."""
    torch.manual_seed(3)
    transform = LogTransform()
    transform.fit(torch.exp(torch.randn(8, 16, 16)))
    generator = SpectralPriorGenerator(16, width=4, smoothing=1.0)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    path = tmp_path_factory.mktemp("prior") / "p.safetensors"
    Emulator(generator, transform, metadata=METADATA).save(path)
    return str(path)


def test_pixels_do_not_depend_on_threads(prior: str, tmp_path: Path):
    before = torch.get_num_threads()
    found = set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.add(pixel_hash(generate(prior, n=40, out=str(tmp_path / f"{threads}.h5"))))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


def test_larger_slices_have_pixels_of_the_same_size(
    prior: str, saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    large = generate(prior, n=3, out=str(tmp_path / "large.h5"), pixels=32)
    assert "modes longer than the trained box" in capsys.readouterr().err
    with SliceReader(large) as reader:
        assert reader.metadata.n_pixels == 32
        assert reader.metadata.box_size == 140.0
        assert reader.provenance["trained_n_pixels"] == 16
    # 200 Mpc are 140 Mpc/h at h = 0.7.
    again = generate(prior, n=3, out=str(tmp_path / "again.h5"), box_size="200 Mpc")
    assert pixel_hash(again) == pixel_hash(large)
    with pytest.raises(UserError, match="one of them"):
        generate(prior, n=3, out=str(tmp_path / "m.h5"), pixels=32, box_size="200 Mpc")
    with pytest.raises(UserError, match="one size only"):
        generate(saved, n=3, out=str(tmp_path / "m.h5"), pixels=32)


def test_another_seed_gives_other_pixels(saved: str, whole: Path, tmp_path: Path):
    assert pixel_hash(generate(saved, n=N, out=str(tmp_path / "m.h5"), seed=4)) != pixel_hash(whole)


# Before the first slice, in pixels, in checksums, in the last slice, in the head at the end.
@pytest.mark.parametrize(
    "n_bytes", [0, 1, 1024, 16 * 1024 + 5, 20_001, 3 * 16 * SLICE_BYTES, N * SLICE_BYTES - 1, N * SLICE_BYTES + 7]
)
def test_a_run_torn_at_any_byte_goes_on_to_the_same_file(
    saved: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int
):
    out = tmp_path / "mocks.h5"
    with monkeypatch.context() as patch:
        stop_writing_after(n_bytes, patch, Killed())
        with pytest.raises(Killed):
            generate(saved, n=N, out=str(out), seed=3)
    assert not out.exists()
    generate(saved, n=N, out=str(out), seed=3)
    assert out.read_bytes() == whole.read_bytes()
    assert leftovers(tmp_path) == []


def test_what_is_there_is_not_made_again(saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    out = tmp_path / "mocks.h5"
    with monkeypatch.context() as patch:
        count_blocks(patch, stop_at=4)
        with pytest.raises(KeyboardInterrupt):
            generate(saved, n=N, out=str(out), seed=3)
    calls = count_blocks(monkeypatch)
    generate(saved, n=N, out=str(out), seed=3)
    # Blocks are computed side by side, so the interrupt meets any from the second (a busy machine) to the fifth.
    n_there = int(re.search(r"continuing after slice (\d+) of 100", capsys.readouterr().err)[1])
    assert n_there in (16, 32, 48, 64)
    assert len(calls) == math.ceil((N - n_there) / 16)


def count_blocks(monkeypatch: pytest.MonkeyPatch, stop_at: int = 0) -> list[int]:
    original = Emulator.density
    calls: list[int] = []
    counting = threading.Lock()

    def density(self, latent):
        # Threads compute blocks side by side: each must see its own number.
        with counting:
            calls.append(len(latent))
            number = len(calls)
        if number == stop_at:
            raise KeyboardInterrupt
        return original(self, latent)

    monkeypatch.setattr(Emulator, "density", density)
    return calls


def test_damaged_pixels_of_a_part_are_made_again(
    saved: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "mocks.h5"
    with monkeypatch.context() as patch:
        count_blocks(patch, stop_at=6)
        with pytest.raises(KeyboardInterrupt):
            generate(saved, n=N, out=str(out), seed=3)
    part = out.with_name("mocks.h5.part")
    data = bytearray(part.read_bytes())
    # As pages that were lost with their machine.
    data[-40 * 1024 : -39 * 1024] = bytes(1024)
    part.write_bytes(data)
    generate(saved, n=N, out=str(out), seed=3)
    assert out.read_bytes() == whole.read_bytes()


def test_parts_of_other_commands_are_not_continued(
    saved: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "mocks.h5"
    with monkeypatch.context() as patch:
        count_blocks(patch, stop_at=3)
        with pytest.raises(KeyboardInterrupt):
            generate(saved, n=N, out=str(out), seed=4)
    with pytest.raises(UserError, match=r"begun by another command \(seed 4 and not 3\)"):
        generate(saved, n=N, out=str(out), seed=3)
    generate(saved, n=N, out=str(out), seed=3, overwrite=True)
    assert "starting over" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes()
    # A part without a journal is nobody's.
    out.unlink()
    out.with_name("mocks.h5.part").write_bytes(b"half")
    generate(saved, n=N, out=str(out), seed=3)
    assert "starting over" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes()


SLOWLY = """
import sys, time
from cosmogan import Emulator
from cosmogan.cli import main
original = Emulator.density
def density(self, latent):
    time.sleep(0.02)
    return original(self, latent)
Emulator.density = density
sys.exit(main(sys.argv[1:]))
"""


def start(saved: str, out: Path, *more: str) -> subprocess.Popen[str]:
    words = ["generate", saved, "-n", str(N), "--seed", "3", "--out", str(out), *more]
    return subprocess.Popen([sys.executable, "-c", SLOWLY, *words], stderr=subprocess.PIPE, text=True)


def wait_for_slices(journal: Path, n_bytes: int) -> None:
    while not journal.exists() or journal.stat().st_size < n_bytes:
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_to_the_same_file(saved: str, whole: Path, tmp_path: Path, number: signal.Signals):
    out = tmp_path / "mocks.h5"
    process = start(saved, out)
    # The head of the journal is shorter than 1000 bytes, and two blocks of checksums have 1024.
    wait_for_slices(out.with_name("mocks.h5.journal"), 1000)
    with pytest.raises(UserError, match=rf"is being written by process {process.pid} on "):
        generate(saved, n=N, out=str(out), seed=3)
    process.send_signal(number)
    _, message = process.communicate()
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    if number == signal.SIGTERM:
        assert "run the same command again" in message
        assert "Traceback" not in message
    assert not out.exists()
    generate(saved, n=N, out=str(out), seed=3)
    assert out.read_bytes() == whole.read_bytes()
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_runs_killed_many_times_end_with_the_same_file(saved: str, whole: Path, tmp_path: Path):
    moment = random.Random(0)
    for run in range(2):
        out = tmp_path / f"mocks{run}.h5"
        for _ in range(8):
            process = start(saved, out)
            lock = out.with_name(out.name + ".lock")
            while process.poll() is None and not (lock.exists() and f"process {process.pid} " in lock.read_text()):
                time.sleep(0.001)
            time.sleep(moment.uniform(0, 0.08))
            process.kill()
            process.communicate()
        generate(saved, n=N, out=str(out), seed=3)
        assert out.read_bytes() == whole.read_bytes()


@pytest.mark.distributed
def test_processes_of_one_machine_make_the_same(saved: str, whole: Path, tmp_path: Path):
    out = tmp_path / "mocks.h5"
    assert generate(saved, n=N, out=str(out), seed=3, shards=2) == out
    assert pixel_hash(out) == pixel_hash(whole)
    other = tmp_path / "killed.h5"
    process = start(saved, other, "--shards", "2")
    journal = other.with_name("killed_00001-of-00002.h5.journal")
    wait_for_slices(journal, 700)
    process.terminate()
    _, message = process.communicate()
    assert process.returncode == 143
    assert "Traceback" not in message
    generate(saved, n=N, out=str(other), seed=3, shards=2)
    assert pixel_hash(other) == pixel_hash(whole)


def test_shards_say_how_many_are_missing(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "mocks.h5"
    for number, expected in (("2", "1 of 3"), ("0", "2 of 3")):
        words = ["generate", saved, "-n", str(N), "--out", str(out), "--shard", f"{number}/3"]
        # The second time the shard is there, and the others are still missing.
        for _ in range(2):
            assert main(words) == 0
            message = f"{out}: {expected} shards are there; it is written when all are"
            assert message in capsys.readouterr().err
    assert main([*words[:-1], "1/3"]) == 0
    assert "shards are there" not in capsys.readouterr().err
    with SliceReader(out) as reader:
        assert len(reader) == N


def test_ranks_write_a_shard_each(saved: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "mocks.h5"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(UserError, match="each rank writes one shard"):
            generate(saved, n=N, out=str(out), seed=3, shards=3)
        written = generate(saved, n=N, out=str(out), seed=3)
        assert written.name == ("mocks.h5" if rank == 0 else "mocks_00001-of-00002.h5")
    assert pixel_hash(out) == pixel_hash(whole)


def test_shards_of_different_runs_are_not_tied_together(saved: str, tmp_path: Path):
    out = tmp_path / "mocks.h5"
    generate(saved, n=N, out=str(out), seed=4, shard="0/2")
    with pytest.raises(UserError, match=r"00000-of-00002[.]h5: is a shard of another run"):
        generate(saved, n=N, out=str(out), seed=3, shard="1/2")
    with pytest.raises(UserError, match=r"00000-of-00002[.]h5: exists already"):
        generate(saved, n=N, out=str(out), seed=3, shard="0/2")
    # With --overwrite the old shard is waited for; its own process replaces it.
    assert generate(saved, n=N, out=str(out), seed=3, shard="1/2", overwrite=True).name == "mocks_00001-of-00002.h5"
    assert generate(saved, n=N, out=str(out), seed=3, shard="0/2", overwrite=True) == out
    assert check_slices(out) == []
    # One piece, or another number of pieces, would replace the index.
    for options in ({}, {"shard": "0/3"}):
        with pytest.raises(UserError, match="exists already"):
            generate(saved, n=N, out=str(out), seed=3, **options)


def test_a_full_disk_keeps_what_is_done(
    saved: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "mocks.h5"
    words = ["generate", saved, "-n", str(N), "--seed", "3", "--out", str(out)]
    with monkeypatch.context() as patch:
        stop_writing_after(40 * SLICE_BYTES, patch, OSError(errno.ENOSPC, "full"))
        assert main(words) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "No space left on device" in message
    assert "run the same command again" in message
    assert main(words) == 0
    assert out.read_bytes() == whole.read_bytes()


def test_a_small_disk_gets_full_and_is_given_room(saved: str, whole: Path, tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(100_000))
        out = disk / "mocks.h5"
        # The announced size fits into what another program then takes.
        with pytest.raises(UserError, match="No space left on device"):
            fill_while_generating(saved, out, disk / "more")
        assert not out.exists()
        ballast.unlink()
        (disk / "more").unlink()
        generate(saved, n=N, out=str(out), seed=3)
        assert out.read_bytes() == whole.read_bytes()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill_while_generating(saved: str, out: Path, filler: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        original = ResumableWriter.append

        def append(self, slices):
            if self.n_done == 32:
                with pytest.raises(OSError, match="No space"):
                    filler.write_bytes(bytes(10**6))
            original(self, slices)

        patch.setattr(ResumableWriter, "append", append)
        generate(saved, n=N, out=str(out), seed=3)


def test_two_runs_refuse_each_other_and_a_lock_of_the_dead_is_taken_over(saved: str, whole: Path, tmp_path: Path):
    out = tmp_path / "mocks.h5"
    with (
        OutputLock(out),
        pytest.raises(UserError, match=rf"is being written by process {os.getpid()} on "),
    ):
        generate(saved, n=N, out=str(out), seed=3)
    out.with_name("mocks.h5.lock").write_text("process 1 on nowhere")
    generate(saved, n=N, out=str(out), seed=3)
    assert out.read_bytes() == whole.read_bytes()


def test_few_blocks_wait_for_a_slow_disk(saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = count_blocks(monkeypatch)
    ahead: list[int] = []
    go = threading.Event()
    original = ResumableWriter.append

    def append(self, slices):
        go.wait(0.02)
        ahead.append(len(calls) - self.n_done // 16)
        original(self, slices)

    monkeypatch.setattr(ResumableWriter, "append", append)
    generate(saved, n=400, out=str(tmp_path / "m.h5"))
    # One is being written and one is being made; what the emulator makes ahead by itself comes on top.
    assert 2 < max(ahead) <= _MOST_WAITING + 3 + 2 * torch.get_num_threads()


def test_half_precision_is_read_as_single(saved: str, whole: Path, tmp_path: Path):
    half = generate(saved, n=N, out=str(tmp_path / "half.h5"), seed=3, dtype="float16")
    assert check_slices(half) == []
    with SliceReader(half) as reader, SliceReader(whole) as expected:
        assert reader.stored().dtype == np.float16
        assert reader.read().dtype == np.float32
        # 11 bits of mantissa, and steps of 2^-24 below 2^-14.
        np.testing.assert_allclose(reader.density(), expected.read(), rtol=2**-11, atol=2**-25)
        assert not np.array_equal(reader.density(), expected.read())


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_compressed_files_hold_the_same(
    saved: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
):
    out = tmp_path / "small.h5"

    def fail(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("cosmogan.slices.resumable.ResumableWriter._packed", fail)
        with pytest.raises(Killed):
            generate(saved, n=N, out=str(out), seed=3, compression=compression)
    calls = count_blocks(monkeypatch)
    generate(saved, n=N, out=str(out), seed=3, compression=compression)
    assert calls == []
    assert pixel_hash(out) == pixel_hash(whole)
    assert leftovers(tmp_path) == []
    assert check_slices(out) == []


def test_counts_are_poisson_numbers_of_the_density():
    density = np.full((50, 16, 16), 0.5, np.float32)
    density[:, 8:] = 1.5
    counts = poisson_counts(density, 8.0, seed=1, first=0)
    for half, mean in ((counts[:, :8], 4.0), (counts[:, 8:], 12.0)):
        # Five sigma of the mean, and of the variance of a Poisson distribution.
        assert abs(half.mean() - mean) < 5 * np.sqrt(mean / half.size) < 0.05 * mean
        assert abs(half.var() - mean) < 5 * np.sqrt((2 * mean**2 + mean) / half.size)
    # Slice i depends on its number only.
    np.testing.assert_array_equal(poisson_counts(density[7:9], 8.0, seed=1, first=7), counts[7:9])
    assert not np.array_equal(poisson_counts(density[:1], 8.0, seed=2, first=0), counts[:1])
    expected = np.random.Generator(np.random.Philox(key=1, counter=[0, 0, 1, 7])).poisson(
        8.0 * density[7].astype(float)
    )
    np.testing.assert_array_equal(counts[7], expected)


def test_files_of_counts(saved: str, whole: Path, tmp_path: Path):
    out = tmp_path / "counts.h5"
    for shard in ("1/2", "0/2"):
        generate(saved, n=N, out=str(out), seed=3, quantity="counts", mean_count=8.0, shard=shard)
    assert check_slices(out) == []
    with SliceReader(out) as reader, SliceReader(whole) as densities:
        assert reader.metadata.mean_count == 8.0
        np.testing.assert_array_equal(reader.read(), poisson_counts(densities.read(), 8.0, seed=3, first=0))


def test_another_precision_is_another_command(prior: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "mocks.h5"
    exact = pixel_hash(generate(prior, n=N, out=str(tmp_path / "exact.h5")))
    with monkeypatch.context() as patch:
        count_blocks(patch, stop_at=3)
        with pytest.raises(KeyboardInterrupt):
            generate(prior, n=N, out=str(out), precision="bfloat16")
    with pytest.raises(UserError, match=r"precision bfloat16 and not float32"):
        generate(prior, n=N, out=str(out))
    assert pixel_hash(generate(prior, n=N, out=str(out), precision="bfloat16")) != exact
    with SliceReader(out) as reader:
        assert reader.provenance["precision"] == "bfloat16"


WRONG = {
    "n": ({"n": 0}, "n: expected at least 1, found 0"),
    "seed": ({"seed": 2**31}, "seed: expected 0 to"),
    "shard too large": ({"shard": "16/16"}, "numbered 0 to 15"),
    "shard in words": ({"shard": "three"}, "such as 3/16"),
    "no shards": ({"shards": 0}, "shards: expected 1 to"),
    "too many shards": ({"shards": 8}, "fill at most 7 shards; found 8"),
    "both": ({"shards": 2, "shard": "0/2"}, "give one of them"),
    "no mean": ({"quantity": "counts"}, "add --mean-count"),
    "mean of densities": ({"mean_count": 8.0}, "for --quantity counts only"),
    "mean": ({"quantity": "counts", "mean_count": -1.0}, "mean_count: expected a number of particles above 0"),
    "large mean": ({"quantity": "counts", "mean_count": 1e7}, "mean_count: expected at most 65535"),
    "quantity": ({"quantity": "mass"}, "quantity must be"),
    "type": ({"dtype": "float64"}, "stored as float32 or float16, found 'float64'"),
    "type of counts": ({"quantity": "counts", "mean_count": 1.0, "dtype": "float16"}, "stored as uint16"),
    "precision": ({"precision": "float16"}, "expected float32 or bfloat16"),
    "compression": ({"compression": "zip"}, "expected none, gzip or lzf"),
}


@pytest.mark.parametrize("name", WRONG)
def test_impossible_wishes_are_refused(saved: str, tmp_path: Path, name: str):
    options, message = WRONG[name]
    with pytest.raises(UserError, match=message):
        generate(saved, **{"n": N, "out": str(tmp_path / "mocks.h5"), **options})
    assert not list(tmp_path.glob("*.h5"))


def test_a_folder_without_permission_is_refused(saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr("cosmogan.machine.lock.os.open", refuse)
    with pytest.raises(UserError, match=r"cannot be written [(]Permission denied"):
        generate(saved, n=N, out=str(tmp_path / "mocks.h5"))


def test_a_folder_that_cannot_be_made_is_no_want_of_room(saved: str, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"cannot be written [(]Not a directory[)]; no file .* {tmp_path}/file$"):
        generate(saved, n=N, out=str(tmp_path / "file" / "mocks.h5"))
    if Path("/proc").is_dir():
        with pytest.raises(UserError, match=r"/proc/x/m.h5: cannot be written [(].*; no file can be made in /proc$"):
            generate(saved, n=N, out="/proc/x/m.h5")


def test_want_of_room_is_told_in_megabytes(saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=12_300)
    monkeypatch.setattr("cosmogan.files.shutil.disk_usage", lambda folder: usage)
    # 100 slices of 16 x 16 in float32, with 41 bytes of labels and checksum each.
    with pytest.raises(UserError, match=r"needs 0[.]1065 MB and 0[.]0123 MB are free"):
        generate(saved, n=N, out=str(tmp_path / "new" / "mocks.h5"))
    assert list(tmp_path.iterdir()) == []
