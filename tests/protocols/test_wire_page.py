"""docs/wire.md names every purpose string, suite and field of the code."""

import re
from dataclasses import fields
from pathlib import Path

from merveil.protocols.params import Params
from merveil.protocols.registry import get, names

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")


def test_every_purpose_of_the_core_is_listed() -> None:
    core: set[str] = set()
    for path in [*(ROOT / "protocols").glob("*.py"), *(ROOT / "protocols" / "primitives").glob("*.py")]:
        core |= set(re.findall(r'[^b]"([a-z]+/1(?:/[a-z-]+)?)"', path.read_text(encoding="utf-8")))
    assert {"frame/1/sign", "context/1", "roster/1/hash"} <= core
    missing = {p for p in core if f"`{p}`" not in PAGE}
    assert not missing, f"docs/wire.md does not list {sorted(missing)}"


def test_every_suite_and_parameter_is_listed() -> None:
    for name in names():
        assert f"{get(name).suite} `{name}`" in PAGE
    for f in fields(Params):
        assert re.search(rf"^    {f.name}=", PAGE, re.MULTILINE), f.name
