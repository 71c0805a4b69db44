"""pyproject.toml's ranges and constraints.txt's exact pins are about the same releases."""

import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
UNPINNED = {"uv"}  # brought by flwr, never called by merveil


def pins(text: str) -> dict[str, str]:
    """Package -> exact release; every line that is no comment must be one pin."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (clause,) = requirement.specifier
            assert clause.operator == "==" and requirement.url is None, line
            found[canonicalize_name(requirement.name)] = clause.version
    return found


def direct() -> list[Requirement]:
    """All direct requirements of merveil with every extra, without the extras that name merveil itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [r for group in groups for line in group if (r := Requirement(line)).name != "merveil"]


def unpinned(start: list[Requirement], known: dict[str, str]) -> set[str]:
    """Names without a pin among what the installed packages ask for, from `start` on."""
    seen: set[tuple[str, str]] = set()
    queue = [(canonicalize_name(r.name), extra) for r in start for extra in ["", *r.extras]]
    while queue:
        name, extra = step = queue.pop()
        if step in seen:
            continue
        seen.add(step)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # not for this platform, or an environment without that extra
            continue
        for needed in map(Requirement, lines):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                queue += [(canonicalize_name(needed.name), e) for e in ["", *needed.extras]]
    return {name for name, _ in seen if name not in known}


def text() -> str:
    return (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_every_direct_requirement_has_a_pin_inside_its_range() -> None:
    known = pins(text())
    for requirement in direct():
        release = known.get(canonicalize_name(requirement.name))
        assert release is not None, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(release), f"{requirement} does not allow {release}"


def test_everything_that_comes_with_them_is_pinned_too() -> None:
    assert unpinned(direct(), pins(text())) <= UNPINNED


def test_a_missing_pin_is_found() -> None:
    known = pins(text())
    del known["cffi"]  # comes with cryptography
    assert "cffi" in unpinned(direct(), known)


def test_pins_name_no_place() -> None:
    assert not any(word in text() for word in ("://", "@ ", "--", "file:"))
