"""Leave-one-subject-out training: merveil against a plain per-fold torch script, in one run.

    python benchmarks/loso.py [--data F.npz] [--epochs 6] [--repeats 2] [--norm group|batch] [--json]

The peer is what one would write: for each fold an nn.Module (the one that the tests take as the truth),
full batches, weighted cross-entropy, Adam; the same arithmetic, clips, folds and epochs. It is run with one
thread, with two (in both memory layouts; an eighth of the folds, scaled up, since two threads can be very
slow), and as two processes that are started beforehand; its best counts. Ours is `central_predictions`, from
the archive to the held-out probabilities; the compiled passes are warmed up first. Runs alternate, so that a
busy machine slows both; the ratio is given by repeat. On a machine shared with others the ratio of processor
seconds, ours against the plain script with one thread, says more: both would share two idle cores alike.

The bound is the time of the matrix products alone (convolutions forward and their filters' gradient) at the
measured speed of a large product on as many threads as ours used.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from merveil.mer.data.archive import Archive, load_archive, make_archive
from merveil.mer.data.splits import Fold, loso
from merveil.mer.loso import central_predictions
from merveil.mer.models.plain import PlainSTSTNet
from merveil.mer.train import balanced_weights, set_threads, workers

RATE = 1e-3
Task = tuple[str, np.ndarray, np.ndarray, np.ndarray, int, bool]


def synthetic(persons: int = 40, clips: int = 309, seed: int = 0) -> Archive:
    """Smooth made-up maps, as many clips and persons as the two-part development archive."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((clips, 7, 7, 3))
    x = np.kron(coarse, np.ones((1, 4, 4, 1))) * 200 + rng.random((clips, 28, 28, 3)) * 55
    person = np.concatenate([np.arange(persons), rng.integers(0, persons, clips - persons)])
    names = [f"s{p}" for p in person]
    return make_archive(
        x=x.astype(np.uint8),
        y=np.arange(clips) % 3,
        dataset=np.full(clips, "synthetic"),
        subject=np.array(names),
        clip=np.array([f"c{i}" for i in range(clips)]),
    )


def plain_fold(task: Task) -> np.ndarray:
    """One fold of the plain script: train, then the probabilities of the held-out clips."""
    norm, train, y, test, epochs, channels_last = task
    module = PlainSTSTNet(norm)
    optimiser = torch.optim.Adam(module.parameters(), lr=RATE)
    weight = torch.from_numpy(balanced_weights(y, 3)).float()
    labels = torch.from_numpy(y)
    x, held_out = (torch.from_numpy(part).permute(0, 3, 1, 2).float() for part in (train, test))
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    for _ in range(epochs):
        optimiser.zero_grad()
        functional.cross_entropy(module(x), labels, weight=weight).backward()
        optimiser.step()
    module.eval()
    with torch.no_grad():
        return torch.softmax(module(held_out), 1).numpy()


def plain(tasks: list[Task], threads: int, channels_last: bool = False) -> None:
    """All folds, one after the other."""
    set_threads(threads)
    for task in tasks:
        plain_fold((*task[:5], channels_last))
    set_threads(1)


def warm(_: int) -> None:
    """Start a worker process of the plain script, so that its start is not timed."""
    set_threads(1)
    blank = np.zeros((4, 28, 28, 3), np.uint8)
    plain_fold(("group", blank, np.arange(4) % 3, blank[:1], 1, False))


def product_rate(threads: int, size: int = 1024, seconds: float = 0.5) -> float:
    """FLOP/s of square matrix products on that many threads at once, best of many."""
    a = torch.randn(size, size)

    def work(_: int) -> float:
        out, best, end = torch.empty(size, size), 1e9, perf_counter() + seconds
        while perf_counter() < end:
            start = perf_counter()
            torch.mm(a, a, out=out)
            best = min(best, perf_counter() - start)
        return 2 * size**3 / best

    with ThreadPoolExecutor(threads) as team:
        return sum(team.map(work, range(threads)))


def product_flop(archive: Archive, folds: list[Fold], epochs: int) -> float:
    """Multiply-adds of the convolutions and of their filters' gradient, times two."""
    height, width, channels = archive.x.shape[1:]
    outputs = (height + 2) * (width + 2) * 16
    return 2.0 * 2 * epochs * sum(len(f.train) for f in folds) * outputs * 9 * channels


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and of this process's processors."""
    start, used = perf_counter(), process_time()
    work()
    return perf_counter() - start, process_time() - used


def measure(archive: Archive, epochs: int, repeats: int, norm: str) -> dict[str, Any]:
    """Seconds of every variant in every repeat, and what follows from them."""
    folds = loso(archive)
    tasks: list[Task] = [
        (norm, archive.x[f.train], archive.y[f.train], archive.x[f.test], epochs, False) for f in folds
    ]
    few = tasks[:: max(1, min(8, len(tasks)))]
    options = {"epochs": epochs, "lr": RATE, "norm": norm}
    threads = workers()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(warm, range(2), chunksize=1)
        variants: dict[str, Callable[[], object]] = {
            "ours": lambda: central_predictions(archive, folds, model="ststnet", options=options),
            "plain, 1 thread": lambda: plain(tasks, 1),
            "plain, 2 threads": lambda: plain(few, 2),
            "plain, 2 threads, channels last": lambda: plain(few, 2, True),
            "plain, 2 processes": lambda: pool.map(plain_fold, tasks, chunksize=1),
        }
        central_predictions(archive, folds[:2], model="ststnet", options={**options, "epochs": 1})
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        used: dict[str, list[float]] = {name: [] for name in variants}
        scale = {name: len(tasks) / len(few) if "2 threads" in name else 1.0 for name in variants}
        rates = []
        for _ in range(repeats):
            rates.append(product_rate(threads))
            for name, work in variants.items():
                clock, processor = timed(work)
                seconds[name].append(clock * scale[name])
                used[name].append(processor)
                print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    ratios = [
        min(s[i] for n, s in seconds.items() if n != "ours") / seconds["ours"][i] for i in range(repeats)
    ]
    bound = product_flop(archive, folds, epochs) / max(rates)
    return {
        "seconds": seconds,
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "processor_seconds": {name: used[name] for name in ("ours", "plain, 1 thread")},
        "processor_ratio": min(used["plain, 1 thread"]) / min(used["ours"]),
        "threads": threads,
        "product_gflops": max(rates) / 1e9,
        "bound_seconds": bound,
        "share_of_bound": bound / min(seconds["ours"]),
        "folds": len(folds),
        "clips": archive.n,
        "epochs": epochs,
        "norm": norm,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="an archive; default: made-up clips")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--norm", choices=("group", "batch"), default="group")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    archive = load_archive(args.data) if args.data else synthetic()
    found = measure(archive, args.epochs, args.repeats, args.norm)
    if args.json:
        print(json.dumps(found))
        return 0
    for name, seconds in found["seconds"].items():
        print(f"{name:32s} best {min(seconds):6.2f} s  all {' '.join(f'{s:.2f}' for s in seconds)}")
    low, high = found["ratio_spread"]
    print(f"the plain script's best takes {found['ratio']:.1f}x ours (by repeat: {low:.1f} to {high:.1f})")
    print(f"processor seconds: the plain script with 1 thread takes {found['processor_ratio']:.1f}x ours")
    print(
        f"{found['threads']} threads; matrix products alone: {found['bound_seconds']:.2f} s at "
        f"{found['product_gflops']:.0f} GFLOP/s, {found['share_of_bound']:.0%} of our best time"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
