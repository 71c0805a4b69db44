"""Frozen defaults of a federated run, by model and strategy, and how they were chosen.

Rule: a number in here was chosen by inner validation on training persons only, or is a convention; never by
looking at held-out people. docs/federated.md has the table of each choice.

- fedadamw: one full-batch gradient a client and round (local SGD of rate 1), Adam at the server. These are
  central training's steps, so rounds, rate, decay, schedule and loss are the model's central recipe.
  fedadam shares them; it was not chosen separately.
- fedavg: local Adam; epochs and rounds by `merveil.fl.selection.nested_choices` on SMIC + CASME II.
  fedprox shares them.
- update_clip: the largest coordinate of a client's gradient seen on training people was below 10 for ststnet
  and below 3 for flow-mlp; the clip leaves room, and 24 bits keep the grid step under 1e-5, since a
  server that divides by its second moment would take steps from rounding noise in small coordinates.
"""

from collections.abc import Mapping
from typing import Any

from merveil.mer.errors import InputError
from merveil.mer.models.registry import get, usual_recipe

_LOCAL_ADAM: dict[str, Any] = {
    "rounds": 60,
    "local_epochs": 5,
    "optimiser": "adam",
    "lr": 1e-3,
    "server_lr": 1.0,
    "update_clip": 0.25,
    "bits": 20,
}
_GRADIENT: dict[str, Any] = {"lr": 1.0, "update_clip": 16.0, "bits": 24}
_GRADIENT_CLIP = {"ststnet": 64.0}  # its inputs are 0-255
_BY_STRATEGY: dict[str, dict[str, Any]] = {
    "fedadamw": _GRADIENT,
    "fedadam": {**_GRADIENT, "tau": 1e-3},
    "fedavg": _LOCAL_ADAM,
    "fedprox": {**_LOCAL_ADAM, "prox_mu": 0.01},
    # A convention, not chosen by validation: plain steps, since the controls are gradients.
    "scaffold": {**_LOCAL_ADAM, "optimiser": "sgd", "lr": 1e-2, "update_clip": 4.0},
}
# Three sums and no steps: rates and bounds have no effect.
_EXACT: dict[str, Any] = {"rounds": 3, "lr": 1.0, "server_lr": 1.0, "update_clip": 1.0}
# Where a model has no recipe of its own: no choice, only a start.
_PLAIN_SERVER: dict[str, Any] = {"rounds": 60, "server_lr": 1e-3}


def preset(
    model: str, strategy: str, options: Mapping[str, Any] | None = None, private: bool = False
) -> dict[str, Any]:
    """The frozen defaults for one model under one strategy; InputError for an unknown strategy.

    options: the model's own, which may have a recipe of their own; private: with differential privacy, for
    which a model may have a recipe "private".
    """
    if strategy not in _BY_STRATEGY:
        raise InputError(f"strategy {strategy!r} is not known: use one of {', '.join(_BY_STRATEGY)}")
    if get(model).kind == "exact":
        return _EXACT
    own, central = _BY_STRATEGY[strategy], _central(model, options or {}, private)
    if strategy in ("fedavg", "fedprox", "scaffold"):
        return own
    clip = _GRADIENT_CLIP.get(model, own["update_clip"])
    return {**central, **own, "update_clip": clip}


def _central(model: str, options: Mapping[str, Any], private: bool) -> dict[str, Any]:
    """The server's side of a model's central recipe: its steps as rounds, its optimiser, its loss."""
    recipes = get(model).recipes
    name = "private" if private and "private" in recipes else usual_recipe(model, options)
    if name not in recipes or recipes[name].batch is not None:
        return _PLAIN_SERVER
    recipe = recipes[name]
    return {
        "rounds": recipe.epochs,
        "server_lr": recipe.lr,
        "server_weight_decay": recipe.weight_decay if recipe.optimiser == "adamw" else 0.0,
        "server_schedule": recipe.schedule,
        "label_smoothing": recipe.label_smoothing,
        "class_weights": recipe.class_weights,
        "server_ema": recipe.ema,
        "logit_tau": recipe.logit_tau,
        "apex_jitter": recipe.apex_jitter,
    }
