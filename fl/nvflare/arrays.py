"""Models as named numpy arrays: the flat vector of an update, the hash of a model, the file of a model.

Guarantee: layout, order and dtypes follow from the model that the server sent, sorted by name, so clients and
server agree on them or end in different contexts. No nvflare is imported here.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.fl.deploy.task import digest
from merveil.fl.files import write_bytes
from merveil.protocols.errors import AbortCode, LocalError

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]

PURPOSE = "nvflare/1/client"
TASK = "merveil"  # name of every task of a secure round, and of its record in a Shareable


def checked(value: Any) -> Arrays:
    """A model by name, sorted. LocalError (SHAPE_MISMATCH) unless it is named arrays of floats."""
    if not isinstance(value, Mapping) or not value:
        raise LocalError("a model is a dict of named arrays", AbortCode.SHAPE_MISMATCH)
    found = {}
    for name in sorted(value):
        array = value[name]
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise LocalError(f"array {name!r} holds {kind}, no floats", AbortCode.SHAPE_MISMATCH)
        found[name] = array
    return found


def size_of(model: Arrays) -> int:
    return sum(array.size for array in model.values())


def difference(model: Arrays, value: Any, *, absolute: bool) -> Floats:
    """An executor's answer minus the model, float64 [size]. absolute: the answer is a model, no difference.

    LocalError (SHAPE_MISMATCH) names the array that is missing, or of another shape.
    """
    answer, parts = checked(value), []
    if list(answer) != list(model):
        raise LocalError("the executor returned other arrays than it was sent", AbortCode.SHAPE_MISMATCH)
    for name, sent in model.items():
        if answer[name].shape != sent.shape:
            raise LocalError(
                f"array {name!r} came back as {answer[name].shape}, not {sent.shape}",
                AbortCode.SHAPE_MISMATCH,
            )
        part = answer[name].astype(np.float64).reshape(-1)
        parts.append(part - sent.reshape(-1) if absolute else part)
    return np.concatenate(parts)


def moved(model: Arrays, mean: Floats) -> Arrays:
    """The model plus a mean update, in its own dtypes."""
    found, at = {}, 0
    for name, sent in model.items():
        part = mean[at : at + sent.size].reshape(sent.shape)
        found[name] = np.asarray(sent.astype(np.float64) + part, dtype=sent.dtype)
        at += sent.size
    return found


def model_hash(model: Arrays) -> str:
    """Over names, dtypes, shapes and values, sorted by name."""
    parts = []
    for name, array in model.items():
        whole = np.ascontiguousarray(array)
        parts += [name.encode(), f"{whole.dtype.str}{whole.shape}".encode(), whole.tobytes()]
    return digest("nvflare-model", *parts)


def config_hash(config: str) -> str:
    return digest("nvflare-config", config.encode())


def load(path: Path) -> Arrays:
    """The arrays of an .npz file; no pickle."""
    if not path.is_file():
        raise LocalError(f"{path} does not exist: it is the model that the first round starts from")
    with np.load(path, allow_pickle=False) as file:
        return checked({name: file[name] for name in file.files})


def save(path: Path, model: Arrays) -> None:
    """As an .npz file, under a temporary name first."""
    out = io.BytesIO()
    np.savez(out, **model)  # type: ignore[arg-type]
    write_bytes(path, out.getvalue())
