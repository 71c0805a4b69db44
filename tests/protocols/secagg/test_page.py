"""The table of docs/secagg.md is what the code computes."""

from pathlib import Path

from merveil.protocols.registry import get

PAGE = Path(__file__).resolve().parents[3] / "docs" / "secagg.md"


def test_the_table_of_degrees_and_thresholds() -> None:
    text = PAGE.read_text(encoding="utf-8").split("<!-- table")[1].split("\n\n")[1].replace(",", "")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    assert len(rows) >= 20 and (int(rows[0][0]), int(rows[-1][0])) == (5, 10_000)
    for size, complete, floor, sparse, sparse_floor in rows:
        full, ring = get("secagg").params(int(size), 1), get("secagg+").params(int(size), 1)
        assert complete == f"{full.corrupt} / {full.threshold}" and int(floor) == full.honest
        shown = f"{ring.neighbours} / {ring.threshold} / {ring.corrupt}" if ring.neighbours else "complete"
        assert (sparse, int(sparse_floor)) == (shown, ring.honest)


def test_the_floors_that_other_pages_quote() -> None:
    for n, floor in ((24, 5), (100, 13), (1_000, 44), (10_000, 57)):
        assert get("secagg+").params(n, 1).honest == floor
