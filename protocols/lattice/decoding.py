"""Finding wrong answers among more than t of them (Berlekamp and Welch 1986).

A member that answers wrongly does so in some polynomials, but always at its own point. So all polynomials are
combined at random into one, of which at most (answers - t)/2 values may be wrong; a wrong row escapes one
combination with a chance of one in p, and several are taken.
"""

from collections.abc import Sequence

import numpy as np

from merveil.protocols.lattice.packed import Elements, apply, interpolation
from merveil.protocols.rng import SystemRng

_COMBINATIONS = 8


def consistent(p: int, threshold: int, answers: dict[int, Elements]) -> bool:
    """Whether all answers lie on polynomials of degree below the threshold."""
    points = tuple(sorted(answers))
    known, rest = points[:threshold], points[threshold:]
    if not rest:
        return True
    expected = apply(interpolation(p, known, rest), np.stack([answers[x] for x in known]), p)
    return bool(np.array_equal(expected, np.stack([answers[x] for x in rest])))


def without_errors(p: int, threshold: int, answers: dict[int, Elements]) -> dict[int, Elements]:
    """The answers less those found wrong; all of them where there is nothing to find or too much is wrong."""
    if consistent(p, threshold, answers):
        return answers
    points, wrong = sorted(answers), set[int]()
    errors = (len(points) - threshold) // 2
    rows = np.stack([answers[x] for x in points])
    for _ in range(_COMBINATIONS if errors else 0):
        words = np.frombuffer(SystemRng().draw(4 * rows.shape[1], "lattice/decoding"), dtype="<u4")
        mixed = (rows * (words % p) % p).sum(axis=1) % p
        wrong |= _locate(p, threshold, errors, points, mixed.tolist())
        kept = {x: a for x, a in answers.items() if x not in wrong}
        if len(wrong) <= errors and wrong and consistent(p, threshold, kept):
            return kept
    return answers


def _locate(p: int, threshold: int, errors: int, points: Sequence[int], values: Sequence[int]) -> set[int]:
    """Points whose value does not fit, or none where more than `errors` do not.

    Q(x) = y E(x) at every point, with E monic of degree `errors` and Q of degree below threshold + errors;
    then Q/E is the polynomial.
    """
    matrix = [
        [*(pow(x, i, p) for i in range(threshold + errors)), *(-y * pow(x, i, p) % p for i in range(errors))]
        for x, y in zip(points, values)
    ]
    right = [y * pow(x, errors, p) % p for x, y in zip(points, values)]
    solution = _solve(p, matrix, right)
    if solution is None:
        return set()
    q, e = solution[: threshold + errors], [*solution[threshold + errors :], 1]
    found = _divide(p, q, e)
    if found is None:
        return set()
    return {x for x, y in zip(points, values) if _value(p, found, x) != y}


def _value(p: int, polynomial: Sequence[int], x: int) -> int:
    total = 0
    for c in reversed(polynomial):
        total = (total * x + c) % p
    return total


def _divide(p: int, numerator: Sequence[int], denominator: Sequence[int]) -> list[int] | None:
    """The quotient by a monic polynomial, or None where something remains."""
    rest, n = list(numerator), len(denominator) - 1
    quotient = [0] * (len(rest) - n)
    for i in reversed(range(len(quotient))):
        quotient[i] = rest[i + n]
        for j, d in enumerate(denominator):
            rest[i + j] = (rest[i + j] - quotient[i] * d) % p
    return None if any(rest) else quotient


def _solve(p: int, matrix: list[list[int]], right: list[int]) -> list[int] | None:
    """One solution of a linear system modulo p, free unknowns zero; None where there is none."""
    rows = [[*row, r] for row, r in zip(matrix, right)]
    width, pivots, at = len(matrix[0]), [], 0
    for column in range(width):
        pivot = next((i for i in range(at, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[at], rows[pivot] = rows[pivot], rows[at]
        inverse = pow(rows[at][column], -1, p)
        rows[at] = [v * inverse % p for v in rows[at]]
        for i, row in enumerate(rows):
            if i != at and row[column]:
                factor = row[column]
                rows[i] = [(v - factor * w) % p for v, w in zip(row, rows[at])]
        pivots.append(column)
        at += 1
    if any(row[-1] for row in rows[at:]):
        return None
    solution = [0] * width
    for row, column in zip(rows, pivots):
        solution[column] = row[-1]
    return solution
