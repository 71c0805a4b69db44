"""The two folder layouts of merveil's own: flow-folder (feature images) and video-folder (clips).

Both are ROOT/<dataset>/<subject>/<class>/<clip>. A tree that does not fit is refused whole, with the
expected tree and the first entry that does not match; nothing is skipped in silence.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.data.archive import Archive, make_archive
from merveil.mer.data.meta import CHANNELS, CLASSES, Meta
from merveil.mer.data.video import VIDEOS, frame_paths, visible
from merveil.mer.errors import InputError
from merveil.mer.features.opencv import opencv

LAYOUTS = ("flow-folder", "video-folder")
PART_TAKEN, PART_LEFT = "u_test", "u_train"  # STSTNet's extra level: u_test is the subject's own clips

EXPECTED = {
    "flow-folder": """ROOT/
  <dataset>/            e.g. smic
    <subject>/          e.g. s01
      negative|positive|surprise   (or 0|1|2)
        <clip>.png      three channels, all of one size""",
    "video-folder": """ROOT/
  <dataset>/            e.g. mylab
    <subject>/          e.g. s01
      negative|positive|surprise   (or 0|1|2)
        <clip>.mp4|.avi|.mkv   or
        <clip>/         a folder of numbered frames: 1.png, 2.png, ...""",
}
STSTNET_NOTE = """
STSTNet's level <subject>/u_test/<class>/ is accepted (u_train, other people's clips, is left out); where
ROOT itself holds such subjects, ROOT's name is the dataset."""


@dataclass(frozen=True)
class Item:
    """One clip of a tree: where it is and what its folders say."""

    path: Path
    label: int
    dataset: str
    subject: str
    clip: str


def expected_tree(layout: str) -> str:
    """The tree that a layout wants, as text for people."""
    check_layout(layout)
    return EXPECTED[layout] + (STSTNET_NOTE if layout == "flow-folder" else "")


def check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise InputError(f"unknown folder layout {layout!r}: choose one of {', '.join(LAYOUTS)}")


def scan(root: str | Path, layout: str) -> list[Item]:
    """All clips of a tree in a fixed order; InputError with the expected tree and the first mismatch."""
    check_layout(layout)
    top = Path(root)
    if not top.is_dir():
        raise InputError(f"{top} is {'a file, not a folder' if top.exists() else 'not there'}")
    try:
        items = list(_items(top, layout))
        if not items:
            raise InputError(f"{top} holds no clip")
        _refuse_twins(items)
    except InputError as error:
        raise InputError(f"{error}\nexpected tree of {layout}:\n{expected_tree(layout)}") from error
    return items


def _items(top: Path, layout: str) -> Iterator[Item]:
    entries = list(_folders(top, "a dataset"))
    if layout == "flow-folder" and any((e / PART_TAKEN).is_dir() for e in entries):
        for subject in entries:
            yield from _subject(subject, top.resolve().name, layout)
        return
    for dataset in entries:
        for subject in _folders(dataset, "a subject"):
            yield from _subject(subject, dataset.name, layout)


def _folders(parent: Path, what: str) -> Iterator[Path]:
    for entry in visible(parent):
        if not entry.is_dir():
            raise InputError(f"first mismatch: {entry} is a file where {what} folder is expected")
        yield entry


def _subject(folder: Path, dataset: str, layout: str) -> Iterator[Item]:
    home = folder
    if layout == "flow-folder" and (folder / PART_TAKEN).is_dir():
        extra = [e for e in visible(folder) if e.name not in (PART_TAKEN, PART_LEFT)]
        if extra:
            raise InputError(f"first mismatch: {extra[0]} beside {PART_TAKEN} of a subject")
        home = folder / PART_TAKEN
    for kind in _folders(home, "a class"):
        label = class_of(kind)
        for entry in visible(kind):
            yield Item(entry, label, dataset, folder.name, _clip_name(entry, layout))


def class_of(folder: Path) -> int:
    """0, 1, 2 from a class folder's name: negative, positive, surprise in any case, or the number."""
    name = folder.name.lower()
    if name in CLASSES:
        return CLASSES.index(name)
    if name in ("0", "1", "2"):
        return int(name)
    raise InputError(f"first mismatch: {folder} is not a class folder ({'|'.join(CLASSES)} or 0|1|2)")


