"""SAMM (Davison et al. 2018): 32 people at 200 frames a second; frame numbers are those of the long video."""

import re
from pathlib import Path

from merveil.mer.data.datasets.emotions import NEGATIVE, POSITIVE, SURPRISE, Emotions
from merveil.mer.data.datasets.record import Layout, child
from merveil.mer.data.tables import Row
from merveil.mer.errors import InputError

TREE = """ROOT/                        or its folder SAMM
  SAMM_Micro_FACS_Codes_v2.xlsx   (rows of text stand above its header)
  SAMM/
    006/
      006_1_2/
        006_05562.jpg        the last number is the table's frame number"""
EMOTIONS = Emotions(
    native=("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise", "others"),
    three={
        **dict.fromkeys(("anger", "contempt", "disgust", "fear", "sadness"), NEGATIVE),
        "happiness": POSITIVE,
        "surprise": SURPRISE,
    },
)
COLUMNS = {
    "subject": ("Subject",),
    "file": ("Filename",),
    "onset": ("Onset Frame", "Onset"),
    "apex": ("Apex Frame", "Apex"),
    "offset": ("Offset Frame", "Offset"),
    "emotion": ("Estimated Emotion", "Emotion"),
}


def subject(cell: str) -> str:
    """6 or 006 -> 006."""
    match = re.fullmatch(r"0*(\d{1,3})", cell)
    if match is None:
        raise InputError(f"the subject is {cell!r}; a number such as 6 or 006 is expected")
    return f"{int(match[1]):03d}"


def folder(base: Path, row: Row) -> Path:
    return child(base, subject(row["subject"]), row["file"])


LAYOUT = Layout(
    "samm", TREE, r"\d{3}", EMOTIONS, COLUMNS, folder, subject, optional=("offset",), complete=(133, 28)
)
