"""4DME (Li et al. 2022), the grey 2-D part: 60 frames a second; a clip may carry several emotions."""

from pathlib import Path

from merveil.mer.data.datasets.emotions import NEGATIVE, POSITIVE, SURPRISE, Emotions
from merveil.mer.data.datasets.record import Layout, child
from merveil.mer.data.tables import Row

TREE = """ROOT/                        or its folder gray_micro
  4DME_Labelling_Micro_release v1.xlsx   one row a clip
  gray_micro/
    <sub_ID>/
      <fold_name>/
        1.jpg                numbered as in the table, or onset to offset exactly"""
EMOTIONS = Emotions(
    native=("positive", "negative", "surprise", "repression", "others"),
    three={"negative": NEGATIVE, "repression": NEGATIVE, "positive": POSITIVE, "surprise": SURPRISE},
)
COLUMNS = {
    "subject": ("sub_ID", "Subject"),
    "file": ("fold_name", "Filename"),
    "onset": ("Onset",),
    "apex": ("Apex",),
    "offset": ("Offset",),
    "emotion": ("Emotion",),
}


def subject(cell: str) -> str:
    return cell


def folder(base: Path, row: Row) -> Path:
    return child(base / "gray_micro", row["subject"], row["file"])


LAYOUT = Layout("4dme", TREE, r"gray_micro", EMOTIONS, COLUMNS, folder, subject, inner="gray_micro")
