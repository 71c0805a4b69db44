"""What the documentation says can be done, can: its links lead somewhere and its examples run.

The schemes that the README calls present are those of the registry; docs/cli.md has every verb and no other.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from merveil.cli import VERBS
from merveil.protocols.registry import names

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CITED = re.compile(r"((?:tests|audits)/[\w/]+\.py)(?:::(test_\w+))?")
ROW = re.compile(r"^\| `([a-z+]+)` \|.*\| (yes|not yet) \|$", re.MULTILINE)


def pages() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def dead_links(text: str, folder: Path) -> list[str]:
    """Relative links whose file does not exist; addresses elsewhere and anchors are not looked up."""
    targets = [link.split("#")[0] for link in LINK.findall(text) if "://" not in link]
    return [target for target in targets if target and not (folder / target).exists()]


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page.read_text(encoding="utf-8"), page.parent) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    text = "[a](gone.md#top) [b](https://example.org/x) [c](#here)"
    assert dead_links(text, tmp_path) == ["gone.md"]


def missing_tests(text: str, root: Path) -> list[str]:
    """Test files and functions that a text names and that do not exist."""
    found = []
    for path, name in CITED.findall(text):
        file = root / path
        if not file.is_file() or (name and f"def {name}(" not in file.read_text(encoding="utf-8")):
            found.append(f"{path}::{name}")
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_cited_tests_exist(page: Path) -> None:
    assert missing_tests(page.read_text(encoding="utf-8"), ROOT) == []


def test_a_missing_test_is_found(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("def test_one() -> None:\n    pass\n", encoding="utf-8")
    text = "`tests/test_a.py::test_one` `tests/test_a.py::test_two` and tests/test_b.py"
    assert missing_tests(text, tmp_path) == ["tests/test_a.py::test_two", "tests/test_b.py::"]


EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{i}")
    for page in [ROOT / "README.md", ROOT / "docs" / "drop-in.md"]
    for i, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("block", EXAMPLES)
def test_examples_run_as_they_are_printed(block: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "an example shows something"


def test_readme_has_an_example() -> None:
    assert any(p.id and p.id.startswith("README") for p in EXAMPLES)


def test_readme_names_the_schemes_that_exist() -> None:
    rows = dict(ROW.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {name for name, state in rows.items() if state == "yes"} == set(names())


def test_list_of_decisions_is_complete() -> None:
    folder = ROOT / "docs" / "adr"
    listed = LINK.findall((folder / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(p.name for p in folder.glob("[0-9]*.md"))


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_is_there_and_light(verb: str) -> None:
    """`merveil VERB --help` answers without torch and the like, so at once and with the core alone."""
    code = (
        "import sys\nfrom merveil.cli import main\n"
        f"try:\n    main(['{verb}', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'cv2', 'matplotlib', 'numba', 'scipy', 'pytest'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert VERBS[verb][1] in " ".join(done.stdout.split())


def test_command_line_page_has_every_verb_and_no_other() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## merveil ([a-z-]+)$", text, re.MULTILINE)) == set(VERBS)
