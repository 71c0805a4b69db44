"""SMIC-HS (Li et al. 2013): 16 people at 100 frames a second; labels are folder names, no apex is given."""

from pathlib import Path

from merveil.mer.data.datasets.emotions import NEGATIVE, POSITIVE, SURPRISE, Emotions
from merveil.mer.data.datasets.record import Layout
from merveil.mer.data.tables import Row
from merveil.mer.errors import InputError

TREE = """ROOT/                        or its folder HS
  HS/
    s1/                      subjects 1-6, 8, 9, 11-15, 18-20
      micro/
        negative|positive|surprise/
          s1_ne_01/          onset to offset
            image1234.bmp    (reg_image1234.bmp in SMIC_all_cropped)"""
EMOTIONS = Emotions(
    native=("negative", "positive", "surprise"),
    three={"negative": NEGATIVE, "positive": POSITIVE, "surprise": SURPRISE},
)


def subject(cell: str) -> str:
    return cell


def folder(base: Path, row: Row) -> Path:
    raise InputError(f"{base} has no annotation table")


LAYOUT = Layout("smic", TREE, r"(?i)s\d{1,2}", EMOTIONS, {}, folder, subject, complete=(164, 16))
