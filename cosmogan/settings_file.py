"""YAML files of settings: recipes and thresholds, with one way to read a number.

YAML 1.1, which the usual readers speak, takes ``010`` for 8 and ``1:30`` for 90, and ``3e-2`` for text. The command
line, and people, take the first for 10, the second for a mistake and the third for a number.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cosmogan.errors import UserError

_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
# A number with an exponent and no point, or no sign in its exponent.
_EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    """The safe loader, with numbers as the command line reads them."""

    def construct_number(self, node: yaml.Node) -> int | float:
        assert isinstance(node, yaml.ScalarNode)
        if problem := ambiguity(node.value):
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        if node.tag.endswith(":int"):
            return self.construct_yaml_int(node)
        return float(node.value) if _EXPONENT.fullmatch(node.value) else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def ambiguity(text: str) -> str | None:
    """Return what is wrong with a number that YAML and people read differently; None for any other text.

    >>> ambiguity("010")
    '010 is 8 to YAML and 10 to people; write it without the leading zero'
    >>> ambiguity("10")
    """
    if _OCTAL.fullmatch(text):
        value, digits = int(text.replace("_", ""), 8), text.replace("_", "")
        return f"{text} is {value} to YAML and {int(digits)} to people; write it without the leading zero"
    if _SEXAGESIMAL.fullmatch(text):
        return f"{text} is a number in base 60 to YAML; write a plain number, or text in quotes"
    return None


def read_settings(path: str | Path, *, expected: str) -> dict[str, Any]:
    """Read a YAML file of names and values.

    Parameters
    ----------
    path
        The file.
    expected
        What such a file holds, for the message about another.

    Raises
    ------
    UserError
        If the file is not there or not YAML, holds anything but names and values, or a number that YAML and people read
        differently.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.constructor.ConstructorError as error:
        raise UserError(f"{path}: {_place(error)}{error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: {_place(error)}this is not YAML: {getattr(error, 'problem', None) or error}"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected {expected}, found {type(content).__name__}")
    return content


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
