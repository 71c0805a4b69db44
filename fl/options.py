"""The options of one federated run: names, checks, and the TOML file that repeats them.

Guarantee: `TrainOptions.sha256` hashes every option that can change the model, so two runs of equal hash,
data and versions are the same run; the file written beside a run holds all options, defaults included.
"""

import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from merveil.fl import dp_options
from merveil.fl.clients import parse_clients
from merveil.fl.presets import preset
from merveil.fl.strategy import Strategy
from merveil.mer.errors import InputError
from merveil.mer.models.registry import get

OPTIMISERS = ("sgd", "adam", "adamw")
_UNHASHED = ("checkpoint_every", "coverage")  # changes what is kept on the way, never the model
_DP = ("dp", "epsilon", "delta", "dp_unit", "norm_clip", "dp_noise")  # without effect where dp is none

# name -> (smallest, largest) allowed value of a number.
_RANGES: dict[str, tuple[float, float]] = {
    "rounds": (1, 10_000),
    "local_epochs": (1, 100_000),
    "batch": (0, 1_000_000),
    "lr": (1e-12, 1e6),
    "weight_decay": (0, 1e3),
    "label_smoothing": (0, 0.99),
    "server_lr": (1e-12, 1e6),
    "server_weight_decay": (0, 1e3),
    "beta1": (0, 0.99999),
    "beta2": (0, 0.9999999),
    "tau": (1e-12, 1e3),
    "server_ema": (0, 0.99999),
    "logit_tau": (0, 10),
    "coverage": (0, 1),
    "prox_mu": (0, 1e6),
    "apex_jitter": (0, 1),
    "update_clip": (1e-9, 1e9),
    "bits": (4, 40),
    "max_cut": (0, 1),
    "max_weight": (0, 1 << 20),
    "drop_rate": (0, 0.9),
    "checkpoint_every": (1, 1_000_000),
    "epsilon": (0, 1000),
    "delta": (0, 0.5),
    "norm_clip": (0, 1e9),
    "sgd_rate": (0, 1),
    "sgd_epsilon": (0, 1000),
    "sgd_delta": (0, 0.5),
    "sgd_clip": (0, 1e9),
    "seed": (0, (1 << 63) - 1),
}


