"""Checkpoints of a federated run: safetensors beside a JSON that carries its checksum.

Guarantee: the JSON is written last and names the tensors' SHA-256, so a checkpoint is either whole or not
there; a damaged one is skipped in favour of the one before it. No pickle is read or written.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from merveil.fl.files import read_json, sha256, write_bytes, write_json
from merveil.mer.errors import InputError
from merveil.mer.extras import need

KEPT = 2
FORMAT = 1
Tensors = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The server's whole state after `rounds` rounds; `identity` ties it to options, data and layout."""

    rounds: int
    tensors: Tensors
    identity: Mapping[str, str]


def save(folder: Path, point: Checkpoint) -> Path:
    """Write one checkpoint and drop all but the newest two; returns the path of its JSON."""
    folder.mkdir(exist_ok=True)
    data = need("safetensors.numpy", "mer").save(dict(point.tensors))
    base = folder / f"round-{point.rounds:07d}"
    write_bytes(base.with_suffix(".safetensors"), data)
    head = {
        "format": FORMAT,
        "rounds": point.rounds,
        "sha256": sha256(data),
        "identity": dict(point.identity),
    }
    write_json(base.with_suffix(".json"), head)
    for old in _heads(folder)[KEPT:]:
        for path in (old, old.with_suffix(".safetensors")):
            path.unlink(missing_ok=True)
    return base.with_suffix(".json")


def newest(folder: Path, identity: Mapping[str, str]) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint (None: there is none) and the reasons why newer ones were passed over.

    InputError: it belongs to other options, other data or another layout.
    """
    passed = []
    for head in _heads(folder):
        try:
            point = _read(head)
        except InputError as error:
            passed.append(str(error))
            continue
        wrong = [name for name, value in identity.items() if point.identity.get(name) != value]
        if wrong:
            raise InputError(f"{head} was made with another {' and '.join(wrong)}; it cannot be resumed")
        return point, passed
    return None, passed


def clean(folder: Path) -> None:
    """Remove every checkpoint and whatever a killed process left half-written."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith(("round-", ".round-")):
                path.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()


def _heads(folder: Path) -> list[Path]:
    """The checkpoints' JSON files, newest first."""
    return sorted(folder.glob("round-*.json"), reverse=True)


def _read(head: Path) -> Checkpoint:
    value = read_json(head)
    tensors = head.with_suffix(".safetensors")
    if value.get("format") != FORMAT:
        raise InputError(f"{head} has format {value.get('format')!r}, not {FORMAT}")
    try:
        data = tensors.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{tensors} is missing") from None
    if sha256(data) != value.get("sha256"):
        raise InputError(f"{tensors} is damaged: its checksum is not the one in {head.name}")
    loaded = need("safetensors.numpy", "mer").load(data)
    return Checkpoint(int(value["rounds"]), loaded, dict(value["identity"]))
