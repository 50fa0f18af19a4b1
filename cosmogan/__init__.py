"""Fast, validated mock slices of the cosmic web: simulate, slice, fit, generate, validate."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosmogan.emulator.emulator import Emulator

__all__ = ["Emulator", "__version__"]
__version__ = version("cosmogan")


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `cosmogan --help` and the data tools must not wait for it.
    if name == "Emulator":
        from cosmogan.emulator.emulator import Emulator

        return Emulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
