"""What networks are told of a simulation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cosmogan.emulator.conditions import Condition, Conditions
from cosmogan.errors import UserError
from cosmogan.slices import SliceReader, SliceWriter, read_slices, write_example

# Of five realisations.
OMEGA_M, A_SN1 = np.array([0.1, 0.3, 0.2, 0.4, 0.5]), np.array([4.0, 1.0, 1.0, 1.0, 1.0])


def write_conditioned(path: Path, n_slices: int = 6) -> None:
    """Write five realisations with two parameters; one that varies only if the first one trains."""
    write_example(path, n_realisations=5, n_slices=n_slices)
    whole = read_slices(path)
    with SliceWriter(
        path, whole.metadata, n_slices=5 * n_slices, conditions={"Omega_m": "", "A_SN1": "erg"}, overwrite=True
    ) as writer:
        writer.append(
            whole.slices,
            realisation=whole.realisation,
            axis=whole.axis,
            position=whole.position,
            conditions={"Omega_m": OMEGA_M[whole.realisation], "A_SN1": A_SN1[whole.realisation]},
        )


@pytest.fixture
def conditioned(tmp_path: Path) -> Path:
    path = tmp_path / "conditioned.h5"
    write_conditioned(path)
    return path


def test_scales_are_those_of_the_training_slices(conditioned: Path):
    with SliceReader(conditioned) as reader:
        conditions = Conditions.measured(reader, ["A_SN1", "Omega_m"], np.arange(12))
        seen = conditions.standardised(reader.conditions)
    assert conditions.columns[0] == Condition("A_SN1", 2.5, 1.5, 1.0, 4.0, "erg")
    assert seen.dtype == torch.float32
    # Mean 2.5 and 0.2, standard deviation 1.5 and 0.1; realisation 4 is beyond the range.
    torch.testing.assert_close(seen[[0, 6, 24]], torch.tensor([[1.0, -1.0], [-1.0, 1.0], [-1.0, 3.0]]))
    torch.testing.assert_close(conditions.standardised({"A_SN1": 4.0, "Omega_m": 0.1}), seen[:1])
    again = Conditions.from_list(json.loads(json.dumps(conditions.to_list())))
    assert again.columns == conditions.columns


def test_unknown_and_constant_parameters_are_refused(conditioned: Path):
    with SliceReader(conditioned) as reader:
        with pytest.raises(UserError, match=r"no 'sigma_8' in /conditions; found: A_SN1, Omega_m"):
            Conditions.measured(reader, ["sigma_8"], np.arange(12))
        with pytest.raises(UserError, match=r"'A_SN1' is 1 in all training slices"):
            Conditions.measured(reader, ["A_SN1"], np.arange(6, 24))
        conditions = Conditions.measured(reader, ["Omega_m"], np.arange(12))
    with pytest.raises(UserError, match="no value for 'Omega_m'"):
        conditions.standardised({"Omega_b": 0.04})
