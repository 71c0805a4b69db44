"""Effective settings of `merveil evaluate`: defaults, then --config F.toml, then the command line."""

import argparse
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from merveil.fl.options import TrainOptions, read_config
from merveil.mer.errors import InputError
from merveil.mer.models.registry import get
from merveil.mer.recipe import Recipe

MODES = ("central", "federated")
DEFAULTS: dict[str, Any] = {
    "protocol": "loso",
    "mode": "central",
    "scheme": "plain",
    "model": "ststnet",
    "seed": 0,
    "clients": "subject",
    "dp": "none",
    "recipe": "default",
}
KINDS: dict[str, type] = {
    **dict.fromkeys(("data", "protocol", "mode", "scheme", "model", "clients", "dp"), str),
    **dict.fromkeys(("recipe", "norm", "out"), str),
    **dict.fromkeys(("dp_unit", "dp_noise"), str),
    **dict.fromkeys(("epsilon", "delta", "norm_clip"), float),
    **dict.fromkeys(("seed", "rounds", "epochs", "personal"), int),
}
PRIVACY = ("dp", "epsilon", "delta", "norm_clip", "dp_unit", "dp_noise")
PLACES = ("data", "out")  # where things lie: no part of the configuration's hash


@dataclass(frozen=True)
class Settings:
    """named: the verb's own options; extra: options of the training recipe or of the federation, by name."""

    named: Mapping[str, Any]
    extra: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.named[name]

    def get(self, name: str) -> Any:
        """The option's value, or None where it has none."""
        return self.named.get(name)

    def effective(self) -> dict[str, Any]:
        """The options that have an effect in this mode, without places; hashed and kept in config.toml."""
        idle = (
            ("scheme", "clients", "rounds", *PRIVACY) if self["mode"] == "central" else ("epochs", "recipe")
        )
        kept = {name: value for name, value in self.named.items() if name not in (*PLACES, *idle)}
        return {**kept, **self.extra}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What a configuration file may also hold; nothing has a default here, so that the file counts."""
    add = parser.add_argument
    add("--data", metavar="F.npz", help="the archive, or synthetic[:subjects=24,clips=8,seed=0]")
    add("--protocol", metavar="loso|kfold:K", help="how people are held out (default loso)")
    add(
        "--mode",
        choices=MODES,
        help="one training on all data, or one client a subject or site (default central)",
    )
    add("--scheme", help="secure aggregation scheme of federated mode (default plain: the server reads all)")
    add("--model", help="see `merveil models` (default ststnet)")
    add("--seed", type=int, help="training seed; also of the folds and of the bootstrap (default 0)")
    add("--clients", metavar="subject|site|site:K", help="who the clients are (default subject)")
    add("--rounds", type=int, help="federated rounds (default: frozen with the model)")
    add(
        "--dp",
        help="differential privacy of each fold's training: none (default), distributed, central, sgd, ...",
    )
    add("--epsilon", type=float, help="its budget")
    add("--delta", type=float, help="of the guarantee; below one over the clients")
    add(
        "--norm-clip",
        type=float,
        help="bound of the 2-norm of an update (sgd: of a clip's gradient), a constant",
    )
    add("--dp-unit", help="what is protected: client, or person where clients are subjects; sgd: clip")
    add("--dp-noise", help="skellam (default) or gaussian (discrete)")
    add("--epochs", type=int, help="epochs of central mode (default: frozen with the model)")
    add("--norm", help="normalisation layers of the network: group or batch")
    add("--recipe", help="named training recipe of central mode, such as published (default default)")
    add(
        "--personal",
        type=int,
        metavar="K",
        help="also what K own labelled clips add for returning people, apart from the score",
    )
    add("--out", metavar="DIR", help="folder for result.json, predictions.csv and config.toml")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="any option of a configuration file")


def resolve(args: argparse.Namespace) -> Settings:
    """Merge the layers; InputError for an unknown name (with the nearest known one) or a wrong type."""
    layers = [DEFAULTS]
    if args.config:
        layers.append(read_config(args.config))
    layers.append(dict(_assignment(text) for text in args.set))
    layers.append({name: getattr(args, name) for name in KINDS if getattr(args, name) is not None})
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    for name, value in merged.items():
        if KINDS.get(name) is float and type(value) is int:
            merged[name] = float(value)
        elif name in KINDS and type(value) is not KINDS[name]:
            raise InputError(f"option {name} must be {_SPOKEN[KINDS[name]]}, not {value!r}")
    _check(merged)
    extra = {name: value for name, value in merged.items() if name not in KINDS}
    known = {entry.name for entry in fields(Recipe if merged["mode"] == "central" else TrainOptions)}
    known |= set(get(merged["model"]).options)
    for name in extra:
        if name not in known:
            near = difflib.get_close_matches(name, [*KINDS, *known], 1)
            hint = f"; did you mean {near[0]!r}?" if near else f" in {merged['mode']} mode"
            raise InputError(f"option {name!r} is not known{hint}")
    return Settings({name: merged[name] for name in KINDS if name in merged}, extra)


_SPOKEN = {str: "a text", int: "a whole number", float: "a number"}


def _check(merged: Mapping[str, Any]) -> None:
    if "data" not in merged:
        raise InputError("--data F.npz is missing: the archive to evaluate on")
    if merged["mode"] not in MODES:
        raise InputError(f"mode {merged['mode']!r} is not known: use {' or '.join(MODES)}")
    if not 0 <= merged["seed"] < 2**63:
        raise InputError(f"the seed must be in 0..2^63-1, not {merged['seed']}")
    private = merged["dp"] != "none"
    if private and merged["mode"] == "central":
        raise InputError(f"--dp {merged['dp']} is for federated mode; central mode has no clients to protect")
    for name in PRIVACY[1:]:
        if name in merged and not private:
            raise InputError(
                f"--{name.replace('_', '-')} has no effect without --dp distributed, central or sgd"
            )
    if merged["mode"] == "central" and merged["scheme"] != "plain":
        raise InputError(
            f"central training aggregates nothing, so --scheme {merged['scheme']} would protect nothing"
        )
    if "personal" in merged:
        if merged["personal"] < 1:
            raise InputError(f"--personal takes 1 own clip or more, not {merged['personal']}")
        if get(merged["model"]).kind not in ("network", "exact"):
            raise InputError(f"--personal is for networks and exact-ridge, not for {merged['model']}")
        if get(merged["model"]).kind == "exact" and merged.get("drop_rate"):
            raise InputError("--personal with exact-ridge takes all clients in: leave drop_rate out")
    for name, mode in (("rounds", "federated"), ("epochs", "central")):
        if name in merged and merged[name] < 1:
            raise InputError(f"--{name} must be 1 or more, not {merged[name]}")
        if name in merged and merged["mode"] != mode:
            other = "--epochs" if name == "rounds" else "--rounds (and local_epochs)"
            raise InputError(f"--{name} is for {mode} mode; {merged['mode']} mode has {other}")


def _assignment(text: str) -> tuple[str, Any]:
    """NAME=VALUE with the value as TOML spells it; a bare word is a text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set {text!r} must be NAME=VALUE")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()
