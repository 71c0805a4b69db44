"""Small trees in the layouts of annotated data sets, with textured pictures instead of faces."""

import csv
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from merveil.mer.features.opencv import opencv

HEADERS: dict[str, list[str]] = {
    "casme2": ["Subject", "Filename", "", "OnsetFrame", "ApexFrame ", "OffsetFrame", "", "Action Units",
               "Estimated Emotion"],
    "samm": ["Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame",
             "Duration", "Micro", "Action Units", "Estimated Emotion", "Objective Classes", "Notes"],
    "casme3": ["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"],
    "mmew": ["Subject", "Filename", "OnsetFrame", "ApexFrame", "OffsetFrame", "Action Units",
             "Estimated Emotion", "remarks"],
    "4dme": ["sub_ID", "fold_name", "Emotion", "Onset", "Apex", "Offset", "AUs"],
    "dfme": ["subject", "filename", "onset", "apex", "offset", "AUs", "emotion", "fps"],
}  # fmt: skip
PREAMBLE = {"samm": 13}
FILES = {
    "casme2": "CASME2-coding-20140508.xlsx",
    "samm": "SAMM_Micro_FACS_Codes_v2.xlsx",
    "casme3": "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
    "mmew": "MMEW_Micro_Exp.xlsx",
    "4dme": "4DME_Labelling_Micro_release v1.xlsx",
    "dfme": "DFME_annotation.xlsx",
}
PLACES = {
    "casme2": "CASME2_RAW_selected/sub{subject:0>2}/{file}/img{n}.jpg",
    "samm": "SAMM/{subject:0>3}/{file}/{subject:0>3}_{n:05d}.jpg",
    "casme3": "part_A/{subject}/{file}/color/{n}.jpg",
    "mmew": "Micro_Expression/{emotion}/{file}/{n}.jpg",
    "4dme": "gray_micro/{subject}/{file}/{n}.jpg",
    "dfme": "{part}/micro/{emotion}/{file}/{n}.jpg",
}
# subject, file, onset, apex, offset, emotion: two people, three classes, one apex to be spotted.
ROWS: dict[str, list[tuple[Any, ...]]] = {
    "casme2": [
        (1, "EP02_01f", 46, 49, 53, "happiness"),
        (1, "EP03_02", 8, "/", 13, "disgust"),
        (2, "EP01_11f", 9, 12, 14, "surprise"),
        (2, "EP02_04f", 3, 5, 7, "others"),
    ],
    "samm": [
        ("006", "006_1_2", 5562, 5565, 5568, "Anger"),
        ("006", "006_1_3", 98, None, 104, "Happiness"),
        ("007", "007_3_1", 25, 28, 30, "Surprise"),
        ("007", "007_4_1", 31, 33, 35, "Other"),
    ],
    "casme3": [
        ("spNO.1", "a", 12, 15, 18, "happy"),
        ("spNO.1", "a", 30, 30, 36, "disgust"),
        ("spNO.17", "b", 3, 6, 9, "surprise"),
    ],
    "mmew": [
        (1, "S01-06-001", 1, 4, 8, "happiness"),
        (1, "S01-02-003", 2, 5, 8, "disgust"),
        (2, "S02-05-001", 1, 3, 7, "surprise"),
    ],
    "4dme": [
        ("sub01", "sub01_m1", 5, 8, 11, "Positive"),
        ("sub01", "sub01_m2", 5, 8, 11, "Negative, Surprise"),
        ("sub02", "sub02_m1", 1, 4, 7, "Repression"),
        ("sub02", "sub02_m2", 1, 4, 7, "Surprise"),
    ],
    "dfme": [
        ("sub0003", "c1", 1, 4, 8, "happiness", 200),
        ("sub0400", "c2", 1, 4, 8, "contempt", 200),
        ("sub0400", "c3", 1, 3, 8, "surprise", 500),
    ],
}  # fmt: skip
ORDER = ("subject", "file", "onset", "apex", "offset", "emotion", "fps")
COLUMN = {
    "casme2": (0, 1, 3, 4, 5, 8),
    "samm": (0, 1, 3, 4, 5, 9),
    "casme3": (0, 1, 2, 3, 4, 7),
    "mmew": (0, 1, 2, 3, 4, 6),
    "4dme": (0, 1, 3, 4, 5, 2),
    "dfme": (0, 1, 2, 3, 4, 6, 7),
}


@lru_cache(maxsize=1)
def texture() -> np.ndarray:
    noise = np.random.default_rng(0).normal(128, 60, (40, 40)).astype(np.float32)
    return np.clip(opencv().resize(noise, (160, 160), interpolation=opencv().INTER_CUBIC), 0, 255)


def frame(path: Path, shift: float, seed: int = 0) -> None:
    """One picture: a texture whose middle is displaced by `shift` pixels; `seed` picks its place."""
    cv2 = opencv()
    y, x = np.mgrid[0:64, 0:64].astype(np.float32)
    bump = np.exp(-((x - 32) ** 2 + (y - 44) ** 2) / 120)
    moved = cv2.remap(texture(), x + 13 * (seed % 7), y + 11 * (seed % 8) + shift * bump, cv2.INTER_CUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.rint(moved).clip(0, 255).astype(np.uint8))


def part_of(subject: str, fps: int) -> str:
    if int(subject[3:]) < 16:
        return "USTC_MEv4_partA_sub0001_sub0015"
    return f"USTC_MEv4_partD_sub0301_sub0671_{fps}fps"


def make(root: Path, name: str, rows: Sequence[tuple[Any, ...]] | None = None, kind: str = "xlsx") -> Path:
    """The tree and the table of a set; returns the table's path."""
    rows = ROWS[name] if rows is None else rows
    for seed, row in enumerate(rows, 5 * list(ROWS).index(name)):  # no picture is in two sets
        words = dict(zip(ORDER, row))
        if name == "dfme":
            words["part"] = part_of(words["subject"], words["fps"])
        for n in range(words["onset"], words["offset"] + 1):
            share = np.sin(np.pi * (n - words["onset"]) / (words["offset"] - words["onset"]))
            frame(root / PLACES[name].format(**words, n=n), 2.5 * float(share), seed)
    return write_table(root, name, rows, kind)


def write_table(root: Path, name: str, rows: Iterable[tuple[Any, ...]], kind: str = "xlsx") -> Path:
    lines: list[list[Any]] = [["Notes"]] * PREAMBLE.get(name, 0) + [HEADERS[name]]
    for row in rows:
        line: list[Any] = [None] * len(HEADERS[name])
        for place, cell in zip(COLUMN[name], row):
            line[place] = cell
        lines.append(line)
    path = (root / FILES[name]).with_suffix(f".{kind}")
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file).writerows([["" if c is None else c for c in line] for line in lines])
        return path
    import openpyxl

    book = openpyxl.Workbook()
    for line in lines:
        book.active.append(line)
    book.save(path)
    return path


def make_smic(root: Path, first: int = 1234) -> None:
    """SMIC-HS: two people, labels in folder names, frames numbered from anywhere."""
    clips = [
        ("s1", "negative", "s1_ne_01"),
        ("s1", "positive", "s1_po_02"),
        ("s20", "surprise", "s20_sur_01"),
    ]
    for seed, (subject, emotion, clip) in enumerate(clips):
        for n in range(8):
            place = root / "HS" / subject / "micro" / emotion / clip / f"image{first + n}.bmp"
            frame(place, 2.5 * float(np.sin(np.pi * n / 7)), seed)
