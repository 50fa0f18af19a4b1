"""Work that several statistics share is done once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def once_per_tensor(
    function: Callable[Concatenate[torch.Tensor, _Arguments], _Result],
) -> Callable[Concatenate[torch.Tensor, _Arguments], _Result]:
    """Let a function of a tensor return its last result again as long as the same tensor comes with the same arguments.

    A pass over a file hands one tensor to each statistic in turn; several of them may be views of one computation. The
    result is dropped with the tensor, and after a change in place (other than through memory shared with NumPy).

    Parameters
    ----------
    function
        Function of a tensor and hashable arguments; callers must not change what it returns.
    """
    held: dict[tuple[Hashable, ...], tuple[weakref.ref[torch.Tensor], _Result]] = {}

    @wraps(function)
    def reusing(fields: torch.Tensor, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        key = (id(fields), fields._version, args, tuple(sorted(kwargs.items())))
        last = held.get(key)
        if last is not None and last[0]() is fields:
            return last[1]
        result = function(fields, *args, **kwargs)
        held.clear()
        held[key] = weakref.ref(fields, lambda _: held.pop(key, None)), result
        return result

    return reusing
