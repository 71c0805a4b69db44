"""How often a member's model gate refuses: `python tools/model_gate.py --json F`.

Honest: every round of real federated trainings on drawn people, judged after the round before, after a gap of
ten rounds, and as the first model that a member sees. Crafted: imprint bins and trap rows (factors .90 to
.99, mirrored as published or with both sides drawn) put into one wide layer of an honest model of the same
training. A training is one unit; the bounds of `fl.gate` were looked for on seed 0, which is not used here.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from merveil.attacks.crafting import bins, trap
from merveil.attacks.population import population
from merveil.attacks.stats import clopper_pearson
from merveil.fl.clients import parse_clients, partition
from merveil.fl.driver import Federation, Run
from merveil.fl.gate import Bounds, suspicion, tensors
from merveil.fl.options import resolve
from merveil.fl.update import Layout
from merveil.mer.atomic import write_text

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
)
GAP = 10
FACTORS = (0.9, 0.95, 0.97, 0.99)
WIDE = 100  # inputs of a layer from which on crafted rows are worth a server's while


def training(name: str, options: dict[str, Any], strategy: str, rounds: int, seed: int) -> tuple[Layout, Any]:
    """Layout and the models before each round [rounds + 1, P] of one honest training."""
    archive = population(24, 8, seed)
    chosen = resolve(
        {"model": name, "model_options": options, "strategy": strategy, "seed": seed, "clients": "site:6"}
        if options
        else {"model": name, "strategy": strategy, "seed": seed, "clients": "site:6"}
    )
    federation = Federation(archive, [Run("", partition(archive, parse_clients("site:6")))], chosen)
    state, found = federation.start(), []
    for _ in range(min(rounds, chosen.rounds)):
        found.append(state.params[0].astype(np.float32))
        state, _ = federation.advance(state)
    return federation.layout, np.stack([*found, state.params[0].astype(np.float32)])


def crafted(layout: Layout, model: Any, rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """Kind and model, for every wide layer of the network and every kind of crafted row."""
    at, wide = 0, {name for name, w in tensors(layout, model) if w.shape[1] >= WIDE}
    for name, shape in layout.entries:
        size = int(np.prod(shape))
        if name in wide:
            rows, width = shape[0], size // shape[0]
            kinds = [("bins", bins(np.zeros(rows), width)[0])]
            for factor in FACTORS:
                kinds.append((f"trap {factor} mirrored", trap(rows, width, factor, rng)))
                kinds.append((f"trap {factor} drawn", trap(rows, width, factor, rng, mirrored=False)))
            for kind, weight in kinds:
                bad = model.copy()
                bad[at : at + size] = weight.ravel()
                yield kind, bad
        at += size


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
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for seed in range(1, args.seeds + 1):
        for name, options, strategy, rounds in TRAININGS:
            layout, models = training(name, options, strategy, rounds, seed)
            refused = judged(layout, models, np.random.default_rng(seed))
            rows.append(
                {"model": name, "options": options, "strategy": strategy, "seed": seed, "refused": refused}
            )
            told = {w: f"{sum(v)}/{len(v)}" for w, v in refused.items() if "honest" in w}
            print(name, options, strategy, seed, told, file=sys.stderr, flush=True)
            write_text(args.json, json.dumps({"table": table(rows), "trainings": rows}) + "\n")


if __name__ == "__main__":
    main()
