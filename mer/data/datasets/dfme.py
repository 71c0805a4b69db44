"""DFME (Zhao et al. 2023): 200 to 500 frames a second, in parts; folders by part and emotion."""

import re
from pathlib import Path

from merveil.mer.data.datasets.emotions import NEGATIVE, POSITIVE, SURPRISE, Emotions
from merveil.mer.data.datasets.record import Layout, child
from merveil.mer.data.tables import Row
from merveil.mer.data.video import visible
from merveil.mer.errors import InputError

TREE = """ROOT/
  <annotation>.xlsx or .csv   one row a clip
  USTC_MEv4_partA_sub0001_sub0015/   also partB, partC, and partD in two: ..._200fps, ..._500fps
    micro/
      happiness/             one folder an emotion
        <Filename>/
          1.jpg
or the challenge's release:
  DFME_train/
    <Filename>/
      00001.png"""
TRAIN = r"DFME_(?:[Tt]rain|[Tt]est\w*)"
PARTS = r"USTC_MEv4_part[A-D]_sub(\d{4})_sub(\d{4})(?:_(\d+)fps)?"
EMOTIONS = Emotions(
    native=("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise", "others"),
    three={
        **dict.fromkeys(("anger", "contempt", "disgust", "fear", "sadness"), NEGATIVE),
        "happiness": POSITIVE,
        "surprise": SURPRISE,
    },
)
COLUMNS = {
    "subject": ("subject", "subject_id", "sub"),
    "file": ("filename", "video", "clip"),
    "onset": ("onset", "OnsetFrame"),
    "apex": ("apex", "ApexFrame"),
    "offset": ("offset", "OffsetFrame"),
    "emotion": ("emotion", "label", "Estimated Emotion"),
    "fps": ("fps", "frame rate"),
}


def subject(cell: str) -> str:
    """1 or sub0001 -> sub0001."""
    match = re.fullmatch(r"(?:sub)?0*(\d{1,4})", cell.lower())
    if match is None:
        raise InputError(f"the subject is {cell!r}; a name such as sub0001 is expected")
    return f"sub{int(match[1]):04d}"


def folder(base: Path, row: Row) -> Path:
    """The clip's folder in the part that holds its subject (and, in part D, its frame rate), or in the
    challenge's release, where clips have no parts."""
    releases = [entry for entry in visible(base) if re.fullmatch(TRAIN, entry.name)]
    holding = [entry for entry in releases if (entry / row["file"]).is_dir()]
    if releases and len(holding) == 1:
        return holding[0] / row["file"]
    if releases:
        names = ", ".join(entry.name for entry in releases)
        raise InputError(
            f"the clip folder {row['file']} is {'missing in' if not holding else 'in all of'} {names}"
        )
    number = int(subject(row["subject"]).removeprefix("sub"))
    parts = []
    for entry in visible(base):
        match = re.fullmatch(PARTS, entry.name)
        if match is None or not int(match[1]) <= number <= int(match[2]):
            continue
        if match[3] is None or row["fps"] in ("", match[3]):
            parts.append(entry)
    if len(parts) != 1:
        why = "no part folder holds" if not parts else "several part folders, by frame rate, may hold"
        cure = "unpack its part" if not parts else "give the fps column"
        raise InputError(f"{why} subject {row['subject']} ({row['fps'] or 'no'} fps): {cure}")
    return child(parts[0], "micro", row["emotion"], row["file"])


LAYOUT = Layout("dfme", TREE, f"{PARTS}|{TRAIN}", EMOTIONS, COLUMNS, folder, subject, optional=("fps",))
