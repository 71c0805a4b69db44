"""Frozen defaults of a federated run, by model and strategy, and how they were chosen.

Rule: a number in here was chosen by inner validation on training persons only, or is a convention; never by
looking at held-out people. docs/federated.md has the table of each choice.

- fedadamw: one full-batch gradient a client and round (local SGD of rate 1), Adam at the server. These are
  central training's steps, so rounds and rate are the central recipe's, which nested validation chose.
  fedadam shares them; it was not chosen separately.
- fedavg: local Adam; epochs and rounds by `merveil.fl.selection.nested_choices` on SMIC + CASME II.
  fedprox shares them.
- update_clip: the largest coordinate of a client's gradient seen on training people was below 10; 64 leaves
  room, and 24 bits keep the grid step under 1e-5, below what the smallest tensors need.
"""

from typing import Any

from merveil.mer.errors import InputError

_LOCAL_ADAM: dict[str, Any] = {
    "rounds": 60,
    "local_epochs": 5,
    "optimiser": "adam",
    "lr": 1e-3,
    "server_lr": 1.0,
    "update_clip": 0.25,
    "bits": 20,
}
_BY_STRATEGY: dict[str, dict[str, Any]] = {
    "fedadamw": {"rounds": 60, "lr": 1.0, "server_lr": 1e-3, "update_clip": 64.0, "bits": 24},
    "fedadam": {"rounds": 60, "lr": 1.0, "server_lr": 1e-3, "update_clip": 64.0, "bits": 24, "tau": 1e-3},
    "fedavg": _LOCAL_ADAM,
    "fedprox": {**_LOCAL_ADAM, "prox_mu": 0.01},
}
_BY_MODEL: dict[tuple[str, str], dict[str, Any]] = {}


def preset(model: str, strategy: str) -> dict[str, Any]:
    """The frozen defaults for one model under one strategy; InputError for an unknown strategy."""
    if strategy not in _BY_STRATEGY:
        raise InputError(f"strategy {strategy!r} is not known: use one of {', '.join(_BY_STRATEGY)}")
    return {**_BY_STRATEGY[strategy], **_BY_MODEL.get((model, strategy), {})}
