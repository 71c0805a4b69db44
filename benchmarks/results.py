"""The scores of docs/results.md: every cell is one honest evaluation, kept in a folder and never run twice.

    python benchmarks/results.py --data F.npz --cache DIR [--only TEXT] [--seeds 0,1,2] [--minutes M] [--list]
    python benchmarks/results.py --data F.npz --cache DIR --mix
    python benchmarks/results.py --data F.npz --cache DIR --render

A cell is `merveil evaluate` with its folder under DIR, named by model, mode, clients, scheme and seed; cells
that are there are passed over, so a run that was stopped goes on where it was. --minutes starts no further
cell after so long. --mix makes missing cells of `ensemble` from its parts' cells of the same seed, as the
ensemble itself does, and only where a cell of the line that was run as a whole agrees with its own mixture;
the page says which are mixed. --render writes docs/results.md and mer/models/scores.json from the cells that
are there and says which are not.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from merveil.protocols.registry import names

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2, 3, 4)
# Of every line with differential privacy, fixed before a leave-one-out run with them: delta below one over
# the 40 clients, the clip of benchmarks/frontier.py, a step's public divisor near half of a client's clips.
DELTA, CLIP, SGD_BATCH = "1e-3", "1", 4


@dataclass(frozen=True)
class Row:
    """One line of the table: a model in one form, trained in one way."""

    model: str
    options: tuple[str, ...] = ()  # NAME=VALUE of the network
    mode: str = "central"
    clients: str = ""
    scheme: str = ""
    recipe: str = "default"
    seeds: tuple[int, ...] = SEEDS
    protocol: str = "loso"
    rounds: int | None = None  # fewer than the frozen number: a comparison of schemes and no score
    dp: str = ""  # differential privacy: its mode
    epsilon: float = 0.0

    @property
    def form(self) -> str:
        """The model with its options, as the table has it."""
        return self.model + "".join(f", {option.replace('=', ' ')}" for option in self.options)

    @property
    def way(self) -> str:
        """How it is trained, as the table has it."""
        if self.mode == "central":
            return "central"
        shorter = f", {self.protocol}" + (f", {self.rounds} rounds" if self.rounds else "")
        private = f", {self.dp} noise, epsilon {self.epsilon:g}" if self.dp else ""
        return f"federated, {self.clients}, {self.scheme}{private}" + ("" if self.scored else shorter)

    @property
    def scored(self) -> bool:
        """Whether the line is a score, and no mere comparison of schemes."""
        return self.protocol == "loso" and self.rounds is None

    def folder(self, seed: int) -> str:
        """The cell's name."""
        parts = [self.model, *self.options, self.recipe, self.mode, self.clients, self.scheme]
        if not self.scored:
            parts += [self.protocol, f"rounds{self.rounds}" if self.rounds else ""]
        if self.dp:
            parts += [f"dp-{self.dp}", f"epsilon{self.epsilon:g}"]
        parts.append(f"seed{seed}")
        return "_".join(part.replace(":", "-") for part in parts if part)

    def words(self, data: str, out: Path, seed: int) -> list[str]:
        """The command of one cell."""
        found = ["evaluate", "--data", data, "--model", self.model, "--mode", self.mode, "--seed", str(seed)]
        if self.mode == "federated":
            found += ["--clients", self.clients, "--scheme", self.scheme]
        elif self.recipe != "default":
            found += ["--recipe", self.recipe]
        if not self.scored:
            found += ["--protocol", self.protocol, *(["--rounds", str(self.rounds)] if self.rounds else [])]
        for option in self.options:
            found += ["--set", option]
        if self.dp:
            found += [
                "--dp",
                self.dp,
                "--epsilon",
                f"{self.epsilon:g}",
                "--delta",
                DELTA,
                "--norm-clip",
                CLIP,
            ]
            found += ["--set", f"batch={SGD_BATCH}"] if self.dp == "sgd" else []
        return [*found, "--out", str(out)]


def federated(model: str, *options: str, seeds: tuple[int, ...] = SEEDS) -> list[Row]:
    """A model's federated lines: subjects in the clear."""
    return [Row(model, options, "federated", "subject", "plain", seeds=seeds)]


def every_scheme(model: str, protocol: str = "loso", rounds: int | None = None) -> list[Row]:
    """A model through each scheme, one seed."""
    return [
        Row(model, (), "federated", "subject", name, seeds=(0,), protocol=protocol, rounds=rounds)
        for name in names()
    ]


