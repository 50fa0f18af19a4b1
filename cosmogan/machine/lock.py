"""One process at a time for one output."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType

from cosmogan.errors import UserError
from cosmogan.text import os_reason

# Of file systems that cannot lock: Lustre mounted without -o flock, some network file systems.
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
# A process that holds a lock has written its name into the file by then.
_NAMING_SECONDS = 0.1


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
        try:
            descriptor, is_new = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            descriptor, is_new = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666), False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Some file systems refuse every lock as one that is held. Nobody holds the lock of a file that did not
            # exist, but for a process that has opened it since, which writes its name into it.
            held = isinstance(error, BlockingIOError) and not (is_new and self._stays_empty(descriptor))
            if not held and not isinstance(error, BlockingIOError) and error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            if not held:
                print(
                    f"{self.path}: this file system has no locks; see to it that no other run writes this file",
                    file=sys.stderr,
                )
                return self._keep(descriptor)
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UserError(f"{self.path}: is being written by {holder}; wait for it or choose another name") from None
        return self._keep(descriptor)

    @staticmethod
    def _stays_empty(descriptor: int) -> bool:
        time.sleep(_NAMING_SECONDS)
        return os.fstat(descriptor).st_size == 0

    def _keep(self, descriptor: int) -> bool:
        """Keep an open lock file as ours; return False if it was removed by a process that has just finished."""
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
