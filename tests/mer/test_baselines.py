"""Baselines: known figures on the real archive, a separately written ridge, no leak from test clips."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.mer.baselines import kernel_ridge_predictions, majority_predictions
from merveil.mer.data.archive import load_archive, make_archive
from merveil.mer.data.splits import kfold, loso
from merveil.mer.metrics import confusion, scores


def slow_kernel_ridge(train: Any, labels: Any, clip: Any, k: int) -> np.ndarray:
    """One clip's ridge scores, solving the primal-dual system entry by entry from the definitions."""
    d, n = train.shape[1], len(train)
    z = [(row - train.mean(axis=0)) / train.std(axis=0) for row in train]
    q = (clip - train.mean(axis=0)) / train.std(axis=0)

    def kernel(a: Any, b: Any) -> float:
        return float(np.exp(-sum((a - b) ** 2) / d))

    gram = np.array([[kernel(a, b) for b in z] for a in z])
    weight = np.diag([n / (len(set(labels)) * list(labels).count(label)) for label in labels])
    # Weighted least squares: (W K + lam I) alpha = W Y, the same optimum by another system.
    alpha = np.linalg.inv(weight @ gram + 0.3 * np.eye(n)) @ weight @ np.eye(k)[labels]
    return np.array([kernel(q, a) for a in z]) @ alpha


def test_kernel_ridge_matches_the_slow_one(toy_builder: Any) -> None:
    archive = toy_builder(persons=5, clips=4, size=8)
    folds = loso(archive)
    got = kernel_ridge_predictions(archive, folds)
    x = archive.x.reshape(archive.n, -1).astype(float)
    for fold in folds[:2]:
        for i in fold.test:
            ridge = slow_kernel_ridge(x[fold.train], archive.y[fold.train], x[i], 3)
            assert got[i] == pytest.approx(np.exp(4 * ridge) / np.exp(4 * ridge).sum(), abs=1e-9)


def test_baselines_learn_the_toy_but_not_perfectly(toy_archive: Any) -> None:
    folds = loso(toy_archive)
    ridge = kernel_ridge_predictions(toy_archive, folds)
    assert 0.75 < scores(confusion(toy_archive.y, ridge.argmax(1), 3))["uf1"] < 0.99
    majority = majority_predictions(toy_archive, folds)
    assert set(majority.argmax(1)) == {0}
    assert scores(confusion(toy_archive.y, majority.argmax(1), 3))["uar"] == pytest.approx(1 / 3)
    for p in (ridge, majority):
        assert np.allclose(p.sum(axis=1), 1) and (p >= 0).all()


def test_a_prediction_depends_on_training_persons_and_its_own_clip_only(toy_archive: Any) -> None:
    folds = kfold(toy_archive, 5, 0)
    before = kernel_ridge_predictions(toy_archive, folds)
    x, y = toy_archive.x.copy(), toy_archive.y.copy()
    test = folds[0].test
    x[test[1:]] = 255 - x[test[1:]]
    y[test] = (y[test] + 1) % 3
    names = {key: getattr(toy_archive, key) for key in ("dataset", "subject", "clip")}
    after = kernel_ridge_predictions(make_archive(x=x, y=y, **names), folds)
    assert np.array_equal(after[test[0]], before[test[0]])
    assert not np.allclose(after[folds[1].test], before[folds[1].test])


def test_constant_pixels_and_missing_classes_are_harmless(toy_data: Any) -> None:
    data = toy_data(persons=4, clips=6, size=8)
    data["x"][:, 0, 0, :] = 7
    data["y"][data["y"] == 2] = 1
    data["y"][0] = 2  # one person alone holds class 2
    archive = make_archive(**data)
    p = kernel_ridge_predictions(archive, loso(archive))
    own = archive.person == archive.person[0]
    assert np.isfinite(p).all() and (p[own, 2] == 0).all() and (p[~own, 2] > 0).all()


@pytest.mark.data
def test_real_archive_gives_the_known_figures(real_file: Path) -> None:
    archive = load_archive(real_file)
    assert (archive.n, len(archive.persons())) == (309, 40)
    assert {d: int((archive.dataset == d).sum()) for d in set(archive.dataset)} == {
        "smic": 164,
        "casme2": 145,
    }
    assert np.bincount(archive.y).tolist() == [158, 83, 68]
    folds = loso(archive)
    predicted = kernel_ridge_predictions(archive, folds).argmax(1)
    expected = {None: (0.7717, 0.7816), "smic": (0.6935, 0.6976), "casme2": (0.8658, 0.8883)}
    for name, (f1, recall) in expected.items():
        part = np.ones(309, dtype=bool) if name is None else archive.dataset == name
        got = scores(confusion(archive.y[part], predicted[part], 3))
        assert got["uf1"] == pytest.approx(f1, abs=0.003) and got["uar"] == pytest.approx(recall, abs=0.003)
    assert confusion(archive.y, predicted, 3).tolist() == [[120, 31, 7], [15, 62, 6], [7, 4, 57]]
    majority = majority_predictions(archive, folds).argmax(1)
    assert scores(confusion(archive.y, majority, 3))["uf1"] == pytest.approx(0.2256, abs=1e-4)
