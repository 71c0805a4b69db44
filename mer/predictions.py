"""Prediction files: one CSV row a clip, written once after the last fold and read strictly.

Columns: dataset, subject, clip, fold, truth, predicted, p0 .. p(K-1); labels are integers 0..K-1, and the
probabilities are printed so that they read back to the same float64.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from merveil.mer.atomic import write_text
from merveil.mer.data.archive import Archive, Index, Strings
from merveil.mer.data.splits import Fold
from merveil.mer.errors import InputError

HEAD = ("dataset", "subject", "clip", "fold", "truth", "predicted")
ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Predictions:
    """The rows of a prediction file as arrays of length n; probabilities float64 [n, K]."""

    dataset: Strings
    subject: Strings
    clip: Strings
    fold: Strings
    truth: Index
    predicted: Index
    probabilities: NDArray[np.float64]

    @property
    def keys(self) -> list[tuple[str, str, str]]:
        """(dataset, subject, clip) of each row."""
        return list(zip(self.dataset.tolist(), self.subject.tolist(), self.clip.tolist()))

    @property
    def classes(self) -> int:
        return self.probabilities.shape[1]


def fold_names(archive: Archive, folds: Sequence[Fold]) -> Strings:
    """The name of the fold that tests each clip."""
    names = np.empty(archive.n, dtype=f"U{max(len(fold.name) for fold in folds)}")
    for fold in folds:
        names[fold.test] = fold.name
    return names


def write_predictions(
    path: str | Path, archive: Archive, folds: Sequence[Fold], probabilities: NDArray[np.float64]
) -> Path:
    """Write the file whole or not at all; the predicted label is the first of the largest probability."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*HEAD, *(f"p{c}" for c in range(probabilities.shape[1]))])
    fold, predicted = fold_names(archive, folds), probabilities.argmax(axis=1)
    for i in range(archive.n):
        name = (archive.dataset[i], archive.subject[i], archive.clip[i], fold[i])
        writer.writerow([*name, archive.y[i], predicted[i], *(repr(float(p)) for p in probabilities[i])])
    write_text(path, out.getvalue())
    return Path(path)


def read_predictions(path: str | Path) -> Predictions:
    """Read and check a prediction file; InputError names the file, the line and its fault."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such prediction file")
    try:
        rows = list(csv.reader(io.StringIO(file.read_bytes().decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV file of UTF-8 text: {error}") from error
    try:
        k = _classes(rows[0] if rows else [])
        if len(rows) < 2:
            raise InputError("holds no prediction")
        parsed = [_row(cells, number, k) for number, cells in enumerate(rows[1:], start=2)]
        _check_together(parsed)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    columns = list(zip(*parsed))
    return Predictions(*(np.array(column) for column in columns))


_Row = tuple[str, str, str, str, int, int, list[float]]


def _classes(head: list[str]) -> int:
    k = len(head) - len(HEAD)
    if k < 2 or head != [*HEAD, *(f"p{c}" for c in range(k))]:
        raise InputError(f"the first line must be {','.join(HEAD)},p0,p1,...; it is {','.join(head)!r}")
    return k


def _row(cells: list[str], line: int, k: int) -> _Row:
    if len(cells) != len(HEAD) + k:
        raise InputError(f"line {line} has {len(cells)} cells; the first line has {len(HEAD) + k}")
    if not all(cells[:4]):
        raise InputError(f"line {line} has an empty name")
    truth, predicted = (_label(text, line, k) for text in cells[4:6])
    try:
        p = [float(text) for text in cells[6:]]
    except ValueError as error:
        raise InputError(f"line {line} has a probability that is no number: {error}") from error
    if not all(0 <= value <= 1 for value in p) or abs(sum(p) - 1) > ROUNDING * k:
        raise InputError(f"line {line}: probabilities must be in 0..1 with sum 1, not {p}")
    if p[predicted] < max(p) - ROUNDING:
        raise InputError(f"line {line}: predicted is {predicted}, but p{p.index(max(p))} is larger")
    return (*cells[:4], truth, predicted, p)


def _label(text: str, line: int, k: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < k):
        raise InputError(f"line {line}: label {text!r} is not one of 0..{k - 1}")
    return int(text)


def _check_together(rows: list[_Row]) -> None:
    seen: dict[tuple[str, str, str], int] = {}
    fold: dict[tuple[str, str], str] = {}
    for line, row in enumerate(rows, start=2):
        first = seen.setdefault(row[:3], line)
        if first != line:
            raise InputError(f"lines {first} and {line} are the same clip {'/'.join(row[:3])}")
        if fold.setdefault(row[:2], row[3]) != row[3]:
            raise InputError(f"line {line}: subject {'/'.join(row[:2])} is tested in two folds")
