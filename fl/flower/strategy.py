"""`secured`: a Flower strategy whose training goes through secure rounds."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    Bulyan,
    FedMedian,
    FedTrimmedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    Krum,
    MultiKrum,
    QFedAvg,
    Result,
    Strategy,
)

from merveil.fl.flower.grid import Report, SecureGrid, Settings
from merveil.fl.flower.records import Plan
from merveil.protocols.errors import LocalError

# These need every client's own update, which nobody sees here.
_SINGLE = (Bulyan, FedMedian, FedTrimmedAvg, FedXgbBagging, FedXgbCyclic, Krum, MultiKrum, QFedAvg)


class _Secured(Strategy):
    """Another strategy, started on a SecureGrid."""

    def __init__(self, inner: Strategy, home: Path, settings: Settings) -> None:
        self._inner, self._home, self._settings = inner, home, settings
        self.reports: list[Report] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self._inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return self._inner.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return self._inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self._inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        self._inner.summary()

    def start(self, grid: Grid, *args: Any, **kwargs: Any) -> Result:
        """As the inner strategy's `start`; its training messages run as secure rounds."""
        secure = SecureGrid(grid, self._home, self._settings)
        self.reports = secure.reports
        return self._inner.start(secure, *args, **kwargs)


def secured(
    strategy: Strategy,
    *,
    clip: float,
    home: str | Path | None = None,
    scheme: str = "secagg+",
    bits: int = 20,
    max_weight: int = 1024,
    threshold: int | None = None,
    mode: str = "update",
    metrics: Mapping[str, float] | None = None,
    skip: tuple[str, ...] = (),
    attempts: int = 2,
    exchange_timeout: float = 120.0,
    max_aborted: int = 3,
) -> _Secured:
    """A strategy whose training goes through secure rounds; use it as the one it wraps.

    clip: largest magnitude of a coordinate of an update. home: the server's folder with federation.json and
    roster.bin; by default the environment's MERVEIL_HOME. max_weight: public bound on the metric that
    weighs a client, 1 for no weights. metrics: name -> largest magnitude, of those that come back as a
    mean. skip: name patterns of arrays that stay as they are. LocalError: a strategy that needs single
    updates, or that samples clients: the cohort of a round follows from the roster.
    """
    if isinstance(strategy, _SINGLE):
        raise LocalError(
            f"{type(strategy).__name__} looks at every client's own update, which secure aggregation "
            "hides: take a strategy that needs the mean only"
        )
    if getattr(strategy, "fraction_train", 1.0) < 1.0:
        raise LocalError("fraction_train must be 1.0: who takes part in a round follows from the roster")
    place = home or os.environ.get("MERVEIL_HOME")
    if not place:
        raise LocalError("the server has no merveil folder: pass home=..., or set MERVEIL_HOME")
    weighted_by = getattr(strategy, "weighted_by_key", "num-examples")
    plan = Plan(mode, weighted_by, dict(metrics or {}), tuple(skip))
    settings = Settings(
        scheme, clip, bits, max_weight, threshold, attempts, exchange_timeout, max_aborted, plan
    )
    return _Secured(strategy, Path(place), settings)
