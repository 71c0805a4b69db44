"""One source for what a sum tells: the docs' table is rendered from it, and the warnings quote it."""

from pathlib import Path

import pytest

from merveil.fl.sum_leakage import figures, table, warning

DOCS = Path(__file__).parents[2] / "docs" / "attacks.md"


def test_the_table_in_the_docs_is_the_data() -> None:
    assert table() in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("model", "clients", "said"),
    [
        ("ststnet", 5, "0.960"),
        ("ststnet", 9, "0.960"),
        ("flow-mlp", 19, "1.000"),
        ("flow-softmax", 5, "0.853"),
        ("rcn", 12, "0.704 to 1.000"),
    ],
)
def test_a_small_cohort_is_told_the_measured_figure(model: str, clients: int, said: str) -> None:
    text = warning(model, clients)
    assert f"{clients} clients" in text and f"AUC {said} on" in text


def test_from_the_floor_on_nothing_is_said() -> None:
    assert figures()["floor"] == 20
    assert warning("ststnet", 20) == "" != warning("ststnet", 19)
