"""The repository holds nothing that it must not: machine paths, hosts of registries, faces, keys, pickles.

Files are those that git tracks; in a copy without git (a source archive) those on disk outside of what
.gitignore names. Words that must not occur are spelt in pieces here, so that this file passes its own test.
"""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("merveil", "protocols", "fl", "mer", "attacks", "audits", "tests", "tools", "benchmarks", "examples")
TEXT = {".py", ".md", ".toml", ".yml", ".txt", ".json", ".j2", ".html", ".cfg", ".sh", ""}
PATHS = re.compile(r"(?<![\w.\-/])/(?:" + "|".join(["work", "root", "home", "Users", "opt"]) + r")/\w")
HOSTS = re.compile("|".join(["pypi" + r"\.org", "python" + "hosted", "index" + "-url", "find" + "-links"]))
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
DATA = {
    ".npz",
    ".npy",
    ".avi",
    ".mp4",
    ".mkv",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".pem",
    ".key",
    ".pkl",
    ".pt",
    ".pth",
}
PICTURES = "docs/img/"  # drawn by merveil or public domain; every other picture could be somebody's face
MOST_BYTES = 1_000_000


def tracked() -> list[str]:
    """Repository-relative paths of the files that belong to the repository."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
        return [p for p in listing.split("\0") if p and (ROOT / p).is_file()]
    skip = {".venv", "build", "dist", "site", "runs", "__pycache__"}
    files = [p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file()]
    return [p.as_posix() for p in files if not any(q in skip or q.startswith(".") for q in p.parts)]


def text_faults(path: str, text: str) -> list[str]:
    """Lines that name a place on somebody's machine or the host of a registry."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in (("machine path", PATHS), ("registry", HOSTS)):
            if pattern.search(line):
                found.append(f"{path}:{number}: {what}: {line.strip()[:80]}")
    return found


def file_faults(path: str, size: int) -> list[str]:
    """Files of data, keys or pictures outside of their folder, and files too large to be source."""
    suffix = Path(path).suffix.lower()
    found = []
    if suffix in DATA:
        found.append(f"{path}: data, video, photograph or key")
    if suffix == ".png" and not path.startswith(PICTURES):
        found.append(f"{path}: picture outside of {PICTURES}")
    if size > MOST_BYTES:
        found.append(f"{path}: {size} bytes")
    return found


def pickle_faults(path: str, tree: ast.Module) -> list[str]:
    """Whatever can run code from a file that is read: pickle and its kin, np.load with it, torch.load."""
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if any(name.split(".")[0] in PICKLES for name in names):
            found.append(f"{path}:{node.lineno}: imports {names}")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {k.arg: k.value for k in node.keywords}
        allow = options.get("allow_pickle")
        refused = isinstance(allow, ast.Constant) and allow.value is False
        if called in {"torch.load", "torch.save", "torch.jit.load"}:
            found.append(f"{path}:{node.lineno}: {called}")
        elif allow is not None and not refused:
            found.append(f"{path}:{node.lineno}: {called} with allow_pickle")
        elif called in {"np.load", "numpy.load"} and not refused:
            found.append(f"{path}:{node.lineno}: {called} without allow_pickle=False")
    return found


def except_faults(path: str, tree: ast.Module) -> list[str]:
    """Handlers that swallow everything; one that ends in a bare `raise` swallows nothing."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(k is None or ast.unparse(k) in {"Exception", "BaseException"} for k in kinds)
        last = node.body[-1]
        if broad and not (isinstance(last, ast.Raise) and last.exc is None):
            found.append(f"{path}:{node.lineno}: broad except")
    return found


def stub_faults(path: str, source: str) -> list[str]:
    """Notes to oneself, and functions that only say that they are missing."""
    notes = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME"]) + r")\b")
    lines = enumerate(source.splitlines(), 1)
    found = [f"{path}:{n}: unfinished: {line.strip()[:80]}" for n, line in lines if notes.search(line)]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and is_stub(node):
            found.append(f"{path}:{node.lineno}: {node.name} is a stub")
    return found


def is_stub(function: ast.FunctionDef) -> bool:
    """Nothing but NotImplementedError: an interface says `...` under @abstractmethod or in a Protocol."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return len(body) == 1 and isinstance(body[0], ast.Raise) and "NotImplementedError" in ast.unparse(body[0])


def code_files() -> dict[str, str]:
    files = [p for p in tracked() if p.endswith(".py") and p.split("/")[0] in CODE]
    return {p: (ROOT / p).read_text(encoding="utf-8") for p in files}


def test_no_machine_paths_and_no_registries() -> None:
    files = [p for p in tracked() if Path(p).suffix in TEXT and p != "LICENSE"]
    assert len(files) > 30, "the listing of files is empty, so this test would prove nothing"
    assert [f for p in files for f in text_faults(p, (ROOT / p).read_text(encoding="utf-8"))] == []


def test_no_data_no_faces_no_keys() -> None:
    assert [f for p in tracked() for f in file_faults(p, (ROOT / p).stat().st_size)] == []


def test_nothing_is_pickled() -> None:
    assert [f for p, text in code_files().items() for f in pickle_faults(p, ast.parse(text))] == []


def test_no_error_is_swallowed() -> None:
    assert [f for p, text in code_files().items() for f in except_faults(p, ast.parse(text))] == []


def test_nothing_is_left_unfinished() -> None:
    assert [f for p, text in code_files().items() for f in stub_faults(p, text)] == []


@pytest.mark.parametrize(
    "line",
    ["see /" + "work/x", 'open("/' + 'root/y")', "https://pypi" + ".org/simple", "pip --index" + "-url x"],
)
def test_a_path_or_registry_is_found(line: str) -> None:
    assert text_faults("a.md", f"first\n{line}")[0].startswith("a.md:2")
    assert text_faults("a.md", "docs/work/x, ../shared/data, https://example.org/home/x, n/root/x") == []


@pytest.mark.parametrize("path", ["mer/face.png", "x.npz", "keys/site.pem", "clip.AVI", "model.pt"])
def test_a_data_file_is_found(path: str) -> None:
    assert file_faults(path, 10)
    assert file_faults("docs/img/report.png", 10) == []
    assert file_faults("docs/img/report.png", 2_000_000)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import dump",
        "np.load(p)",
        "np.load(p, allow_pickle=True)",
        "np.save(p, x, allow_pickle=flag)",
        "torch.load(p)",
    ],
)
def test_a_pickle_is_found(line: str) -> None:
    assert pickle_faults("x.py", ast.parse(line))
    assert pickle_faults("x.py", ast.parse("np.load(p, allow_pickle=False)\nimport json")) == []


@pytest.mark.parametrize("kind", ["", " Exception", " (ValueError, Exception)", " BaseException as e"])
def test_a_broad_except_is_found(kind: str) -> None:
    assert except_faults("x.py", ast.parse(f"try:\n    f()\nexcept{kind}:\n    pass"))
    assert except_faults("x.py", ast.parse(f"try:\n    f()\nexcept{kind}:\n    g()\n    raise")) == []
    assert except_faults("x.py", ast.parse("try:\n    f()\nexcept (OSError, ValueError):\n    pass")) == []


def test_an_unfinished_line_is_found() -> None:
    assert stub_faults("x.py", "a = 1  # TO" + "DO later")
    assert stub_faults("x.py", "def f():\n    'It will.'\n    raise NotImplementedError('later')")
    assert (
        stub_faults("x.py", "todos = methodology\ntry:\n    f()\nexcept NotImplementedError:\n    g()") == []
    )
