"""`merveil compare` and `merveil demo`: the report, its twins, resuming, and bad input."""

import json
import re
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("jinja2")

from merveil.attacks import runner
from merveil.attacks.scenario import Setting
from merveil.cli import main
from merveil.mer.data.archive import Archive, save_archive
from merveil.report import measure, png, svg
from merveil.report.collect import Settings, stages
from merveil.report.mechanism import parse_all

SMALL = {
    "one-clip": Setting(clips=1, cohort=6, rounds=1),
    "few-clips": Setting(clips=2, cohort=6, rounds=2),
    "small-sum": Setting(clips=2, cohort=5, rounds=2),
    "weighted": Setting(clips=1, cohort=6, rounds=1, weighted=True),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few clients and rounds: verdicts do not matter here, the way to the page does."""
    for name, setting in SMALL.items():
        monkeypatch.setitem(runner.SETTINGS, name, setting)
    monkeypatch.setattr(runner, "COHORTS", (2, 5))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return _save(tmp_path / "waves.npz")


def _save(path: Path, dataset: str = "waves & co") -> Path:
    spec = util.spec_from_file_location("waves", Path(__file__).parents[1] / "attacks" / "conftest.py")
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    a: Archive = module.smooth_archive(persons=9, clips=4)
    names = np.full(a.n, dataset)
    return save_archive(path, x=a.x, y=a.y, dataset=names, subject=a.subject, clip=a.clip, meta=a.meta)


def compare(data: Path, out: Path, *more: str) -> int:
    words = ["compare", "--data", str(data), "--out", str(out), "--rounds", "2", "--protocol", "kfold:3"]
    return main([*words, *more])


def test_report_is_one_file_and_its_twins_agree(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], schema: Any
) -> None:
    out = tmp_path / "report"
    assert compare(data, out, "--schemes", "plain,secagg", "--json") == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert schema.check(result, schema.load("compare")) == []
    assert result == json.loads((out / "report.json").read_text())
    plain, secure = result["schemes"]
    assert secure["recognition"]["same_as_plain"] is True
    assert secure["cost"]["uplink_bytes_per_client"] > plain["cost"]["uplink_bytes_per_client"]
    assert [p["cohort"] for p in result["sums"][0]["points"]] == [2, 5]
    page = (out / "report.html").read_text()
    assert not re.search(r"<script|<link|https?://|url\(|src=\"(?!data:)", page)
    assert "waves &amp; co" in page and "waves & co" not in page
    assert page.count('<img alt="rebuilt under') == 12 and "Synthetic faces" not in page
    text = (out / "report.md").read_text()
    for value in (f"{plain['recognition']['uf1']:.3f}", result["data"]["sha256"], "yes, to the last bit"):
        assert value in text
    total = stages(Settings("", parse_all("plain,secagg")))
    assert f"[{total}/{total}]" in said.err and "open " in said.err


def test_noise_is_a_mechanism_of_its_own(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], schema: Any
) -> None:
    out = tmp_path / "report"
    chosen = "plain,secagg,secagg:distributed:4,plain:central:4"
    assert compare(data, out, "--schemes", chosen, "--norm-clip", "0.5", "--json") == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert schema.check(result, schema.load("compare")) == []
    plain, secure, noisy, central = result["schemes"]
    assert noisy["mechanism"] == {"scheme": "secagg", "dp": "distributed", "epsilon": 4}
    for row in (noisy, central):
        private = row["recognition"]["privacy"]
        assert private["epsilon"] <= 4 and private["norm_clip"] == 0.5
        assert row["recognition"]["same_as_plain"] is False and "differential privacy" in row["guarantee"]
    assert plain["recognition"]["privacy"] is None and noisy["leakage"] == secure["leakage"]
    assert [p["name"] for p in result["noisy_sums"]] == ["exact sum", noisy["name"], central["name"]]
    exact, distributed, _ = result["noisy_sums"]
    assert distributed["score"] < exact["score"]
    page = (out / "report.html").read_text()
    assert "what differential privacy buys" in page and page.count('<svg class="frontier"') == 2
    assert "What noise leaves of the sum" in (out / "report.md").read_text()
    total = stages(Settings("", parse_all(chosen)))
    assert f"[{total}/{total}]" in said.err


def test_a_second_run_reuses_parts_and_another_seed_does_not(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    assert compare(data, out, "--schemes", "plain") == 0
    first = (out / "report.json").read_text()
    monkeypatch.setattr(measure, "recognition", lambda *_: pytest.fail("trained again"))
    assert compare(data, out, "--schemes", "plain") == 0
    again = json.loads((out / "report.json").read_text())
    assert {**again, "seconds": 0} == {**json.loads(first), "seconds": 0}
    assert capsys.readouterr().err.count("from an earlier run") == 5
    with pytest.raises(pytest.fail.Exception):
        compare(data, out, "--schemes", "plain", "--seed", "1")


def test_an_interrupt_leaves_parts_and_no_report(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    out = tmp_path / "report"
    with monkeypatch.context() as patch:
        patch.setattr(measure, "cost", stop)
        assert compare(data, out, "--schemes", "plain") == 130
    assert sorted(p.name for p in out.iterdir()) == ["parts"]
    assert (out / "parts" / "recognition-plain.json").exists()
    (out / "parts" / "recognition-plain.json").write_text("{damaged")  # is made again
    assert compare(data, out, "--schemes", "plain") == 0
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--schemes", "plain,rot13"], "no scheme 'rot13'"),
        (["--schemes", "plain,plain"], "each mechanism to compare once"),
        (["--schemes", "plain,plain:distributed"], "is no mechanism"),
        (["--schemes", "plain,plain:sgd:8"], "is no mechanism"),
        (["--schemes", "plain,plain:central:lots"], "must be a positive number"),
        (["--schemes", "plain,plain:central:nan"], "must be a positive number"),
        (["--schemes", "plain,secagg:distributed:8"], "add secagg to --schemes"),
        (["--model", "nope"], "no model 'nope'"),
        (["--rounds", "0"], "1 or more"),
        (["--protocol", "kfold"], "kfold"),
    ],
)
def test_bad_options(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], word: str
) -> None:
    assert compare(data, tmp_path / "report", *more) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_folder_with_other_files_is_left_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert compare(data, tmp_path / "mine") == 2
    assert "holds other files" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert compare(data, data) == 2


def test_too_few_clips_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--data", "synthetic:subjects=3,clips=1", "--out", str(tmp_path / "r")]) == 2
    assert "room for" in capsys.readouterr().err


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2")
    out = tmp_path / "demo"
    words = ["demo", "--out", str(out), "--subjects", "9", "--clips", "4", "--rounds", "1"]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "synthetic clips to flow and strain" in said and "in a browser" in said
    assert "Synthetic faces" in (out / "report.html").read_text()
    assert main(["check", str(out / "data" / "clips.npz")]) == 0


def test_png_decodes_to_the_same_pixels() -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    read = cv2.imdecode(np.frombuffer(png.encode(pixels), np.uint8), cv2.IMREAD_COLOR)
    assert (read[..., ::-1] == pixels).all()


def test_motion_picture_is_dark_where_nothing_moves() -> None:
    still = np.full((8, 8, 3), 77.0)
    assert png.motion(still, ("strain", "v", "u")).max() <= 16
    moved = still.copy()
    moved[2, 3, 2] += 5
    picture = png.motion(moved, ("strain", "v", "u"))
    assert picture[2, 3].max() > 200 and picture[6, 6].max() <= 16


def test_whisker_places_value_interval_and_chance() -> None:
    drawn = svg.whisker(0.5, (0.25, 2.0), 0.0, (0.0, 1.0), "bad", "a < b")
    assert 'cx="85.0"' in drawn and 'x1="46.0"' in drawn and 'x2="163.0"' in drawn and "a &lt; b" in drawn
