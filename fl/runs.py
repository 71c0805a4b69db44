"""The run folder: config.toml, manifest.json, metrics.jsonl, log.txt, model files, checkpoints/, lock.

Guarantee: one process at a time works in a folder (a lock held by the operating system, so a dead process
leaves none); an existing folder is refused unless it is to be resumed or started over; starting over
removes only files that a run writes. No pickle is read or written.
"""

import contextlib
import fcntl
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from merveil.fl import checkpoint
from merveil.fl.files import TEMPORARY, read_json, write_bytes, write_json
from merveil.mer.errors import InputError

FILES = (
    "config.toml",
    "manifest.json",
    "metrics.jsonl",
    "log.txt",
    "model.safetensors",
    "model.json",
)
CHECKPOINTS = "checkpoints"
MANIFEST_FORMAT = 1


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of one run; made by `opened`, which holds the lock."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def write_config(self, text: str) -> None:
        write_bytes(self.path / "config.toml", text.encode())

    def write_manifest(self, value: Mapping[str, Any]) -> None:
        write_json(self.path / "manifest.json", {"format": MANIFEST_FORMAT, **value})

    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.path)

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Append one round's line."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(line, allow_nan=False) + "\n")

    def keep_metrics(self, rounds: int) -> None:
        """Cut metrics.jsonl back to the first `rounds` rounds, so that a resume repeats no line."""
        path = self.path / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["round"] < rounds]
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


@contextlib.contextmanager
def opened(path: Path, *, resume: bool = False, force: bool = False) -> Iterator[RunFolder]:
    """Open a run folder for writing and hold its lock until the block ends.

    InputError: the folder exists and neither resume nor force is given; resume without a run in it; force
    on a folder that is not a run's; another process works in it. OSError: it cannot be written.
    """
    check_target(path, resume, force)
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        check_target(path, resume, force)  # again, now that no other process can change it
        if force:
            _clear(path)
        for left in path.glob(f".*{TEMPORARY}"):  # of a process that was killed while writing
            left.unlink()
        yield RunFolder(path)


def read_manifest(path: Path) -> dict[str, Any]:
    """manifest.json of a run folder. InputError: not a run folder, or a format this version cannot read."""
    if not (path / "manifest.json").is_file():
        raise InputError(f"{path} is not a run folder: it has no manifest.json")
    value = read_json(path / "manifest.json")
    if value.get("format") != MANIFEST_FORMAT:
        raise InputError(f"{path}: the manifest has format {value.get('format')!r}, not {MANIFEST_FORMAT}")
    return value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl; a last line that was cut off by a crash is left out."""
    source = path / "metrics.jsonl"
    lines = source.read_text(encoding="utf-8").split("\n") if source.is_file() else []
    return [json.loads(line) for line in lines[:-1] if line]


def versions() -> dict[str, str]:
    """Versions that can change a result: Python, merveil, numpy, torch."""
    found = {"python": platform.python_version()}
    for name in ("merveil", "numpy", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def check_target(path: Path, resume: bool, force: bool) -> None:
    """InputError where a run may not be written to `path` (see `opened`)."""
    if resume and force:
        raise InputError("--resume and --force contradict each other: go on, or start over")
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file, not a folder")
    inside = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if resume:
        read_manifest(path)
    elif inside - {"lock"} and not force:
        raise InputError(f"--out {path} exists: --resume goes on with it, --force starts it over")
    elif inside and not inside & {"manifest.json", "config.toml", "lock"}:
        raise InputError(f"--out {path} holds files but no run, and only a run's files are ever cleared")


def _clear(path: Path) -> None:
    """Remove a run's own files, and nothing else."""
    checkpoint.clean(path / CHECKPOINTS)
    for name in FILES:
        (path / name).unlink(missing_ok=True)
    for events in (path / "tensorboard").glob("events.out.tfevents.*"):
        events.unlink()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    with (path / "lock").open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise InputError(f"process {owner} is working in {path}: wait for it to end") from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


class RunLog:
    """Progress of a run: lines for people or one JSON object a line, on a stream and in log.txt.

    verbosity 0: only warnings on the stream; 1: progress; 2: everything. log.txt always gets everything.
    """

    def __init__(
        self,
        *,
        verbosity: int = 1,
        as_json: bool = False,
        stream: IO[str] | None = None,
        file: Path | None = None,
    ) -> None:
        self.verbosity = verbosity
        self.as_json = as_json
        self.stream = stream
        self.file = file

    def warn(self, text: str) -> None:
        self._write(0, {"level": "warning", "text": text})

    def info(self, text: str, **values: Any) -> None:
        self._write(1, {"level": "info", "text": text, **values})

    def detail(self, text: str, **values: Any) -> None:
        self._write(2, {"level": "detail", "text": text, **values})

    def _write(self, level: int, event: Mapping[str, Any]) -> None:
        line = json.dumps(event, allow_nan=False) if self.as_json else str(event["text"])
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as out:
                out.write(line + "\n")
        if level <= self.verbosity:
            print(line, file=self.stream or sys.stderr, flush=True)
