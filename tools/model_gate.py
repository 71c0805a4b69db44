"""How often a member's model gate refuses: `python tools/model_gate.py --json F`.

Honest: every round of real federated trainings on drawn people, judged after the round before, after a gap of
ten rounds, and as the first model that a member sees. Crafted: imprint bins and trap rows (factors .90 to
.99, mirrored as published or with both sides drawn) put into one wide layer of an honest model of the same
training. A training is one unit; the bounds of `fl.gate` were looked for on seed 0, which is not used here.
`--seer N`: N models of A23-seer instead.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from merveil.attacks.gating import choose, crafted, training
from merveil.attacks.population import population
from merveil.attacks.runner import SETTINGS
from merveil.attacks.seer import plan, train
from merveil.attacks.stats import clopper_pearson
from merveil.fl.gate import Bounds, suspicion
from merveil.fl.update import Layout
from merveil.mer.atomic import write_text
from merveil.mer.models.flow_mlp import FlowMLP

# name, options, strategy, most rounds: as far as a machine of two cores goes.
TRAININGS: tuple[tuple[str, dict[str, Any], str, int], ...] = (
    ("flow-mlp", {}, "fedadamw", 150),
    ("flow-mlp", {}, "fedavg", 60),
    ("ststnet", {}, "fedadamw", 60),
    ("ststnet", {}, "fedavg", 30),
    ("compact-transformer", {}, "fedadamw", 20),
    ("compact-transformer", {}, "fedavg", 20),
    ("rcn", {}, "fedadamw", 30),
    ("off-apexnet", {"head": "gap"}, "fedadamw", 60),
    ("off-apexnet", {}, "fedadamw", 3),
    ("dual-inception", {"head": "gap"}, "fedadamw", 10),
    ("featref", {}, "fedadamw", 8),
    ("flow-softmax", {}, "fedadamw", 40),
    ("flow-softmax", {}, "fedavg", 30),
)
GAP = 10
LATER = 20  # honest rounds before the later of the SEER models


def seer(seed: int) -> dict[str, list[bool]]:
    """Question -> whether the gate refused SEER models: one from an honest start, one from a later model.

    Each prepared once, as A23-seer does it, on 72 drawn people; sent first, and after that honest model.
    """
    archive = population(72, 8, seed)
    layout, models = training(archive, choose("flow-mlp", {}, "fedadamw", seed), LATER)
    net = FlowMLP((28, 28, 3), len(archive.classes))
    counts = np.bincount(archive.y, minlength=len(archive.classes))
    weight = counts.sum() / (len(counts) * counts)
    made = plan(archive.x, archive.y, weight, SETTINGS["seer"], seed)
    found: dict[str, list[bool]] = {}
    for at, name in ((0, "start"), (LATER, "later")):
        model, _ = train(net, models[at], made)
        for what, before in (("first seen", None), ("next", models[at])):
            refused = bool(suspicion(layout, model, before, Bounds()))
            found[f"seer from the {name} model, {what}"] = [refused]
    return found


def judged(layout: Layout, models: Any, rng: np.random.Generator) -> dict[str, list[bool]]:
    """Question -> whether the gate refused, for one training."""
    bounds, found = Bounds(), {}
    last = len(models) - 1

    def add(what: str, model: Any, before: Any) -> None:
        found.setdefault(what, []).append(bool(suspicion(layout, model, before, bounds)))

    for r in range(len(models)):
        if r:
            add("honest, next", models[r], models[r - 1])
        if r >= GAP:
            add("honest, gap", models[r], models[r - GAP])
        add("honest, first seen", models[r], None)
    for at in sorted({0, last // 2, last}):
        for kind, bad in crafted(layout, models[at], rng):
            add(f"{kind}, first seen", bad, None)
            add(f"{kind}, next", bad, models[max(at - 1, 0)])
    return found


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Per question over all trainings: refused of tried, and trainings with any refusal, with intervals."""
    told = {}
    for what in sorted({w for row in rows for w in row["refused"]}):
        each = [row["refused"][what] for row in rows if what in row["refused"]]
        flat, any_ = [v for e in each for v in e], [any(e) for e in each]
        told[what] = {
            "refused": sum(flat), "models": len(flat), "share": sum(flat) / len(flat),
            "trainings": len(each), "trainings_refused": sum(any_),
            "trainings_ci95": list(clopper_pearson(sum(any_), len(any_))),
            "all_refused": sum(all(e) for e in each),
            "all_refused_ci95": list(clopper_pearson(sum(all(e) for e in each), len(each))),
        }  # fmt: skip
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind (default 3)")
    parser.add_argument("--seer", type=int, default=0, help="models trained with a secret decoder instead")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(1, args.seer + 1):
        rows.append({"model": "flow-mlp", "seed": seed, "refused": seer(seed)})
        print(rows[-1], file=sys.stderr, flush=True)
        write_text(args.json, json.dumps({"table": table(rows), "trainings": rows}) + "\n")
    for seed in range(1, (0 if args.seer else args.seeds) + 1):
        for name, options, strategy, rounds in TRAININGS:
            archive = population(24, 8, seed)
            layout, models = training(archive, choose(name, options, strategy, seed), rounds)
            refused = judged(layout, models, np.random.default_rng(seed))
            rows.append(
                {"model": name, "options": options, "strategy": strategy, "seed": seed, "refused": refused}
            )
            told = {w: f"{sum(v)}/{len(v)}" for w, v in refused.items() if "honest" in w}
            print(name, options, strategy, seed, told, file=sys.stderr, flush=True)
            write_text(args.json, json.dumps({"table": table(rows), "trainings": rows}) + "\n")


if __name__ == "__main__":
    main()
