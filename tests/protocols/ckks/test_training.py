"""Training over `ckks`: its sums are exact, so a model is the one that `plain` gives, to the last bit."""

import numpy as np
import pytest

pytest.importorskip("torch")

from merveil.fl.evaluate import federated_predictions
from merveil.mer.data.splits import kfold
from merveil.mer.data.synthetic import synthetic_archive
from merveil.mer.metrics import confusion, uf1


def test_probabilities_and_uf1_are_those_of_plain() -> None:
    archive = synthetic_archive(12, 2, 0)
    folds = kfold(archive, 3, 0)
    plain, ckks = (
        federated_predictions(archive, folds, scheme=scheme, rounds=3, seed=4).probabilities
        for scheme in ("plain", "ckks")
    )
    assert np.array_equal(plain, ckks)
    scores = [uf1(confusion(archive.y, p.argmax(axis=1), 3)) for p in (plain, ckks)]
    assert scores[0] == scores[1]
    assert len(np.unique(plain.round(12), axis=0)) > 12, "the models tell clips apart"
