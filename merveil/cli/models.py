"""`merveil models`: the recognisers, with parameters, cost, and honest scores where they have been run."""

import argparse
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from merveil.cli import OK, print_json
from merveil.mer.errors import InputError

HELP = "the recognisers: parameters, cost, honest scores"
SHAPE, CLASSES = (28, 28, 3), 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="one model: all its recipes, options and scores")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    from merveil.mer.models.registry import MODELS, get

    names = [args.model] if args.model else list(MODELS)
    scores = shipped_scores()
    found = [describe(get(name), scores) for name in names]
    if args.json:
        print_json({"input": list(SHAPE), "classes": CLASSES, "data": scores["data"], "models": found})
    elif args.model:
        print(details(found[0], scores))
    else:
        print(listing(found, scores))
    return OK


def shipped_scores() -> dict[str, Any]:
    """mer/models/scores.json, as benchmarks/results.py wrote it; InputError if it is not there."""
    source = files("merveil.mer.models") / "scores.json"
    if not source.is_file():
        raise InputError("this installation lacks its file of scores: install merveil again")
    found: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    return found


def describe(info: Any, scores: Mapping[str, Any]) -> dict[str, Any]:
    """One model: what it is, its size and recipes, and every line of scores."""
    height, width, channels = SHAPE
    size = info.parameters(channels, height, width, CLASSES)
    mine = [row for row in scores["rows"] if row["model"] == info.name]
    return {
        "name": info.name,
        "kind": info.kind,
        "help": info.help,
        "source": info.source,
        "parameters": size,
        "update_bytes": 2 * size,
        "federated": info.kind != "closed-form",
        "trainable": info.kind in ("network", "exact"),
        "options": list(info.options),
        "recipes": {name: recipe.to_json() for name, recipe in info.recipes.items()},
        "scores": [{k: v for k, v in row.items() if k != "model"} for row in mine],
    }


def listing(found: Sequence[Mapping[str, Any]], scores: Mapping[str, Any]) -> str:
    """A table for people: each model once, with its best central form and its federated one."""
    head = f"{'model':<21}{'parameters':>11}{'update':>9}{'fold':>8}{'central UF1':>22}{'federated':>11}"
    lines = [head]
    for model in found:
        central = [row for row in model["scores"] if row["mode"] == "central"]
        far = [r for r in model["scores"] if r["mode"] == "federated" and r["clients"] == "subject"]
        best = max(central, key=lambda row: row["mean_uf1"], default=None)
        told, seconds = "not run", ""
        if best is not None:
            low, high = best["ci95"]["uf1"]
            told = f"{best['mean_uf1']:.3f} [{low:.3f}, {high:.3f}]"
            seconds = f"{min(best['seconds']) / scores['data']['persons']:.1f} s"
        other = f"{max(row['mean_uf1'] for row in far):.3f}" if far else ""
        size = f"{model['parameters']:,}" if model["parameters"] else "-"
        update = _bytes(model["update_bytes"]) if model["federated"] else "-"
        lines.append(f"{model['name']:<21}{size:>11}{update:>9}{seconds:>8}{told:>22}{other:>11}")
    data = scores["data"]
    lines.append(
        f"scores: leave one of {data['persons']} people out, {' + '.join(data['datasets'])}, mean over "
        "seeds, 95 % over people, best form of each; update: one vector at 16 bits a number; fold: seconds "
        "of one on a busy machine. `merveil models NAME` has the rest; docs/results.md how it was obtained."
    )
    return "\n".join(lines)


def details(model: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """One model for people."""
    lines = [f"{model['name']} ({model['kind']}): {model['help']}", f"source: {model['source']}"]
    if model["parameters"]:
        lines.append(f"parameters at 28x28x3, 3 classes: {model['parameters']:,}")
    lines.append(f"options: {', '.join(model['options']) or 'none'}")
    for name, recipe in model["recipes"].items():
        kept = {key: value for key, value in recipe.items() if value not in (None, False, 0, 0.0)}
        lines.append(f"recipe {name}: " + ", ".join(f"{key} {value}" for key, value in kept.items()))
    for row in model["scores"]:
        way = row["mode"] if row["mode"] == "central" else f"{row['clients']}, {row['scheme']}"
        low, high = row["ci95"]["uf1"]
        form = " ".join(row["options"])
        lines.append(
            f"  {way:<22}{form:<16} UF1 {row['mean_uf1']:.3f} [{low:.3f}, {high:.3f}] "
            f"UAR {row['mean_uar']:.3f}, {len(row['seeds'])} seed(s)"
        )
    if not model["scores"]:
        lines.append("no score has been run")
    return "\n".join(lines)


def _bytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
