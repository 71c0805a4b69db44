"""`merveil evaluate`: honest scores of one model on people it was not trained on.

The scores are taken once, after the last fold's last epoch or round; nothing is chosen by them.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from merveil.cli import OK, print_json, say
from merveil.cli.data import is_drawn, open_data
from merveil.cli.outputs import check_free, result_folder
from merveil.cli.settings import PRIVACY, Settings, add_options, resolve
from merveil.mer.errors import InputError

HELP = "honest scores: held-out people, pooled counts, intervals, baselines"
DRAWN = "drawn clips: the score says that the pipeline works, not how well it reads people"
FILES = ("result.json", "predictions.csv", "config.toml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser)
    parser.add_argument(
        "--config", type=Path, metavar="F.toml", help="options from a file; the command line wins"
    )
    parser.add_argument("--force", action="store_true", help="replace the result in an existing --out")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    started = perf_counter()
    settings = resolve(args)
    _check_names(settings)
    out = Path(settings["out"]) if settings.get("out") else None
    if out is not None:
        check_free(out, args.force)
    archive = open_data(settings["data"])
    if is_drawn(settings["data"]):
        archive = replace(archive, notices=(*archive.notices, DRAWN))
    for notice in archive.notices:
        say(f"note: {settings['data']}: {notice}")
    if out is None:
        result = evaluate(archive, settings, None, None, started)
    else:
        with result_folder(out, args.force) as folder:
            result = evaluate(archive, settings, folder, out, started)
    if args.json:
        print_json(result)
    else:
        from merveil.mer.evaluation import table

        print(table(result))
        if result["personal"] is not None:
            from merveil.mer.personal import sentence

            print(sentence(result["personal"]))
    return OK


def evaluate(
    archive: Any, settings: Settings, folder: Path | None, out: Path | None, started: float
) -> dict[str, Any]:
    """Train every fold, score once, write the files to `folder` (they will lie in `out`); the result."""
    from merveil.mer.data.splits import parse_protocol
    from merveil.mer.evaluation import allowed, score
    from merveil.mer.predictions import write_predictions

    folds = parse_protocol(settings["protocol"]).folds(archive, settings["seed"])
    run = predict(archive, folds, settings)
    info = dict(run.info)
    probabilities = allowed(archive, folds, run.probabilities)
    result = {**score(archive, folds, probabilities, seed=settings["seed"]), **about(archive, settings, info)}
    result["personal"] = _personal(archive, folds, settings, run)
    result["disclosure"] = _disclosure(archive, result, settings, info)
    for notice in result["notices"][len(archive.notices) :]:
        say(f"note: {notice}")
    result["predictions"] = None if out is None else str(out / "predictions.csv")
    if folder is not None:
        write_predictions(folder / "predictions.csv", archive, folds, probabilities)
    result["seconds"] = round(perf_counter() - started, 3)
    if folder is not None:
        _write(folder, result, settings)
    return result


def predict(archive: Any, folds: Sequence[Any], settings: Settings) -> Any:
    """What the trainer gives: probabilities [n, K] of held-out clips, info, models where they are needed."""
    kept = {"keep_models": True} if settings.get("personal") else {}
    with _progress() as progress:
        if settings["mode"] == "central":
            from merveil.mer.loso import central_predictions

            found = central_predictions(
                archive,
                folds,
                model=settings["model"],
                seed=settings["seed"],
                **_central(settings),
                **kept,
                progress=progress,
            )
        else:
            from merveil.fl.evaluate import federated_predictions

            found = federated_predictions(
                archive,
                folds,
                model=settings["model"],
                scheme=settings["scheme"],
                clients=settings["clients"],
                rounds=settings.get("rounds"),
                seed=settings["seed"],
                options=_federated(settings),
                **kept,
                progress=progress,
            )
    return found


def _personal(archive: Any, folds: Sequence[Any], settings: Settings, run: Any) -> dict[str, Any] | None:
    """What own clips add for returning people, after the score; None where it was not asked for."""
    from merveil.mer.models.registry import get
    from merveil.mer.personal import personalised, summary

    k = settings.get("personal")
    if k is None:
        return None
    chosen = get(settings["model"])
    if chosen.kind == "exact":
        own = {name: value for name, value in settings.extra.items() if name in chosen.options}
        return summary(archive, personalised(archive, folds, k, options=own))
    from merveil.mer.personal_head import personalised_network

    return summary(archive, personalised_network(archive, folds, *run.models, k))


def about(archive: Any, settings: Settings, info: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the result that says what was run, on what, and with which code."""
    from merveil.mer.evaluation import config_sha256, linked_persons, versions

    federated = settings["mode"] == "federated"
    config = settings.effective()
    return {
        "mode": settings["mode"],
        "model": settings["model"],
        "scheme": settings["scheme"] if federated else None,
        "protocol": settings["protocol"],
        "seed": settings["seed"],
        "clients": info["clients"] if federated else None,
        "rounds": info["rounds"] if federated else None,
        "dp": settings["dp"],
        "data_sha256": archive.sha256,
        "config_sha256": config_sha256({**config, "trainer": [info.get("recipe"), info.get("options")]}),
        "config": config,
        "versions": versions(),
        "linked_persons": linked_persons(archive),
        "info": dict(info),
    }


