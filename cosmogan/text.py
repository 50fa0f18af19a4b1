"""Words of messages: reasons, kinds and ranges as people read them."""

from __future__ import annotations

import os

# Types in plain words.
KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "tuple": "a list"}


def plain_message(message: str) -> str:
    """Return a parser's message as one sentence without line breaks."""
    return " ".join(message.split()).rstrip(".")


def os_reason(error: BaseException) -> str:
    """Return the operating system's reason, without HDF5's dump of handles."""
    number = getattr(error, "errno", None)
    if number:
        return os.strerror(number)
    text = str(error)
    for reason in ("No space left on device", "Permission denied", "Disk quota exceeded", "unable to lock file"):
        if reason in text:
            return reason
    return text.splitlines()[0] if text else type(error).__name__
