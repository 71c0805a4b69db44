"""The import law, read off the syntax trees: who may import whom, and which packages may appear where.

protocols -> nothing of ours; mer -> nothing of ours; fl -> mer, protocols; attacks -> fl and below;
audits -> attacks and below; merveil (facade and command line) -> all. Light modules reach no heavy package
through imports at module level, so `import merveil` and every `merveil VERB --help` stay fast.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("merveil", "protocols", "fl", "mer", "attacks", "audits")
BARE = {"protocols", "fl", "mer", "attacks", "audits", "tests", "tools", "benchmarks"}

MAY_IMPORT = {
    "protocols": set[str](),
    "mer": set[str](),
    "fl": {"mer", "protocols"},
    "attacks": {"fl", "mer", "protocols"},
    "audits": {"attacks", "fl", "mer", "protocols"},
    "merveil": {"audits", "attacks", "fl", "mer", "protocols"},
}
TORCH_SIDE = {"numpy", "scipy", "torch", "safetensors"}
THIRD_PARTY = {
    "protocols": {"numpy", "cryptography"},
    "mer": {*TORCH_SIDE, "cv2", "openpyxl"},
    "fl": {*TORCH_SIDE, "cryptography"},
    "attacks": TORCH_SIDE,
    "audits": {*TORCH_SIDE, "pytest", "xdist"},
    "merveil": {*TORCH_SIDE, "cv2", "jinja2", "matplotlib", "onnx", "onnxruntime", "tensorboard"},
}
# path prefix -> packages allowed there beyond the table above
ALSO = {
    "protocols/lattice/": {"numba"},
    "protocols/ckks/": {"numba", "tenseal"},
    "mer/models/": {"numba"},
    "mer/data/portrait": {"skimage"},  # the public-domain photograph, for tests and examples
    "fl/train": {"tensorboard"},
    "merveil/cli/audit": {"pytest", "xdist"},
    "merveil/report/": {"markupsafe"},  # comes with jinja2
    "fl/flower": {"flwr"},
    "fl/nvflare": {"nvflare"},
    "fl/privacy": {"dp_accounting", "opacus"},  # accountants
}
# The core has no clock, no sockets and no threads of its own; randomness comes from its Rng.
NOT_IN_PROTOCOLS = {"random", "time", "datetime", "socket", "threading", "multiprocessing", "asyncio"}
# The one door of the core reads the clock for a caller who passes no time, to check a roster's expiry.
AT_THE_DOOR = {"protocols/api.py": {"time"}}
HEAVY = {"torch", "cv2", "tenseal", "flwr", "opacus", "dp_accounting", "numba", "matplotlib", "scipy"}
HEAVY |= {
    "nvflare",
    "jinja2",
    "openpyxl",
    "safetensors",
    "onnx",
    "onnxruntime",
    "tensorboard",
    "pytest",
    "xdist",
}


class Import(NamedTuple):
    module: str  # absolute dotted name, "" for a relative import
    line: int
    at_import: bool  # runs when the module is imported, so not inside a function or a type-checking block


def imports(tree: ast.Module) -> Iterator[Import]:
    """Every import statement and every `import_module`/`need` call with a literal name."""
    for node, at_import in walk(tree, True):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_import)
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                yield Import("", node.lineno, at_import)
                continue
            if node.module != "merveil":
                yield Import(node.module, node.lineno, at_import)
            for alias in node.names:  # `from merveil import mer` and `from merveil.mer import train`
                if node.module.split(".")[0] == "merveil":
                    yield Import(f"{node.module}.{alias.name}", node.lineno, at_import)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "need", "__import__"}:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield Import(first.value, node.lineno, at_import)


def called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes below `node`, each with whether it runs at import time."""
    for child in ast.iter_child_nodes(node):
        now = at_import and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for line in child.body:
                yield line, False
                yield from walk(line, False)
            for line in child.orelse:
                yield line, now
                yield from walk(line, now)
            continue
        yield child, now
        yield from walk(child, now)


