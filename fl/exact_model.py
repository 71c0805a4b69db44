"""The exact ridge in a run folder: the same two files as a network's, in float64, and loading them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.fl.files import sha256, write_bytes, write_json
from merveil.mer.data.meta import Meta
from merveil.mer.errors import InputError
from merveil.mer.exact import WIDTH, Basis, ExactModel, Settings
from merveil.mer.exact_features import FEATURES, Warp, normalised
from merveil.mer.extras import need

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class LoadedExact:
    """A trained exact ridge; the fields of `LoadedModel` but for the network, which it has not."""

    name: str
    options: Mapping[str, Any]
    exact: ExactModel
    shape: Shape
    meta: Meta
    sha256: str
    trained: Mapping[str, Any]
    answering: Mapping[str, Any] | None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.meta.classes

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites whose registration the model knows."""
        return tuple(sorted(self.exact.warps))

    def predict(self, x: NDArray[Any], sites: Sequence[str] | None = None) -> NDArray[np.float64]:
        """Class probabilities [n, K] of clips [n, h, w, c]; sites: of each, unknown or None = unwarped."""
        if x.ndim != 4 or x.shape[1:] != self.shape:
            raise InputError(f"the model reads clips of shape {self.shape}, not {x.shape[1:]}")
        return self.exact.probabilities(normalised(x), [""] * len(x) if sites is None else sites)


def tensors(model: ExactModel) -> dict[str, NDArray[np.float64]]:
    """The arrays of a model: all float64, the counts whole."""
    basis = model.basis
    return {
        "axes": np.ascontiguousarray(basis.axes),
        "coefficients": np.ascontiguousarray(model.coefficients),
        "counts": basis.counts.astype(np.float64),
        "mean": basis.mean,
        "scale": basis.scale,
    }


def exact_bytes(model: ExactModel) -> bytes:
    """The content of model.safetensors: the same bytes for the same model."""
    return bytes(need("safetensors.numpy", "mer").save(tensors(model)))


def save_exact(folder: Path, model: ExactModel, *, head: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Write the tensors, then the head with settings and warps; returns the SHA-256 of the tensors.

    names: of both files in the folder. head: what a network's file has besides.
    """
    data = exact_bytes(model)
    digest = sha256(data)
    write_bytes(folder / names[0], data)
    own = model.settings
    settings = {"lam": own.lam, "register": own.register, "mirror": own.mirror}
    warps = {site: [w.rows, w.columns, w.shift] for site, w in sorted(model.warps.items())}
    write_json(folder / names[1], {**head, "settings": settings, "warps": warps, "model_sha256": digest})
    return digest


def read_exact(head: Mapping[str, Any], data: bytes, meta: Meta, shape: Shape) -> LoadedExact:
    """The model of a checked head and its tensors. InputError: tensors that do not fit."""
    found = need("safetensors.numpy", "mer").load(data)
    k = len(meta.classes)
    wanted = {
        "axes": (FEATURES, FEATURES),
        "coefficients": (WIDTH, k),
        "counts": (k,),
        "mean": (FEATURES,),
        "scale": (FEATURES,),
    }
    for name, sides in wanted.items():
        if name not in found or found[name].shape != sides or found[name].dtype != np.float64:
            raise InputError(f"the exact-ridge model lacks the tensor {name!r} of {sides}")
    settings = Settings.make(k, shape, {"mirror": False, **head["settings"]})  # runs from before had none
    counts = np.rint(found["counts"]).astype(np.int64)
    basis = Basis(found["mean"], found["scale"], found["axes"], counts, settings.mirror)
    warps = {site: Warp(*map(float, values)) for site, values in head["warps"].items()}
    return LoadedExact(
        name=head["model"],
        options=head["options"],
        exact=ExactModel(settings, warps, basis, found["coefficients"]),
        shape=shape,
        meta=meta,
        sha256=head["model_sha256"],
        trained=head["trained"],
        answering=head.get("answering"),
    )
