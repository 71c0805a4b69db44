"""`merveil compare-runs`: is B better than A on the same held-out clips? The paired interval over persons."""

import argparse
from pathlib import Path
from typing import Any

from merveil.cli import OK, print_json
from merveil.mer.errors import InputError

HELP = "paired interval between two prediction files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a predictions.csv, or the --out folder of an evaluation")
    parser.add_argument("b", metavar="B", help="the same, over the same clips")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    from merveil.mer.comparison import compare
    from merveil.mer.predictions import read_predictions

    if args.seed < 0:
        raise InputError(f"the seed must be 0 or more, not {args.seed}")
    files = [_file(Path(path)) for path in (args.a, args.b)]
    found = compare(*(read_predictions(file) for file in files), links=_links(files), seed=args.seed)
    for name, file in zip("ab", files):
        found[name]["predictions"] = str(file)
    if args.json:
        print_json(found)
    else:
        print(report(found))
    return OK


def report(found: dict[str, Any]) -> str:
    """The comparison for people."""
    lines = [f"A {found['a']['predictions']}", f"B {found['b']['predictions']}"]
    lines.append(
        f"{found['clips']} clips of {found['subjects']} people, {found['equal_predictions']} predicted alike"
    )
    lines.append(f"{'':<10}{'A':>8}{'B':>8}{'B - A':>9}   95 % interval      p")
    for name in ("uf1", "uar", "accuracy"):
        d = found["difference"][name]
        low, high = d["ci95"]
        scores = f"{found['a'][name]:>8.4f}{found['b'][name]:>8.4f}{d['difference']:>+9.4f}"
        lines.append(f"{name:<10}{scores}   {low:+.4f}..{high:+.4f}   {d['p']:.4f}")
    m = found["mcnemar"]
    lines.append(
        f"McNemar over clips: only A right {m['only_a']}, only B right {m['only_b']}, p {m['p']:.4f}"
    )
    if not found["same_folds"]:
        lines.append("note: A and B held people out in different folds, so they trained on different people")
    return "\n".join(lines)


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if not (path / "predictions.csv").is_file():
        raise InputError(
            f"{path} holds no predictions.csv: give the --out folder of an evaluation, or a file"
        )
    return path / "predictions.csv"


def _links(files: list[Path]) -> dict[str, str]:
    """Subjects that are one person by the result.json beside either file; InputError if the two disagree."""
    from merveil.fl.files import read_json

    links: dict[str, str] = {}
    for file in files:
        beside = file.with_name("result.json")
        stated = read_json(beside).get("linked_persons", {}) if beside.is_file() else {}
        if not isinstance(stated, dict) or not all(isinstance(name, str) for name in stated.values()):
            raise InputError(f"{beside}: linked_persons must map subjects to persons")
        for subject, person in stated.items():
            if links.setdefault(subject, person) != person:
                raise InputError(
                    f"{subject} is person {links[subject]!r} in one result and {person!r} in the other"
                )
    return links