def _clip_name(entry: Path, layout: str) -> str:
    if layout == "flow-folder":
        if entry.is_dir() or entry.suffix.lower() != ".png":
            raise InputError(f"first mismatch: {entry} is not a .png feature image")
        return entry.stem
    if entry.is_dir():
        frame_paths(entry)  # refuses what is not a folder of numbered frames
        return entry.name
    if entry.suffix.lower() not in VIDEOS:
        raise InputError(f"first mismatch: {entry} is neither {', '.join(VIDEOS)} nor a folder of frames")
    return entry.stem


def _refuse_twins(items: Sequence[Item]) -> None:
    seen: dict[tuple[str, str, str], Path] = {}
    for item in items:
        key = (item.dataset, item.subject, item.clip)
        if key in seen:
            raise InputError(f"{seen[key]} and {item.path} have the same dataset, subject and clip name")
        seen[key] = item.path


def parse_order(text: str) -> tuple[int, int, int]:
    """`strain,v,u` or another order of these three: where strain, v and u stand in the pictures."""
    words = [w.strip() for w in text.split(",")]
    if sorted(words) != sorted(CHANNELS):
        raise InputError(f"--order must name {', '.join(CHANNELS)} each once, e.g. u,v,strain; not {text!r}")
    first, second, third = (words.index(name) for name in CHANNELS)
    return first, second, third


def read_flow_folder(root: str | Path, order: str = "strain,v,u") -> Archive:
    """Feature images of a flow-folder tree as an Archive with channels strain, v, u.

    order: the channels of the pictures as OpenCV reads them (so a picture saved by Matlab as RGB = u, v,
    strain has order strain,v,u).
    """
    places = parse_order(order)
    items = scan(root, "flow-folder")
    images = [_read_image(item.path) for item in items]
    for item, image in zip(items, images):
        if image.shape != images[0].shape:
            raise InputError(
                f"{item.path} is {image.shape[1]}x{image.shape[0]} px, and {items[0].path} is "
                f"{images[0].shape[1]}x{images[0].shape[0]}: all feature images must have one size"
            )
    return make_archive(
        x=np.stack(images)[..., list(places)],
        **columns(items),
        meta=Meta(flow="unknown (read from pictures)", normalisation="uint8 as found", apex="unknown"),
    )


def columns(items: Sequence[Item]) -> dict[str, NDArray[Any]]:
    """Labels and names of an archive, in the order of the items."""
    return {
        "y": np.array([item.label for item in items], dtype=np.int64),
        "dataset": np.array([item.dataset for item in items]),
        "subject": np.array([item.subject for item in items]),
        "clip": np.array([item.clip for item in items]),
    }


def _read_image(path: Path) -> NDArray[np.uint8]:
    cv2 = opencv()
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise InputError(f"{path} is {'empty' if not data.size else 'not a readable picture'}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(
            f"{path} must have three 8-bit channels (strain, v, u); it is {image.dtype} {list(image.shape)}"
        )
    return np.asarray(image)


def describe_folder(path: str | Path, layout: str) -> dict[str, Any]:
    """What a tree holds, for `merveil check`; InputError with the expected tree and the first mismatch.

    Keys: layout, root, expected, clips, datasets {name: {clips, subjects}}, subjects, classes {name: n}.
    """
    items = scan(path, layout)
    people: dict[str, set[str]] = {}
    for item in items:
        people.setdefault(item.dataset, set()).add(item.subject)
    per_set = Counter(item.dataset for item in items)
    per_class = Counter(item.label for item in items)
    return {
        "layout": layout,
        "root": str(path),
        "expected": expected_tree(layout),
        "clips": len(items),
        "subjects": sum(len(names) for names in people.values()),
        "datasets": {d: {"clips": per_set[d], "subjects": len(people[d])} for d in sorted(people)},
        "classes": {name: per_class[i] for i, name in enumerate(CLASSES)},
    }
