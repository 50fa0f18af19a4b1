"""The command line: words to functions, each with its types and help from the function itself.

Every command is imported only when it is called, so that ``cosmogan --help`` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from cosmogan import __version__
from cosmogan.errors import UserError
from cosmogan.text import KINDS, plain_message

_COMMANDS = {
    "simulate": ("data_tools.simulation.simulate:simulate", "run N-body simulations, write snapshots or slices"),
    "slice": ("data_tools.slicing.slicing:slice_snapshots", "cut snapshots into slices"),
    "convert": ("data_tools.published.convert:convert", "turn published cubes, maps and arrays into slices"),
    "fit": ("cosmogan.training.fit:fit", "train an emulator on a slice file"),
    "export": ("cosmogan.emulator.export:export", "turn a checkpoint into an emulator file, or into ONNX"),
    "generate": ("cosmogan.emulator.generate:generate", "make mock slices with an emulator"),
    "merge": ("cosmogan.slices.shards:merge", "make one slice file of several"),
    "baseline": ("cosmogan.baselines.command:baseline", "make mock slices that need no training, to compare with"),
    "validate": ("cosmogan.validation.command:validate", "compare mocks with simulations, write a report"),
    "check": ("cosmogan.emulator.inspection:check", "look for errors in a slice file"),
    "info": ("cosmogan.emulator.inspection:info", "say what a slice file or an emulator holds"),
    "emulators": ("cosmogan.emulator.inspection:emulators", "list the emulators that ship with the package"),
    "demo": ("cosmogan.demo:demo", "the whole chain for both boxes of the paper, in minutes"),
}
# Arguments without a dash in front, and how many of them.
_POSITIONAL = {
    "slice": ("snapshots", "+"),
    "convert": ("inputs", "+"),
    "export": ("checkpoint", None),
    "generate": ("emulator", None),
    "merge": ("inputs", "+"),
    "baseline": ("training", None),
    "validate": ("files", "*"),
    "check": ("file", None),
    "info": ("file", None),
}
_USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments
        Words after ``cosmogan``; those of the process by default.

    Returns
    -------
        0 when done, 1 for a verdict or a check that failed, 2 when the user must change something.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else _USAGE_ERROR
    if words[0] == "--version":
        print(f"cosmogan {__version__}")
        return 0
    try:
        result = _run(words[0], words[1:])
        sys.stdout.flush()
        return result
    except UserError as error:
        print(f"cosmogan {words[0]}: {error}", file=sys.stderr)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # Disk full, no permission, broken medium: the user's to mend, wherever it struck.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        print(f"cosmogan {words[0]}: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        print(
            f"cosmogan {words[0]}: interrupted; run the same command again to continue or start over", file=sys.stderr
        )
    return _USAGE_ERROR


def _run(command: str, words: list[str]) -> int:
    if command not in _COMMANDS:
        raise UserError(f"no such command; the commands are {', '.join(_COMMANDS)}")
    module, name = _COMMANDS[command][0].split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    # `fit` uses the parser of Lightning.
    result = function(words) if command == "fit" else function(**_parse(command, function, words))
    if isinstance(result, int):
        return result
    for path in result if isinstance(result, list) else [result]:
        if path is not None:
            print(path)
    return 0


def _parse(command: str, function: Callable[..., Any], words: list[str]) -> dict[str, Any]:
    import jsonargparse

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            text = plain_message(message)
            if found := re.match(r"Parser key \"(\w+)\": Expected a <class '(\w+)'>.*?Got value: (.*)", text):
                option = ("-" if len(found[1]) == 1 else "--") + found[1].replace("_", "-")
                text = f"{option}: expected {KINDS.get(found[2], found[2])}, found {found[3]}"
            raise UserError(f"{text}. See `cosmogan {command} --help`")

        def format_help(self, formatter: Any = None) -> str:
            text = super().format_help(formatter)
            text = re.sub(r"--[a-z_0-9]+", lambda option: option[0].replace("_", "-"), text)
            return re.sub(r"--n\b", "-n", text)

    parameters = inspect.signature(function).parameters
    description = inspect.getdoc(function) or ""
    parser = Parser(
        prog=f"cosmogan {command}", allow_abbrev=False, description=description.split("\n\nParameters\n")[0]
    )
    positional, number = _POSITIONAL.get(command, (None, None))
    if positional is not None:
        parser.add_argument(positional, nargs=number, help=_help(description, positional))
    several = {name: kind for name, kind in _lists(function).items() if name not in (positional, "return")}
    skipped: set[str | int] = {*several, *([] if positional is None else [positional])}
    parser.add_function_arguments(function, skip=skipped, as_group=False, as_positional=False)
    for name, kind in several.items():
        parser.add_argument(
            f"--{name}", nargs="+", type=kind, default=parameters[name].default, help=_help(description, name)
        )
    flags = {name for name, parameter in parameters.items() if parameter.default is False}
    values = parser.parse_args(_joined([_normalise(word, flags) for word in words])).as_dict()
    return {name: values[name] for name in parameters}


def _lists(function: Callable[..., Any]) -> dict[str, type]:
    """Return the arguments that are lists, with the type of what they hold."""
    kinds: dict[str, type] = {}
    for name, hint in typing.get_type_hints(function).items():
        for part in (hint, *typing.get_args(hint)):
            if typing.get_origin(part) is list:
                (kinds[name],) = typing.get_args(part)
    return kinds


def _normalise(word: str, flags: set[str]) -> str:
    """Return an option as the parser knows it: ``--box-size`` is ``--box-size``, a lone flag means true."""
    if word == "-n":
        return "--n"
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    name = "--" + name[2:].replace("-", "_")
    return f"{name}=true" if name[2:] in flags and not equals else name + equals + value


def _joined(words: list[str]) -> list[str]:
    """Return the words with a lone flag and a ``true`` or ``false`` after it made one."""
    joined: list[str] = []
    for word in words:
        if word in ("true", "false") and joined and joined[-1].startswith("--") and joined[-1].endswith("=true"):
            joined[-1] = joined[-1].removesuffix("true") + word
        else:
            joined.append(word)
    return joined


def _help(description: str, parameter: str) -> str:
    """Return the text on a parameter in a NumPy docstring."""
    found = re.search(rf"^{parameter}\n((?:    .*\n?)+)", description, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def _overview() -> str:
    rows = [f"  {name:10s} {summary}" for name, (_, summary) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: cosmogan COMMAND [...]      cosmogan COMMAND --help",
            "",
            "Fast, validated mock slices of the cosmic web: simulate -> slice -> fit -> generate -> validate.",
            "",
            *rows,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