def part_of(module: str) -> str | None:
    """Which part of ours a dotted name belongs to, None when it is not ours."""
    names = module.split(".")
    if names[0] != "merveil":
        return None
    return names[1] if len(names) > 1 and names[1] in FOLDERS[1:] else "merveil"


def direction_faults(path: str, tree: ast.Module) -> list[str]:
    """Imports that go against the law, relative ones, and bare folder names."""
    home = path.split("/")[0]
    faults = []
    for item in imports(tree):
        where, top = f"{path}:{item.line}", item.module.split(".")[0]
        part = part_of(item.module)
        if not item.module:
            faults.append(f"{where}: relative import")
        elif top in BARE:
            faults.append(f"{where}: bare import of {item.module}")
        elif home in MAY_IMPORT and part not in {None, home, *MAY_IMPORT[home]}:
            faults.append(f"{where}: {home} imports {item.module}")
    return faults


def third_party_faults(path: str, tree: ast.Module) -> list[str]:
    """Packages that the law does not allow in this part of the house."""
    home = path.split("/")[0]
    allowed = set(THIRD_PARTY[home])
    for prefix, names in ALSO.items():
        if path.startswith(prefix):
            allowed |= names
    faults = []
    for item in imports(tree):
        top = item.module.split(".")[0]
        if not top or top in sys.stdlib_module_names or part_of(item.module):
            continue
        if top not in allowed and top not in BARE:
            faults.append(f"{path}:{item.line}: {home} imports {top}")
    return faults


def protocol_faults(path: str, tree: ast.Module) -> list[str]:
    """Clocks, sockets, threads and non-cryptographic randomness inside the protocol core."""
    banned = NOT_IN_PROTOCOLS - AT_THE_DOOR.get(path, set())
    faults = []
    for item in imports(tree):
        if item.module.split(".")[0] in banned or item.module == "numpy.random":
            faults.append(f"{path}:{item.line}: protocols imports {item.module}")
    for node in ast.walk(tree):
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if isinstance(node, ast.Name):
            name = node.id
        if name in {"np.random", "numpy.random"} or name.split(".")[-1] in {"RandomState", "default_rng"}:
            faults.append(f"{path}:{node.lineno}: protocols uses {name}")
    return faults


def heavy_paths(trees: Mapping[str, ast.Module], light: set[str]) -> list[str]:
    """Ways from a light module to a heavy package through imports at module level.

    trees: dotted module name -> tree. A package's parents are imported with it, so they count too.
    """
    faults, seen = [], set[str]()
    queue = [(name, name) for name in sorted(light)]
    while queue:
        module, way = queue.pop()
        if module in seen or module not in trees:
            continue
        seen.add(module)
        for item in imports(trees[module]):
            if not item.at_import:
                continue
            if item.module.split(".")[0] in HEAVY:
                faults.append(f"{way} -> {item.module} (line {item.line})")
            names = item.module.split(".")
            queue += [(".".join(names[: i + 1]), f"{way} -> {item.module}") for i in range(len(names))]
    return faults


def module_name(path: str) -> str:
    names = path.removesuffix(".py").split("/")
    names = names if names[0] == "merveil" else ["merveil", *names]
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def sources(*folders: str) -> dict[str, ast.Module]:
    """Repository-relative path -> syntax tree of every Python file under the folders."""
    files = [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]
    return {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text(encoding="utf-8")) for p in files}


def light_modules(names: set[str]) -> set[str]:
    """What must load fast: the facade, every verb, the errors, and the protocols that the core runs."""
    light = {"merveil", "merveil.fl", "merveil.fl.aggregator", "merveil.mer", "merveil.mer.errors"}
    light |= {n for n in names if n == "merveil.cli" or n.startswith("merveil.cli.")}
    apart = ("merveil.protocols.lattice", "merveil.protocols.ckks")
    return light | {n for n in names if n.startswith("merveil.protocols") and not n.startswith(apart)}


def test_imports_go_one_way() -> None:
    everything = sources(*FOLDERS, "tests", "tools", "benchmarks", "examples")
    assert [fault for path, tree in everything.items() for fault in direction_faults(path, tree)] == []


