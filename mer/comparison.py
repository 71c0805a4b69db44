"""The paired comparison of two prediction files over the same clips."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from merveil.mer.errors import InputError
from merveil.mer.metrics import RESAMPLES, confusion, mcnemar, paired, scores
from merveil.mer.predictions import Predictions


def compare(
    a: Predictions, b: Predictions, links: Mapping[str, str] | None = None, seed: int = 0
) -> dict[str, Any]:
    """B minus A: {a, b, difference {uf1, uar, accuracy: {difference, ci95, p}}, mcnemar, ...}.

    Both files are aligned by (dataset, subject, clip). Persons are "<dataset>/<subject>" unless `links` maps
    that name to another person; intervals and p values resample and swap whole persons.
    Raises InputError if the files differ in clips, truth or number of classes.
    """
    rows = _aligned(a, b)
    person = np.array([(links or {}).get(f"{d}/{s}", f"{d}/{s}") for d, s, _ in a.keys])
    second, k = b.predicted[rows], a.classes
    found = mcnemar(a.truth, a.predicted, second)
    differences = paired(a.truth, a.predicted, second, person, k, seed=seed)
    return {
        "a": scores(confusion(a.truth, a.predicted, k)),
        "b": scores(confusion(a.truth, second, k)),
        "difference": {name: asdict(value) for name, value in differences.items()},
        "mcnemar": {"only_a": found["only_first"], "only_b": found["only_second"], "p": found["p"]},
        "clips": len(a.truth),
        "subjects": len(np.unique(person)),
        "same_folds": bool((a.fold == b.fold[rows]).all()),
        "equal_predictions": int((a.predicted == second).sum()),
        "resamples": RESAMPLES,
        "seed": seed,
    }


def _aligned(a: Predictions, b: Predictions) -> Any:
    """Row of b for each row of a."""
    where = {key: i for i, key in enumerate(b.keys)}
    only_a = [key for key in a.keys if key not in where]
    only_b = sorted(set(where) - set(a.keys))
    if only_a or only_b:
        which, missing = ("B", only_a) if only_a else ("A", only_b)
        name = "/".join(missing[0])
        raise InputError(f"A and B are not over the same clips: {which} lacks {name} ({len(missing)} in all)")
    if a.classes != b.classes:
        raise InputError(f"A has {a.classes} classes and B {b.classes}: they do not belong to one task")
    rows = np.array([where[key] for key in a.keys])
    wrong = np.flatnonzero(a.truth != b.truth[rows])
    if len(wrong):
        i = int(wrong[0])
        name = "/".join(a.keys[i])
        raise InputError(f"A and B differ in the truth of {name}: {a.truth[i]} and {b.truth[rows][i]}")
    return rows
