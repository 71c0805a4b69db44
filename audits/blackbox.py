"""Audits of an aggregator as a black box: are its means right, does it refuse nonsense, do its uploads leak?

Guarantees: every privacy check has a positive control (the same statistic on uploads in clear, or under pads
that repeat) and exact intervals; the reading of an upload is chosen on rounds that are not scored. A check
that the object does not let us make is *underpowered*, never a pass. What it cannot see: keys, dropouts of
single messages, a server that lies. Those need sessions; see docs/attacks.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np

from merveil.attacks.base import Finding, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.verdict import Verdict, judge
from merveil.audits.candidate import Candidate, Floats, centred, readings, size_of

CLIENTS, DIM = 6, 64
CHOOSING, SCORING = 12, 60  # rounds
TOLERANCE = 2e-3  # of the range: a grid of ten bits passes
LEAK = Rule(success=0.9, margin=0.15)
WRONG = Rule(success=0.5, margin=0.2)

QUESTIONS = {
    "exactness": "Is the mean the mean of what went in?",
    "weights": "Is a weighted mean weighted?",
    "wrap": "Is the mean right when every client is at the edge of the range?",
    "not-finite": "Are NaN and infinity refused?",
    "shape": "Are updates of different lengths refused?",
    "dropouts": "Is the mean right when a client is silent?",
    "readable-upload": "Does a client's own upload tell its update?",
    "reused-mask": "Does the difference of a client's uploads in two rounds tell how its update changed?",
    "shared-mask": "Does the difference of two clients' uploads tell how their updates differ?",
    "upload-length": "Does the length of an upload depend on what is in it?",
}


@dataclass
class Rounds:
    """Rounds with known choices: each client holds one of two known updates. uploads: [rounds][clients]."""

    options: Floats  # [rounds, clients, 2, DIM]
    bits: np.ndarray  # [rounds, clients]
    uploads: list[list[Any]] = field(default_factory=list)

    def update(self, r: int, c: int, flip: bool = False) -> Floats:
        return np.asarray(self.options[r, c, int(self.bits[r, c]) ^ int(flip)])


def play(uploads: Callable[[list[Floats]], Any], rng: np.random.Generator) -> Rounds | None:
    """Rounds of an uploader; None where it shows nothing."""
    n = CHOOSING + SCORING
    rounds = Rounds(rng.uniform(-1, 1, (n, CLIENTS, 2, DIM)), rng.integers(0, 2, (n, CLIENTS)))
    for r in range(n):
        shown = uploads([rounds.update(r, c) for c in range(CLIENTS)])
        if shown is None:
            return None
        rounds.uploads.append(shown)
    return rounds


def _cosine(a: Floats, b: Floats) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else 0.0


# what: (rounds, r, c) -> pairs of (place, place) whose difference is read, with what it would be
Places = Callable[[int, int], tuple[tuple[int, int], tuple[int, int] | None]]
PLACES: dict[str, Places] = {
    "readable-upload": lambda r, c: ((r, c), None),
    "reused-mask": lambda r, c: ((r, c), (r - 1, c)),
    "shared-mask": lambda r, c: ((r, c), (r, (c + 1) % CLIENTS)),
}


def _guesses(rounds: Rounds, name: str, scored: range, only: str = "") -> dict[str, list[bool]]:
    """reading -> whether each guess of "this update, or its alternative" is right."""
    found: dict[str, list[bool]] = {}
    for r in scored:
        for c in range(CLIENTS):
            one, two = PLACES[name](r, c)
            seen = readings(rounds.uploads[one[0]][one[1]], DIM, only)
            other = readings(rounds.uploads[two[0]][two[1]], DIM, only) if two else {}
            for key, (values, modulus) in seen.items():
                if two is not None and key not in other:
                    continue
                got = centred(values - other[key][0], modulus) if two else values
                fits = []
                for flip in (False, True):
                    want = rounds.update(*one, flip) - (rounds.update(*two, flip) if two else 0)
                    fits.append(_cosine(got, want))
                found.setdefault(key, []).append(fits[0] > fits[1])
    return found


def leak(rounds: Rounds, name: str) -> Finding:
    """Share of right guesses under the reading that was best on rounds kept for choosing it."""
    chosen = _guesses(rounds, name, range(1, CHOOSING))
    best = max(chosen, key=lambda k: np.mean(chosen[k])) if chosen else ""
    right = _guesses(rounds, name, range(CHOOSING, CHOOSING + SCORING), best).get(best, [])
    if not right:  # uploads too short to hold a value a coordinate: nothing to read
        right = [bool(b) for b in rounds.bits[CHOOSING:].ravel()]
    text = f"share of guesses between two updates that are right, read as {best or 'nothing'}"
    return proportion(sum(right), len(right), text, "guesses", chance=0.5)


def lengths(candidate: Candidate, rng: np.random.Generator) -> Finding | None:
    """Share of rounds in which an upload's length depends on its content."""
    differ, n = 0, 20
    for _ in range(n):
        updates = [np.zeros(DIM), np.full(DIM, 0.5)]
        updates += [rng.uniform(-1, 1, DIM) for _ in range(CLIENTS - 2)]
        shown = candidate.uploads(updates)
        if shown is None:
            return None
        differ += len({size_of(u) for u in shown}) > 1
    return proportion(differ, n, "share of rounds with uploads of different lengths", "rounds")


