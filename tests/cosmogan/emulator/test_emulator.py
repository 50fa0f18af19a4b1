import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from cosmogan import Emulator
from cosmogan.emulator.emulator import latents
from cosmogan.errors import UserError


def test_samples_are_densities(emulator: Emulator):
    slices = emulator.sample(6, seed=2)
    assert slices.shape == (6, 16, 16)
    assert slices.dtype == np.float32
    assert np.isfinite(slices).all()
    assert (slices >= 0).all()
    assert slices.std() > 0


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_a_slice_depends_on_seed_and_number_only(emulator: Emulator, batch_size: int):
    whole = emulator.sample(35, seed=5)
    np.testing.assert_array_equal(emulator.sample(35, seed=5, batch_size=batch_size), whole)
    for first, n in ((0, 1), (9, 4), (14, 20), (34, 1)):
        part = emulator.sample(n, seed=5, first=first, batch_size=batch_size)
        np.testing.assert_array_equal(part, whole[first : first + n])
    # Twins: other seeds and other numbers are other slices.
    assert not np.array_equal(emulator.sample(35, seed=6), whole)
    assert len({s.tobytes() for s in whole}) == 35


def test_latents_can_be_made_by_any_program_with_numpy():
    expected = np.random.Generator(np.random.Philox(key=4, counter=[0, 0, 0, 123456])).standard_normal(
        (2, 3), dtype=np.float32
    )
    np.testing.assert_array_equal(latents(range(123456, 123457), (2, 3), seed=4)[0], expected)
    many = latents(range(2000), (50,), seed=0)
    # Mean of 100,000 normal numbers: 5 sigma.
    assert abs(many.mean()) < 5 / np.sqrt(many.size)
    assert abs(many.var() - 1) < 5 * np.sqrt(2 / many.size)


@pytest.mark.gpu
def test_a_gpu_makes_the_same_slices_up_to_rounding(saved: Path):
    on_cpu = Emulator.load(saved).sample(20, seed=5)
    on_gpu = Emulator.load(saved, device="cuda").sample(20, seed=5)
    # Convolutions in tensor-float precision carry three digits.
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-2)


@pytest.mark.parametrize("values", [{"n": 0}, {"n": -1}, {"n": 1, "seed": -1}, {"n": 1, "first": -1}])
def test_impossible_numbers_are_refused(emulator: Emulator, values: dict[str, int]):
    with pytest.raises(UserError, match="expected at least"):
        emulator.sample(**values)


