"""One federated round beside a bare per-client torch loop of the same arithmetic, in one process run.

    python benchmarks/round.py [--clients 24] [--clips 8] [--rounds 10] [--scheme plain] [--json]

Both sides train STSTNet's GroupNorm form at every client for one full-batch step on the same clips with the
same class weights, take the clip-weighted mean of the updates, and make the server's step. The loop is what
one writes by hand: a torch module, the weights loaded a client, `loss.backward()`, `optimiser.step()`, state
dicts averaged in torch: no codec, no frames, no sessions. It is timed at 1 and at 2 torch threads and the
better is taken. merveil's round is the whole of it: local training, encoding, frames between session objects,
identities, ledger, the sum, decoding, the server's step. Rounds alternate, and the ratio is that of medians.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch

from merveil.fl.clients import ClientRule, partition
from merveil.fl.driver import Federation, Run
from merveil.fl.options import resolve
from merveil.mer.data.archive import Archive, make_archive
from merveil.mer.models.plain import PlainSTSTNet
from merveil.mer.train import balanced_weights, set_threads

LR = 1e-4


def toy(clients: int, clips: int) -> Archive:
    """Noise images of 28x28x3: time does not depend on what they show."""
    draw = np.random.default_rng(0)
    n = clients * clips
    names = [f"s{i // clips:03d}" for i in range(n)]
    x = draw.integers(0, 256, (n, 28, 28, 3)).astype(np.uint8)
    y = draw.integers(0, 3, n)
    return make_archive(x=x, y=y, dataset=["toy"] * n, subject=names, clip=[f"c{i:05d}" for i in range(n)])


class Loop:
    """The bare loop."""

    def __init__(self, archive: Archive) -> None:
        images = torch.from_numpy(archive.x.astype(np.float32)).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(archive.y)
        people = archive.persons()
        rows = [torch.from_numpy(np.flatnonzero(archive.person == name)) for name in people]
        self.data = [(images[r], labels[r]) for r in rows]
        weights = torch.from_numpy(balanced_weights(archive.y, 3)).float()
        self.loss = torch.nn.CrossEntropyLoss(weight=weights)
        self.model = PlainSTSTNet("group")
        self.model.train()
        self.state = {name: value.clone() for name, value in self.model.state_dict().items()}

    def round(self) -> None:
        total = {name: torch.zeros_like(value) for name, value in self.state.items()}
        mass = 0
        for images, labels in self.data:
            self.model.load_state_dict(self.state)
            optimiser = torch.optim.SGD(self.model.parameters(), lr=LR)
            optimiser.zero_grad()
            self.loss(self.model(images), labels).backward()
            optimiser.step()
            for name, value in self.model.state_dict().items():
                total[name] += len(labels) * (value - self.state[name])
            mass += len(labels)
        self.state = {name: value + total[name] / mass for name, value in self.state.items()}


def federated(archive: Archive, scheme: str):
    """One merveil round a call."""
    options = resolve(
        {"scheme": scheme, "strategy": "fedavg", "lr": LR, "server_lr": 1.0, "local_epochs": 1, "rounds": 1}
    )
    federation = Federation(archive, [Run("", partition(archive, ClientRule("subject")))], options)
    state = [federation.start()]

    def round_() -> None:
        state[0], _ = federation.advance(state[0])

    return round_


def seconds(call, threads: int = 0) -> float:
    """Wall time of one call; threads: torch's, or 0 for what merveil sets itself."""
    if threads:
        set_threads(threads)
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(archive: Archive, scheme: str, rounds: int) -> dict[str, list[float]]:
    """Times of alternating rounds, after one of each to warm up."""
    ours, bare = federated(archive, scheme), Loop(archive).round
    calls = {"merveil": (ours, 0), "loop, 1 thread": (bare, 1), "loop, 2 threads": (bare, 2)}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, (call, threads) in calls.items():
            found = seconds(call, threads)
            if turn:
                times[name].append(found)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--clips", type=int, default=8, help="of each client")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds of each side")
    parser.add_argument("--scheme", default="plain")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    times = measure(toy(args.clients, args.clips), args.scheme, args.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min((name for name in medians if name != "merveil"), key=lambda name: medians[name])
    ratios = sorted(a / b for a, b in zip(times["merveil"], times[best]))
    spread = [ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]]
    ratio = medians["merveil"] / medians[best]
    if args.json:
        print(json.dumps({"median_seconds": medians, "ratio": ratio, "spread": spread, **vars(args)}))
        return 0
    for name, values in times.items():
        print(f"{name:16s} {medians[name]:.4f} s  [{min(values):.4f}, {max(values):.4f}]")
    print(f"merveil / best loop ({best}): {ratio:.2f}; 80 % of rounds in {spread[0]:.2f}..{spread[1]:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