def test_third_party_packages_stay_in_their_rooms() -> None:
    assert [
        fault for path, tree in sources(*FOLDERS).items() for fault in third_party_faults(path, tree)
    ] == []


def test_protocols_have_no_clock_no_threads_and_no_weak_randomness() -> None:
    assert [
        fault for path, tree in sources("protocols").items() for fault in protocol_faults(path, tree)
    ] == []


def test_light_modules_reach_nothing_heavy() -> None:
    trees = {module_name(path): tree for path, tree in sources(*FOLDERS).items()}
    assert heavy_paths(trees, light_modules(set(trees))) == []


def test_light_modules_load_nothing_heavy_in_a_real_process() -> None:
    light = "merveil, merveil.cli, merveil.fl.aggregator, merveil.mer.errors, merveil.mer.extras"
    code = f"import sys, {light}\nprint(sorted(set({sorted(HEAVY)}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path, line",
    [
        ("protocols/x.py", "from merveil.mer.errors import InputError"),
        ("protocols/x.py", "import merveil"),
        ("mer/x.py", "def f():\n    from merveil.protocols import errors"),
        ("fl/x.py", "from merveil import attacks"),
        ("fl/x.py", "from merveil.cli import say"),
        ("attacks/x.py", "import merveil.audits.claims"),
        ("audits/test_x.py", "from merveil.report import build"),
        ("mer/x.py", "from .errors import InputError"),
        ("tests/fl/test_x.py", "import protocols.errors"),
        ("tests/fl/test_x.py", "from mer import train"),
        ("mer/x.py", "importlib.import_module('merveil.fl')"),
    ],
)
def test_law_catches_a_wrong_direction(path: str, line: str) -> None:
    assert direction_faults(path, ast.parse(line))


@pytest.mark.parametrize(
    "path, line",
    [
        ("fl/x.py", "from merveil import mer\nfrom merveil.protocols.errors import LocalError"),
        ("protocols/x.py", "from merveil.protocols.errors import LocalError"),
        ("merveil/cli/x.py", "from merveil.report.html import write"),
        ("tests/fl/test_x.py", "import merveil\nfrom merveil.attacks import registry"),
    ],
)
def test_law_allows_the_right_direction(path: str, line: str) -> None:
    assert direction_faults(path, ast.parse(line)) == []


@pytest.mark.parametrize(
    "path, line",
    [
        ("protocols/x.py", "import torch"),
        ("protocols/secagg/x.py", "def f():\n    import numba"),
        ("protocols/lattice/x.py", "import tenseal"),
        ("mer/x.py", "import skimage"),
        ("mer/x.py", "need('flwr', 'flower')"),
        ("fl/driver.py", "from flwr.client import ClientApp"),
        ("attacks/x.py", "import cv2"),
    ],
)
def test_law_catches_a_package_in_the_wrong_room(path: str, line: str) -> None:
    assert third_party_faults(path, ast.parse(line))
    assert third_party_faults("protocols/lattice/x.py", ast.parse("import numba")) == []
    assert third_party_faults("protocols/x.py", ast.parse("import json\nimport numpy as np")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import random",
        "import threading",
        "from time import monotonic",
        "np.random.seed(1)",
        "numpy.random.default_rng()",
        "from numpy.random import default_rng",
        "rng = RandomState(3)",
    ],
)
def test_law_catches_clock_thread_and_weak_randomness(line: str) -> None:
    assert protocol_faults("protocols/x.py", ast.parse(line))
    assert protocol_faults("protocols/x.py", ast.parse("import os\nrng.draw(32, 'random')")) == []


def test_law_follows_imports_to_the_heavy_package() -> None:
    trees = {
        "merveil": ast.parse("from merveil.a import b"),
        "merveil.a": ast.parse(""),
        "merveil.a.b": ast.parse("import os\nclass C:\n    import torch"),
        "merveil.lazy": ast.parse("if TYPE_CHECKING:\n    import torch\ndef f():\n    import cv2"),
    }
    assert heavy_paths(trees, {"merveil.lazy"}) == []
    assert heavy_paths(trees, {"merveil"}) == ["merveil -> merveil.a.b -> torch (line 3)"]
