"""Splits keep persons apart, cover every clip once, and answer small data as stated."""

from typing import Any

import numpy as np
import pytest

from merveil.mer.data.archive import make_archive
from merveil.mer.data.splits import (
    Fold,
    check_cover,
    check_disjoint,
    inner_folds,
    kfold,
    loso,
    missing_classes,
    parse_protocol,
)
from merveil.mer.errors import InputError


def test_loso_has_one_fold_a_person(toy_archive: Any) -> None:
    folds = loso(toy_archive)
    assert [fold.name for fold in folds] == toy_archive.persons()
    check_cover(toy_archive, folds)
    for fold in folds:
        assert set(toy_archive.person[fold.test]) == {fold.name}
        assert len(fold.train) + len(fold.test) == toy_archive.n
        assert fold.train.dtype == fold.test.dtype == np.int64


@pytest.mark.parametrize("k", [2, 3, 5, 9, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_kfold_groups_persons(toy_archive: Any, k: int, seed: int) -> None:
    folds = kfold(toy_archive, k, seed)
    check_cover(toy_archive, folds)
    assert len(folds) == k and all(len(fold.test) for fold in folds)


def test_kfold_is_stratified_and_seeded(toy_builder: Any) -> None:
    archive = toy_builder(persons=30, clips=9)
    folds = kfold(archive, 5, 0)
    share = np.bincount(archive.y) / archive.n
    for fold in folds:
        held = np.bincount(archive.y[fold.test], minlength=3) / len(fold.test)
        assert np.abs(held - share).max() < 0.05
    again, other = kfold(archive, 5, 0), kfold(archive, 5, 1)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(folds, again))
    assert not all(np.array_equal(a.test, b.test) for a, b in zip(folds, other))


def test_kfold_does_not_depend_on_the_order_of_clips(toy_archive: Any) -> None:
    order = np.random.default_rng(0).permutation(toy_archive.n)
    shuffled = toy_archive.select(order)
    for a, b in zip(kfold(toy_archive, 4, 3), kfold(shuffled, 4, 3)):
        assert set(toy_archive.person[a.test]) == set(shuffled.person[b.test])


def test_inner_folds_stay_inside_the_training_part(toy_archive: Any) -> None:
    outer = loso(toy_archive)[0]
    inner = inner_folds(toy_archive, outer.train, 5, 0)
    assert sorted(np.concatenate([fold.test for fold in inner]).tolist()) == outer.train.tolist()
    for fold in inner:
        check_disjoint(toy_archive, fold)
        assert outer.name not in toy_archive.person[np.concatenate([fold.train, fold.test])]
    assert len(inner_folds(toy_archive, outer.train, 50, 0)) == 9
    with pytest.raises(InputError, match="2 persons"):
        inner_folds(toy_archive, outer.test, 5, 0)


def test_person_key_ties_subjects_of_two_datasets(toy_data: Any) -> None:
    data = toy_data()
    archive = make_archive(**data, person=data["subject"])
    folds = loso(archive)
    assert len(folds) == 5
    assert set(archive.dataset[folds[0].test]) == {"alpha", "beta"}
    check_cover(archive, folds)


def small(labels: dict[str, list[int]]) -> Any:
    rng = np.random.default_rng(0)
    rows = [(person, i, label) for person, ys in labels.items() for i, label in enumerate(ys)]
    return make_archive(
        x=rng.integers(0, 255, (len(rows), 4, 4, 3)).astype(np.uint8),
        y=np.array([row[2] for row in rows]),
        dataset=np.array(["d"] * len(rows)),
        subject=np.array([row[0] for row in rows]),
        clip=np.array([f"c{row[1]}" for row in rows]),
    )


def test_small_data_has_answers() -> None:
    with pytest.raises(InputError, match="at least 2 persons; the archive has 1"):
        loso(small({"a": [0, 1, 2]}))
    with pytest.raises(InputError, match="4 folds need 4 persons; the archive has 3"):
        kfold(small({"a": [0, 1], "b": [0, 1], "c": [1, 2]}), 4, 0)
    with pytest.raises(InputError, match=r"fold d/b would train on one class only \(negative\)"):
        loso(small({"a": [0, 0], "b": [0, 1], "c": [0]}))
    archive = small({"a": [0, 1], "b": [0, 1], "c": [0, 2]})
    assert [missing_classes(archive, fold) for fold in loso(archive)] == [(), (), (2,)]


def test_leaks_are_refused(toy_archive: Any) -> None:
    rows = np.arange(toy_archive.n)
    with pytest.raises(InputError, match="clip alpha/s1/c1 is in train and test"):
        check_disjoint(toy_archive, Fold("f", rows, rows[:6]))
    with pytest.raises(InputError, match="person alpha/s1 is in train and test"):
        check_disjoint(toy_archive, Fold("f", rows[3:], rows[:3]))
    x = toy_archive.x.copy()
    x[8] = x[1]
    names = {
        key: getattr(toy_archive, key) for key in ("dataset", "subject", "clip", "site", "person", "meta")
    }
    twin = type(toy_archive)(x=x, y=toy_archive.y, **names, sha256="0")  # past the validation, on purpose
    with pytest.raises(InputError, match="alpha/s1/c2 in test equals alpha/s2/c3 in train"):
        check_disjoint(twin, loso(twin)[0])
    folds = loso(toy_archive)
    with pytest.raises(InputError, match="is in 0 test parts"):
        check_cover(toy_archive, folds[1:])
    with pytest.raises(InputError, match="is in 2 test parts"):
        check_cover(toy_archive, [*folds, folds[0]])
    with pytest.raises(InputError, match="no folds"):
        check_cover(toy_archive, [])


def test_parse_protocol(toy_archive: Any) -> None:
    assert parse_protocol("loso").k is None and parse_protocol("kfold:5").k == 5
    assert (
        str(parse_protocol("kfold:5")) == "kfold:5" and len(parse_protocol("kfold:5").folds(toy_archive)) == 5
    )
    for text in ("", "LOSO", "loso:3", "kfold", "kfold:", "kfold:1", "kfold:x", "kfold:-2", "kfold:²"):
        with pytest.raises(InputError, match="use loso, or kfold:K"):
            parse_protocol(text)
