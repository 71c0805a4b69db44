"""The finished model of a run: model.safetensors and model.json, and loading them for predictions.

Guarantee: the JSON pins architecture, options, layout, classes, the archive's meta and the tensors' SHA-256;
tensors that do not match are refused. No pickle is read or written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.fl.exact_model import LoadedExact, read_exact, save_exact
from merveil.fl.files import read_json, sha256, write_bytes, write_json
from merveil.fl.update import Floats, Layout
from merveil.mer.data.meta import Meta
from merveil.mer.errors import InputError
from merveil.mer.extras import need

if TYPE_CHECKING:
    from merveil.mer.exact import ExactModel
    from merveil.mer.models.stacked import StackedNet

FORMAT = 1
TENSORS, HEAD = "model.safetensors", "model.json"


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A trained model: its network, params float32 [P], shape (height, width, channels) of a clip."""

    name: str
    options: Mapping[str, Any]
    net: "StackedNet"
    params: Floats
    shape: tuple[int, int, int]
    meta: Meta
    sha256: str
    trained: Mapping[str, Any]
    answering: Mapping[str, Any] | None = None  # how sure it must be: see merveil.mer.calibration

    @property
    def classes(self) -> tuple[str, ...]:
        return self.meta.classes

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites that the model treats in a way of their own: none."""
        return ()

    def predict(self, x: NDArray[Any], sites: Sequence[str] | None = None) -> NDArray[np.float64]:
        """Class probabilities [n, K] of clips x uint8|float32 [n, h, w, c]. InputError: another shape.

        sites: of the clips; networks read all alike.
        """
        from merveil.mer.train import predict_stack

        if x.ndim != 4 or x.shape[1:] != self.shape:
            raise InputError(f"the model reads clips of shape {self.shape}, not {x.shape[1:]}")
        found = predict_stack(self.net, self.params[None], self.net.prepare(x))
        return np.asarray(found[0], dtype=np.float64)


def model_bytes(layout: Layout, params: NDArray[np.generic]) -> bytes:
    """The content of model.safetensors: the same bytes for the same float32 parameters."""
    return bytes(need("safetensors.numpy", "mer").save(layout.unflatten(params)))


def save_model(
    folder: Path,
    *,
    name: str,
    options: Mapping[str, Any],
    layout: Layout,
    params: NDArray[np.generic],
    shape: tuple[int, int, int],
    meta: Meta,
    trained: Mapping[str, Any],
    answering: Mapping[str, Any] | None = None,
) -> str:
    """Write model.safetensors, then model.json; returns the SHA-256 of the tensors' file."""
    data = model_bytes(layout, params)
    digest = sha256(data)
    write_bytes(folder / TENSORS, data)
    head = {
        **_head(name, options, shape, meta, trained, answering),
        "layout": [[entry, list(sides)] for entry, sides in layout.entries],
        "layout_sha256": layout.sha256,
        "model_sha256": digest,
    }
    write_json(folder / HEAD, head)
    return digest


def save_exact_model(
    folder: Path,
    model: "ExactModel",
    *,
    name: str,
    options: Mapping[str, Any],
    shape: tuple[int, int, int],
    meta: Meta,
    trained: Mapping[str, Any],
    answering: Mapping[str, Any] | None = None,
) -> str:
    """As `save_model`, for an exact ridge."""
    head = {**_head(name, options, shape, meta, trained, answering), "kind": "exact"}
    return save_exact(folder, model, head=head, names=(TENSORS, HEAD))


def _head(
    name: str,
    options: Mapping[str, Any],
    shape: tuple[int, int, int],
    meta: Meta,
    trained: Mapping[str, Any],
    answering: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model": name,
        "options": dict(options),
        "input": dict(zip(("height", "width", "channels"), shape, strict=True)),
        "classes": list(meta.classes),
        "meta": meta.to_json(),
        "trained": dict(trained),
        "answering": None if answering is None else dict(answering),
    }


def load_model(run: Path | str) -> LoadedModel | LoadedExact:
    """Load the finished model of a run folder.

    InputError: no finished model there, a damaged file, or a layout that this version builds differently.
    """
    from merveil.mer.models.stacked import build

    folder = Path(run)
    if not (folder / HEAD).is_file():
        raise InputError(f"{folder} holds no finished model ({HEAD} is missing); train it to the end first")
    head = read_json(folder / HEAD)
    if head.get("format") != FORMAT:
        raise InputError(f"{folder / HEAD} has format {head.get('format')!r}, not {FORMAT}")
    try:
        data = (folder / TENSORS).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{folder / TENSORS} is missing") from None
    if sha256(data) != head["model_sha256"]:
        raise InputError(f"{folder / TENSORS} is damaged: its checksum is not the one in {HEAD}")
    meta = Meta.from_json(head["meta"])
    shape = tuple(int(head["input"][side]) for side in ("height", "width", "channels"))
    if head.get("kind") == "exact":
        return read_exact(head, data, meta, (shape[0], shape[1], shape[2]))
    net = build(head["model"], shape[2], shape[0], shape[1], len(meta.classes), **head["options"])
    layout = Layout.of(net.layout)
    if layout.sha256 != head["layout_sha256"]:
        raise InputError(f"{folder}: {head['model']} has another layout in this version of merveil")
    params = layout.flatten(need("safetensors.numpy", "mer").load(data))
    return LoadedModel(
        name=head["model"],
        options=head["options"],
        net=net,
        params=params,
        shape=(shape[0], shape[1], shape[2]),
        meta=meta,
        sha256=head["model_sha256"],
        trained=head["trained"],
        answering=head.get("answering"),
    )
