"""Read one clip, a video file or a folder of numbered frames, as grey frames; or say what is wrong."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.features.opencv import opencv

VIDEOS = (".mp4", ".avi", ".mkv")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MAX_FRAMES = 3000
MAX_BYTES = 2**30  # of grey frames in memory
IGNORED = ("thumbs.db", "desktop.ini")

Gray = NDArray[np.uint8]


def visible(folder: Path) -> list[Path]:
    """Entries of a folder by name, without hidden files and those that desktops leave behind."""
    entries = (p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in IGNORED)
    return sorted(entries)


def frame_paths(folder: Path) -> list[Path]:
    """The numbered frames of a folder in numeric order (2 before 10): the last number in each name counts."""
    numbered: dict[int, Path] = {}
    for path in visible(folder):
        if path.suffix.lower() not in PICTURES or not path.is_file():
            raise InputError(
                f"{path} is not a frame: a frame folder holds numbered {', '.join(PICTURES)} only"
            )
        numbers = re.findall(r"\d+", path.stem)
        if not numbers:
            raise InputError(f"{path} has no number in its name, so its place in the clip is unknown")
        number = int(numbers[-1])
        if number in numbered:
            raise InputError(f"{path} and {numbered[number].name} are both frame number {number}")
        numbered[number] = path
    if not numbered:
        raise InputError(f"{folder} holds no frames: give a folder of numbered pictures or a video file")
    return [numbered[number] for number in sorted(numbered)]


@dataclass(frozen=True, eq=False)
class Film:
    """frames: grey uint8 [t, h, w]. fps: frames a second, None where the container does not say. scale: size
    of a frame over its size in the file, 1 unless the film would not fit into memory."""

    frames: Gray
    fps: float | None
    scale: float


def read_film(path: str | Path) -> Film:
    """An ordinary video or a folder of frames; one that would need more than 1 GiB is shrunk to fit.

    InputError as `read_clip` has it, and for more than 3000 frames.
    """
    file = Path(path)
    if file.is_dir() or file.suffix.lower() not in VIDEOS or not file.is_file() or not file.stat().st_size:
        return Film(read_clip(file), None, 1.0)
    fps, total, size = _properties(file)
    room = MAX_BYTES / max(min(total, MAX_FRAMES) + 1, 1)
    scale = min(1.0, float(np.sqrt(room / size))) if size > room else 1.0
    return Film(_stack(_read_video(file, scale), file), fps, scale)


def read_clip(path: str | Path) -> Gray:
    """All frames of a clip, grey uint8 [t, h, w], t >= 2.

    InputError: missing, empty, unreadable or truncated file, unknown kind, one frame only, frames of
    different sizes, or more than 3000 frames or 1 GiB (cut the clip to the expression first).
    """
    file = Path(path)
    if file.is_dir():
        frames = _read_pictures(frame_paths(file))
    elif not file.exists():
        raise InputError(f"{file}: no such file or folder")
    elif file.suffix.lower() not in VIDEOS:
        raise InputError(f"{file} is not a clip: use {', '.join(VIDEOS)}, or a folder of numbered frames")
    else:
        frames = _read_video(file)
    return _stack(frames, file)


def _stack(frames: list[Gray], file: Path) -> Gray:
    if len(frames) < 2:
        raise InputError(f"{file} has only one frame: movement needs at least two")
    return np.stack(frames)


def read_frames(paths: Sequence[Path]) -> Gray:
    """The named pictures as one clip, grey uint8 [t, h, w]; InputError as read_clip has it."""
    return np.stack(_read_pictures(paths))


def _read_pictures(paths: Sequence[Path]) -> list[Gray]:
    cv2 = opencv()
    frames: list[Gray] = []
    for path in paths:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        frame = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
        if frame is None:
            raise InputError(f"{path} is {'empty' if not data.size else 'not a readable picture'}")
        _append(frames, frame, f"{path}")
    return frames


def _append(frames: list[Gray], frame: Gray, name: str) -> None:
    if frames and frame.shape != frames[0].shape:
        raise InputError(
            f"{name} is {frame.shape[1]}x{frame.shape[0]} px, and the first frame of its clip is "
            f"{frames[0].shape[1]}x{frames[0].shape[0]}: all frames of a clip must have one size"
        )
    if len(frames) >= MAX_FRAMES or (len(frames) + 1) * frame.size > MAX_BYTES:
        raise InputError(f"{name}: more than {MAX_FRAMES} frames or 1 GiB: cut the clip to the expression")
    frames.append(frame)


@contextmanager
def _capture(file: Path) -> Iterator[Any]:
    """An open video; InputError when it is empty or cannot be opened."""
    cv2 = opencv()
    if file.stat().st_size == 0:
        raise InputError(f"{file} is empty (0 bytes)")
    with file.open("rb"):  # an unreadable file is the system's error, not a bad video
        pass
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: FFmpeg would write beside our message
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we say what is wrong, once
    capture = cv2.VideoCapture(str(file))
    try:
        if not capture.isOpened():
            raise InputError(f"{file} cannot be opened as a video: damaged, truncated or not a video")
        yield capture
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(level)


def _properties(file: Path) -> tuple[float | None, int, int]:
    """Frames a second (None: not said), promised frames, pixels a frame."""
    cv2 = opencv()
    with _capture(file) as capture:
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    return (fps if 1 <= fps <= 10_000 else None), max(total, 0), max(size, 1)


def _read_video(file: Path, scale: float = 1.0) -> list[Gray]:
    cv2 = opencv()
    with _capture(file) as capture:
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        frames = _decode(capture, str(file), scale)
    if not frames:
        raise InputError(f"{file} holds no frame that can be decoded: damaged or truncated")
    if promised > len(frames) + 1:  # one is the rounding of containers that store only a duration
        raise InputError(f"{file} is truncated or damaged: {len(frames)} of {promised} frames can be decoded")
    return frames


def _decode(capture: Any, name: str, scale: float = 1.0) -> list[Gray]:
    cv2 = opencv()
    frames: list[Gray] = []
    while True:
        good, frame = capture.read()
        if not good:
            return frames
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        if scale < 1:
            gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        _append(frames, gray, f"{name}, frame {len(frames)}")


def content_hash(path: str | Path) -> str:
    """SHA-256 over a clip's bytes; for a folder over the frames in numeric order, names left out."""
    file = Path(path)
    return files_hash(frame_paths(file) if file.is_dir() else [file])


def files_hash(paths: Sequence[Path]) -> str:
    """SHA-256 over the contents of files in their order, names left out."""
    digest = hashlib.sha256()
    for part in paths:
        digest.update(hashlib.sha256(part.read_bytes()).digest())
    return digest.hexdigest()
