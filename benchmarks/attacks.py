"""Iterations a second of gradient inversion: all clients and restarts as one stack, and one after the other.

The baseline is the usual loop: an autograd module a client (`torch.nn`), one optimiser a client and restart.
Both search the same clips of one STSTNet form with one loss; runs alternate, the best of three counts.
Usage: python benchmarks/attacks.py [--clients 16] [--iterations 30] [--json]
"""

import argparse
import json
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from merveil.attacks import inversion, reading, scenario
from merveil.attacks.base import CURIOUS_SERVER
from merveil.attacks.population import population
from merveil.attacks.replay import Replay
from merveil.attacks.scenario import Setting, Task

STREAMS = (3, 5, 8)


class Plain(nn.Module):
    """STSTNet with group norm, written the straightforward way."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3, f, 3, padding=2), nn.ReLU(), nn.GroupNorm(1, f), nn.MaxPool2d(3, 3, padding=1)
            )
            for f in STREAMS
        )
        self.pool, self.fc = nn.AvgPool2d(2, 2), nn.Linear(16 * 25, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(torch.cat([s(x) for s in self.streams], 1)).flatten(1))


def one_by_one(targets: list[torch.Tensor], labels: list[int], shape: Any, iterations: int) -> None:
    """Cosine and total variation by sign-Adam, a client at a time."""
    for target, label in zip(targets, labels):
        model = Plain()
        z = torch.randn(1, shape[2], shape[0], shape[1], requires_grad=True)
        optimiser = torch.optim.Adam([z], lr=0.25)
        y = torch.tensor([label])
        for _ in range(iterations):
            loss = nn.functional.cross_entropy(model(128 + 40 * z), y)
            grads = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
            flat = torch.cat([g.flatten() for g in grads])
            gap = 1 - torch.cosine_similarity(flat, target, dim=0)
            rough = (z[:, :, 1:] - z[:, :, :-1]).abs().mean() + (z[..., 1:] - z[..., :-1]).abs().mean()
            (found,) = torch.autograd.grad(gap + 0.04 * rough, z)
            z.grad = found.sign()
            optimiser.step()


def measure(clients: int, iterations: int) -> dict[str, float]:
    """Client iterations a second, stacked and one by one, and their ratio."""
    task = Task(population(24, 8, 0))
    case = scenario.record(task, "plain", Setting(clips=1, cohort=clients, rounds=1), CURIOUS_SERVER, 0)[0]
    replay, seen = Replay(case.public), reading.uploads(case.view, case.public)
    targets = np.stack([seen[c] for c in sorted(seen)])
    labels = np.array([[task.archive.y[case.truth.held[c][0]]] for c in sorted(seen)])
    space, budget = inversion.Space(replay), inversion.Budget(iterations)
    flat = [torch.from_numpy(t.astype(np.float32)) for t in targets]
    best = {"stacked": np.inf, "one_by_one": np.inf}
    for _ in range(3):
        started = perf_counter()
        inversion.by_direction(replay, targets, labels, np.random.default_rng(0), budget, space)
        best["stacked"] = min(best["stacked"], perf_counter() - started)
        started = perf_counter()
        one_by_one(flat, labels[:, 0].tolist(), task.archive.x.shape[1:], iterations)
        best["one_by_one"] = min(best["one_by_one"], perf_counter() - started)
    rate = {name: clients * iterations / seconds for name, seconds in best.items()}
    return {
        **rate,
        "ratio": rate["stacked"] / rate["one_by_one"],
        "clients": clients,
        "iterations": iterations,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(args.clients, args.iterations)
    if args.json:
        print(json.dumps(found))
        return
    print(f"stacked     {found['stacked']:.0f} client iterations a second")
    print(f"one by one  {found['one_by_one']:.0f}; ratio {found['ratio']:.2f}")


if __name__ == "__main__":
    main()