def rows() -> list[Row]:
    """Every line, the cheapest and most telling first."""
    one = (0,)  # what has no seed
    exact = [Row("kernel-ridge", seeds=one), Row("exact-ridge", seeds=one)]
    exact += every_scheme("exact-ridge")
    exact.append(Row("exact-ridge", (), "federated", "site", "plain", seeds=one))
    exact += [Row("exact-ridge", (f"{switch}=false",), seeds=one) for switch in ("register", "mirror")]
    small = [
        Row("flow-mlp"),
        Row("flow-mlp", ("augment=false", "epochs=300")),
        Row("flow-softmax", seeds=one),  # convex, from zero, without coins: no seed has a part in it
        Row("ensemble"),
        Row("ststnet"),
        Row("compact-transformer"),
    ]
    small += [Row("ststnet", ("norm=batch",), recipe="batch-norm"), Row("off-apexnet", ("head=gap",))]
    small += every_scheme("ststnet", "kfold:5", 20) + every_scheme("flow-mlp", "kfold:5", 5)
    small += every_scheme("flow-softmax", "kfold:5") + federated("flow-softmax", seeds=one)
    small += federated("ststnet") + federated("flow-mlp") + federated("compact-transformer")
    wide = [Row("rcn"), Row("rcn", ("norm=batch",), recipe="batch-norm")]
    wide += [Row("dual-inception", ("head=gap",)), Row("featref")]
    wide += federated("off-apexnet", "head=gap") + federated("ensemble")
    wide += federated("rcn") + federated("dual-inception", "head=gap") + federated("featref")
    return [*exact, *small, *private(), *wide, Row("off-apexnet"), Row("dual-inception")]


def private() -> list[Row]:
    """Two networks with differential privacy: noise of a trusted server, of the clients, in steps."""
    one, found = (0,), []
    for model, epsilons, distributed in (("flow-softmax", (1, 8), (1, 8)), ("ststnet", (8, 80), (8,))):
        start = Row(model, (), "federated", "subject", "plain")
        found += [replace(start, dp="central", epsilon=epsilon) for epsilon in epsilons]
        found += [
            replace(start, scheme="secagg", dp="distributed", epsilon=epsilon, seeds=one)
            for epsilon in distributed
        ]
        found.append(replace(start, dp="sgd", epsilon=8, seeds=one))
    return found


def missing(cache: Path, seeds: tuple[int, ...], only: str) -> list[tuple[Row, int]]:
    """Cells that are not there, seed by seed for each line."""
    return [
        (row, seed)
        for row in rows()
        for seed in row.seeds
        if seed in seeds
        and only in row.folder(seed)
        and not (cache / row.folder(seed) / "result.json").is_file()
    ]


def fill(data: str, cache: Path, cells: list[tuple[Row, int]], minutes: float) -> None:
    """Run cells until all are there or time is up; one that fails is said and left out."""
    end = monotonic() + 60 * minutes
    for row, seed in cells:
        if monotonic() > end:
            return
        started = monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "merveil", *row.words(data, cache / row.folder(seed), seed)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # sums of products differ in the last bit by threads
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        told = "" if done.returncode == 0 else f": {done.stderr.strip().splitlines()[-1]}"
        took = monotonic() - started
        print(f"{row.folder(seed)}: exit {done.returncode} after {took:.0f} s{told}", flush=True)


def mix(data: str, cache: Path, seeds: tuple[int, ...]) -> None:
    """Cells of ensemble from its parts' cells. SystemExit where no whole run vouches for them."""
    from results_mix import mixture, vouched  # beside this file

    for row in [row for row in rows() if row.model == "ensemble"]:
        for seed in [
            s for s in row.seeds if s in seeds and not (cache / row.folder(s) / "result.json").is_file()
        ]:
            found = mixture(data, cache, row, seed)
            if found is None:
                continue
            at = vouched(data, cache, row)
            found.save(cache / row.folder(seed), at)
            print(f"{row.folder(seed)}: mixed, as the whole run of seed {at} is", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--only", default="", help="cells whose name has this text")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--list", action="store_true", help="say what is missing and do nothing")
    parser.add_argument("--mix", action="store_true", help="cells of ensemble from those of its parts")
    parser.add_argument("--render", action="store_true", help="write the page and the scores")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    seeds = tuple(int(s) for s in args.seeds.split(","))
    if args.mix:
        mix(args.data, args.cache, seeds)
        return 0
    cells = missing(args.cache, seeds, args.only)
    if args.list:
        print("\n".join(row.folder(seed) for row, seed in cells))
        return 0
    if args.render:
        from results_page import render  # beside this file

        render(args.data, args.cache, rows(), ROOT)
        return 0
    fill(args.data, args.cache, cells, args.minutes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
