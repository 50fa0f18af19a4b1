"""Minimal writers of published data sets, after their documentation, independent of the readers."""

from pathlib import Path

import h5py
import numpy as np

CAMELS_COLUMNS = ("Omega_m", "sigma8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")
# (Msun/h) / (Mpc/h)^3.
CRITICAL_DENSITY = 2.77536627e11


def density(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """1 + delta of mean 1 along the last three axes, with the tail of a matter field."""
    field = np.exp(1.5 * rng.normal(size=shape))
    return field / field.mean(axis=(-3, -2, -1), keepdims=True)


def counts(rng: np.random.Generator, side: int, mean: int) -> np.ndarray:
    """Particles on a cube, exactly ``mean`` per voxel on average."""
    probability = density(rng, side, side, side).ravel()
    return rng.multinomial(mean * side**3, probability / probability.sum()).reshape(side, side, side)


def write_three_d_cosmo(folder: Path, *, box: int = 350, number: int = 0, side: int = 8, mean: int = 64) -> Path:
    path = folder / f"{side}_nbody_{box}Mpc_{number}.h5"
    with h5py.File(path, "w") as handle:
        handle["data"] = counts(np.random.default_rng(number), side, mean).astype(np.float32)
    return path


def camels_table(n_simulations: int, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = np.array([0.1, 0.6, 0.25, 0.25, 0.5, 0.5])
    high = np.array([0.5, 1.0, 4.0, 4.0, 2.0, 2.0])
    return low + (high - low) * rng.random((n_simulations, 6))


def write_camels_maps(
    folder: Path, *, n_simulations: int = 3, side: int = 8, field: str = "Mtot", suite: str = "IllustrisTNG"
) -> Path:
    rng = np.random.default_rng(1)
    table = camels_table(n_simulations)
    np.savetxt(folder / f"params_LH_{suite}.txt", table)
    maps = np.empty((n_simulations, 15, side, side))
    for simulation, (omega_m, *_) in enumerate(table):
        maps[simulation] = density(rng, 15, side, side) * omega_m * CRITICAL_DENSITY * 5.0
    path = folder / f"Maps_{field}_{suite}_LH_z=0.00.npy"
    np.save(path, maps.reshape(-1, side, side).astype(np.float32))
    return path


def write_camels_grids(folder: Path, *, n_simulations: int = 3, side: int = 8, redshift: str = "0.50") -> Path:
    rng = np.random.default_rng(2)
    table = camels_table(n_simulations)
    np.savetxt(folder / "params_LH_SIMBA.txt", table)
    omega_m = table[:, 0].reshape(-1, 1, 1, 1)
    grids = density(rng, n_simulations, side, side, side) * omega_m * CRITICAL_DENSITY
    path = folder / f"Grids_Mtot_SIMBA_LH_{side}_z={redshift}.npy"
    np.save(path, grids.astype(np.float32))
    return path


def write_cosmoflow(folder: Path, *, side: int = 8, number: int = 16305120, omega_m: float = 0.309) -> Path:
    rng = np.random.default_rng(number)
    path = folder / f"univ_ics_2019-03_a{number}.hdf5"
    with h5py.File(path, "w") as handle:
        full = np.stack([counts(rng, side, 1) for _ in range(4)], axis=-1)
        handle["full"] = full.astype(np.int16)
        handle["namePar"] = np.array([b"Omega_m", b"sigma_8", b"N_spec", b"H_0"])
        handle["physPar"] = np.array([omega_m, 0.82, 0.96, 67.0])
        handle["unitPar"] = np.array([-0.5, -0.375, 0.0, 0.42857143])
        handle["redshifts"] = np.array([0.0, 0.5, 1.5, 3.0])
        handle.attrs.update(dataset_tag=b"4parE", seed9=number, universe_tag=b"4parE_1-1")
    return path


def write_quijote(
    folder: Path, *, number: int = 0, side: int = 8, stored: str = "delta", simulations: str = "fiducial"
) -> Path:
    path = folder / simulations / str(number) / f"df_m_{side}_PCS_z=0.5.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    field = density(np.random.default_rng(number), side, side, side)
    np.save(path, (field - (stored == "delta")).astype(np.float32))
    return path


def write_feder(folder: Path, *, n_cubes: int = 2, side: int = 8) -> Path:
    path = folder / f"n{side}_512Mpc_cosmo1_z0_gridpart.h5"
    with h5py.File(path, "w") as handle:
        for seed in range(1, n_cubes + 1):
            handle[f"seed{seed}"] = counts(np.random.default_rng(seed), side, 1).astype(np.float32)
    return path


def write_cosmogan_pytorch(folder: Path, *, scaled: bool = False, n_slices: int = 12, side: int = 8) -> Path:
    slices = np.random.default_rng(3).poisson(density(np.random.default_rng(4), n_slices, side, side))
    images = slices[:, None].astype(np.float64)
    path = folder / ("norm_1_train_val.npy" if scaled else "Om0.3_Sg0.8_H70.0.npy")
    np.save(path, 2 * images / (images + 4.0) - 1 if scaled else images)
    return path


def write_cosmogan(folder: Path, *, a: float = 5.0, n_slices: int = 12, side: int = 8) -> Path:
    field = density(np.random.default_rng(5), n_slices, side, side)
    path = folder / f"cosmogan_maps_{side}_8k_1.npy"
    np.save(path, (2 * field / (field + a) - 1).astype(np.float32))
    return path


def write_plain_cube(folder: Path, *, side: int = 8, name: str = "cube.npy") -> Path:
    cube = density(np.random.default_rng(6), side, side, side).astype(np.float32)
    path = folder / name
    if path.suffix == ".npz":
        np.savez_compressed(path, density=cube, other=np.arange(3))
    elif path.suffix == ".npy":
        np.save(path, cube)
    else:
        with h5py.File(path, "w") as handle:
            handle["density"] = cube
    return path
