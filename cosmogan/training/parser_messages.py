"""What the parser says about a bad recipe, as one sentence with the nearest name that would be right."""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable

from cosmogan.text import KINDS, plain_message

SEE = " (see `cosmogan fit --help`)"
_UNKNOWN = ": there is no such setting"
_MISSING = ": is missing, and has no default"


def explain(message: str, *, options: Iterable[str], classes: Callable[[str], list[type]]) -> str:
    """Return a message of the parser in plain words.

    Parameters
    ----------
    message
        Text as the parser has it; for a class inside a recipe it holds what was said here about the class's own
        settings.
    options
        Dotted names of all settings that the parser knows.
    classes
        Returns the classes that can be named at a key such as ``model.critic``.
    """
    message = plain_message(message).replace(SEE, "")
    found = re.match(r'Parser key "([\w.]+)": (.*)', message)
    key, text = (found[1], found[2]) if found else ("", message)
    value = re.search(r"(?:Got|Given) value: (.*?)(?: Subclass types|$)", text)
    # Of the alternatives of an optional value, the first is the one that was meant.
    if "Union subtypes" in text and (first := re.search(r"Errors: - (.*?)(?: - Expected|$)", text)):
        text = first[1]
    if inner := re.match(rf"(\w+{_UNKNOWN}.*|\w+{_MISSING}.*)", text):
        return f"{key}.init_args.{inner[1]}"
    if unknown := re.match(r"unrecognized arguments: --([\w.]+)", text):
        return f"--{unknown[1]}{_UNKNOWN}{_nearest(unknown[1], options)}"
    if unknown := re.match(r"(?:Group '([\w.]+)' does not accept option|Option) '([\w.]+)'", text):
        name = f"{unknown[1]}.{unknown[2]}" if unknown[1] else unknown[2]
        return f"{name}{_UNKNOWN}{_nearest(name, options)}"
    if missing := re.match(r"the following arguments are required: ([\w.]+)", text):
        hint = "; name a recipe, such as --config demo/box500" if missing[1].startswith("model.") else ""
        return f"{missing[1]}{_MISSING}{hint}"
    names = ", ".join(one.__name__ for one in classes(key))
    if unknown := re.search(r"Expected a dot import path string: (\S+)", text):
        return f"{key}.class_path: there is no {unknown[1]}; expected one of {names}"
    if "Not a valid subclass" in text:
        return f"{key}: expected class_path, one of {names}, found {value[1] if value else 'none'}"
    if kind := re.match(r"Expected a (?:<class '(\w+)'>|typing.Literal\[(.*?)\])", text):
        expected = KINDS.get(kind[1], kind[1]) if kind[1] else f"one of {kind[2]}"
        return f"{key}: expected {expected}, found {value[1] if value else 'something else'}"
    return f"{key}: {text}" if key else text


def nameable(hint: object) -> list[type]:
    """Return the classes, sorted by name, that can be given where a constructor's hint asks for one of them."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    found: set[type] = set()
    waiting = [part for part in parts if isinstance(part, type) and part is not types.NoneType]
    while waiting:
        one = waiting.pop()
        waiting += one.__subclasses__()
        if not inspect.isabstract(one):
            found.add(one)
    return sorted(found, key=lambda one: one.__name__)


def _nearest(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, set(names), n=1, cutoff=0.7)
    return f"; did you mean {found[0]}?" if found else ""
