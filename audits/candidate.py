"""The door for a third party's aggregator: what it must offer, and how its uploads are read.

An aggregator is an object with `mean(updates, weights=None)`, given a list of float vectors in [-1, 1], one a
client, and returning their mean, or an object with the mean as `value`. It refuses by an exception of
REFUSALS. To be audited for privacy it also shows what each client sends, in one of these ways: a method
`uploads(updates)`, which makes the round's messages without a mean; or `uploads` or a `transcript` on what
`mean` returns. An upload is bytes, or an array. With a parameter `drop`, {client: phase}, dropouts are tried
too; `drop_phase` names the phase. A class is instantiated without arguments, with `record=True` where its
constructor has that parameter.
"""

import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.protocols.errors import MerveilError
from merveil.protocols.frame import SERVER
from merveil.protocols.primitives.packing import packed_size, unpack

Floats = NDArray[np.float64]
DTYPES = ("<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "i1", ">f8", ">f4", ">i8", ">i4", ">i2")
PACKED = range(6, 41)  # bits a value
REFUSALS = (
    MerveilError, ValueError, TypeError, ArithmeticError, LookupError, RuntimeError, AssertionError
)  # fmt: skip


def load(name: str) -> Any:
    """The object of `module:object`, ready to be asked for a mean. InputError says what is wrong with it."""
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise InputError(f"--aggregator takes module:object, such as mypackage.sums:Aggregator, not {name!r}")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f"--aggregator {name}: there is no module {error.name!r} on the path") from error
    finally:
        sys.path.remove(here)
    for part in path.split("."):
        if not hasattr(found, part):
            raise InputError(f"--aggregator {name}: {module} has no {part!r}")
        found = getattr(found, part)
    return ready(found, name)


def ready(found: Any, name: str) -> Any:
    """An instance, made where a class or a factory was named."""
    if inspect.isclass(found) or (callable(found) and not hasattr(found, "mean")):
        needed = inspect.signature(found).parameters
        if any(
            p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in needed.values()
        ):
            raise InputError(f"--aggregator {name} cannot be made without arguments: name a factory that can")
        found = found(record=True) if "record" in needed else found()
    if not callable(getattr(found, "mean", None)):
        raise InputError(f"--aggregator {name} has no method mean(updates, weights=None)")
    return found


class Candidate:
    """An aggregator behind the interface above."""

    def __init__(self, tool: Any, name: str) -> None:
        self.tool, self.name = tool, name

    def mean(self, updates: Sequence[Floats], **options: Any) -> Floats | None:
        """The mean as float64, or None where the object refuses."""
        try:
            given = self.tool.mean(list(updates), **options)
        except REFUSALS:
            return None
        return np.asarray(getattr(given, "value", given), dtype=np.float64)

    def uploads(self, updates: Sequence[Floats]) -> list[Any] | None:
        """What each client sends for these updates, or None where the object does not show it."""
        if callable(getattr(self.tool, "uploads", None)):
            return list(self.tool.uploads(list(updates)))
        given = self.tool.mean(list(updates))
        shown = getattr(given, "uploads", None)
        if shown is not None:
            return list(shown() if callable(shown) else shown)
        transcript = getattr(given, "transcript", None)
        return None if transcript is None else longest_frames(transcript, len(updates))

    def takes(self, option: str) -> bool:
        """Whether `mean` has a parameter of this name."""
        return option in inspect.signature(self.tool.mean).parameters


def longest_frames(transcript: Any, clients: int) -> list[bytes]:
    """Each client's longest frame body: the one with its vector, in every scheme of merveil."""
    found: dict[int, bytes] = {}
    for frame in transcript.frames:
        if frame.sender != SERVER and len(frame.body) > len(found.get(frame.sender, b"")):
            found[frame.sender] = frame.body
    return [found.get(i, b"") for i in range(1, clients + 1)]


def size_of(upload: Any) -> int:
    """Bytes of an upload."""
    return len(upload) if isinstance(upload, (bytes, bytearray)) else int(np.asarray(upload).nbytes)


def readings(upload: Any, dim: int, only: str = "") -> dict[str, tuple[Floats, float]]:
    """name -> (values [dim], modulus or 0): every way in which numbers may lie in an upload, or one of them.

    Arrays are taken as they are; bytes as the first and the last `dim` values of each number type, and as
    bit-packed residues at the end. Values that are no finite numbers count as zero.
    """
    if not isinstance(upload, (bytes, bytearray)):
        flat = np.asarray(upload)
        modulus = 2.0 ** (8 * flat.itemsize) if flat.dtype.kind in "iu" else 0.0
        return {"array": (_clean(flat.ravel()[:dim], dim), modulus)}
    data, found = bytes(upload), {}
    for name in [n for n in DTYPES if not only or n in only]:
        kind = np.dtype(name)
        need = dim * kind.itemsize
        if len(data) >= need:
            modulus = 2.0 ** (8 * kind.itemsize) if kind.kind == "i" else 0.0
            found[f"first {name}"] = (_clean(np.frombuffer(data[:need], kind), dim), modulus)
            found[f"last {name}"] = (_clean(np.frombuffer(data[-need:], kind), dim), modulus)
    for bits in [b for b in PACKED if not only or only == f"packed {b} bits"]:
        need = packed_size(dim, bits)
        if len(data) >= need:
            values = unpack(data[-need:], dim, bits).astype(np.float64)
            values[values >= 2.0 ** (bits - 1)] -= 2.0**bits
            found[f"packed {bits} bits"] = (values, 2.0**bits)
    return found


def _clean(values: NDArray[Any], dim: int) -> Floats:
    out = np.zeros(dim)
    with np.errstate(all="ignore"):
        out[: len(values)] = values.astype(np.float64)
    return np.where(np.isfinite(out) & (np.abs(out) < 1e150), out, 0.0)


def centred(difference: Floats, modulus: float) -> Floats:
    """A difference of residues, into the half around zero; others stay as they are."""
    if modulus == 0:
        return difference
    return np.asarray((difference + modulus / 2) % modulus - modulus / 2)
