"""`check` counts what is there and points at clips whose labels contradict their looks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.mer.data.archive import load_archive, make_archive
from merveil.mer.data.check import check_archive, describe, near_equal, report


def test_counts(toy_archive: Any, toy_file: Path) -> None:
    found = check_archive(toy_file)
    assert found["ok"] and found["problem"] is None
    assert (found["clips"], found["persons"], found["shape"]) == (60, 10, [28, 28, 3])
    assert found["classes"] == dict(zip(toy_archive.classes, np.bincount(toy_archive.y).tolist()))
    assert found["datasets"]["beta"] == {
        "clips": 30,
        "subjects": 5,
        "classes": dict(
            zip(toy_archive.classes, np.bincount(toy_archive.y[toy_archive.dataset == "beta"]).tolist())
        ),
    }
    json.dumps(found, allow_nan=False)
    text = report(found)
    assert "60 clips of 10 persons" in text and "beta: 30 clips, 5 subjects" in text


def test_a_fault_is_reported_not_raised(tmp_path: Path) -> None:
    found = check_archive(tmp_path / "absent.npz")
    assert not found["ok"] and "no such file" in found["problem"]
    assert "uint8|float32" in report(found)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_near_equal_clips_with_unequal_labels_are_listed(toy_data: Any, dtype: Any) -> None:
    data = toy_data(dtype=dtype, noise=2.0)
    data["x"][1] = data["x"][0]
    data["x"][1, 0, 0, 0] += 1  # one pixel apart, labels 0 and 1, one person
    data["x"][32] = data["x"][2]
    data["x"][32, 0, 0, 0] += 1  # equal labels, two persons
    archive = make_archive(**data)
    found = near_equal(archive)
    pairs = {tuple(pair["clips"]): pair for pair in found["unequal_labels"]}
    assert pairs[("alpha/s1/c1", "alpha/s1/c2")]["labels"] == ["negative", "positive"]
    assert found["unequal_labels"][0]["likeness"] > 0.99
    assert [pair["clips"] for pair in found["between_persons"]] == [["alpha/s1/c3", "beta/s1/c3"]]
    assert all(archive.y[2] != archive.y[0] for _ in pairs) and len(pairs) == found["unequal_labels_found"]


def test_likeness_is_a_correlation(toy_builder: Any) -> None:
    archive = toy_builder(persons=4, clips=4, size=8)
    found = near_equal(archive, near=-1.0, copy=2.0)
    first = found["unequal_labels"][0]
    rows = [[archive.key(i) for i in range(archive.n)].index(name) for name in first["clips"]]
    a, b = (archive.x[i].astype(float) for i in rows)
    a, b = ((v - v.mean(axis=(0, 1))).ravel() for v in (a, b))
    assert first["likeness"] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-4)
    assert len(found["unequal_labels"]) == 20 < found["unequal_labels_found"]


def test_flat_images_are_like_nothing(toy_data: Any) -> None:
    data = toy_data(persons=4, clips=4, size=8)
    data["x"][0], data["x"][1] = 7, 9
    found = near_equal(make_archive(**data), near=1e-6)
    assert found["unequal_labels"] and not any(
        "alpha/s1/c1" in pair["clips"] for pair in found["unequal_labels"]
    )


@pytest.mark.data
def test_real_archive_has_one_doubtful_pair(real_file: Path) -> None:
    found = describe(load_archive(real_file))
    assert found["unequal_labels_found"] == 1
    assert found["unequal_labels"][0]["clips"] == ["smic/s04/s04_po_04", "smic/s04/s04_sur_05"]
    assert found["between_persons_found"] == 0
