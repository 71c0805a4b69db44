"""The ledger in a file: durable, private, locked, and never begun again by accident."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from merveil.fl import ledger as module
from merveil.fl.ledger import FileStore, write_all
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.ledger import Ledger, RoundState

FED = bytes(32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "party.ledger"
    with FileStore(path, create=True) as store:
        Ledger(store)
    return path


def test_what_was_recorded_is_read_by_the_next_process(file: Path) -> None:
    with FileStore(file) as store:
        Ledger(store).open_round(FED, 3, 1)
    script = (
        "import sys\nfrom merveil.fl.ledger import FileStore\nfrom merveil.protocols.ledger import Ledger\n"
        "ledger = Ledger(FileStore(sys.argv[1]))\nprint(ledger.state(bytes(32), 3)[0])\n"
        "ledger.open_round(bytes(32), 3, 2)\nledger.answer(bytes(32), 3, 2, b'1')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    with FileStore(file) as store, pytest.raises(Aborted) as caught:
        Ledger(store).open_round(FED, 3, 3)
    assert caught.value.code is AbortCode.ROUND_REUSED and caught.value.released


def test_a_second_process_is_refused_while_the_first_lives(file: Path) -> None:
    script = "import sys\nfrom merveil.fl.ledger import FileStore\nFileStore(sys.argv[1])\n"
    with FileStore(file):
        done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True)
        assert done.returncode == 1 and "LocalError" in done.stderr and "in use by another" in done.stderr
        with pytest.raises(LocalError, match="in use"):
            FileStore(file)
    FileStore(file).close()


def test_the_lock_survives_a_save(file: Path) -> None:
    """The file is replaced by each save, so a lock on the file itself would be lost with it."""
    with FileStore(file) as store:
        Ledger(store).open_round(FED, 1, 1)
        with pytest.raises(LocalError, match="in use"):
            FileStore(file)


def test_the_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with FileStore(tmp_path / "l", create=True) as store:
            Ledger(store)
    finally:
        os.umask(before)
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "l.lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o601])
def test_a_file_that_others_may_touch_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(LocalError, match="chmod 600"):
        FileStore(file)


def test_a_link_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(LocalError, match="no regular file"):
        FileStore(tmp_path / "link")


def test_a_missing_ledger_is_not_begun_again(file: Path) -> None:
    file.unlink()
    with pytest.raises(LocalError, match="enrol again"):
        FileStore(file)


def test_a_new_ledger_replaces_none(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(LocalError, match="exists"):
        FileStore(file, create=True)
    assert file.read_bytes() == before


def test_a_crash_between_write_and_rename_leaves_the_old_ledger(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies there for good: no clean-up of its own runs."""
    script = (
        "import os, sys\nfrom merveil.fl.ledger import FileStore\n"
        "from merveil.protocols.ledger import Ledger\nledger = Ledger(FileStore(sys.argv[1]))\n"
        "os.replace = lambda *paths: os._exit(9)\nledger.open_round(bytes(32), 1, 1)\n"
    )
    before = file.read_bytes()
    assert subprocess.run([sys.executable, "-c", script, file]).returncode == 9
    assert file.read_bytes() == before
    left = [p for p in file.parent.iterdir() if p.name.endswith(".part")]
    assert len(left) == 1 and json.loads(left[0].read_bytes())["rounds"]
    with FileStore(file) as store:
        assert Ledger(store).state(FED, 1) is None
        assert not left[0].exists()


def test_a_full_disk_is_an_error_and_the_old_ledger_stands(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with FileStore(file) as store:
        ledger, before = Ledger(store), file.read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            ledger.open_round(FED, 1, 1)
        monkeypatch.undo()
        assert file.read_bytes() == before
        assert sorted(p.name for p in file.parent.iterdir()) == ["party.ledger", "party.ledger.lock"]


def test_a_save_syncs_the_file_before_the_rename_and_the_folder_after(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note(name: str, what: object) -> None:
        calls.append(name)

    def synced(descriptor: int) -> None:
        note("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file", descriptor)
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        note("rename", target)
        replace(source, target)

    with FileStore(file) as store:
        ledger = Ledger(store)
        monkeypatch.setattr(module.os, "fsync", synced)
        monkeypatch.setattr(module.os, "replace", renamed)
        ledger.open_round(FED, 1, 1)
    assert calls == ["file", "rename", "folder"]


def test_short_writes_are_continued() -> None:
    taken = bytearray()

    def write(part: memoryview) -> int:
        taken.extend(part[:3])
        return min(3, len(part))

    write_all(write, bytes(range(10)))
    assert bytes(taken) == bytes(range(10))


def test_a_closed_store_saves_nothing(file: Path) -> None:
    store = FileStore(file)
    ledger = Ledger(store)
    store.close()
    with pytest.raises(LocalError, match="closed"):
        ledger.open_round(FED, 1, 1)
    with pytest.raises(LocalError, match="closed"):
        store.load()


def test_a_damaged_ledger_is_named(file: Path) -> None:
    file.write_bytes(b"{}")
    with FileStore(file) as store, pytest.raises(LocalError, match="damaged"):
        Ledger(store)


def test_the_states_of_a_round_are_kept(file: Path) -> None:
    with FileStore(file) as store:
        ledger = Ledger(store)
        ledger.open_round(FED, 1, 1)
        ledger.advance(FED, 1, 1, RoundState.MASKED)
    with FileStore(file) as store:
        assert Ledger(store).state(FED, 1) == (1, RoundState.MASKED)
