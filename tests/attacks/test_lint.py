"""Attacks read views: their files import neither the scenario that knows the truth nor client state."""

import ast
from pathlib import Path

import pytest

import merveil.attacks
from merveil.attacks.registry import attacks, get
from merveil.mer.errors import InputError

FOLDER = Path(merveil.attacks.__path__[0])
FILES = sorted(FOLDER.glob("a[0-9][0-9]_*.py"))
ALLOWED = {
    "merveil.attacks.adversaries",
    "merveil.attacks.base",
    "merveil.attacks.ckks",
    "merveil.attacks.ckks_forge",
    "merveil.attacks.findings",
    "merveil.attacks.gram",
    "merveil.attacks.noise",
    "merveil.attacks.plays",
    "merveil.attacks.a25_span",
    "merveil.attacks.a27_membership",
    "merveil.attacks.a26_labels",
    "merveil.attacks.inversion",
    "merveil.attacks.membership",
    "merveil.attacks.reading",
    "merveil.attacks.reconstruction",
    "merveil.attacks.replay",
    "merveil.attacks.seer",
    "merveil.attacks.stats",
    "merveil.attacks.wire",
    "merveil.protocols.codec",
    "merveil.protocols.frame",
    "merveil.protocols.rng",
}


def imported(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "merveil.attacks":
            found |= {f"merveil.attacks.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name for name in found if name.startswith("merveil")}


# Protocol attacks hold real sessions' frames and compute with the schemes' public algorithms.
PLAYED = {
    "merveil.attacks.clock",
    "merveil.attacks.lattice",
    "merveil.attacks.opening",
    "merveil.attacks.protocol",
    "merveil.mer.extras",
}
PLAYED |= {f"merveil.attacks.{name}" for name in ("a01_short_seed", "a03_replay", "a04_double_claim")}


def played(path: Path) -> bool:
    """Whether a file's attacks are played on fields."""
    return 'setting="protocol"' in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_an_attack_imports_nothing_that_knows_the_truth(path: Path) -> None:
    names = imported(ast.parse(path.read_text()))
    if played(path):
        names = {n for n in names - PLAYED if not n.startswith("merveil.protocols.")}
    assert names <= ALLOWED, f"{path.name} imports {sorted(names - ALLOWED)}"


@pytest.mark.parametrize("path", [p for p in FILES if played(p)], ids=lambda p: p.stem)
def test_a_played_attack_asks_its_field_for_nothing_private(path: Path) -> None:
    """The honest side's sessions, vectors and keys lie behind names with an underscore; stealing is A33's."""
    source = path.read_text()
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute)]
    for node in [n for n in nodes if isinstance(n.value, ast.Name) and n.value.id in ("view", "round_")]:
        assert not node.attr.startswith("_"), f"{path.name}:{node.lineno} {node.attr}"
        assert node.attr != "scorer"
        assert node.attr != "steal" or "A33" in source


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_infer_never_touches_a_truth(path: Path) -> None:
    tree = ast.parse(path.read_text())
    modules = {name.rpartition(".")[2] for name in imported(tree)}  # lattice.members is a function
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("infer"):
            assert [a.arg for a in node.args.args] == ["view", "public", "rng"]
            inside = [n for n in ast.walk(node) if isinstance(n, ast.Attribute)]
            touched = {n.attr for n in inside if getattr(n.value, "id", "") not in modules}
            assert not touched & {"truth", "held", "members", "owners", "states"}


def test_the_lint_sees_a_forbidden_import() -> None:
    bad = ast.parse(
        "from merveil.attacks import scenario\nfrom merveil.fl.aggregator import SecureAggregator"
    )
    assert imported(bad) == {"merveil.attacks.scenario", "merveil.fl.aggregator"}


def test_registry_finds_every_file_and_names_the_unknown() -> None:
    from_files = {path.stem.split("_")[0].upper() for path in FILES}
    assert {name.split("-")[0] for name in attacks()} == from_files
    assert get("a24").id == "A24"
    with pytest.raises(InputError, match="there is no attack 'A99'; there are: A01"):
        get("A99")


def test_every_attack_declares_its_adversary_and_thresholds() -> None:
    for attack in attacks().values():
        assert attack.adversary.corrupted and attack.adversary.powers and attack.plain_words.endswith("?")
        assert 0 < attack.rule.success <= 1 and 0 < attack.rule.margin < attack.rule.success
