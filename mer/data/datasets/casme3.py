"""CAS(ME)^3 part A (Li et al. 2023): 100 people, 30 frames a second; several expressions in a long video."""

import re
from pathlib import Path

from merveil.mer.data.datasets.emotions import NEGATIVE, POSITIVE, SURPRISE, Emotions
from merveil.mer.data.datasets.record import Layout, child
from merveil.mer.data.tables import Row
from merveil.mer.data.video import visible

TREE = """ROOT/                        or the folder that holds the spNO folders
  cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx   one row an expression
  spNO.1/
    a/
      color/
        123.jpg              the number is the table's frame number (depth/ is not read)
or the cut release: one folder an expression, <Subject>_<Filename>_<Onset>
  Part_A_ME_clip/frame/
    spNO.1_a_116/
      116.jpg"""
EMOTIONS = Emotions(
    native=("happiness", "disgust", "fear", "anger", "sadness", "surprise", "others"),
    three={
        **dict.fromkeys(("disgust", "fear", "anger", "sadness"), NEGATIVE),
        "happiness": POSITIVE,
        "surprise": SURPRISE,
    },
)
CUT = re.compile(r"(?i)spNO\.\d+_\w+_\d+")
COLUMNS = {
    "subject": ("Subject",),
    "file": ("Filename",),
    "onset": ("Onset",),
    "apex": ("Apex",),
    "offset": ("Offset",),
    "emotion": ("emotion", "Estimated Emotion"),
}


def subject(cell: str) -> str:
    return cell


def folder(base: Path, row: Row) -> Path:
    """Of the long videos, or of the cut release where base holds its folders."""
    cut = f"{row['subject']}_{row['file']}_{row['onset']}"
    if any(CUT.fullmatch(entry.name) for entry in visible(base)):
        return child(base, cut)
    return child(base, row["subject"], row["file"], "color")


# One file name of a subject may hold several expressions, so the onset joins the clip's name.
LAYOUT = Layout("casme3", TREE, r"(?i)spNO\.\d+(_\w+_\d+)?", EMOTIONS, COLUMNS, folder, subject, repeats=True)
