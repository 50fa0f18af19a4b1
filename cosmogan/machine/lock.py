"""One process at a time for one output."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
from pathlib import Path
from types import TracebackType

from cosmogan.errors import UserError
from cosmogan.text import os_reason

# Of file systems that cannot lock: Lustre mounted without -o flock, some network file systems.
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


class OutputLock:
    """Lock of an output, ``<name>.lock`` beside it; use as a context manager.

    The kernel holds it (flock), so that it ends with its process however that dies, on NFS with the lease of the dead
    node. Where the file system cannot lock, a line on stderr says so and nothing else is done.

    Parameters
    ----------
    path
        The output.

    Raises
    ------
    UserError
        On entry, if another process holds the lock or the folder cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.file = self.path.with_name(self.path.name + ".lock")
        self._descriptor = -1

    def __enter__(self) -> OutputLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while not self._taken():
                pass
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({os_reason(error)})") from None
        return self

    def _taken(self) -> bool:
        """Take the lock; return False if its file was removed by a process that has just finished."""
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UserError(f"{self.path}: is being written by {holder}; wait for it or choose another name") from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            print(
                f"{self.path}: this file system has no locks; see to it that no other run writes this file",
                file=sys.stderr,
            )
        try:
            same = os.path.samestat(os.fstat(descriptor), os.stat(self.file))
        except FileNotFoundError:
            same = False
        if not same:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        # For the message to others; a full disk is no reason to stop here.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        return True

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.unlink(missing_ok=True)
        os.close(self._descriptor)