def _check_names(settings: Settings) -> None:
    """Refuse unknown models, schemes, protocols and client rules before anything is read or trained."""
    from merveil.fl.clients import parse_clients
    from merveil.mer.data.splits import parse_protocol
    from merveil.mer.models.registry import get, recipe_for
    from merveil.protocols.registry import names

    parse_protocol(settings["protocol"])
    parse_clients(settings["clients"])
    closed = get(settings["model"]).kind != "network"
    if settings["mode"] == "central" and not (closed and settings["recipe"] == "default"):
        recipe_for(settings["model"], settings["recipe"])
    if settings["scheme"] not in names():
        raise InputError(f"there is no scheme {settings['scheme']!r}; there are: {', '.join(names())}")


def _central(settings: Settings) -> dict[str, Any]:
    return {"recipe": settings["recipe"], "options": {**settings.extra, **_given(settings, "epochs", "norm")}}


def _federated(settings: Settings) -> dict[str, Any]:
    from merveil.mer.models.registry import get

    own = get(settings["model"]).options
    options = {name: value for name, value in settings.extra.items() if name not in own}
    table = {name: value for name, value in settings.extra.items() if name in own}
    if table:
        options["model_options"] = {**options.get("model_options", {}), **table}
    if settings["dp"] != "none":
        options |= _given(settings, *PRIVACY)
    if settings.get("norm"):
        options["model_options"] = {**options.get("model_options", {}), "norm": settings["norm"]}
    return options


def _given(settings: Settings, *names: str) -> dict[str, Any]:
    return {name: settings[name] for name in names if settings.get(name) is not None}


def _disclosure(archive: Any, result: Mapping[str, Any], settings: Settings, info: Mapping[str, Any]) -> str:
    from merveil.mer.evaluation import disclosure

    if settings["mode"] == "central":
        steps = f"{info['epochs']} epochs" if "epochs" in info else "solved in closed form"
        fixed = f"{steps}, settings fixed before the run"
        privacy = "none (central training: all clips in one place)"
    else:
        clients = f"{info['clients']} clients ({settings['clients']})"
        fixed = f"{info['rounds']} rounds, fixed before the run; {clients}"
        privacy = info.get("guarantee") or settings["scheme"]
    return disclosure(archive, result, settings["protocol"], fixed, privacy)


def _write(folder: Path, result: Mapping[str, Any], settings: Settings) -> None:
    from merveil.fl.options import config_toml
    from merveil.mer.atomic import write_text

    write_text(folder / "config.toml", config_toml({"data": settings["data"], **settings.effective()}))
    write_text(folder / "result.json", json.dumps(result, indent=2, allow_nan=False) + "\n")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A line on stderr every ten seconds (every second, overwritten, on a terminal)."""
    terminal = sys.stderr.isatty()
    last = monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if monotonic() - last < (1 if terminal else 10):
            return
        last = monotonic()
        text = f"evaluate: {done} of {total} ({100 * done // max(total, 1)} %)"
        print(f"\r{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)

    yield show
    if terminal:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
