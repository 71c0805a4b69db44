"""Does a test fail when a check is taken out? One change at a time, in a copy of the tree.

    tools/dev.py mutation                      all groups; exit code 1 if a mutant survives
    tools/dev.py mutation --group ckks         one group (repeatable): secagg, core, ckks, lattice, dp
    tools/dev.py mutation --json F.json        results there; a later call goes on where this one ended, and
                                               tries those that survived once more
    tools/dev.py mutation --list [WORD ...]    names; WORDs keep the mutants whose name contains one

Two kinds of mutants: those of mutants.py, written by hand, and those found here on the syntax trees: every
`if` that ends in a raise never fires; every alternative of its condition is left out by itself; every call
of a check or of the ledger is skipped. Nothing outside a temporary folder is written, but for --json.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401 - loaded once, for every forked child
import hypothesis  # noqa: F401
import numpy  # noqa: F401
import pytest
from mutants import CORE, MUTANTS  # beside this script

ROOT = Path(__file__).resolve().parent.parent
T = "tests/protocols"
WIDE = {  # for what the tests that are meant for it let pass
    "core": (
        f"{T}/test_api.py",
        f"{T}/test_schemes.py -k plain",
        f"{T}/test_schemes.py -k secagg",
        f"{T}/secagg/test_hostile_clients.py",
        f"{T}/lattice/test_committee.py",
    ),
    "secagg": (f"{T}/secagg", f"{T}/simulation/test_sweep.py"),
    "ckks": (f"{T}/ckks", f"{T}/test_schemes.py -k ckks"),
    "lattice": (f"{T}/lattice", f"{T}/test_schemes.py -k lattice"),
    "dp": (f"{T}/dp",),
}
SECONDS = 400  # a mutant that hangs is noticed, too

# group -> file pattern -> what must notice; the first pattern that fits counts
FOUND: dict[str, dict[str, tuple[str, ...]]] = {
    "core": {
        "policy.py": ("test_policy.py", "secagg/test_params_policy.py"),
        "ledger.py": ("test_ledger.py",),
        "identity.py": ("test_identity.py",),
        "frame.py": ("test_frame.py",),
        "context.py": ("test_context.py",),
        "codec.py": ("test_codec.py",),
        "api.py": ("test_api.py",),
        "params.py": ("test_params.py",),
        "cohort.py": ("test_cohort.py",),
        "machine.py": ("test_machine.py",),
        "client.py": ("secagg/test_hostile_server.py", "secagg/test_snapshots.py"),
        "server.py": ("secagg/test_hostile_clients.py", "secagg/test_dropouts.py"),
        "survivors.py": ("secagg/test_hostile_server.py",),
        "registry.py": ("test_api.py",),
        "snapshot.py": ("test_schemes.py -k plain", "secagg/test_snapshots.py"),
        "plain/*.py": ("test_plain.py", "test_schemes.py -k plain"),
        "primitives/*.py": ("test_primitives.py", "test_packing.py"),
    },
    "ckks": {
        "ckks/params.py": ("ckks/test_params.py",),
        "ckks/seal.py": ("ckks/test_seal.py",),
        "ckks/encoding.py": ("ckks/test_params.py", "ckks/test_seal.py"),
        "ckks/[wm]*.py": ("ckks/test_hostile_server.py", "ckks/test_fuzz.py"),
        "ckks/*.py": (
            "ckks/test_hostile_server.py",
            "ckks/test_hostile_clients.py",
            "ckks/test_attacks.py",
            "ckks/test_fuzz.py",
        ),
    },
    "lattice": {
        "lattice/__init__.py": ("lattice/test_params.py",),
        "lattice/params.py": ("lattice/test_params.py",),
        "lattice/packed.py": ("lattice/test_packed.py", "lattice/test_committee.py"),
        "lattice/sampling.py": ("lattice/test_sampling.py", "lattice/test_ring.py"),
        "lattice/*.py": ("lattice/test_committee.py", "test_schemes.py -k lattice"),
    },
    "dp": {
        "dp/accountant.py": ("dp/test_accountant.py",),
        "dp/clips.py": ("dp/test_clips.py",),
        "dp/discrete.py": ("dp/test_discrete.py",),
        "dp/*.py": ("dp/test_sampling.py",),
    },
}
CALLS = re.compile(
    r"_?(check|enough|require|settle)\w*|advance|open_round|see_roster|store_chains|answer|keep|bind"
)

# Mutants that change nothing that could be seen, with the reason.
EQUIVALENT = {
    "params: __post_init__: without self.modulus_bits > _MAX_MODULUS_BITS": "40 bits, 65,535 clients: 56",
    "snapshot: unpack_fields: without found > len(data)": "the first missing field is refused alike",
    "plain/client: receive: sender != 0": "no frame is due from anybody; both refusals name the sender",
}


class Change(NamedTuple):
    """name: unique. file: under the root. old and new text of the file. tests: pytest words."""

    name: str
    group: str
    file: str
    text: str
    tests: tuple[str, ...]

    @property
    def key(self) -> str:
        """Changes when the mutant does."""
        return hashlib.sha256("\0".join((self.name, self.text, *self.tests)).encode()).hexdigest()[:16]


def listed(group: str) -> Iterator[Change]:
    """The hand-written ones."""
    for m in {"secagg": MUTANTS, "core": CORE}.get(group, ()):
        text = (ROOT / m.file).read_text(encoding="utf-8")
        if text.count(m.old) != 1:
            raise SystemExit(f"{m.name}: the old text occurs {text.count(m.old)} times in {m.file}")
        yield Change(m.name, group, m.file, text.replace(m.old, m.new), tuple(m.tests))


class Span(NamedTuple):
    """A piece of source, in bytes."""

    start: int
    stop: int

    @classmethod
    def of(cls, lines: Sequence[bytes], node: Any) -> "Span":
        before = [0]
        for line in lines:
            before.append(before[-1] + len(line))
        start = before[node.lineno - 1] + node.col_offset
        return cls(start, before[node.end_lineno - 1] + node.end_col_offset)


def changes_of(source: str) -> Iterator[tuple[str, str]]:
    """(what, new source) for every change of a module; `what` names function and condition."""
    raw = source.encode()
    lines = raw.splitlines(keepends=True)

    def put(node: Any, text: str) -> str:
        span = Span.of(lines, node)
        return (raw[: span.start] + text.encode() + raw[span.stop :]).decode()

    def said(node: Any) -> str:
        return " ".join(ast.unparse(node).split())[:70]

    tree = ast.parse(source)
    for scope in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
        for node in [n for n in ast.walk(scope) if owner(tree, n) is scope]:
            if isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], ast.Raise):
                yield f"{scope.name}: {said(node.test)}", put(node.test, "False")
                if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.Or):
                    for part in node.test.values:
                        yield f"{scope.name}: without {said(part)}", put(part, "False")
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                function = node.value.func
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                if CALLS.fullmatch(name):
                    yield f"{scope.name}: no {said(node.value)}", put(node, "pass")


def owner(tree: ast.AST, node: ast.AST) -> ast.AST | None:
    """The innermost function around a node."""
    links = getattr(tree, "owners", None)
    if links is None:
        links = {}

        def walk(at: ast.AST, scope: ast.AST | None) -> None:
            for child in ast.iter_child_nodes(at):
                links[id(child)] = scope
                walk(child, child if isinstance(child, ast.FunctionDef) else scope)

        walk(tree, None)
        tree.owners = links  # type: ignore[attr-defined]
    return links.get(id(node))


def found(group: str) -> Iterator[Change]:
    """The changes of a group's files."""
    folder, seen, taken = ROOT / "protocols", set(), set()
    for pattern, tests in FOUND.get(group, {}).items():
        for path in [p for p in sorted(folder.glob(pattern)) if p not in taken]:
            taken.add(path)
            file = f"protocols/{path.relative_to(folder)}"
            words = tuple(f"{T}/{test}" for test in tests)
            for what, text in changes_of(path.read_text(encoding="utf-8")):
                name = f"{file.removeprefix('protocols/').removesuffix('.py')}: {what}"
                while name in seen:
                    name += " (again)"
                seen.add(name)
                yield Change(name, group, file, text, words)


