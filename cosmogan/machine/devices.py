"""Whether torch can compute where the user asks it to."""

from __future__ import annotations

import torch

from cosmogan.errors import UserError


def require_device(device: torch.device | str) -> None:
    """Refuse a device that is not there.

    Parameters
    ----------
    device
        Such as ``"cpu"`` or ``"cuda:1"``.

    Raises
    ------
    UserError
        If torch cannot compute on it.
    """
    try:
        torch.zeros(1, device=device)
    # torch raises another kind for each way in which a device is not there.
    except (RuntimeError, AssertionError, TypeError, NotImplementedError):
        expected = "cpu or cuda" if torch.cuda.is_available() else "cpu (no CUDA device is visible)"
        raise UserError(f"device: {str(device)!r} cannot be used here; expected {expected}") from None
