"""Folder layouts: what is accepted, the channel order, and the first mismatch of a tree that does not fit."""

from pathlib import Path

import numpy as np
import pytest

from merveil.mer.data import folders
from merveil.mer.errors import InputError
from merveil.mer.features.opencv import opencv


def picture(path: Path, seed: int, shape: tuple[int, ...] = (28, 28, 3)) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert opencv().imwrite(str(path), image)
    return image


def tree(root: Path, level: str = "") -> dict[str, np.ndarray]:
    """Two data sets with equal subject names, classes by name and by number."""
    made = {}
    for seed, (dataset, subject, kind) in enumerate(
        [("lab", "s1", "negative"), ("lab", "s1", "Positive"), ("lab", "s2", "2"), ("other", "s1", "0")]
    ):
        path = root / dataset / subject / level / kind / f"clip{seed}.png"
        made[f"{dataset}/{subject}/clip{seed}"] = picture(path, seed)
    return made


def test_a_tree_becomes_an_archive(tmp_path: Path) -> None:
    made = tree(tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    found = folders.read_flow_folder(tmp_path)
    assert {found.key(i): int(found.y[i]) for i in range(found.n)} == {
        "lab/s1/clip0": 0, "lab/s1/clip1": 1, "lab/s2/clip2": 2, "other/s1/clip3": 0
    }  # fmt: skip
    assert all((found.x[i] == made[found.key(i)]).all() for i in range(found.n))
    assert found.persons() == ["lab/s1", "lab/s2", "other/s1"]
    assert found.meta.channels == ("strain", "v", "u") and found.x.dtype == np.uint8


@pytest.mark.parametrize(
    "order, places",
    [("strain,v,u", (0, 1, 2)), ("u, v, strain", (2, 1, 0)), ("v,strain,u", (1, 0, 2))],
)
def test_order_brings_channels_to_strain_v_u(tmp_path: Path, order: str, places: tuple[int, ...]) -> None:
    made = tree(tmp_path)
    found = folders.read_flow_folder(tmp_path, order)
    assert (found.x[0] == made[found.key(0)][..., list(places)]).all()


@pytest.mark.parametrize("order", ["", "u,v", "u,v,v", "r,g,b"])
def test_a_wrong_order_is_refused(tmp_path: Path, order: str) -> None:
    with pytest.raises(InputError, match="--order must name strain, v, u each once"):
        folders.read_flow_folder(tmp_path, order)


def test_ststnet_level_takes_the_test_part_only(tmp_path: Path) -> None:
    made = tree(tmp_path, "u_test")
    picture(tmp_path / "lab" / "s1" / "u_train" / "0" / "stranger.png", 99)
    found = folders.read_flow_folder(tmp_path)
    assert {found.key(i) for i in range(found.n)} == set(made)


def test_ststnet_root_without_data_sets_is_one_data_set(tmp_path: Path) -> None:
    tree(tmp_path, "u_test")
    found = folders.read_flow_folder(tmp_path / "lab")
    assert found.persons() == ["lab/s1", "lab/s2"]


def test_video_folder_takes_videos_and_frame_folders(tmp_path: Path) -> None:
    home = tmp_path / "lab" / "s1" / "surprise"
    picture(home / "a" / "1.png", 0, (32, 32))
    picture(home / "a" / "2.png", 1, (32, 32))
    (home / "b.mp4").write_bytes(b"looked into later")
    found = folders.describe_folder(tmp_path, "video-folder")
    assert (found["clips"], found["subjects"], found["classes"]["surprise"]) == (2, 1, 2)
    assert found["datasets"] == {"lab": {"clips": 2, "subjects": 1}}
    assert [i.clip for i in folders.scan(tmp_path, "video-folder")] == ["a", "b"]


def spoil(root: Path, fault: str) -> None:
    place = root / "lab" / "s1" / "negative"
    if fault == "loose file":
        (root / "readme.txt").write_text("x")
    elif fault == "class name":
        place.rename(place.with_name("happy"))
    elif fault == "no class level":
        (root / "lab" / "s1" / "x.png").write_bytes(b"x")
    elif fault == "not a picture":
        (place / "notes.txt").write_text("x")
    elif fault == "beside u_test":
        (root / "lab" / "s1" / "u_test").mkdir()
    elif fault == "twins":
        picture(root / "lab" / "s1" / "1" / "clip0.png", 50)


@pytest.mark.parametrize(
    "fault, words",
    [
        ("loose file", r"first mismatch: .*readme.txt is a file where a dataset folder is expected"),
        ("class name", r"first mismatch: .*happy is not a class folder \(negative\|positive\|surprise or 0"),
        ("no class level", r"x.png is a file where a class folder is expected"),
        ("not a picture", r"notes.txt is not a .png feature image"),
        ("beside u_test", r"first mismatch: .* beside u_test of a subject"),
        ("twins", r"have the same dataset, subject and clip name"),
    ],
)
def test_the_first_mismatch_is_named_with_the_expected_tree(tmp_path: Path, fault: str, words: str) -> None:
    tree(tmp_path)
    spoil(tmp_path, fault)
    with pytest.raises(InputError, match=words) as error:
        folders.describe_folder(tmp_path, "flow-folder")
    assert "expected tree of flow-folder:\nROOT/\n  <dataset>/" in str(error.value)


def test_missing_empty_and_unknown(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        folders.scan(tmp_path / "none", "flow-folder")
    with pytest.raises(InputError, match="holds no clip"):
        folders.scan(tmp_path, "video-folder")
    with pytest.raises(
        InputError, match="unknown folder layout 'x': choose one of flow-folder, video-folder"
    ):
        folders.describe_folder(tmp_path, "x")


@pytest.mark.parametrize(
    "shape, words",
    [
        ((28, 28), "must have three 8-bit channels"),
        ((28, 28, 4), "three 8-bit"),
        ((14, 28, 3), "is 28x14 px"),
    ],
)
def test_pictures_of_another_kind_are_refused(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    tree(tmp_path)
    picture(tmp_path / "lab" / "s1" / "negative" / "odd.png", 7, shape)
    with pytest.raises(InputError, match=words):
        folders.read_flow_folder(tmp_path)


@pytest.mark.parametrize("data, words", [(b"", "is empty"), (b"junk", "not a readable picture")])
def test_damaged_pictures_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    tree(tmp_path)
    (tmp_path / "lab" / "s1" / "negative" / "odd.png").write_bytes(data)
    with pytest.raises(InputError, match=words):
        folders.read_flow_folder(tmp_path)
