"""docs/wire.md and docs/lattice.md say what the code does."""

import re
from pathlib import Path

from merveil.protocols.lattice import Lattice
from merveil.protocols.lattice.constants import CAPS
from merveil.protocols.lattice.messages import Kind
from merveil.protocols.lattice.params import hint_sigma

ROOT = Path(__file__).resolve().parents[3]
WIRE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8").split("## Lattice")[1]
PAGE = (ROOT / "docs" / "lattice.md").read_text(encoding="utf-8")


def test_every_purpose_kind_and_degree_is_listed() -> None:
    found: set[str] = set()
    for path in (ROOT / "protocols" / "lattice").glob("*.py"):
        found |= set(re.findall(r'"(lattice/1/[a-z-]+)"', path.read_text(encoding="utf-8")))
    listed = set(re.findall(r"^\| `(lattice/1/[a-z-]+)` \|", WIRE, re.MULTILINE))
    assert listed == found - {"lattice/1/snapshot", "lattice/1/keyed-snapshot"} and len(listed) == 5
    for kind in Kind:
        assert f"| {kind.value} | {kind.name} | " in WIRE
    for name in ("degree", "values", "members", "quorum", "corrupt_members", "pack"):
        assert f"`{name}=`" in WIRE
    for degree, cap in CAPS.items():
        assert str(degree) in WIRE and f"{cap}" in WIRE
    assert Lattice().suite == 4


def test_the_figures_of_the_page() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("| deviation that is left"))
    shown = [float(x) for x in row.strip("|").split("|")[1:]]
    assert [round(hint_sigma(h), 2) for h in (2, 3, 5, 10, 10**9)] == shown
    p = Lattice().params(1_000, 10, members=30, corrupt_members=18)
    assert (p.quorum, p.pack) == (25, 7)
    p = Lattice().params(1_000, 10, members=100, corrupt_members=34)
    assert (p.quorum, p.pack) == (68, 34)
