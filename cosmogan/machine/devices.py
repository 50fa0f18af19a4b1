"""Where torch computes."""

from __future__ import annotations

import torch

from cosmogan.errors import UserError


def choose_device(device: torch.device | str) -> torch.device:
    """Return a device that can be used.

    Parameters
    ----------
    device
        Device such as ``"cpu"`` or ``"cuda:1"``; ``"auto"`` takes a GPU where there is one.

    Raises
    ------
    UserError
        If torch cannot compute on it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device)
    # torch raises another kind for each way in which a device is not there.
    except (RuntimeError, AssertionError, TypeError, NotImplementedError):
        expected = "auto, cpu or cuda" if torch.cuda.is_available() else "auto or cpu (no CUDA device is visible)"
        raise UserError(f"device: {str(device)!r} cannot be used here; expected {expected}") from None
    return torch.device(device)
