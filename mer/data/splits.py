"""Honest splits: no person is ever in the training and the test part of a fold (docs/evaluation.md).

A fold whose training part lacks a class is allowed and marked (`missing_classes`); one that trains on a
single class is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from merveil.mer.data.archive import Archive, Index
from merveil.mer.errors import InputError


@dataclass(frozen=True, eq=False)
class Fold:
    """One training and test part: sorted int64 row numbers of the archive, disjoint in persons."""

    name: str
    train: Index
    test: Index


@dataclass(frozen=True)
class Protocol:
    """How an archive is cut: `loso` (k is None) or `kfold` with k folds."""

    name: str
    k: int | None = None

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}:{self.k}"

    def folds(self, archive: Archive, seed: int = 0) -> list[Fold]:
        """The folds of `archive`; only k-fold uses the seed."""
        return loso(archive) if self.k is None else kfold(archive, self.k, seed)


def parse_protocol(text: str) -> Protocol:
    """`loso` or `kfold:K` with K >= 2; InputError otherwise."""
    name, _, count = text.partition(":")
    if text == "loso":
        return Protocol("loso")
    if name == "kfold" and count.isascii() and count.isdigit() and int(count) >= 2:
        return Protocol("kfold", int(count))
    raise InputError(f"protocol {text!r} is unknown: use loso, or kfold:K with K of 2 or more")


def loso(archive: Archive) -> list[Fold]:
    """Leave one person out: one fold a person, named after the person, in sorted order."""
    persons = archive.persons()
    if len(persons) < 2:
        raise InputError(f"leave-one-subject-out needs at least 2 persons; the archive has {len(persons)}")
    return [_fold(archive, name, np.arange(archive.n), archive.person == name) for name in persons]


def kfold(archive: Archive, k: int, seed: int = 0) -> list[Fold]:
    """K folds with each person in exactly one test part, classes spread as evenly as whole persons allow.

    Greedy: persons in order of falling class imbalance (ties in an order drawn from `seed`), each to the fold
    that keeps the per-class counts of the folds closest to each other; no fold is left empty.
    """
    return _grouped(archive, np.arange(archive.n), k, seed, "fold")


def inner_folds(archive: Archive, train_index: ArrayLike, k: int, seed: int = 0) -> list[Fold]:
    """Person-grouped folds inside one training part, for nested selection; rows are those of `archive`.

    With fewer than k persons, one fold a person. Raises InputError below 2 persons.
    """
    rows = np.asarray(train_index, dtype=np.int64)
    return _grouped(archive, rows, min(k, len(np.unique(archive.person[rows]))), seed, "inner")


def missing_classes(archive: Archive, fold: Fold) -> tuple[int, ...]:
    """Classes of the archive's list that the training part of a fold does not hold."""
    return tuple(sorted(set(range(len(archive.classes))) - set(archive.y[fold.train].tolist())))


def check_disjoint(archive: Archive, fold: Fold) -> None:
    """Raise InputError if a row, a person, a subject or equal content is on both sides of a fold."""
    rows = np.intersect1d(fold.train, fold.test)
    if len(rows):
        raise InputError(f"fold {fold.name}: clip {archive.key(int(rows[0]))} is in train and test")
    people = np.intersect1d(archive.person[fold.train], archive.person[fold.test])
    if len(people):
        raise InputError(f"fold {fold.name}: person {people[0]} is in train and test")
    where = {archive.digests[i]: i for i in fold.train.tolist()}
    for i in fold.test.tolist():
        if archive.digests[i] in where:
            other = archive.key(where[archive.digests[i]])
            raise InputError(f"fold {fold.name}: {archive.key(i)} in test equals {other} in train")


def check_cover(archive: Archive, folds: Sequence[Fold]) -> None:
    """Raise InputError unless every fold is disjoint and every clip is in exactly one test part."""
    if not folds:
        raise InputError("there are no folds to score")
    for fold in folds:
        check_disjoint(archive, fold)
        if not len(fold.test):
            raise InputError(f"fold {fold.name} has no test clip")
    seen = np.bincount(np.concatenate([fold.test for fold in folds]), minlength=archive.n)
    wrong = np.flatnonzero(seen != 1)
    if len(wrong):
        i = int(wrong[0])
        raise InputError(f"clip {archive.key(i)} is in {seen[i]} test parts; it must be in exactly one")


def _grouped(archive: Archive, rows: Index, k: int, seed: int, stem: str) -> list[Fold]:
    persons, group = np.unique(archive.person[rows], return_inverse=True)
    if k < 2:
        raise InputError(f"at least 2 folds over 2 persons are needed; there are {len(persons)} persons")
    if k > len(persons):
        raise InputError(
            f"{k} folds need {k} persons; the archive has {len(persons)}: at most one fold a person"
        )
    if seed < 0:
        raise InputError(f"the seed must be 0 or more, not {seed}")
    counts = np.zeros((len(persons), len(archive.classes)))
    np.add.at(counts, (group, archive.y[rows]), 1)
    side = _assign(counts, k, seed)
    return [_fold(archive, f"{stem}{i + 1}", rows, side[group] == i) for i in range(k)]


def _assign(counts: NDArray[np.float64], k: int, seed: int) -> Index:
    """The fold 0..k-1 of each person, from the class counts [persons, classes]."""
    tie = np.random.default_rng([seed, 0x5EED]).permutation(len(counts))
    order = np.lexsort((tie, -counts.std(axis=1)))
    share = counts / np.maximum(counts.sum(axis=0), 1)
    held, size = np.zeros((k, counts.shape[1])), np.zeros(k)
    side = np.zeros(len(counts), dtype=np.int64)
    for place, person in enumerate(order):
        empty = np.flatnonzero(size == 0)
        left = len(order) - place
        choices = empty if left <= len(empty) else np.arange(k)
        spread = []
        for fold in choices:
            held[fold] += share[person]
            spread.append((held.std(axis=0).mean().round(12), size[fold], fold))
            held[fold] -= share[person]
        best = int(min(spread)[2])
        held[best] += share[person]
        size[best] += counts[person].sum()
        side[person] = best
    return side


def _fold(archive: Archive, name: str, rows: Index, test: NDArray[np.bool_]) -> Fold:
    fold = Fold(name, np.sort(rows[~test]), np.sort(rows[test]))
    present = np.unique(archive.y[fold.train])
    if len(present) < 2:
        only = archive.classes[int(present[0])]
        raise InputError(
            f"fold {name} would train on one class only ({only}): too few persons hold the others; "
            "use other folds or more data"
        )
    return fold
