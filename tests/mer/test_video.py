"""Reading clips: numeric order, grey frames, and each way in which a file can be bad."""

from pathlib import Path

import numpy as np
import pytest

from merveil.mer.data import video
from merveil.mer.errors import InputError
from merveil.mer.features.opencv import opencv

CODECS = {".mp4": "mp4v", ".avi": "FFV1", ".mkv": "FFV1"}


def film(count: int = 12, side: int = 64) -> np.ndarray:
    ramp = np.linspace(20, 200, count).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 40, (count, side, side), dtype=np.uint8)
    return ramp[:, None, None] + noise


def write_video(path: Path, frames: np.ndarray) -> Path:
    cv2 = opencv()
    size = (frames.shape[2], frames.shape[1])
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*CODECS[path.suffix]), 25.0, size)
    if not out.isOpened():
        pytest.skip(f"this OpenCV cannot write {path.suffix}")
    for frame in frames:
        out.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    out.release()
    return path


def write_frames(folder: Path, frames: np.ndarray, name: str = "img{}.png") -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames, 1):
        opencv().imwrite(str(folder / name.format(index)), frame)
    return folder


@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_videos_are_read_whole_and_in_order(tmp_path: Path, suffix: str) -> None:
    frames = film()
    found = video.read_clip(write_video(tmp_path / f"a{suffix}", frames))
    assert found.shape == frames.shape and found.dtype == np.uint8
    assert np.abs(found.astype(float) - frames).mean() < 8
    assert (np.diff(found.reshape(12, -1).mean(axis=1)) > 0).all()


def test_frame_folders_are_sorted_by_number(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", film(12))
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")
    assert (video.read_clip(folder) == film(12)).all()  # 2 before 10


@pytest.mark.parametrize("suffix, share", [(".mp4", 0.5), (".avi", 0.5), (".mkv", 0.5), (".mp4", 0.02)])
def test_truncated_videos_are_refused(
    tmp_path: Path, suffix: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write_video(tmp_path / f"a{suffix}", film(30)).read_bytes()
    bad = tmp_path / f"bad{suffix}"
    bad.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        InputError, match=r"bad\.\w+ (is truncated or damaged|cannot be opened|holds no frame)"
    ):
        video.read_clip(bad)


@pytest.mark.parametrize(
    "name, data, words",
    [
        ("a.mp4", b"", "is empty .0 bytes."),
        ("a.mp4", b"not a video at all" * 50, "cannot be opened as a video"),
        ("a.mov", b"x", "is not a clip: use .mp4"),
        ("a.txt", b"x", "is not a clip"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        video.read_clip(tmp_path / name)


def test_missing_single_and_empty_clips(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        video.read_clip(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="has only one frame"):
        video.read_clip(write_video(tmp_path / "one.avi", film(1)))
    with pytest.raises(InputError, match="has only one frame"):
        video.read_clip(write_frames(tmp_path / "single", film(1)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no frames"):
        video.read_clip(tmp_path / "empty")


def test_faults_of_frame_folders_name_the_frame(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "sizes", film(4))
    opencv().imwrite(str(folder / "img5.png"), film(1, 32)[0])
    with pytest.raises(InputError, match=r"img5.png is 32x32 px, and the first frame of its clip is 64x64"):
        video.read_clip(folder)
    (folder / "img5.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"img5.png is empty"):
        video.read_clip(folder)
    (folder / "img5.png").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"img5.png is not a readable picture"):
        video.read_clip(folder)
    (folder / "img5.png").rename(folder / "b02.png")
    with pytest.raises(InputError, match="are both frame number 2"):
        video.read_clip(folder)
    (folder / "b02.png").rename(folder / "last.png")
    with pytest.raises(InputError, match=r"last.png has no number"):
        video.read_clip(folder)
    (folder / "last.png").rename(folder / "notes1.txt")
    with pytest.raises(InputError, match=r"notes1.txt is not a frame"):
        video.read_clip(folder)


def test_endless_clips_are_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "long.avi", film(9))
    monkeypatch.setattr(video, "MAX_FRAMES", 8)
    with pytest.raises(InputError, match="more than 8 frames"):
        video.read_clip(path)


def test_content_hash_ignores_names_and_sees_pixels(tmp_path: Path) -> None:
    one = write_frames(tmp_path / "a", film(3))
    two = write_frames(tmp_path / "b", film(3), "frame_{}.png")
    assert video.content_hash(one) == video.content_hash(two)
    opencv().imwrite(str(two / "frame_2.png"), film(3)[2])
    assert video.content_hash(one) != video.content_hash(two)
