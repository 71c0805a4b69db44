"""`merveil audit`: the audits that ship with the package, for a scheme or for an aggregator of one's own."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from merveil.cli import AUDIT_LOST, FAILED, OK, print_json, say
from merveil.mer.errors import InputError
from merveil.mer.extras import need

HELP = "run the audits: every claim of SECURITY.md, tried"
_LOST, _NOTHING = 1, 5  # pytest: tests failed; nothing was collected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--scheme", action="append", help="only this scheme (may be repeated)")
    add("--attack", action="append", help="only this attack (may be repeated)")
    add(
        "--aggregator",
        metavar="MODULE:OBJECT",
        help="audit this object instead: its means, what it refuses, and what its uploads tell",
    )
    add("--data", metavar="F.npz", type=Path, help="archive to audit on (default: synthetic faces)")
    add("--full", action="store_true", help="more rounds: tighter bounds, longer")
    add("--strict", action="store_true", help="inconclusive audits fail")
    add(
        "--jobs",
        metavar="N",
        type=int,
        help="worker processes; 0: none (default: one a core, up to four; none where --attack names a few)",
    )
    add("--out", metavar="F.json", type=Path, help="write audits.json there")
    add("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    from merveil.attacks.registry import get
    from merveil.protocols.registry import names

    if args.aggregator is not None:
        if args.scheme or args.attack or args.data or args.jobs is not None:
            raise InputError(
                "--aggregator is audited by itself: without --scheme, --attack, --data and --jobs"
            )
        return aggregator(args)
    need("pytest", "audits")
    if args.jobs is not None:
        if args.jobs < 0:
            raise InputError(f"--jobs is 0 or more worker processes, not {args.jobs}")
        if args.jobs:
            need("xdist", "audits")
    for scheme in args.scheme or []:
        if scheme not in names():
            raise InputError(f"there is no scheme {scheme!r}; there are: {', '.join(names())}")
    chosen = [get(name).id for name in args.attack or []]
    if args.data is not None and not args.data.is_file():
        raise InputError(f"--data {args.data} is not a file")
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder) / "audits.json"
        code = subprocess.run(_command(args, chosen, out), stdout=sys.stderr).returncode
        records = json.loads(out.read_text()) if out.exists() else []
    if code not in (OK, _LOST, _NOTHING):
        say(f"merveil audit: pytest ended with code {code}")
        return FAILED
    if args.json:
        verdicts = Counter(r["verdict"] for r in records)
        print_json({"lost": code == _LOST, "verdicts": dict(verdicts), "audits": records})
    return AUDIT_LOST if code == _LOST else OK


def aggregator(args: argparse.Namespace) -> int:
    """Audit a third party's object as a black box; AUDIT_LOST where it is wrong or leaks."""
    from merveil.attacks.verdict import Verdict
    from merveil.audits.blackbox import examine
    from merveil.audits.candidate import Candidate, load
    from merveil.mer.atomic import write_text

    records = examine(Candidate(load(args.aggregator), args.aggregator))
    bad = {Verdict.BROKEN.value, Verdict.CONTROL_FAILED.value}
    if args.strict:
        bad.add(Verdict.UNDERPOWERED.value)
    lost = any(r["verdict"] in bad for r in records)
    if args.out is not None:
        write_text(args.out, json.dumps(records, indent=2, allow_nan=False) + "\n")
    if args.json:
        print_json(
            {"lost": lost, "verdicts": dict(Counter(r["verdict"] for r in records)), "audits": records}
        )
    else:
        print("\n".join(spoken(r) for r in records))
    return AUDIT_LOST if lost else OK


def spoken(record: dict[str, Any]) -> str:
    """One finding for people: its name, the verdict, the question, the figure."""
    low, high = record["ci95"]
    asked = f"{record['score']:.2f} [{low:.2f}, {high:.2f}] of {record['n']} {record['unit']}"
    figure = asked if record["n"] else "the object does not let us ask"
    return f"{record['id']:<16}{record['verdict']:<14}{record['claim']}  {figure}"


def _command(args: argparse.Namespace, chosen: list[str], out: Path) -> list[str]:
    import merveil.audits

    folder = Path(merveil.audits.__path__[0])
    words = [sys.executable, "-m", "pytest", str(folder), f"--rootdir={folder}", "-q"]
    words += ["-c", os.devnull, "--import-mode=importlib", "-p", "no:cacheprovider", "-rs"]
    words += [f"--audits-json={out}", *(f"--scheme={s}" for s in args.scheme or [])]
    words += [f"--attack={name}" for name in chosen]
    if args.jobs or (args.jobs == 0 and find_spec("xdist")):  # without it there are no workers anyway
        words += ["-n", str(args.jobs)]
    words += ["--full"] * args.full + ["--strict"] * args.strict
    return [*words, f"--audit-data={args.data}"] if args.data else words