@dataclass(frozen=True)
class TrainOptions:
    """Everything that decides a federated run, apart from the data themselves.

    lr, weight_decay, prox_mu act at the clients (batch 0: all clips of a client at once);
    server_* act at the server. update_clip bounds every coordinate of a client's update, `bits` is the width
    of its grid. server_ema averages the models over rounds; logit_tau adds tau * log(class share) to training
    scores, by the secure count of classes. max_weight caps the clip count with which a client weighs; 0 takes
    the power of two that holds the largest count. drop_rate: share of the clients that fail in a round, drawn
    from the seed. apex_jitter: chance that a clip is shown, at a local step, by the flow to a frame near its
    apex; every client's archive must have them. coverage: share of clips that the finished model is to
    answer; 0 sets no rule.
    dp, epsilon, delta, dp_unit, norm_clip, dp_noise: differential privacy; norm_clip bounds the 2-norm of a
    client's update (of one clip's gradient where dp is sgd alone), and with noise on the sums update_clip,
    max_cut and max_weight have no effect. With sgd, local_epochs are steps, `batch` is the public divisor of
    a step's sum, sgd_rate the chance of a clip to be in a step; sgd_epsilon and sgd_delta (0: as epsilon and
    delta) and sgd_clip are the clip-level guarantee's where sgd comes on top of another mode.
    """

    rounds: int
    lr: float
    server_lr: float
    update_clip: float
    model: str = "ststnet"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    scheme: str = "plain"
    clients: str = "subject"
    strategy: str = "fedadamw"
    local_epochs: int = 1
    batch: int = 0
    optimiser: str = "sgd"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    class_weights: bool = True
    server_weight_decay: float = 0.0
    server_schedule: str = "constant"
    beta1: float = 0.9
    beta2: float = 0.999
    tau: float = 1e-8
    prox_mu: float = 0.0
    apex_jitter: float = 0.0
    server_ema: float = 0.0
    logit_tau: float = 0.0
    bits: int = 16
    max_cut: float = 0.01
    max_weight: int = 0
    drop_rate: float = 0.0
    checkpoint_every: int = 10
    coverage: float = 0.0
    seed: int = 0
    dp: str = "none"
    epsilon: float = 0.0
    delta: float = 0.0
    dp_unit: str = "client"
    norm_clip: float = 0.0
    dp_noise: str = "skellam"
    sgd_rate: float = 0.5
    sgd_accountant: str = "prv"
    sgd_epsilon: float = 0.0
    sgd_delta: float = 0.0
    sgd_clip: float = 0.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            _check(entry.name, entry.type, getattr(self, entry.name))
        if self.optimiser not in OPTIMISERS:
            raise InputError(f"optimiser {self.optimiser!r} is not known: use one of {', '.join(OPTIMISERS)}")
        if (self.strategy == "fedprox") != (self.prox_mu > 0):
            raise InputError(
                f"strategy {self.strategy} with prox_mu {self.prox_mu}: fedprox needs a positive prox_mu, "
                "and the others do not take one"
            )
        if self.strategy == "scaffold" and (self.optimiser != "sgd" or self.batch or self.weight_decay):
            raise InputError(
                "scaffold takes plain full-batch steps: use optimiser sgd, batch 0, weight_decay 0"
            )
        if self.apex_jitter and get(self.model).kind == "exact":
            raise InputError(f"{self.model} is not trained by steps, so apex_jitter has no effect")
        if self.apex_jitter and self.sgd:
            raise InputError("apex_jitter is not built for --dp sgd, whose steps draw their own clips")
        if self.logit_tau and self.private:
            raise InputError("logit_tau rests on a count over all clients that has no noise: not with --dp")
        parse_clients(self.clients)
        self.server()
        dp_options.check(self)

    @property
    def private(self) -> bool:
        """Whether the run has a differential privacy guarantee."""
        return self.dp != "none"

    @property
    def noisy_sums(self) -> bool:
        """Whether sums over clients carry noise: distributed or central."""
        return self.dp.split("+")[0] in dp_options.SUMS

    @property
    def sgd(self) -> bool:
        """Whether clients train with DP-SGD."""
        return "sgd" in self.dp.split("+")

    def server(self) -> Strategy:
        """The server rule that these options describe; InputError where they describe none."""
        return Strategy(
            name=self.strategy,
            server_lr=self.server_lr,
            beta1=self.beta1,
            beta2=self.beta2,
            tau=self.tau,
            weight_decay=self.server_weight_decay,
            schedule=self.server_schedule,
            rounds=self.rounds,
            reach=self.local_epochs * self.lr,
            ema=self.server_ema,
        )

    def as_dict(self) -> dict[str, Any]:
        """All options by name, plain values."""
        return {**asdict(self), "model_options": dict(self.model_options)}

    @property
    def sha256(self) -> str:
        """Hash of every option that can change the model."""
        idle = _UNHASHED if self.private else (*_UNHASHED, *_DP)
        if not self.sgd:
            idle = (*idle, *dp_options.SGD_OPTIONS)
        if not self.apex_jitter:
            idle = (*idle, "apex_jitter")
        kept = {name: value for name, value in self.as_dict().items() if name not in idle}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def resolve(*layers: Mapping[str, Any]) -> TrainOptions:
    """Options from layers of overrides, the last one winning, over the preset of model and strategy.

    Example: resolve(read_config(path), command_line). InputError: unknown name (with the nearest known one),
    a value of the wrong type or out of range.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    known = [entry.name for entry in fields(TrainOptions)]
    for name in merged:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise InputError(f"option {name!r} is not known{f'; did you mean {near[0]!r}?' if near else ''}")
    model, strategy = merged.get("model", "ststnet"), merged.get("strategy", "fedadamw")
    own = merged.get("model_options", {})
    private = merged.get("dp", "none") != "none"
    chosen = {**preset(model, strategy, own if isinstance(own, Mapping) else {}, private), **merged}
    if private and "class_weights" not in merged:
        chosen["class_weights"] = False  # their count would have no noise
    if merged.get("dp") == "sgd" and "dp_unit" not in merged:
        chosen["dp_unit"] = "clip"  # all that it can protect
    return TrainOptions(**chosen)


def read_config(path: Path) -> dict[str, Any]:
    """The options of a TOML file. InputError: unreadable, not TOML. Names are checked by `resolve`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"the configuration file {path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the configuration file {path} is not valid TOML: {error}") from error


def config_toml(values: Mapping[str, Any]) -> str:
    """Flat options (and one level of tables) as TOML that `read_config` reads back to the same values."""
    plain = [f"{name} = {_toml(value)}" for name, value in values.items() if not isinstance(value, Mapping)]
    for name, table in values.items():
        if isinstance(table, Mapping) and table:
            plain += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(plain) + "\n"


def _toml(value: Any) -> str:
    """One TOML value; JSON spells strings, numbers and booleans as TOML does."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, bool | int | str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    raise InputError(f"the option value {value!r} cannot be written to a configuration file")


def _check(name: str, kind: Any, value: Any) -> None:
    if kind is int or kind is float:
        if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
            raise InputError(f"option {name} must be {_KIND[kind]}, not {value!r}")
        low, high = _RANGES[name]
        if not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"option {name} must lie between {low} and {high}, not {value!r}")
    elif kind in (str, bool) and not isinstance(value, kind):
        raise InputError(f"option {name} must be {_KIND[kind]}, not {value!r}")
    elif kind not in (str, bool) and not isinstance(value, Mapping):
        raise InputError(f"option {name} must be a table, not {value!r}")


_KIND = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
