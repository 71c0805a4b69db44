"""A client's own look at a model that a server sent, before it trains on it.

Proofs: the architecture is the pinned one, all values are numbers, and a training's first model, where the
client can compute it, is that model. Measured, and no proof: rows of a layer that point the same way
(imprint bins), rows that all lean to one side (trap rows), and layers that are not what the last model can
have become. A server that makes up a model slowly, or one whose rows look drawn (SEER), passes;
docs/attacks.md has the rates, ADR 0072 the limits.
Sources: Fowl et al., ICLR 2022; Boenisch et al., EuroS&P 2023.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from merveil.fl.files import write_bytes
from merveil.fl.update import Layout
from merveil.protocols.errors import AbortCode, Aborted, LocalError

Floats = NDArray[np.float64]
FILE = "model-gate.npz"  # in a member's folder
LEAST_ROWS, LEAST_WIDTH = 8, 16  # smaller tensors say nothing about their rows


@dataclass(frozen=True)
class Bounds:
    """Fixed on drawn people with seeds that the published rates do not use (tools/model_gate.py).

    alike: largest |cosine| of two rows. one_way: largest share of the unit rows' power along one direction.
    lean: how far the rows' mean lean may lie below zero, in its standard errors, and first_lean where there
    is no model before to compare with: honest rows of a long training lean, too. kept: least cosine of a
    tensor with the same tensor of the model before.
    """

    alike: float = 0.97
    one_way: float = 0.8
    lean: float = 6.0
    first_lean: float = 10.0
    kept: float = 0.5


LENIENT = Bounds(alike=np.inf, one_way=np.inf, lean=np.inf, first_lean=np.inf, kept=-1.0)  # proofs alone


@dataclass(frozen=True)
class Rows:
    """What a tensor's rows look like; the names are those of Bounds."""

    alike: float
    one_way: float
    lean: float


def architecture(model: str, options: Mapping[str, Any], layout: Layout) -> str:
    """Hexadecimal SHA-256 over a network's name, its options and the names and shapes of its tensors."""
    text = json.dumps([model, sorted((str(k), repr(v)) for k, v in options.items()), layout.entries])
    return hashlib.sha256(text.encode()).hexdigest()


def tensors(layout: Layout, params: NDArray[np.floating]) -> Iterator[tuple[str, Floats]]:
    """Name and rows [rows, width] of every tensor with rows enough to judge; a filter is a row."""
    at = 0
    for name, shape in layout.entries:
        size = int(np.prod(shape, dtype=np.int64))
        if len(shape) >= 2 and shape[0] >= LEAST_ROWS and size >= LEAST_WIDTH * shape[0]:
            yield name, np.asarray(params[at : at + size], dtype=np.float64).reshape(shape[0], -1)
        at += size


def rows_of(weight: Floats) -> Rows | None:
    """Figures of a tensor's rows [rows, width] that are not zero; None where those are too few."""
    length = np.linalg.norm(weight, axis=1)
    live = weight[length > 0]
    if len(live) < LEAST_ROWS:
        return None
    unit = live / length[length > 0][:, None]
    gram = unit @ unit.T
    off = np.abs(gram - np.diag(np.diag(gram)))
    lean = live.sum(1) / np.abs(live).sum(1)
    error = float(lean.std(ddof=1)) / np.sqrt(len(lean))
    return Rows(
        alike=float(off.max()),
        # Where no two rows are alike no direction can hold most of them, and the eigenvalues cost.
        one_way=float(np.linalg.eigvalsh(gram)[-1]) / len(live) if off.max() > 0.3 else 0.0,
        lean=float(lean.mean()) / max(error, 1e-9),
    )