def build(folder: Path) -> None:
    """A tree in which `merveil.protocols` is a real folder; sources are copied, so one can be changed."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "merveil", folder / "merveil", ignore=skip)
    for part in ("protocols", "mer", "fl"):
        shutil.copytree(ROOT / part, folder / "merveil" / part, ignore=skip)
    shutil.copytree(ROOT / "tests" / "protocols", folder / "tests" / "protocols", ignore=skip)
    shutil.copytree(ROOT / "tests" / "vectors", folder / "tests" / "vectors", ignore=skip)
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", folder)


def fails(folder: Path, tests: Sequence[str]) -> bool:
    """Whether these tests notice; entries with options run by themselves, in order."""
    together = [t for t in tests if " " not in t]
    runs = ([together] if together else []) + [t.split() for t in tests if " " in t]
    for words in runs:
        code = forked(folder, ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", *words])
        if code is None or code in (1, 2):  # too long, a failure, or a module that no longer imports
            return True
        if code != 0:
            raise SystemExit(f"pytest {words} ended with {code}; see {folder / 'out'}")
    return False


def forked(folder: Path, words: Sequence[str]) -> int | None:
    """pytest in a child that has the heavy packages loaded but none of ours; None where it takes too long.

    A fresh interpreter for each mutant would spend more on imports than on tests.
    """
    child = os.fork()
    if child == 0:
        out = os.open(folder / "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        os.environ["NUMBA_CACHE_DIR"] = str(folder / "numba")
        signal.alarm(SECONDS)
        os._exit(int(pytest.main(list(words))))
    try:
        _, status = os.waitpid(child, 0)
    except KeyboardInterrupt:
        os.kill(child, signal.SIGKILL)
        raise
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None


def noticed(folder: Path, mutant: Change) -> bool:
    """By the tests that are meant for it, or else by the wide ones of its group."""
    return fails(folder, mutant.tests) or fails(folder, WIDE[mutant.group])


def run(folder: Path, chosen: Sequence[Change], kept: dict[str, Any], path: Path | None) -> list[Any]:
    """Results in order; the dead that `kept` has already are taken from there, survivors are tried again."""
    results = []
    for number, mutant in enumerate(chosen, 1):
        entry = kept.get(mutant.key)
        if entry is None or not entry["killed"]:
            place = folder / "merveil" / mutant.file
            place.write_text(mutant.text, encoding="utf-8")
            dead = noticed(folder, mutant)
            shutil.copy(ROOT / mutant.file, place)
            entry = {"key": mutant.key, "name": mutant.name, "group": mutant.group, "killed": dead}
            state = "killed  " if dead else "SURVIVED"
            print(f"{number}/{len(chosen)} {state} {mutant.name}", file=sys.stderr, flush=True)
            kept[mutant.key] = entry
        results.append(entry)
        if path is not None:
            keep(path, list(kept.values()))
    return results


def keep(path: Path, entries: list[Any]) -> None:
    """Written beside, then renamed."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps({"mutants": entries}, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def score(results: Sequence[Any]) -> dict[str, Any]:
    """Killed of those that can be killed, by group and in all."""
    live = [r for r in results if r["name"] not in EQUIVALENT]
    groups = sorted({r["group"] for r in live})
    by = {
        g: [sum(r["killed"] for r in live if r["group"] == g), sum(r["group"] == g for r in live)]
        for g in groups
    }
    return {
        "killed": sum(r["killed"] for r in live),
        "of": len(live),
        "groups": by,
        "equivalent": len(results) - len(live),
        "survivors": [r["name"] for r in live if not r["killed"]],
    }


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only mutants whose name contains one of these")
    parser.add_argument("--group", action="append", choices=["secagg", *FOUND], help="only this group")
    parser.add_argument("--json", type=Path, help="keep results there, and go on from what is there")
    parser.add_argument("--list", action="store_true", help="print names only")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    args = parse(words)
    groups = args.group or ["secagg", *FOUND]
    everything = [m for g in groups for m in (*listed(g), *found(g))]
    chosen = [m for m in everything if not args.words or any(w in m.name for w in args.words)]
    if args.list:
        print(*(f"{m.group:<7}{m.name}" for m in chosen), sep="\n")
        return 0
    kept = {}
    if args.json is not None and args.json.exists():
        kept = {e["key"]: e for e in json.loads(args.json.read_text(encoding="utf-8"))["mutants"]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        open_ = {test for m in chosen if m.key not in kept for test in m.tests}
        if open_ and not kept and fails(folder, sorted(open_)):
            raise SystemExit("the tests fail without any change")
        results = run(folder, chosen, kept, args.json)
    print(json.dumps(score(results), indent=1))
    return 1 if score(results)["survivors"] else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
