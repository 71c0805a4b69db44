"""Choosing rounds and rates on training people only, by nested validation.

The people are cut into outer groups. For each group the choice is made without its members: federations are
trained on inner folds of the other people and scored on the inner held-out ones, pooled, at the given round
marks. A choice on which the outer groups agree is one that each of them would have made without being
looked at, which is what a frozen default has to be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.fl.clients import parse_clients, partition
from merveil.fl.options import TrainOptions, resolve
from merveil.mer.data.splits import inner_folds, kfold
from merveil.mer.errors import InputError
from merveil.mer.metrics import confusion, uf1

if TYPE_CHECKING:
    from merveil.fl.driver import Federation, State
    from merveil.mer.data.archive import Archive
    from merveil.mer.data.splits import Fold

Labels = NDArray[np.int64]
Scores = dict[str, dict[int, float]]  # candidate -> rounds -> UF1 of inner held-out people, pooled


@dataclass(frozen=True)
class Choice:
    """One outer group's scores on the other people, and the best candidate and round mark by them."""

    group: str
    scores: Scores
    candidate: str
    rounds: int


def nested_choices(
    archive: "Archive",
    candidates: Mapping[str, Mapping[str, Any]],
    marks: Sequence[int],
    *,
    outer: int = 4,
    inner: int = 4,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[Choice]:
    """One choice an outer group. candidates: name -> overrides of TrainOptions (rounds become max(marks)).

    Equal scores go to the earlier candidate and the fewer rounds. InputError: no candidate or mark, or what
    the folds and options say.
    """
    if not candidates or not marks or min(marks) < 1:
        raise InputError("a choice needs at least one candidate and one positive number of rounds")
    groups = kfold(archive, outer, seed)
    folds = [inner_folds(archive, group.train, inner, seed) for group in groups]
    table: list[Scores] = [{} for _ in groups]
    for name, overrides in candidates.items():
        options = resolve(overrides, {"rounds": max(marks), "seed": seed})
        for at, scores in enumerate(_along(archive, folds, options, marks)):
            table[at][name] = scores
        if progress is not None:
            progress(f"{name}: {[{m: round(v, 3) for m, v in scores[name].items()} for scores in table]}")
    return [_choose(group.name, scores) for group, scores in zip(groups, table, strict=True)]


def _along(
    archive: "Archive", groups: Sequence[Sequence["Fold"]], options: TrainOptions, marks: Sequence[int]
) -> list[dict[int, float]]:
    """UF1 at each mark for every outer group, all inner federations side by side."""
    from merveil.fl.driver import Federation, Run

    rule = parse_clients(options.clients)
    pairs = [(f"{g}/{fold.name}", fold) for g, group in enumerate(groups) for fold in group]
    runs = [Run(label, partition(archive, rule, fold.train)) for label, fold in pairs]
    federation = Federation(archive, runs, options)
    state = federation.start()
    found: list[dict[int, float]] = [{} for _ in groups]
    while state.rounds < options.rounds:
        state, _ = federation.advance(state)
        if state.rounds in marks:
            guesses = _guesses(federation, state, [fold for _, fold in pairs])
            for g, group in enumerate(groups):
                found[g][state.rounds] = _pooled(archive, group, guesses[: len(group)])
                guesses = guesses[len(group) :]
    return found


def _guesses(federation: "Federation", state: "State", folds: Sequence["Fold"]) -> list[Labels]:
    """Each fold's own model on the people it has not seen."""
    from merveil.mer.train import predict_stack

    net, params = federation.net, federation.final(state)
    return [
        predict_stack(net, params[k : k + 1], federation.prepared[fold.test])[0].argmax(1)
        for k, fold in enumerate(folds)
    ]


def _pooled(archive: "Archive", folds: Sequence["Fold"], guesses: Sequence[Labels]) -> float:
    truth = np.concatenate([archive.y[fold.test] for fold in folds])
    return float(uf1(confusion(truth, np.concatenate(list(guesses)), len(archive.classes))))


def _choose(group: str, scores: Scores) -> Choice:
    flat = [(name, rounds) for name, marks in scores.items() for rounds in sorted(marks)]
    name, rounds = max(flat, key=lambda pair: scores[pair[0]][pair[1]])
    return Choice(group, scores, name, rounds)