def suspicion(
    layout: Layout, params: NDArray[np.floating], before: NDArray[np.floating] | None, bounds: Bounds
) -> str:
    """Why a model of finite values is not to be trained on, or "" where nothing speaks against it.

    params, before: [P] of the layout; before is the last accepted model of the same training, or None.
    """
    last = {} if before is None else dict(tensors(layout, before))
    for name, weight in tensors(layout, params):
        found, old = rows_of(weight), last.get(name)
        if found is None:
            continue
        if found.alike > bounds.alike or found.one_way > bounds.one_way:
            return f"rows of {name} measure the same thing, as imprint bins do"
        then = rows_of(old) if old is not None else None
        leant, most = (0.0, bounds.first_lean) if then is None else (then.lean, bounds.lean)
        if found.lean < -most and found.lean < leant - most / 2:
            return f"the rows of {name} all lean to the negative side, as trap rows do"
        if old is not None and old.any():
            kept = float((weight * old).sum() / (np.linalg.norm(weight) * np.linalg.norm(old)))
            if kept < bounds.kept:
                return f"{name} is not what the last model can have become (cosine {kept:.2f})"
    return ""


class ModelGate:
    """What a member remembers of the models it accepted: architecture, training, and the last one.

    path: where it is kept, None for memory only. pin: architecture that was agreed beforehand; without one
    the first architecture seen is kept, until the file is removed. LocalError: a damaged file.
    """

    def __init__(self, path: Path | None = None, pin: str = "", bounds: Bounds | None = None) -> None:
        self._path, self._pin, self._bounds = path, pin, bounds or Bounds()
        self._architecture, self._training = pin, ""
        self._last: NDArray[np.float32] | None = None
        if path is not None and path.exists():
            self._load(path)

    def admit(
        self,
        layout: Layout,
        params: NDArray[np.floating],
        shape: str,
        *,
        training: str = "",
        start: NDArray[np.floating] | None = None,
        noisy: bool = False,
    ) -> None:
        """Accept a model and remember it. shape: `architecture` of what was sent. training: names the run; a
        model of another run has no predecessor. start: the first model of a run where it is known, which
        params must then be. noisy: the sums of this training carry noise of differential privacy, which moves
        a model further than any honest sum would; its guarantee holds for whatever model is sent, so `kept`
        is not asked, and everything else is.

        Aborted, culprit 0: ARCH_MISMATCH, INPUT_NOT_FINITE, MODEL_MISMATCH; nothing is remembered then.
        """
        if self._architecture not in ("", shape):
            hint = f"; remove {self._path} if another network was agreed" if self._path else ""
            raise _refused(
                AbortCode.ARCH_MISMATCH, f"the server sent another network than the pinned one{hint}"
            )
        if params.size != layout.size:
            raise _refused(AbortCode.ARCH_MISMATCH, "the model has another size than its architecture")
        if not np.isfinite(params).all():
            bad = int(np.flatnonzero(~np.isfinite(params))[0])
            raise _refused(AbortCode.INPUT_NOT_FINITE, f"the server's model has no number at position {bad}")
        if start is not None and not np.allclose(params, start, rtol=1e-6, atol=1e-7):
            raise _refused(AbortCode.MODEL_MISMATCH, "the first model is not the one that the seed gives")
        before = None if start is not None or training != self._training else self._last
        bounds = replace(self._bounds, kept=-1.0) if noisy else self._bounds
        why = suspicion(layout, params, before, bounds)
        if why:
            raise _refused(AbortCode.MODEL_MISMATCH, why)
        self._architecture, self._training = shape, training
        self._last = np.array(params, dtype=np.float32)
        if self._path is not None:
            self._save(self._path)

    def _save(self, path: Path) -> None:
        out = BytesIO()
        assert self._last is not None
        np.savez(
            out,
            architecture=np.array(self._architecture),
            training=np.array(self._training),
            last=self._last,
        )
        write_bytes(path, out.getvalue())

    def _load(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as kept:
                first = str(kept["architecture"])
                self._training, self._last = str(kept["training"]), np.asarray(kept["last"], np.float32)
        except (ValueError, KeyError, EOFError, BadZipFile) as error:
            raise LocalError(
                f"{path} is damaged, so the last model is not known: remove it to start anew"
            ) from error
        self._architecture = self._pin or first


def _refused(code: AbortCode, why: str) -> Aborted:
    return Aborted(code, why, (0,))
