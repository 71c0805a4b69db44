"""Choose a network's epochs and rate by nested validation on training persons; nothing is frozen by itself.

    python tools/select_recipe.py --data F.npz [--model ststnet] [--set norm=batch] [--rates 5e-4,1e-3,2e-3]
        [--epochs 20,40,60,80,120] [--outer 4] [--inner 4] [--seeds 1] [--nested]

Prints the inner scores of every candidate for every outer group, the choice of each group, the choice by the
mean over groups, and with --nested the honest score of the whole procedure: every outer group predicted once
with the choice made without it. Copy the choice into mer/models/registry.py, with a word on how it was found.
"""

import argparse
import json
import sys

from merveil.mer.data.archive import load_archive
from merveil.mer.errors import InputError
from merveil.mer.models.registry import recipe_for, usual_recipe
from merveil.mer.recipe import Recipe
from merveil.mer.selection import mean_scores, nested_choices, nested_score, pooled_choice


def candidates(
    model: str, options: dict[str, object], rates: list[float], changes: dict[str, object]
) -> dict[str, Recipe]:
    """The usual recipe of the model with each of the rates, and other fields changed."""
    start = recipe_for(model, usual_recipe(model, options))
    return {f"lr={rate:g}": start.with_options({**changes, "lr": rate})[0] for rate in rates}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="ststnet")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a network's option")
    parser.add_argument("--rates", default="5e-4,1e-3,2e-3")
    parser.add_argument("--epochs", default="20,40,60,80,120")
    parser.add_argument("--change", default="{}", help='further recipe fields as JSON: {"batch": 32}')
    parser.add_argument("--outer", type=int, default=4)
    parser.add_argument("--inner", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--nested", action="store_true")
    args = parser.parse_args()
    options: dict[str, object] = {}
    for name, value in (word.split("=", 1) for word in args.set):
        options[name] = {"true": True, "false": False}.get(value, value)
    try:
        archive = load_archive(args.data)
        recipes = candidates(
            args.model, options, [float(r) for r in args.rates.split(",")], json.loads(args.change)
        )
        marks = [int(e) for e in args.epochs.split(",")]
        choices = nested_choices(
            archive, args.model, recipes, marks, options=options, outer=args.outer, inner=args.inner,
            seeds=range(args.seeds), say=lambda text: print(text, flush=True),
        )  # fmt: skip
        for choice in choices:
            print(f"without {choice.fold.name}: {choice.best} at {choice.scores[choice.best]:.4f}")
        best = pooled_choice(choices)
        print(f"by the mean over groups: {best} at {mean_scores(choices)[best]:.4f}")
        if args.nested:
            score = nested_score(archive, args.model, recipes, choices, options=options)
            print(f"every group with the choice made without it: UF1 {score:.4f}")
    except InputError as error:
        print(f"select_recipe: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
