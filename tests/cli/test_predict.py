"""`merveil predict` on real video files: the answer, the picture, the JSON, and each bad input."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.cli import main
from merveil.mer.data import synthetic
from merveil.mer.data.archive import Archive, save_archive
from merveil.mer.data.meta import Meta
from merveil.mer.errors import InputError
from merveil.mer.features.opencv import opencv
from merveil.mer.predict import settings_of

SOURCE = synthetic.Source(4, 4, 2)


def film(path: Path, frames: np.ndarray) -> Path:
    cv2 = opencv()
    size = (frames.shape[2], frames.shape[1])
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25.0, size)
    if not out.isOpened():
        pytest.skip("this OpenCV cannot write FFV1 videos")
    for frame in frames:
        out.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    out.release()
    return path


def columns(made: Archive) -> dict[str, Any]:
    names = ("x", "y", "dataset", "subject", "clip", "site", "person", "meta")
    return {name: getattr(made, name) for name in names}


def train(data: Path, out: Path) -> Path:
    words = ["train", "--data", str(data), "--out", str(out), "--clients", "subject", "--rounds", "4", "-q"]
    assert main([*words, "--scheme", "plain"]) == 0
    return out


@pytest.fixture(scope="module")
def archive() -> Archive:
    return synthetic.synthetic_archive(SOURCE.subjects, SOURCE.clips, SOURCE.seed)


@pytest.fixture(scope="module")
def trained(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    return train(save_archive(folder / "a.npz", **columns(archive)), folder / "run")


@pytest.fixture(scope="module")
def clip() -> synthetic.Clip:
    strongest = max(
        (synthetic.make_clip(SOURCE, s, c) for s in range(2) for c in range(4)),
        key=lambda made: float(np.abs(made.truth.units).max()),
    )
    return strongest


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["predict", *words])
    return code, *capsys.readouterr()


def test_a_video_gets_a_label_and_a_picture(
    schema: Any, capsys: Any, trained: Path, clip: synthetic.Clip, tmp_path: Path
) -> None:
    video, picture = film(tmp_path / "clip.avi", clip.frames), tmp_path / "new" / "p.png"
    code, out, err = run(capsys, "--run", str(trained), str(video), "--out", str(picture), "--json")
    found = json.loads(out)
    assert code == 0 and schema.check(found, schema.load("predict")) == []
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert found["label"] == max(found["probabilities"], key=found["probabilities"].get)
    assert abs(found["apex"] - clip.apex) <= 3 and found["apex_source"] == "spotted"
    assert found["settings"]["flow"] == "dis" and found["frames"] == len(clip.frames)
    image = opencv().imread(str(picture))
    assert image.shape[1] == 840 and image.shape[0] > 800 and image.std() > 20
    assert found["answer"] == found["label"] and found["answering"] is None and found["fps"] == 25
    assert [w["apex"] for w in found["windows"]] == [found["apex"]] and found["face"]["angle"] == 0
    code, out, err = run(capsys, "--run", str(trained), str(video))
    assert code == 0 and out.splitlines()[0] == found["label"] and "apex frame" in err


def test_under_the_models_threshold_it_is_not_sure(
    schema: Any, capsys: Any, trained: Path, clip: synthetic.Clip, tmp_path: Path
) -> None:
    run_folder = shutil.copytree(trained, tmp_path / "run")
    head = run_folder / "model.json"
    value = json.loads(head.read_text())
    value["answering"] = {"threshold": 0.999, "coverage": 0.5, "temperature": 1.0, "clips": 40}
    head.write_text(json.dumps(value))
    video = film(tmp_path / "clip.avi", clip.frames)
    code, out, err = run(capsys, "--run", str(run_folder), str(video))
    assert (
        code == 0 and out.splitlines()[0] == "not sure" and "is under the model's threshold of 100 %" in err
    )
    code, out, _ = run(capsys, "--run", str(run_folder), str(video), "--json")
    found = json.loads(out)
    assert code == 0 and schema.check(found, schema.load("predict")) == []
    assert found["answer"] == "not sure" != found["label"] and found["answering"]["threshold"] == 0.999
    value["answering"] = {"threshold": 2, "coverage": 0.5, "temperature": 1.0, "clips": 40}
    head.write_text(json.dumps(value))
    code, _, err = run(capsys, "--run", str(run_folder), str(video))
    assert code == 2 and "answering rule is damaged" in err


def test_a_site_that_the_model_does_not_know(
    capsys: Any, trained: Path, clip: synthetic.Clip, tmp_path: Path
) -> None:
    video = film(tmp_path / "clip.avi", clip.frames)
    code, _, err = run(capsys, "--run", str(trained), str(video), "--site", "elsewhere")
    assert code == 2 and "--site elsewhere: the model knows none" in err


def test_windows_of_a_longer_video(
    schema: Any, capsys: Any, trained: Path, clip: synthetic.Clip, tmp_path: Path
) -> None:
    rest = np.repeat(clip.frames[:1], 30, axis=0)
    video = film(tmp_path / "long.avi", np.concatenate([rest, clip.frames, rest]))
    picture = tmp_path / "p.png"
    words = ("--run", str(trained), str(video), "--window", "24", "--fps", "50", "--out", str(picture))
    code, out, _ = run(capsys, *words, "--json")
    found = json.loads(out)
    assert code == 0 and schema.check(found, schema.load("predict")) == []
    assert abs(found["apex"] - 30 - clip.apex) <= 3 and found["fps"] == 50
    assert {w["state"] for w in found["looked_at"]} >= {"quiet", "moving"} and found["looked_at"][0][
        "start"
    ] == 0
    assert opencv().imread(str(picture)).shape[0] > 1000
    code, _, err = run(capsys, "--run", str(trained), str(video), "--window", "2")
    assert code == 2 and "--window must be at least 3" in err
    code, _, err = run(capsys, "--run", str(trained), str(video), "--fps", "0")
    assert code == 2 and "--fps must be positive" in err


def test_bad_clips_are_named_and_nothing_is_written(
    capsys: Any, trained: Path, clip: synthetic.Clip, tmp_path: Path
) -> None:
    picture = tmp_path / "p.png"
    noise = np.random.default_rng(0).integers(100, 130, (9, 120, 120), dtype=np.uint8)
    whole = film(tmp_path / "whole.avi", clip.frames).read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    cases = {
        film(tmp_path / "noface.avi", noise): "no face was found on the onset frame",
        film(tmp_path / "still.avi", np.repeat(clip.frames[:1], 9, axis=0)): "nothing moves in this clip",
        tmp_path / "half.avi": "is truncated or damaged",
        tmp_path / "empty.mp4": "is empty (0 bytes)",
        tmp_path / "none.mp4": "no such file or folder",
        film(tmp_path / "one.avi", clip.frames[:1]): "has only one frame",
    }
    for path, words in cases.items():
        code, out, err = run(capsys, "--run", str(trained), str(path), "--out", str(picture))
        assert (code, out) == (2, "") and words in err and path.name in err
    assert not picture.exists()


def test_a_run_that_is_none_and_a_wrong_picture_name(capsys: Any, trained: Path, tmp_path: Path) -> None:
    code, _, err = run(capsys, "--run", str(tmp_path), "x.mp4")
    assert code == 2 and "holds no finished model" in err
    code, _, err = run(capsys, "--run", str(trained), "x.mp4", "--out", str(tmp_path / "p.jpg"))
    assert code == 2 and "must end in .png" in err


def test_a_model_of_foreign_features_is_refused(
    capsys: Any, toy_file: Path, clip: synthetic.Clip, tmp_path: Path
) -> None:
    foreign = train(toy_file, tmp_path / "run")
    video = film(tmp_path / "clip.avi", clip.frames)
    code, _, err = run(capsys, "--run", str(foreign), str(video))
    assert code == 2 and "features that merveil's extractor did not make" in err


def test_channels_must_be_those_that_a_video_gives(archive: Archive) -> None:
    meta = archive.meta
    assert settings_of(meta).flow == "dis"
    turned = Meta(
        channels=("u", "v", "strain"), flow=meta.flow, normalisation=meta.normalisation, apex=meta.apex
    )
    with pytest.raises(InputError, match="reads channels u, v, strain, and a video gives strain, v, u"):
        settings_of(turned)
