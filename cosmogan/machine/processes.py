"""Processes of one machine that end in order: with their parent, and at SIGTERM after what they are doing."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from types import FrameType, TracebackType
from typing import Any

from cosmogan.errors import UserError

TERMINATED = 128 + signal.SIGTERM
# Seconds between two looks at the processes.
_LOOK = 0.1


class Termination:
    """Whether SIGTERM has come, for work that ends itself where it can; use as a context manager.

    Only the main thread of a process hears signals; in others nothing is ever requested.
    """

    def __init__(self) -> None:
        self.requested = False
        self._former: Any = None

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGTERM, self._hear)
        return self

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._former is not None:
            signal.signal(signal.SIGTERM, self._former)


def run_processes(work: Callable[..., object], arguments: Sequence[tuple[Any, ...]], *, what: str) -> None:
    """Run a function in one new process for each of its arguments, and wait for them.

    Where one fails, the others get SIGTERM and are waited for.

    Parameters
    ----------
    work
        A function of a module.
    arguments
        Arguments of each process; they are pickled.
    what
        Name of a process in messages, followed by its number.

    Raises
    ------
    UserError
        If one fails; the message is its own.
    SystemExit
        With code 143 after SIGTERM.
    """
    # A fresh interpreter: forking one that runs threads (torch, HDF5) may hang.
    context = multiprocessing.get_context("spawn")
    members = []
    for values in arguments:
        ours, theirs = context.Pipe(duplex=False)
        members.append((context.Process(target=_body, args=(theirs, work, values)), ours))
    with Termination() as termination:
        try:
            for process, _ in members:
                process.start()
            while any(process.exitcode is None for process, _ in members):
                failed = any(process.exitcode not in (None, 0) for process, _ in members)
                if failed or termination.requested:
                    break
                wait([process.sentinel for process, _ in members if process.exitcode is None], _LOOK)
        finally:
            for process, _ in members:
                if process.pid is not None:
                    process.terminate()
            for process, _ in members:
                if process.pid is not None:
                    process.join()
    for _, channel in members:
        # A process that ends without a message closes its end.
        with contextlib.suppress(EOFError):
            if channel.poll():
                raise UserError(channel.recv())
    for number, (process, _) in enumerate(members):
        # The latter where nobody listens yet.
        if process.exitcode not in (0, TERMINATED, -signal.SIGTERM):
            raise UserError(
                f"{what} {number} of {len(members)} ended with exit code {process.exitcode}, perhaps for want of "
                "memory; run the same command again to continue"
            )
    if any(process.exitcode for process, _ in members):
        raise SystemExit(TERMINATED)


def _body(channel: Connection, work: Callable[..., object], values: tuple[Any, ...]) -> None:
    # The parent ends its processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        work(*values)
    except UserError as error:
        channel.send(str(error))
        raise SystemExit(1) from None


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
