"""`merveil compare-runs`: a paired interval over the same clips, and refusal of anything else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.cli import main
from merveil.mer.baselines import kernel_ridge_predictions, majority_predictions
from merveil.mer.data.splits import kfold, loso
from merveil.mer.predictions import write_predictions


@pytest.fixture
def files(toy_archive: Any, tmp_path: Path) -> tuple[Path, Path]:
    folds = loso(toy_archive)
    a = write_predictions(tmp_path / "a.csv", toy_archive, folds, majority_predictions(toy_archive, folds))
    b = write_predictions(
        tmp_path / "b.csv", toy_archive, folds, kernel_ridge_predictions(toy_archive, folds)
    )
    return a, b


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, Any, str]:
    code = main(["compare-runs", *map(str, words), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def test_the_better_run_is_better(schema: Any, capsys: Any, files: tuple[Path, Path]) -> None:
    code, found, _ = run(capsys, *files)
    assert code == 0 and schema.check(found, schema.load("compare-runs")) == []
    gain = found["difference"]["uf1"]
    assert gain["difference"] == pytest.approx(found["b"]["uf1"] - found["a"]["uf1"])
    assert 0 < gain["ci95"][0] < gain["difference"] < gain["ci95"][1] and gain["p"] <= 4 / 1024
    assert (found["clips"], found["subjects"], found["same_folds"]) == (60, 10, True)
    back = run(capsys, files[1], files[0])[1]["difference"]["uf1"]
    assert back["difference"] == pytest.approx(-gain["difference"])
    same = run(capsys, files[1], files[1])[1]
    assert same["difference"]["uf1"] == {"difference": 0.0, "ci95": [0.0, 0.0], "p": 1.0}
    assert same["mcnemar"] == {"only_a": 0, "only_b": 0, "p": 1.0} and same["equal_predictions"] == 60


def test_rows_may_be_in_any_order(capsys: Any, files: tuple[Path, Path], tmp_path: Path) -> None:
    head, *rows = files[1].read_text().splitlines()
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    (tmp_path / "s.csv").write_text("\n".join([head, *shuffled]) + "\n")
    assert run(capsys, files[0], tmp_path / "s.csv")[1]["b"]["uf1"] == run(capsys, *files)[1]["b"]["uf1"]


def test_people_get_lines(capsys: Any, files: tuple[Path, Path], toy_archive: Any, tmp_path: Path) -> None:
    folds = kfold(toy_archive, 3, 0)
    other = write_predictions(
        tmp_path / "k.csv", toy_archive, folds, majority_predictions(toy_archive, folds)
    )
    assert main(["compare-runs", str(other), str(files[1])]) == 0
    out = capsys.readouterr().out
    for said in ("60 clips of 10 people", "uf1", "95 % interval", "McNemar", "in different folds"):
        assert said in out


def test_result_folders_and_linked_persons(capsys: Any, files: tuple[Path, Path], tmp_path: Path) -> None:
    for name, file, link in (("A", files[0], "p1"), ("B", files[1], "p1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "predictions.csv").write_bytes(file.read_bytes())
        result = {"linked_persons": {"alpha/s1": link, "beta/s1": link}}
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    code, found, _ = run(capsys, tmp_path / "A", tmp_path / "B")
    assert code == 0 and found["subjects"] == 9
    (tmp_path / "B" / "result.json").write_text(json.dumps({"linked_persons": {"alpha/s1": "p2"}}))
    code, _, err = run(capsys, tmp_path / "A", tmp_path / "B")
    assert code == 2 and "alpha/s1 is person 'p1' in one result and 'p2' in the other" in err
    (tmp_path / "B" / "result.json").write_text("{")
    assert run(capsys, tmp_path / "A", tmp_path / "B")[0] == 2


def test_other_clips_are_refused(capsys: Any, files: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = files
    lines = b.read_text().splitlines()
    cases = {
        "fewer": ("\n".join(lines[:-1]), "B lacks beta/s5/c6 (1 in all)"),
        "other": (b.read_text().replace("beta,s5,c6", "beta,s5,c7"), "B lacks beta/s5/c6"),
        "truth": (
            b.read_text().replace("alpha,s1,c1,alpha/s1,0", "alpha,s1,c1,alpha/s1,1"),
            "differ in the truth of alpha/s1/c1",
        ),
        "classes": (
            "\n".join(line + (",p3" if i == 0 else ",0.0") for i, line in enumerate(lines)),
            "A has 3 classes and B 4",
        ),
        "broken": ("hello", "the first line must be"),
    }
    for name, (text, fault) in cases.items():
        file = tmp_path / f"{name}.csv"
        file.write_text(text)
        code, found, err = run(capsys, a, file)
        assert (code, found) == (2, None) and fault in err
    assert "A lacks" in run(capsys, tmp_path / "fewer.csv", b)[2]
    (tmp_path / "empty").mkdir()
    assert "holds no predictions.csv" in run(capsys, a, tmp_path / "empty")[2]
    assert "no such prediction file" in run(capsys, a, tmp_path / "absent.csv")[2]
    assert run(capsys, a, b, "--seed", "-1")[0] == 2
