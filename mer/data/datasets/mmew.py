"""MMEW (Ben et al. 2022): 36 people, 90 frames a second; folders by emotion, frames counted in the clip."""

from pathlib import Path

from merveil.mer.data.datasets.emotions import NEGATIVE, POSITIVE, SURPRISE, Emotions
from merveil.mer.data.datasets.record import Layout, child
from merveil.mer.data.tables import Row

TREE = """ROOT/                        or its folder Micro_Expression
  MMEW_Micro_Exp.xlsx        one row a clip
  Micro_Expression/
    happiness/               one folder an emotion: anger, disgust, fear, ...
      S01-06-001/
        1.jpg                numbered from 1 in the clip"""
EMOTIONS = Emotions(
    native=("happiness", "surprise", "anger", "disgust", "fear", "sadness", "others"),
    three={
        **dict.fromkeys(("anger", "disgust", "fear", "sadness"), NEGATIVE),
        "happiness": POSITIVE,
        "surprise": SURPRISE,
    },
)
COLUMNS = {
    "subject": ("Subject",),
    "file": ("Filename",),
    "onset": ("OnsetFrame", "Onset"),
    "apex": ("ApexFrame", "Apex"),
    "offset": ("OffsetFrame", "Offset"),
    "emotion": ("Estimated Emotion", "Emotion"),
}


def subject(cell: str) -> str:
    """1, 01 or S01 -> S01."""
    digits = cell.upper().removeprefix("S")
    return f"S{int(digits):02d}" if digits.isdigit() else cell


def folder(base: Path, row: Row) -> Path:
    return child(base, row["emotion"], row["file"])


LAYOUT = Layout(
    "mmew",
    TREE,
    r"(?i)happiness|surprise|anger|disgust|fear|sadness|others",
    EMOTIONS,
    COLUMNS,
    folder,
    subject,
)
