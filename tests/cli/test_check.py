"""`merveil check`: what is there, what was expected, the first mismatch; its JSON and exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["check", *words])
    return code, *capsys.readouterr()


def test_a_valid_archive(schema: Any, capsys: Any, toy_file: Path) -> None:
    code, out, _ = run(capsys, str(toy_file), "--json")
    found = json.loads(out)
    assert code == 0 and schema.check(found, schema.load("check")) == []
    assert (found["ok"], found["clips"], found["persons"]) == (True, 60, 10)
    code, out, _ = run(capsys, str(toy_file))
    assert code == 0 and "60 clips of 10 persons" in out and "near-equal clips with unequal labels" in out


def test_a_fault_in_json_and_for_people(schema: Any, capsys: Any, toy_data: Any, tmp_path: Path) -> None:
    data = toy_data()
    data["y"][0] = 5
    np.savez(tmp_path / "bad.npz", **data)
    code, out, _ = run(capsys, str(tmp_path / "bad.npz"), "--json")
    found = json.loads(out)
    assert code == 2 and schema.check(found, schema.load("check")) == []
    assert not found["ok"] and "label 5 of clip 0" in found["problem"]
    code, out, err = run(capsys, str(tmp_path / "bad.npz"))
    assert (code, out) == (2, "") and "label 5 of clip 0" in err and "expected: an .npz archive" in err


def write_tree(root: Path, data: dict[str, Any]) -> None:
    cv2 = pytest.importorskip("cv2")
    names = ("negative", "positive", "surprise")
    for x, y, dataset, subject, clip in zip(*(data[key] for key in ("x", "y", "dataset", "subject", "clip"))):
        folder = root / dataset / subject / names[y]
        folder.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / f"{clip}.png"), x)


def test_a_flow_folder(schema: Any, capsys: Any, toy_data: Any, tmp_path: Path) -> None:
    write_tree(tmp_path / "root", toy_data(persons=4))
    words = (str(tmp_path / "root"), "--layout", "flow-folder")
    code, out, _ = run(capsys, *words, "--json")
    found = json.loads(out)
    assert code == 0 and schema.check(found, schema.load("check")) == []
    assert (found["kind"], found["clips"], found["persons"], found["shape"]) == (
        "flow-folder",
        24,
        4,
        [28, 28, 3],
    )
    assert "24 clips of 4 persons" in run(capsys, *words)[1]
    (tmp_path / "root" / "alpha" / "s1" / "angry").mkdir()
    code, out, _ = run(capsys, *words, "--json")
    found = json.loads(out)
    assert code == 2 and schema.check(found, schema.load("check")) == []
    assert (
        "first mismatch" in found["problem"]
        and "angry" in found["problem"]
        and "<subject>/" in found["expected"]
    )
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "") and "angry" in err and "<clip>.png" in err


def test_layout_is_for_folders_and_must_be_known(capsys: Any, toy_file: Path, tmp_path: Path) -> None:
    for words, text in (
        ((str(toy_file), "--layout", "flow-folder"), "is for folders"),
        ((str(tmp_path),), "say its --layout, one of flow-folder"),
        ((str(tmp_path), "--layout", "nosuch"), "nosuch"),
        ((str(tmp_path), "--layout", "flow-folder"), "holds no clip"),
        ((str(tmp_path / "absent"),), "no such file"),
    ):
        code, out, err = run(capsys, *words)
        assert (code, out) == (2, "") and text in err


def test_an_annotated_set_and_its_first_mismatch(schema: Any, sets: Any, capsys: Any, tmp_path: Path) -> None:
    table = sets.make(tmp_path / "set", "samm")
    words = (str(tmp_path / "set"), "--layout", "samm")
    code, out, err = run(capsys, *words, "--json")
    found = json.loads(out)
    assert code == 0 and schema.check(found, schema.load("check")) == []
    assert (
        found["apex"] == {"annotated": 2, "to be spotted": 1} and found["left_out"] and found["faults"] == []
    )
    assert "the complete set has 133 of 28" in err
    code, out, _ = run(capsys, *words)
    assert code == 0 and "3 clips of 2 persons" in out and "apex: annotated 2, to be spotted 1" in out
    rows = [(*row[:2], "x", *row[3:]) for row in sets.ROWS["samm"][:3]]
    table.unlink()
    sets.write_table(tmp_path / "set", "samm", rows)
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "") and "row 15: onset is 'x'" in err and "(the first of 3 faults)" in err
    assert "  also SAMM" in err and "006_05562.jpg" in err and "Onset Frame" in err
    code, out, _ = run(capsys, *words, "--json")
    found = json.loads(out)
    assert code == 2 and schema.check(found, schema.load("check")) == [] and len(found["faults"]) == 3
    code, out, err = run(capsys, str(tmp_path / "set"), "--layout", "flow-folder", "--classes", "3")
    assert code == 2 and "--classes: for annotated sets alone" in err
    code, out, err = run(capsys, *words, "--numbering", "odd")
    assert code == 2 and "unknown numbering 'odd'" in err


def test_check_and_compare_load_no_heavy_package(toy_file: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from merveil.cli import main\n"
        "main(['check', sys.argv[1]])\n"
        "main(['compare-runs', sys.argv[1], sys.argv[1]])\n"
        "heavy = {'torch', 'cv2', 'tenseal', 'flwr', 'numba', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(toy_file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "60 clips" in done.stdout and "not a CSV file" in done.stderr
