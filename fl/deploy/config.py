"""`federation.toml`: what a server runs, or what a site takes part with. Every key is listed here.

[server]                            [site]
listen = "0.0.0.0:8750"             server = "fl.example.org:8750"
home = "."                          home = "."
run = "run"                         data = "clips.npz"
[train]                             max_megabytes = 256
model = "ststnet"
scheme = "secagg"
rounds = 30
[data]
height = 28 ...
"""

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from merveil.fl.options import TrainOptions, resolve
from merveil.mer.data.meta import Meta
from merveil.mer.errors import InputError
from merveil.mer.models.registry import get as get_model

DEFAULT_WEIGHT = 256  # public bound on a site's clip count where max_weight is not set


@dataclass(frozen=True)
class DataShape:
    """What every site's archive must look like: a clip's shape, its channels and the classes."""

    height: int = 28
    width: int = 28
    channels: tuple[str, ...] = Meta().channels
    classes: tuple[str, ...] = Meta().classes

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, len(self.channels)


@dataclass(frozen=True)
class ServerSettings:
    """listen: host:port. home: federation.json, roster.bin, tls.crt, tls.key. run: the run folder.

    Seconds: gather_seconds, how long a round waits for sites that are not connected while the threshold is
    met; wait_seconds, how long it waits for the threshold; phase_seconds and train_seconds, the longest an
    exchange may take without and with training; grace_seconds, how long a site that lost its connection in
    mid-round may take to come back. attempts: of one round while no answer has left. max_aborted: rounds in a
    row without a sum before the server gives up.
    """

    listen: str = "0.0.0.0:8750"
    home: Path = Path(".")
    run: Path = Path("run")
    certificate: Path = Path("tls.crt")
    key: Path = Path("tls.key")
    gather_seconds: float = 30.0
    wait_seconds: float = 3600.0
    phase_seconds: float = 60.0
    train_seconds: float = 3600.0
    grace_seconds: float = 10.0
    attempts: int = 2
    max_aborted: int = 3
    max_megabytes: int = 256
    options: TrainOptions = field(default_factory=lambda: resolve({}))
    data: DataShape = field(default_factory=DataShape)


@dataclass(frozen=True)
class SiteSettings:
    """server: host:port to dial. certificate: the server's. home: the member's folder. data: its archive.

    server_name: name in the certificate where it is not the host that is dialled. max_megabytes: the largest
    message taken. retry_seconds: the longest pause between two attempts to connect. architecture: hash of the
    network that was agreed (`fl.gate.architecture`); empty: the first one that is sent is kept.
    """

    server: str = ""
    home: Path = Path(".")
    data: str = ""
    certificate: Path = Path("tls.crt")
    server_name: str = ""
    max_megabytes: int = 256
    retry_seconds: float = 30.0
    max_cut: float = 0.01
    free_megabytes: int = 100
    architecture: str = ""


def read_server(path: Path) -> ServerSettings:
    """The [server], [train] and [data] of a file. Paths are relative to it. InputError names what is
    wrong."""
    tables = _tables(path, ("server", "train", "data"))
    values = _values(path, "server", tables.get("server", {}), ServerSettings, ("options", "data"))
    options = resolve(tables.get("train", {}))
    missing = unbuilt(options)
    if missing:
        raise InputError(f"{path}: {missing} is for `merveil train`; merveil server has none yet")
    if options.drop_rate:
        raise InputError(f"{path}: drop_rate simulates failures; real sites fail by themselves")
    if options.clients != "subject":
        raise InputError(f"{path}: clients has no effect: every site is one client")
    if not options.max_weight:
        options = resolve(tables.get("train", {}), {"max_weight": DEFAULT_WEIGHT})
    shape = _values(path, "data", tables.get("data", {}), DataShape, ())
    return ServerSettings(options=options, data=DataShape(**shape), **values)


def unbuilt(options: TrainOptions) -> str:
    """The first option of `merveil train` that sites do not carry out, as `name = value`, or "": server and
    site each refuse it, so that nobody trains with less than what was asked for."""
    found = {
        "dp": options.dp if options.dp not in ("none", "distributed") else "",
        "dp_unit": options.dp_unit if options.noisy_sums and options.dp_unit != "client" else "",
        "model": options.model if get_model(options.model).kind != "network" else "",
        "strategy": options.strategy if options.strategy == "scaffold" else "",
        "server_ema": options.server_ema,
        "logit_tau": options.logit_tau,
        "coverage": options.coverage,
    }
    return next((f"{name} = {value!r}" for name, value in found.items() if value), "")


def read_site(path: Path) -> SiteSettings:
    """The [site] of a file. Paths are relative to it. InputError names what is wrong or missing."""
    tables = _tables(path, ("site",))
    found = SiteSettings(**_values(path, "site", tables.get("site", {}), SiteSettings, ()))
    for name in ("server", "data"):
        if not getattr(found, name):
            raise InputError(f"{path}: [site] needs {name}")
    address(found.server)
    return found


def address(text: str) -> tuple[str, int]:
    """host:port, IPv6 in brackets. InputError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 <= int(port) < 65_536:
        raise InputError(f"{text!r} is no host:port")
    return host.strip("[]"), int(port)


def _tables(path: Path, wanted: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error
    for name, table in value.items():
        if name not in ("server", "train", "data", "site") or not isinstance(table, dict):
            raise InputError(f"{path}: [{name}] is not known; there are [server], [train], [data], [site]")
    if wanted[0] not in value:
        raise InputError(f"{path} has no [{wanted[0]}]")
    return {name: table for name, table in value.items() if name in wanted}


def _values(
    path: Path, table: str, given: Mapping[str, Any], kind: Any, hidden: tuple[str, ...]
) -> dict[str, Any]:
    known = {f.name: f.type for f in fields(kind) if f.name not in hidden}
    found = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, list(known), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{path}: [{table}] has no {name!r}{hint}")
        found[name] = _typed(path, f"[{table}] {name}", known[name], value)
    for name, expected in known.items():  # a path's default is relative to the file too
        if expected is Path and name not in found:
            found[name] = path.parent / getattr(kind, name)
    return found


def _typed(path: Path, where: str, kind: Any, value: Any) -> Any:
    wrong = InputError(f"{path}: {where} has another type of value than it needs: {value!r}")
    if kind is Path:
        if not isinstance(value, str):
            raise wrong
        return path.parent / value
    if kind is float:
        if type(value) not in (int, float) or not (math.isfinite(value) and value >= 0):
            raise wrong
        return float(value)
    if kind is int:
        if type(value) is not int or value < 1:
            raise wrong
        return value
    if kind is str:
        if not isinstance(value, str):
            raise wrong
        return value
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise wrong
    return tuple(value)
