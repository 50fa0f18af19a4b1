"""Emulators of networks that are told parameters of the simulation."""

from pathlib import Path

import numpy as np
import pytest

from cosmogan.cli import main
from cosmogan.emulator.emulator import Emulator
from cosmogan.errors import UserError
from cosmogan.networks.spectral_prior import SpectralPriorGenerator
from cosmogan.slices import read_provenance, read_slices
from cosmogan.training.fit import fit
from tests.cosmogan.emulator.test_conditions import write_conditioned
from tests.cosmogan.training.recipes import SPECTRAL_PRIOR, recipe

RECIPE = recipe(
    SPECTRAL_PRIOR.replace("width: 4", "width: 4, n_conditions: 1"),
    data="batch_size: 4, slices_per_epoch: 16, conditions: [Omega_m]",
    max_slices=32,
    generator_lr=0.02,
    average_halflife=1,
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    write_conditioned(folder / "slices.h5")
    (folder / "recipe.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        # A fixture of a module comes before the one that does this for each test.
        for name in ("FIT_PIXELS", "CALIBRATION_PIXELS"):
            patch.setattr(SpectralPriorGenerator, name, 2**13)
        best = fit(
            ["--config", str(folder / "recipe.yaml"), "--data.path", str(folder / "slices.h5"), "--out", str(folder)]
        )
    assert main(["export", str(best), "--out", str(folder / "told.safetensors")]) == 0
    return folder / "told.safetensors"


def test_slices_depend_on_what_the_emulator_is_told(told: Path):
    emulator = Emulator.load(told)
    (column,) = emulator.conditions.columns
    assert (column.name, column.low, column.high) == ("Omega_m", 0.1, 0.4)
    low, high = (emulator.given(Omega_m=value).sample(3, seed=1) for value in (0.1, 0.4))
    assert np.isfinite(low).all()
    assert not np.allclose(low, high, rtol=1e-3)
    np.testing.assert_array_equal(low, emulator.given(Omega_m=0.1).sample(3, seed=1))


def test_files_of_conditioned_slices_say_so(told: Path, tmp_path: Path):
    words = ["generate", str(told), "-n", "3", "--seed", "1", "--out", str(tmp_path / "mocks.h5")]
    assert main([*words, "--conditions", "Omega_m=0.25"]) == 0
    assert read_provenance(tmp_path / "mocks.h5")["condition Omega_m"] == 0.25
    expected = Emulator.load(told).given(Omega_m=0.25).sample(3, seed=1)
    np.testing.assert_array_equal(read_slices(tmp_path / "mocks.h5").slices, expected)


def test_processes_of_one_machine_are_told_too(told: Path, tmp_path: Path):
    out = tmp_path / "mocks.h5"
    words = ["generate", str(told), "-n", "33", "--seed", "1", "--out", str(out), "--shards", "2"]
    assert main([*words, "--conditions", "Omega_m=0.25"]) == 0
    expected = Emulator.load(told).given(Omega_m=0.25).sample(33, seed=1)
    np.testing.assert_array_equal(read_slices(out).slices, expected)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], r"must be told Omega_m \(0\.1 to 0\.4\)"),
        (["--conditions", "Omega_m=0.9"], r"Omega_m was 0\.1 to 0\.4 in training, found 0\.9"),
        (["--conditions", "sigma_8=0.9"], "knows no 'sigma_8'; it was trained with: Omega_m"),
        (["--conditions", "Omega_m"], "expected NAME=VALUE"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(told: Path, tmp_path: Path, capsys, conditions: list[str], expected: str):
    out = tmp_path / "mocks.h5"
    assert main(["generate", str(told), "-n", "3", "--out", str(out), *conditions]) == 2
    with pytest.raises(UserError, match=expected):
        raise UserError(capsys.readouterr().err)
    assert not out.exists()


def test_plain_emulators_know_no_conditions(saved: str):
    with pytest.raises(UserError, match="it was trained with: none"):
        Emulator.load(saved).given(Omega_m=0.3)