def test_chosen_slices_are_those_of_a_long_run(emulator: Emulator):
    whole = emulator.sample(70, seed=5)
    chosen = [69, 3, 17, 3, 0, 16, 31]
    np.testing.assert_array_equal(emulator.sample(seed=5, indices=chosen), whole[chosen])
    np.testing.assert_array_equal(emulator.sample(seed=5, indices=np.array([42])), whole[[42]])
    far = emulator.sample(3, seed=5, first=123455)
    np.testing.assert_array_equal(emulator.sample(seed=5, indices=[123456]), far[[1]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "expected n"),
        ({"indices": []}, "n: expected at least 1"),
        ({"indices": [-1]}, "indices: expected at least 0"),
        ({"indices": [2**63]}, "indices: expected at most"),
        ({"indices": [1, 2], "n": 3}, "stand instead of n"),
        ({"indices": [1, 2.0]}, "indices: expected an integer, found 2.0"),
        ({"n": 2.0}, "n: expected an integer, found 2.0"),
        ({"n": True}, "n: expected an integer, found True"),
        ({"n": 1, "seed": 1.5}, "seed: expected an integer, found 1.5"),
        ({"n": 1, "seed": "1"}, "seed: expected an integer, found '1'"),
        ({"n": 1, "first": 0.0}, "first: expected an integer, found 0.0"),
        ({"n": 1, "batch_size": 64.0}, "batch_size: expected an integer, found 64.0"),
        ({"n": 1, "seed": 2**64}, "seed: expected at most"),
        ({"n": 1, "returns": "jax"}, "expected one of numpy, torch, xarray"),
        ({"n": 1, "out": np.empty((1, 16, 15), np.float32)}, r"expected shape \(1, 16, 16\), found \(1, 16, 15\)"),
        ({"n": 1, "out": np.empty((1, 16, 16), np.uint16)}, "expected float32, found uint16"),
        ({"n": 1, "out": [0.0]}, "expected an array, found list"),
        ({"n": 1, "out": np.empty((1, 16, 16)), "returns": "torch"}, "out is returned as it is"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(dcgan: Emulator, values, message: str):
    with pytest.raises(UserError, match=message):
        dcgan.sample(**values)


def test_integers_of_numpy_and_torch_are_integers(dcgan: Emulator):
    expected = dcgan.sample(2, seed=5, first=3)
    np.testing.assert_array_equal(dcgan.sample(np.int8(2), seed=np.uint64(5), first=np.int16(3)), expected)
    np.testing.assert_array_equal(dcgan.sample(seed=np.int32(5), indices=np.array([3, 4])), expected)
    np.testing.assert_array_equal(dcgan.sample(seed=5, indices=torch.tensor([3, 4])), expected)
    largest = np.uint64(2**64 - 1)
    np.testing.assert_array_equal(dcgan.sample(1, seed=largest), dcgan.sample(1, seed=2**64 - 1))


def test_slices_fill_any_array(dcgan: Emulator, tmp_path: Path):
    expected = dcgan.sample(20, seed=1)
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, expected.shape)
    assert dcgan.sample(20, seed=1, out=mapped) is mapped
    np.testing.assert_array_equal(mapped, expected)
    tensor = torch.zeros(expected.shape)
    dcgan.sample(20, seed=1, out=tensor)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    chosen = [19, 2, 2, 7]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        np.testing.assert_array_equal(
            dcgan.sample(20, seed=1, out=file.create_dataset("a", expected.shape, np.float32))[:], expected
        )
        some = file.create_dataset("b", (4, 16, 16), np.float32)
        dcgan.sample(seed=1, indices=chosen, out=some)
        np.testing.assert_array_equal(some[:], expected[chosen])


def test_slices_come_as_tensors_and_as_xarray(dcgan: Emulator, tmp_path: Path):
    expected = dcgan.sample(2, seed=1, first=3)
    tensor = dcgan.sample(2, seed=1, first=3, returns="torch")
    assert isinstance(tensor, torch.Tensor)
    assert not tensor.is_inference()
    np.testing.assert_array_equal(tensor.numpy(), expected)
    pytest.importorskip("xarray")
    array = dcgan.sample(2, seed=1, first=3, returns="xarray")
    np.testing.assert_array_equal(array.values, expected)
    assert array.dims == ("index", "x", "y")
    assert list(array["index"].values) == [3, 4]
    # Centres of 16 pixels over 70 Mpc/h.
    np.testing.assert_allclose(array["x"].values[[0, -1]], [70 / 32, 70 - 70 / 32])
    assert (array.attrs["box_size"], array.attrs["seed"]) == (70.0, 1)
    assert array["y"].attrs["units"] == "Mpc/h"
    assert array.attrs["emulator_training"] == '{"n_slices_seen": 7}'


def test_a_missing_xarray_is_named(dcgan: Emulator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(UserError, match=r"pip install 'cosmogan\[xarray\]'"):
        dcgan.sample(1, returns="xarray")


def test_a_stream_says_what_it_brings(emulator: Emulator):
    batches = list(emulator.stream(37, seed=2, first=5))
    np.testing.assert_array_equal(np.concatenate([b.slices for b in batches]), emulator.sample(37, seed=2, first=5))
    np.testing.assert_array_equal(np.concatenate([b.indices for b in batches]), np.arange(5, 42))
    assert max(len(b.slices) for b in batches) == emulator.block_size
    last = batches[-1]
    assert last.metadata == emulator.metadata
    np.testing.assert_array_equal(emulator.sample(seed=last.seed, indices=last.indices), last.slices)
    with pytest.raises(UserError, match="n: expected at least 1"):
        emulator.stream(0)


def test_threads_share_an_emulator(spectral: Emulator):
    expected = {seed: spectral.sample(48, seed=seed) for seed in range(4)}
    found: dict[int, np.ndarray] = {}
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        start.wait()
        found[seed] = spectral.sample(48, seed=seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for seed, slices in expected.items():
        np.testing.assert_array_equal(found[seed], slices)


def test_bits_do_not_depend_on_the_number_of_threads(spectral: Emulator):
    before = torch.get_num_threads()
    made = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            made.append(spectral.sample(40, seed=1))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(made[1], made[0])
    np.testing.assert_array_equal(made[2], made[0])


def test_global_random_numbers_are_left_alone(saved: Path):
    torch.manual_seed(1)
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    Emulator.load(saved).sample(3)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_docs_recipe_makes_the_latents():
    """The ten lines of docs/emulators.md, run as they stand there."""
    page = (Path(__file__).parents[3] / "docs" / "emulators.md").read_text()
    code = page.split("```python\n# Latents")[1].split("```")[0]
    names: dict[str, object] = {}
    exec("# Latents" + code, names)
    made = names["latents"](7, 123456, (2, 16, 16))  # type: ignore[operator]
    np.testing.assert_array_equal(made, latents([123456], (2, 16, 16), seed=7)[0])


@pytest.mark.slow
def test_two_processes_make_the_same_bits(saved: Path):
    """Another process, another number of threads."""
    code = (
        "import sys; from cosmogan import Emulator; "
        f"sys.stdout.buffer.write(Emulator.load({str(saved)!r}).sample(40).tobytes())"
    )
    hashes = set()
    for n in (1, 2):
        made = subprocess.run(
            [sys.executable, "-c", code], env={"OMP_NUM_THREADS": str(n)}, capture_output=True, check=True
        )
        hashes.add(hashlib.sha256(made.stdout).hexdigest())
    assert hashes == {hashlib.sha256(Emulator.load(saved).sample(40).tobytes()).hexdigest()}
