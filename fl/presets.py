"""Frozen defaults of a federated run, by model and strategy, and how they were chosen.

Rule: a number in here was chosen by inner validation on training persons only, or is a convention; never by
looking at held-out people.
"""

from typing import Any

from merveil.mer.errors import InputError

_BY_STRATEGY: dict[str, dict[str, Any]] = {
    "fedadamw": {"rounds": 300, "lr": 1.0, "server_lr": 0.01, "update_clip": 1.0},
    "fedadam": {"rounds": 300, "lr": 1.0, "server_lr": 0.01, "update_clip": 1.0, "tau": 1e-3},
    "fedavg": {"rounds": 100, "lr": 0.05, "server_lr": 1.0, "update_clip": 1.0, "local_epochs": 2},
    "fedprox": {
        "rounds": 100,
        "lr": 0.05,
        "server_lr": 1.0,
        "update_clip": 1.0,
        "local_epochs": 2,
        "prox_mu": 0.01,
    },
}
_BY_MODEL: dict[tuple[str, str], dict[str, Any]] = {}


def preset(model: str, strategy: str) -> dict[str, Any]:
    """The frozen defaults for one model under one strategy; InputError for an unknown strategy."""
    if strategy not in _BY_STRATEGY:
        raise InputError(f"strategy {strategy!r} is not known: use one of {', '.join(_BY_STRATEGY)}")
    return {**_BY_STRATEGY[strategy], **_BY_MODEL.get((model, strategy), {})}