def _wrong(got: Any, want: Floats) -> bool:
    return got is None or got.shape != want.shape or not bool(np.abs(got - want).max() <= TOLERANCE * 2)


def means(candidate: Candidate, rng: np.random.Generator) -> dict[str, Finding | None]:
    """Shares of wrong means and of nonsense that was taken."""
    n = 20
    draws = [[rng.uniform(-1, 1, DIM) for _ in range(CLIENTS)] for _ in range(n)]
    edge = [[np.full(DIM, s) for _ in range(CLIENTS)] for s in (1.0, -1.0)] * (n // 2)
    found: dict[str, Finding | None] = {
        "exactness": _count(n, lambda i: _wrong(candidate.mean(draws[i]), np.mean(draws[i], axis=0))),
        "wrap": _count(n, lambda i: _wrong(candidate.mean(edge[i]), edge[i][0])),
        "not-finite": _count(n, lambda i: _taken(candidate, _with_nonsense(draws[i], i))),
        "shape": _count(n, lambda i: _taken(candidate, [*draws[i][:-1], draws[i][-1][: DIM - 1 - i]])),
    }
    weights = [int(w) for w in rng.integers(1, 9, CLIENTS)]
    found["weights"] = None
    if candidate.takes("weights"):
        found["weights"] = _count(
            n,
            lambda i: _wrong(
                candidate.mean(draws[i], weights=weights), np.average(draws[i], axis=0, weights=weights)
            ),
        )
    phase, found["dropouts"] = _phase(candidate, draws[0]), None
    if phase:
        found["dropouts"] = _count(
            n,
            lambda i: _wrong(candidate.mean(draws[i], drop={0: phase}), np.mean(draws[i][1:], axis=0)),
        )
    return found


def _phase(candidate: Candidate, updates: list[Floats]) -> str:
    """A phase from which a client may be silent, or "" where the object knows none."""
    if not candidate.takes("drop"):
        return ""
    known = (getattr(candidate.tool, "drop_phase", "KEYS"), "SUBMIT")
    return next((p for p in known if candidate.mean(updates, drop={0: p}) is not None), "")


def _with_nonsense(updates: Sequence[Floats], i: int) -> list[Floats]:
    bad = updates[i % CLIENTS].copy()
    bad[i % DIM] = (np.nan, np.inf, -np.inf)[i % 3]
    return [bad if k == i % CLIENTS else u for k, u in enumerate(updates)]


def _taken(candidate: Candidate, updates: list[Floats]) -> bool:
    """Whether nonsense gave a mean."""
    return candidate.mean(updates) is not None


def _count(n: int, wrong: Callable[[int], bool]) -> Finding:
    hits = sum(bool(wrong(i)) for i in range(n))
    return proportion(hits, n, "share of tries with a wrong mean, or with nonsense taken", "tries")


class _Clear:
    """Positive control: uploads in clear; with pads, they repeat over rounds, and with one, over clients."""

    def __init__(self, pads: int) -> None:
        self._pads = np.random.default_rng(0).normal(0, 50, (pads, DIM)) if pads else np.zeros((1, DIM))

    def uploads(self, updates: Sequence[Floats]) -> list[Floats]:
        return [u + self._pads[i % len(self._pads)] for i, u in enumerate(updates)]


CONTROLS = {"readable-upload": 0, "reused-mask": CLIENTS, "shared-mask": 1}
# The counts' control needs no run: an object that takes all nonsense scores 1 by definition.
_WON = proportion(20, 20, "nonsense taken by an object that takes all", "tries")


def examine(candidate: Candidate, seed: int = 0) -> list[dict[str, Any]]:
    """A record for every question, in the fields of audits.json."""
    rng, began = np.random.default_rng(seed), monotonic()
    found: dict[str, tuple[Finding | None, Finding, Rule]] = {}
    for name, finding in means(candidate, rng).items():
        found[name] = (finding, _WON, WRONG)
    rounds = play(candidate.uploads, rng)
    for name, pads in CONTROLS.items():
        weak = play(_Clear(pads).uploads, rng)
        assert weak is not None
        found[name] = (None if rounds is None else leak(rounds, name), leak(weak, name), LEAK)
    found["upload-length"] = (lengths(candidate, rng), _WON, WRONG)
    seconds = round(monotonic() - began, 3)
    return [_record(name, *found[name], candidate.name, seconds) for name in QUESTIONS]


def _record(
    name: str, finding: Finding | None, control: Finding, rule: Rule, scheme: str, seconds: float
) -> dict[str, Any]:
    """seconds: of the whole examination. A question that could not be asked has n = 0."""
    asked = finding is not None
    shown = finding or Finding(0.0, 0.0, (0.0, 1.0), (0.0, 1.0), 0, "tries", "not asked: not offered", 1.0)
    if not asked:
        verdict = Verdict.UNDERPOWERED
    elif rule is WRONG and shown.score > 0:  # one wrong mean is a wrong mean
        verdict = Verdict.BROKEN
    else:
        verdict = judge(shown, control, rule)
    return {
        "id": name, "claim": QUESTIONS[name], "scheme": scheme,
        "adversary": "curious server" if rule is LEAK else "client with extreme or broken inputs",
        "verdict": verdict.value, **shown.to_json(),
        "control": {"scheme": "made to fail", **control.to_json()}, "seconds": seconds,
    }  # fmt: skip
