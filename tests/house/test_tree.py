"""The package list, the folders on disk and the tests' own imports agree."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BARE = ("protocols", "fl", "mer", "attacks")


def listed() -> tuple[dict[str, str], set[str]]:
    """Package name -> top folder, and the packages that are installed, from pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)["tool"]["setuptools"]
    return table["package-dir"], set(table["packages"])


def on_disk(root: Path, places: dict[str, str]) -> set[str]:
    """Dotted names of all folders under the mapped ones that hold Python files."""
    found = set()
    for name, place in places.items():
        for folder in [root / place, *(root / place).rglob("*")]:
            if folder.name != "__pycache__" and folder.is_dir() and any(folder.glob("*.py")):
                found.add(".".join([name, *folder.relative_to(root / place).parts]))
    return found


def test_every_package_on_disk_is_installed_and_no_other() -> None:
    places, packages = listed()
    assert on_disk(ROOT, places) == packages


def test_a_package_that_nobody_listed_is_found(tmp_path: Path) -> None:
    (tmp_path / "house" / "room").mkdir(parents=True)
    (tmp_path / "house" / "room" / "door.py").write_text("", encoding="utf-8")
    assert on_disk(tmp_path, {"merveil.house": "house"}) == {"merveil.house.room"}


def test_every_package_has_an_init_and_every_top_one_is_typed() -> None:
    places, packages = listed()
    for package in packages:
        top = max((n for n in places if package == n or package.startswith(n + ".")), key=len)
        folder = ROOT.joinpath(places[top], *package.removeprefix(top).strip(".").split("."))
        assert (folder / "__init__.py").is_file(), f"{package} has no __init__.py"
    for place in places.values():
        assert (ROOT / place / "py.typed").is_file(), f"{place} has no py.typed"


def test_no_bare_copy_of_a_package_is_loaded() -> None:
    """A second copy of a module under a bare name has its own exception classes, which nobody catches."""
    assert [m for m in sys.modules if m.split(".")[0] in BARE] == []
