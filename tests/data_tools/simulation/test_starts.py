"""Coarse starts have the phases, the offset and the particles of the simulations they stand for."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cosmogan.slices import read_slices
from cosmogan.units import RODRIGUEZ2018
from data_tools.simulation import realisations
from data_tools.simulation.realisations import SimulationParameters
from data_tools.simulation.simulate import simulate
from data_tools.simulation.starts import start_counts


def power(wavenumber: np.ndarray) -> np.ndarray:
    return 30 / wavenumber


def parameters(**changes) -> SimulationParameters:
    values = {"box_size": 70.0, "particles": 16, "mesh": 32, "steps": 4, "start_redshift": 9.0, "redshift": 0.0}
    return SimulationParameters(cosmology=RODRIGUEZ2018, **(values | changes))


def test_a_start_with_all_steps_is_the_simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(realisations, "linear_power", lambda cosmology, k_max: power)
    [path] = simulate(
        box_size="70 Mpc/h",
        particles=16,
        seeds="3",
        steps=4,
        slice_pixels=8,
        quantity="counts",
        out=str(tmp_path / "s.h5"),
        device="cpu",
    )
    counts = start_counts(parameters(), power, 3, pixels=8, slabs=8)
    assert counts.dtype == torch.uint16
    assert np.array_equal(counts.numpy().reshape(24, 8, 8), read_slices(path).slices)


def test_fewer_steps_keep_the_large_scales():
    whole, coarse, other = (
        start_counts(parameters(steps=steps, mesh=mesh), power, seed, pixels=4, slabs=4).numpy().astype(float)
        for steps, mesh, seed in ((20, 32, 1), (4, 32, 1), (4, 32, 2))
    )
    # Cubes of 17.5 Mpc/h.
    assert np.corrcoef(whole[0].ravel(), coarse[0].ravel())[0, 1] > 0.9
    assert abs(np.corrcoef(whole[0].ravel(), other[0].ravel())[0, 1]) < 0.5


def test_every_particle_counts_once_along_each_axis():
    counts = start_counts(parameters(), power, 1, pixels=8, slabs=4).numpy().astype(int)
    assert counts.shape == (3, 4, 8, 8)
    assert counts.sum((1, 2, 3)).tolist() == [16**3] * 3
    # Slabs normal to x, in pixels of y and z, against those normal to y, in pixels of x and z: two pixels deep.
    along_y = counts[0].reshape(4, 4, 2, 8).sum(2)
    along_x = counts[1].reshape(4, 4, 2, 8).sum(2)
    assert np.array_equal(along_y, along_x.transpose(1, 0, 2))


def test_the_power_spectrum_is_asked_for_inside_its_table():
    asked: list[np.ndarray] = []

    def noted(wavenumber: np.ndarray) -> np.ndarray:
        asked.append(wavenumber)
        return power(wavenumber)

    start_counts(parameters(), noted, 1, pixels=8, slabs=8)
    all_of_them = np.concatenate([each.ravel() for each in asked])
    assert math.isclose(all_of_them.min(), 2 * math.pi / 70)
    assert math.isclose(all_of_them.max(), math.sqrt(3) * math.pi * 16 / 70)
