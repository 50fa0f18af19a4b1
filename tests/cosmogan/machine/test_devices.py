"""Which device is meant, and that it is there."""

import pytest
import torch

from cosmogan.errors import UserError
from cosmogan.machine.devices import choose_device


def test_auto_takes_what_is_there():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["warp", "cuda:77"])
def test_a_device_that_is_not_there_is_refused(device: str):
    with pytest.raises(UserError, match=f"device: '{device}' cannot be used here; expected auto"):
        choose_device(device)
