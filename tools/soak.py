"""Play many simulated rounds of a scheme under every kind of fault, and stop at the first broken invariant.

    python tools/soak.py --rounds 100000 --seed 0 --scheme secagg [--faults hostile] [--jobs 2]

Progress goes to stderr. The last line on stdout is one JSON object; the exit code is 1 where a seed failed.
A failing seed is printed with the call that replays it.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from merveil.protocols.errors import MerveilError
from merveil.protocols.params import Params
from merveil.protocols.registry import get, names
from merveil.protocols.simulation.faults import NAMED
from merveil.protocols.simulation.network import simulate

BATCH = 50


def arguments(scheme: str, seed: int, faults: str | None) -> dict[str, Any]:
    """What a seed stands for: size, weights, faults, attempts and rounds; every ninth graph is sparse."""
    name = faults or tuple(NAMED)[seed % len(NAMED)]
    out: dict[str, Any] = {
        "scheme": scheme, "seed": seed, "cohort": 3 + seed % 6, "dim": 1 + seed % 9, "faults": NAMED[name],
        "attempts": 1 + seed % 3, "rounds": 1 + (seed // 3) % 3, "max_weight": 1 + 7 * (seed % 2),
    }  # fmt: skip
    if scheme == "plain":
        out["threshold"] = 1 + seed % 3
    if (
        scheme == "secagg+" and seed % 9 == 0
    ):  # far fewer neighbours than a policy accepts: fast, for tests only
        out["params"] = Params(scheme, 9 + seed % 4, 5, threshold=4, corrupt=1, neighbours=6)
    return out


def play(task: tuple[str, int, int, str | None]) -> tuple[Counter[str], int, str]:
    """(what happened, rounds played, the failure or "") for a batch of seeds."""
    scheme, start, stop, faults = task
    seen: Counter[str] = Counter()
    rounds = 0
    for seed in range(start, stop):
        call = arguments(scheme, seed, faults)
        try:
            last = simulate(**call)
        except (AssertionError, MerveilError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            return seen, rounds, f"simulate(**{call!r})\n{type(error).__name__}: {error}"
        for result in (*last.history, last):
            rounds += 1
            seen["sum" if result.outcome else f"abort {result.aborted.code.name}"] += 1  # type: ignore[union-attr]
            seen.update(result.counts)
    return seen, rounds, ""


def tasks(scheme: str, seed: int, faults: str | None) -> Iterator[tuple[str, int, int, str | None]]:
    while True:
        yield scheme, seed, seed + BATCH, faults
        seed += BATCH


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scheme", choices=names(), default="plain")
    parser.add_argument("--faults", choices=sorted(NAMED), help="one kind only (default: all in turn)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    get(args.scheme)
    began, told, played, failure = time.monotonic(), 0.0, 0, ""
    seen: Counter[str] = Counter()
    source = tasks(args.scheme, args.seed, args.faults)
    with ProcessPoolExecutor(args.jobs) as pool:
        while played < args.rounds and not failure:
            for counts, rounds, why in pool.map(play, [next(source) for _ in range(2 * args.jobs)]):
                seen.update(counts)
                played += rounds
                failure = failure or why
            passed = time.monotonic() - began
            if passed - told > 10:
                told = passed
                print(f"{played} of {args.rounds} rounds, {passed:.0f} s", file=sys.stderr, flush=True)
    if failure:
        print(failure, file=sys.stderr)
    seconds = round(time.monotonic() - began, 1)
    print(
        json.dumps({"scheme": args.scheme, "rounds": played, "seconds": seconds, "ok": not failure, **seen})
    )
    return int(bool(failure))


if __name__ == "__main__":
    sys.exit(main())
