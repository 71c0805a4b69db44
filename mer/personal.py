"""Personalisation, apart from LOSO: what K own labelled clips add for the person whose clips they are.

The model of a fold never saw the person. Then K of the person's clips, with labels, adjust it for that person
alone, and another clip of the person is predicted without and with that. Every clip is asked once, by the K
clips that follow it in an order that is no matter of labels or of alphabet, so no clip adjusts the model that
it is asked of. Both columns are of the same clips, and neither is a LOSO score: the second has seen the
person. It is what a returning user would get who has labelled K clips.

`exact-ridge`: the clips join the ridge's third sum, OWN times each, and the head is solved anew; what comes
before it stays. Networks: `merveil.mer.personal_head`. Either needs the published model (of the ridge its
third sum) and the person's clips, and happens where these are: nothing is sent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.exact import ExactModel, coefficients, gram_sums
from merveil.mer.exact_features import Whole, block_means
from merveil.mer.exact_loso import Clips, fold_models
from merveil.mer.metrics import accuracy, confusion, paired, uar, uf1

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive
    from merveil.mer.data.splits import Fold

OWN = 4  # times that an own clip counts in the ridge; a convention, fixed before the first run

Index = NDArray[np.int64]
Floats = NDArray[np.float64]
Asked = Callable[[Index, Index], tuple[Floats, Floats]]  # rows [n], own rows [n, K] -> before, after


@dataclass(frozen=True, eq=False)
class Personal:
    """rows: int64 [m], the clips asked; seen: int64 [m, K], the own clips behind each answer; before, after:
    probabilities [m, classes] without and with them. left_out: people with too few clips, and how many."""

    rows: Index
    seen: Index
    before: Floats
    after: Floats
    left_out: Mapping[str, int]
    how: Mapping[str, Any] = field(default_factory=dict)


def own_clips(archive: "Archive", rows: Index, k: int) -> tuple[Index, Index]:
    """A person's n clips in the order of the hashes of their keys [n], and the K that follow each, [n, K].

    File names of some sets tell the class, so an order by name would choose by class.
    """
    order = np.array(sorted(rows.tolist(), key=lambda row: sha256(archive.key(row).encode()).digest()))
    n = len(order)
    return order, order[(np.arange(n)[:, None] + np.arange(1, k + 1)) % n]


def gathered(
    archive: "Archive", folds: Sequence["Fold"], k: int, asked: Iterator[Asked], how: Mapping[str, Any]
) -> Personal:
    """Ask the clips of everybody who has more than `k`; `asked` gives one function a fold.

    Raises InputError where k is below 1 or nobody has clips enough.
    """
    if k < 1:
        raise InputError(f"personalisation takes one own clip or more, not {k}")
    rows: list[Index] = []
    seen: list[Index] = []
    before: list[Floats] = []
    after: list[Floats] = []
    few: dict[str, int] = {}
    for fold, ask in zip(folds, asked):
        for person in np.unique(archive.person[fold.test]).tolist():
            mine = fold.test[archive.person[fold.test] == person]
            if len(mine) <= k:
                few[str(person)] = len(mine)
                continue
            order, own = own_clips(archive, mine, k)
            for kept, part in zip((rows, seen, before, after), (order, own, *ask(order, own))):
                kept.append(part)
    if not rows:
        raise InputError(f"nobody has the {k + 1} clips that personalisation with {k} own clips needs")
    parts = (np.concatenate(part) for part in (rows, seen, before, after))
    return Personal(*parts, dict(sorted(few.items())), how)


def personalised(
    archive: "Archive",
    folds: Sequence["Fold"],
    k: int,
    *,
    own: int = OWN,
    options: Mapping[str, Any] | None = None,
) -> Personal:
    """Of `exact-ridge`: predict the clips of everybody who has more than k, without and with k own ones.

    Raises InputError as `gathered`, where own is below 1, or as `exact_ridge_predictions`.
    """
    if own < 1:
        raise InputError(f"a person's own clips count at least once, not {own} times")
    how = {"method": "own clips in the ridge's third sum", "own": own}
    return gathered(archive, folds, k, _ridges(archive, folds, own, options or {}), how)


def _ridges(
    archive: "Archive", folds: Sequence["Fold"], own: int, options: Mapping[str, Any]
) -> Iterator[Asked]:
    for fold, model, clips in fold_models(archive, folds, options):
        block = block_means(clips.normal, clips.sites.tolist(), model.warps)
        phi = model.basis.features(block)
        third = gram_sums(phi[fold.train], clips.y[fold.train], model.basis)
        yield partial(_asked, model, clips, phi, third, own)


def _asked(
    model: ExactModel, clips: Clips, phi: Floats, third: Whole, own: int, asked: Index, seen: Index
) -> tuple[Floats, Floats]:
    before, after = [], []
    for row, mine in zip(asked, seen):
        extra = gram_sums(phi[mine], clips.y[mine], model.basis)
        solved = coefficients(third + own * extra, model.basis, model.settings.lam)
        person = ExactModel(model.settings, model.warps, model.basis, solved)
        for found, which in ((before, model), (after, person)):
            found.append(which.probabilities(clips.normal[[row]], clips.sites[[row]].tolist())[0])
    return np.array(before), np.array(after)


def summary(archive: "Archive", found: Personal) -> dict[str, Any]:
    """The figures of docs/schemas/evaluate.json: both scores on the same clips, and paired differences."""
    truth, person, classes = archive.y[found.rows], archive.person[found.rows], len(archive.classes)
    guesses = [p.argmax(1) for p in (found.before, found.after)]
    tables = [confusion(truth, guess, classes) for guess in guesses]
    measures = {"uf1": uf1, "uar": uar, "accuracy": accuracy}
    before, after = ({name: float(f(table)) for name, f in measures.items()} for table in tables)
    gains = paired(truth, *guesses, person, classes)
    return {
        "k": found.seen.shape[1],
        **found.how,
        "clips": len(found.rows),
        "people": len(np.unique(person)),
        "left_out": dict(found.left_out),
        "before": before,
        "after": after,
        "difference": {n: {"value": d.difference, "ci95": list(d.ci95), "p": d.p} for n, d in gains.items()},
        "loso": False,
    }


def sentence(figures: Mapping[str, Any]) -> str:
    """What the figures say and for whom, on lines for people."""
    gain, few, k = figures["difference"]["uf1"], figures["left_out"], figures["k"]
    names = ", ".join(f"{name} ({clips})" for name, clips in few.items())
    out = f"; {len(few)} with fewer are not in it: {names}" if few else "; nobody has fewer"
    return (
        f"personalised with {k} own labelled clips: UF1 {figures['before']['uf1']:.3f} without, "
        f"{figures['after']['uf1']:.3f} with them, {gain['value']:+.3f} "
        f"({gain['ci95'][0]:+.3f} to {gain['ci95'][1]:+.3f}, paired over people)\n"
        f"  on the same {figures['clips']} clips of the {figures['people']} people with {k + 1} clips or more"
        f"{out}\n"
        f"  this is not a LOSO score: the model has seen these people; it holds for returning users who "
        f"label {k} clips"
    )
