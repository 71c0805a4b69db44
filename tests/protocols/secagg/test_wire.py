"""docs/wire.md names every purpose, kind and size of the messages of secagg."""

import re
from pathlib import Path

from merveil.protocols.secagg import keys
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.messages import Kind

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8").split("## SecAgg")[1]


def test_every_purpose_is_listed() -> None:
    found: set[str] = set()
    for path in (ROOT / "protocols" / "secagg").glob("*.py"):
        found |= set(re.findall(r'"secagg/1/([a-z-]+)"', path.read_text(encoding="utf-8")))
    assert len(found) >= 14
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE))
    assert listed == found - {"snapshot"}


def test_every_kind_is_listed_with_its_number() -> None:
    for kind in Kind:
        assert f"| {kind.value} | {kind.name} | " in PAGE


def test_sizes() -> None:
    sizes = {"revealed share": msg.REVEALED, "view": msg.VIEW, "box": msg.BOX, "share": msg.SHARE,
             "salt": msg.SALT, "nonce": msg.NONCE, "a word": keys.WORD}  # fmt: skip
    for name, size in sizes.items():
        assert f"{name} ({size})" in PAGE, name
    assert f"the {msg.BOX_PLAIN} bytes `held`" in PAGE
