"""Flower's records as flat vectors, and the hashes that both sides compute for themselves.

Guarantee: layout, order and dtypes follow from the model that the server sent, sorted by name, so every
client and the server agree on them or end in different contexts. Tensors stop here: what goes on is numpy.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from merveil.fl.deploy.task import digest
from merveil.protocols.errors import AbortCode, LocalError, RemoteError

Floats = NDArray[np.float64]

RECORD = "merveil"  # name of our ConfigRecord in a message and in a node's state
MODES = ("update", "arrays")
PLAN_LIMIT = 65_536


@dataclass(frozen=True)
class Plan:
    """How an app's reply becomes a vector; public, and part of the configuration hash.

    mode: `update` sends local minus received, `arrays` sends the returned arrays as they are. weighted_by:
    the metric whose whole number weighs a client; unused where the task's max_weight is 1. metrics: name ->
    largest magnitude, of metrics that travel inside the vector and come back as a weighted mean; all others
    stay at the node. skip: name patterns of arrays that are left as the server sent them.
    """

    mode: str = "update"
    weighted_by: str = "num-examples"
    metrics: Mapping[str, float] = field(default_factory=dict)
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise LocalError(f"mode {self.mode!r} is not known: use one of {', '.join(MODES)}")
        for name, bound in self.metrics.items():
            if not (np.isfinite(bound) and bound > 0):
                raise LocalError(f"metric {name!r} needs a positive bound, not {bound!r}")

    def encode(self) -> bytes:
        value = {
            "mode": self.mode,
            "weighted_by": self.weighted_by,
            "metrics": {name: float(bound) for name, bound in self.metrics.items()},
            "skip": list(self.skip),
        }
        return json.dumps(value, sort_keys=True).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Plan":
        """Inverse of `encode`. RemoteError (MALFORMED_FRAME, culprit 0) for anything else."""
        try:
            if len(data) > PLAN_LIMIT:
                raise ValueError(f"{len(data)} bytes")
            value = json.loads(data)
            metrics = {str(k): float(v) for k, v in value["metrics"].items()}
            skip = tuple(str(s) for s in value["skip"])
            return cls(str(value["mode"]), str(value["weighted_by"]), metrics, skip)
        except (ValueError, KeyError, TypeError, AttributeError, LocalError, RecursionError) as error:
            raise RemoteError(
                f"the server's plan is malformed: {error}", (0,), AbortCode.MALFORMED_FRAME
            ) from error


class Layout:
    """Which arrays of a model travel, sorted by name, and where the metrics lie behind them."""

    def __init__(self, model: ArrayRecord, plan: Plan) -> None:
        self.plan = plan
        self.model = {name: model[name].numpy() for name in sorted(model)}
        self.names = [n for n in self.model if not any(fnmatchcase(n, s) for s in plan.skip)]
        for name in self.names:
            if self.model[name].dtype.kind != "f":
                raise LocalError(
                    f"array {name!r} holds {self.model[name].dtype}, no floats: leave it out with skip=[...]",
                    AbortCode.SHAPE_MISMATCH,
                )
        self.metrics = sorted(plan.metrics)
        self.arrays = sum(self.model[n].size for n in self.names)
        if not self.arrays:
            raise LocalError("the model holds no numbers to aggregate", AbortCode.SHAPE_MISMATCH)
        self.dim = self.arrays + len(self.metrics)

    def vector(self, arrays: ArrayRecord, metrics: MetricRecord, clip: float) -> Floats:
        """The app's answer as one vector, float64 [dim]. LocalError names the array or metric that is
        wrong."""
        if sorted(arrays) != list(self.model):
            raise LocalError(
                "the app returned other arrays than it was sent; mode='update' needs the same names",
                AbortCode.SHAPE_MISMATCH,
            )
        out, at = np.empty(self.dim), 0
        for name in self.names:
            found, sent = arrays[name].numpy(), self.model[name]
            if found.shape != sent.shape or found.dtype.kind != "f":
                raise LocalError(
                    f"array {name!r} came back as {found.dtype}{found.shape}, not {sent.dtype}{sent.shape}",
                    AbortCode.SHAPE_MISMATCH,
                )
            part = found.astype(np.float64).reshape(-1)
            out[at : at + part.size] = part - sent.reshape(-1) if self.plan.mode == "update" else part
            at += part.size
        for name in self.metrics:
            out[at] = self._metric(metrics, name) * (clip / self.plan.metrics[name])
            at += 1
        return out

    def _metric(self, metrics: MetricRecord, name: str) -> float:
        value = metrics.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise LocalError(
                f"the app returned no single number as metric {name!r}", AbortCode.SHAPE_MISMATCH
            )
        return float(value)

    def restore(self, mean: Floats, clip: float) -> tuple[ArrayRecord, dict[str, float]]:
        """The mean as a new model, in the dtypes of the one that was sent, and the mean metrics."""
        found, at = {}, 0
        for name, sent in self.model.items():
            if name not in self.names:
                found[name] = Array(sent)
                continue
            part = mean[at : at + sent.size].reshape(sent.shape)
            new = sent.astype(np.float64) + part if self.plan.mode == "update" else part
            found[name] = Array(np.asarray(new, dtype=sent.dtype))
            at += sent.size
        metrics = {n: float(mean[at + i]) * self.plan.metrics[n] / clip for i, n in enumerate(self.metrics)}
        return ArrayRecord(found), metrics


def weight_of(metrics: MetricRecord, plan: Plan, bound: int) -> int:
    """The whole number with which a client weighs. LocalError: none, not whole, or above the public bound."""
    if bound == 1:
        return 1
    value: Any = metrics.get(plan.weighted_by)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= bound:
        raise LocalError(
            f"metric {plan.weighted_by!r} must be whole, from 1 to max_weight = {bound}, not {value!r}",
            AbortCode.INPUT_RANGE,
        )
    return value


def model_hash(model: ArrayRecord) -> str:
    """Over names, dtypes, shapes and values, sorted by name."""
    parts = []
    for name in sorted(model):
        array = np.ascontiguousarray(model[name].numpy())
        parts += [name.encode(), f"{array.dtype.str}{array.shape}".encode(), array.tobytes()]
    return digest("flower-model", *parts)


def config_hash(plan: bytes, configs: Sequence[ConfigRecord]) -> str:
    """Over the plan and the app's own configuration records."""
    parts = [plan]
    for record in configs:
        parts += [
            f"{name}={type(record[name]).__name__}:{record[name]!r}".encode() for name in sorted(record)
        ]
        parts.append(b"")
    return digest("flower-config", *parts)


def content_hashes(content: RecordDict, plan: bytes) -> tuple[str, str]:
    """Model and configuration hash of a training message. LocalError unless it holds one ArrayRecord."""
    if len(content.array_records) != 1:
        raise LocalError(f"a training message holds one ArrayRecord, not {len(content.array_records)}")
    configs = [record for name, record in sorted(content.config_records.items()) if name != RECORD]
    return model_hash(next(iter(content.array_records.values()))), config_hash(plan, configs)
