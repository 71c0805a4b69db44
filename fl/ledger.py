"""A party's ledger in a file: the durable store behind `merveil.protocols.ledger.Ledger`.

`save` returns only when the bytes would survive a crash: they are written to a temporary file in the same
folder, synced, renamed over the old file, and the folder is synced. One process at a time holds the lock. The
file holds the key of the party's snapshots and its pair chains, so nobody else may read it. Restoring an
older copy of it undoes what it protects: copies are no backups; a lost ledger means enrolling again.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from merveil.protocols.errors import LocalError

_PRIVATE = 0o600
_OTHERS = 0o077


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError as error:
        raise LocalError("a ledger file needs POSIX file locks, which this system has not") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LocalError(f"{path} is in use by another process: one party runs once") from error


def check_private(path: Path) -> None:
    """LocalError unless `path` is a regular file that only its owner may touch."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise LocalError(f"{path} is no regular file: secrets lie neither behind a link nor in a device")
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        raise LocalError(f"{path} has mode {mode:o} and others may read it: chmod 600 it")


class FileStore:
    """Durable bytes in one file, under an exclusive lock until `close`.

    path: the ledger file; `<path>.lock` is created beside it and stays. create: True makes a new ledger and
    refuses an existing one, False (default) refuses a missing one: a party whose ledger vanished must not
    begin again as if nothing had happened. Raises LocalError for a file in use, missing, present, or readable
    by others; OSError as the file system says it.
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = Path(path)
        self._descriptor = -1
        lock = self.path.with_name(self.path.name + ".lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
        try:
            _lock(descriptor, self.path)
            self._check(create)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._new = create
        self._sweep()

    def _check(self, create: bool) -> None:
        exists = os.path.lexists(self.path)
        if create and exists:
            raise LocalError(f"{self.path} exists: a new ledger never replaces one")
        if not create and not exists:
            raise LocalError(f"there is no ledger at {self.path}: a party that lost it has to enrol again")
        if exists:
            check_private(self.path)

    def _sweep(self) -> None:
        """Remove what a crash between write and rename left; it never became the ledger."""
        for left in self.path.parent.glob(f".{self.path.name}.*.part"):
            left.unlink()

    def load(self) -> bytes | None:
        """The bytes of the last completed `save`, or None in a new ledger."""
        self._check_open()
        if self._new:
            return None
        check_private(self.path)
        return self.path.read_bytes()

    def save(self, data: bytes) -> None:
        """Replace the file; on any error before the rename the old one stands."""
        self._check_open()
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            write_synced(temporary, data)
            os.replace(temporary, self.path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        sync_folder(self.path.parent)
        self._new = False

    def _check_open(self) -> None:
        if self._descriptor < 0:
            raise LocalError(f"the store of {self.path} is closed")

    def close(self) -> None:
        """Give up the lock; the store is of no more use."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_synced(path: Path, data: bytes) -> None:
    """Write a file of mode 600 and sync it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
    try:
        os.fchmod(descriptor, _PRIVATE)  # whatever the umask, and for a leftover of another mode
        write_all(lambda part: os.write(descriptor, part), data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(write: Callable[[memoryview], int], data: bytes) -> None:
    """Call `write` until every byte is taken: the system may take fewer than it is given."""
    rest = memoryview(data)
    while rest:
        rest = rest[write(rest) :]


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
