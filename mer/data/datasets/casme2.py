"""CASME II (Yan et al. 2014): 26 people at 200 frames a second; one table, folders by subject and clip."""

import re
from pathlib import Path

from merveil.mer.data.datasets.emotions import NEGATIVE, POSITIVE, SURPRISE, Emotions
from merveil.mer.data.datasets.record import Layout, child
from merveil.mer.data.tables import Row
from merveil.mer.errors import InputError

TREE = """ROOT/                        or its folder CASME2_RAW_selected, or Cropped
  CASME2-coding-*.xlsx       one row a clip
  CASME2_RAW_selected/
    sub01/
      EP02_01f/
        img46.jpg            (reg_img46.jpg in Cropped); the number is the table's frame number"""
EMOTIONS = Emotions(
    native=("happiness", "disgust", "repression", "surprise", "fear", "sadness", "others"),
    three={"disgust": NEGATIVE, "repression": NEGATIVE, "happiness": POSITIVE, "surprise": SURPRISE},
    excluded=frozenset({("sub04", "EP12_01f"), ("sub05", "EP12_03f"), ("sub24", "EP02_07")}),
)
COLUMNS = {
    "subject": ("Subject",),
    "file": ("Filename", "File", "Clip"),
    "onset": ("OnsetFrame", "Onset", "OnsetF"),
    "apex": ("ApexFrame", "Apex", "ApexF"),
    "offset": ("OffsetFrame", "Offset", "OffsetF"),
    "emotion": ("Estimated Emotion", "Emotion"),
}


def subject(cell: str) -> str:
    """1, 01 or sub01 -> sub01."""
    match = re.fullmatch(r"(?:sub)?0*(\d{1,3})", cell.lower())
    if match is None:
        raise InputError(f"the subject is {cell!r}; a number such as 1 or 01 is expected")
    return f"sub{int(match[1]):02d}"


def folder(base: Path, row: Row) -> Path:
    return child(base, subject(row["subject"]), row["file"])


LAYOUT = Layout(
    "casme2",
    TREE,
    r"(?i)sub\d{2}",
    EMOTIONS,
    COLUMNS,
    folder,
    subject,
    optional=("offset",),
    complete=(145, 24),
)
