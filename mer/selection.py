"""Choosing a recipe on training people only, by nested validation.

The people are cut into outer groups. For each group the choice is made without its members: models are
trained on inner folds of the other people and scored on the inner held-out ones, pooled. A recipe that is
frozen afterwards was chosen from such scores, never from a LOSO result; since every person helps to choose
for the other groups, the honest figure of the whole procedure is `nested_score`, where each outer group is
predicted with the choice made without it. Source: MER.md section 6, rule 3.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from merveil.mer.coins import derive
from merveil.mer.data.splits import Fold, inner_folds, kfold
from merveil.mer.loso import FoldStack, central_predictions
from merveil.mer.metrics import confusion, uf1
from merveil.mer.models.registry import get
from merveil.mer.recipe import Recipe

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive

Scores = dict[tuple[str, int], float]  # (candidate, epochs) -> UF1 of inner held-out people, pooled
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Choice:
    """One outer group's scores on the other people, and the best (candidate, epochs) by them."""

    fold: Fold
    scores: Scores

    @property
    def best(self) -> tuple[str, int]:
        """The highest score; of equals the first candidate with the fewest epochs."""
        return max(self.scores, key=lambda key: (self.scores[key], -key[1]))


def nested_choices(
    archive: "Archive",
    model: str,
    candidates: Mapping[str, Recipe],
    marks: Sequence[int],
    *,
    options: Mapping[str, Any] | None = None,
    outer: int = 5,
    inner: int = 4,
    seeds: Sequence[int] = (0,),
    say: Say | None = None,
) -> list[Choice]:
    """Score every candidate at every mark (epochs, in place of its own) without each outer group.

    A candidate with a constant rate is trained once up to the last mark and looked at on the way; one with a
    schedule is trained for each mark. Scores are means over seeds.
    """
    groups = kfold(archive, outer, 0)
    inners = [inner_folds(archive, group.train, inner, 0) for group in groups]
    folds = [
        Fold(f"{group.name}/{fold.name}", fold.train, fold.test)
        for group, parts in zip(groups, inners)
        for fold in parts
    ]
    scores: list[Scores] = [{} for _ in groups]
    for name, recipe in candidates.items():
        for at, found in _trained(archive, model, recipe, marks, options, folds, seeds):
            for g in range(outer):
                mine = slice(g * inner, (g + 1) * inner)
                scores[g][name, at] = float(np.mean([_uf1(archive, folds[mine], p[mine]) for p in found]))
            if say is not None:
                row = " ".join(f"{s[name, at]:.4f}" for s in scores)
                say(f"{name} {at} epochs: {row} mean {np.mean([s[name, at] for s in scores]):.4f}")
    return [Choice(group, found) for group, found in zip(groups, scores)]


def pooled_choice(choices: Sequence[Choice]) -> tuple[str, int]:
    """The (candidate, epochs) with the best mean over outer groups: what is frozen as a default."""
    return Choice(choices[0].fold, mean_scores(choices)).best


def mean_scores(choices: Sequence[Choice]) -> Scores:
    """Scores averaged over the outer groups."""
    return {key: float(np.mean([c.scores[key] for c in choices])) for key in choices[0].scores}


def nested_score(
    archive: "Archive",
    model: str,
    candidates: Mapping[str, Recipe],
    choices: Sequence[Choice],
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> float:
    """UF1 when each outer group is predicted, once, with the choice made without its members."""
    predicted = np.full(archive.n, -1)
    for choice in choices:
        name, epochs = choice.best
        own = {**dict(options or {}), "epochs": epochs}
        run = central_predictions(
            archive, [choice.fold], model=model, seed=seed, recipe=candidates[name], options=own
        )
        predicted[choice.fold.test] = run.probabilities[choice.fold.test].argmax(1)
    return float(uf1(confusion(archive.y, predicted, len(archive.classes))))


def _trained(
    archive: "Archive",
    model: str,
    recipe: Recipe,
    marks: Sequence[int],
    options: Mapping[str, Any] | None,
    folds: Sequence[Fold],
    seeds: Sequence[int],
) -> Any:
    """Yield (epochs, [for each seed: each fold's predicted classes])."""
    height, width, channels = archive.x.shape[1:]
    net = get(model).build((height, width, channels), len(archive.classes), dict(options or {}))
    scheduled = recipe.schedule != "constant"

    def fresh() -> list[FoldStack]:
        return [FoldStack(archive, folds, net, recipe, derive(s, "selection")) for s in seeds]

    stacks, done = fresh(), 0
    for mark in sorted(marks):
        if scheduled:
            stacks, done = fresh(), 0
        for stack in stacks:
            stack.train(mark - done)
        done = mark
        yield mark, [_held_out(stack) for stack in stacks]


def _held_out(stack: FoldStack) -> list[Any]:
    """Predicted classes of each fold's held-out clips; folds of several outer groups overlap."""
    from merveil.mer.train import predict_stack

    params = stack.final()
    return [
        predict_stack(stack.net, params[i : i + 1], stack.x[fold.test], 1)[0].argmax(1)
        for i, fold in enumerate(stack.folds)
    ]


def _uf1(archive: "Archive", folds: Sequence[Fold], predicted: Sequence[Any]) -> float:
    truth = np.concatenate([archive.y[fold.test] for fold in folds])
    return float(uf1(confusion(truth, np.concatenate(list(predicted)), len(archive.classes))))
