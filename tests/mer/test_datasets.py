"""Loaders of annotated sets: each layout whole, both label sets, every fault with file, row and cure."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.mer import prepare
from merveil.mer.data.check import check_folder
from merveil.mer.data.datasets import find
from merveil.mer.data.datasets.find import LAYOUTS, layout_of
from merveil.mer.errors import InputError
from merveil.mer.features.extract import Settings

FULL = Settings(flow="dis", face="full")
CLASSES = ("negative", "positive", "surprise")

EXPECTED = {  # layout -> [(subject, clip, class of three, first frame, apex index or None)]
    "casme2": [
        ("sub01", "EP02_01f", "positive", 46, 3),
        ("sub01", "EP03_02", "negative", 8, None),
        ("sub02", "EP01_11f", "surprise", 9, 3),
    ],
    "samm": [
        ("006", "006_1_2", "negative", 5562, 3),
        ("006", "006_1_3", "positive", 98, None),
        ("007", "007_3_1", "surprise", 25, 3),
    ],
    "casme3": [
        ("spNO.1", "a_12", "positive", 12, 3),
        ("spNO.1", "a_30", "negative", 30, None),
        ("spNO.17", "b_3", "surprise", 3, 3),
    ],
    "mmew": [
        ("S01", "S01-06-001", "positive", 1, 3),
        ("S01", "S01-02-003", "negative", 2, 3),
        ("S02", "S02-05-001", "surprise", 1, 2),
    ],
    "4dme": [
        ("sub01", "sub01_m1", "positive", 5, 3),
        ("sub02", "sub02_m1", "negative", 1, 3),
        ("sub02", "sub02_m2", "surprise", 1, 3),
    ],
    "dfme": [
        ("sub0003", "c1", "positive", 1, 3),
        ("sub0400", "c2", "negative", 1, 3),
        ("sub0400", "c3", "surprise", 1, 2),
    ],
    "smic": [
        ("s1", "s1_ne_01", "negative", 1234, None),
        ("s1", "s1_po_02", "positive", 1234, None),
        ("s20", "s20_sur_01", "surprise", 1234, None),
    ],
}


def build(sets: Any, root: Path, name: str, **options: Any) -> Path:
    if name == "smic":
        sets.make_smic(root)
        return root
    return sets.make(root, name, **options)


@pytest.fixture(scope="module")
def trees(sets: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for name in LAYOUTS:
        build(sets, root / name, name)
    return root


@pytest.fixture
def casme2(trees: Path, tmp_path: Path) -> Path:
    shutil.copytree(trees / "casme2", tmp_path / "set")
    return tmp_path / "set"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_whole_tree_is_read(trees: Path, name: str) -> None:
    found = find.find(trees / name, name)
    got = [(c.subject, c.clip, found.classes[c.label], c.first, c.apex) for c in found.clips]
    assert got == EXPECTED[name] and found.faults == [] and found.classes == CLASSES
    for clip in found.clips:
        assert all(path.is_file() for path in clip.frames) and clip.dataset == name
        assert str(clip.first) in clip.frames[0].stem


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_tree_becomes_features(trees: Path, name: str) -> None:
    made, report = prepare.prepare_archive(str(trees / name), name, settings=FULL)
    unknown = sum(row[4] is None for row in EXPECTED[name])
    assert made.n == 3 and sorted(made.y.tolist()) == [0, 1, 2]
    assert report.apex.get("spotted", 0) == unknown and report.apex.get("annotated", 0) == 3 - unknown
    assert report.aligned == {"full": 3} and set(made.site) == {name}
    assert np.abs(made.x[..., 1:]).max() > 0.5  # the texture moved 2.5 of 64 px at its middle


NATIVE = {
    "casme2": ["happiness", "disgust", "surprise", "others"],
    "samm": ["anger", "happiness", "surprise", "others"],
    "smic": ["negative", "positive", "surprise"],
    "casme3": ["happiness", "disgust", "surprise"],
    "mmew": ["happiness", "disgust", "surprise"],
    "4dme": ["positive", "repression", "surprise"],
    "dfme": ["happiness", "contempt", "surprise"],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_native_classes_are_the_sets_own_words(trees: Path, name: str) -> None:
    found = find.find(trees / name, name, classes="native")
    assert [found.classes[c.label] for c in found.clips] == NATIVE[name]
    assert found.classes == layout_of(name).emotions.native


def test_what_a_task_leaves_out_is_counted(trees: Path, sets: Any, tmp_path: Path) -> None:
    assert find.find(trees / "casme2", "casme2").left_out == {"'others' is none of three classes": 1}
    several = find.find(trees / "4dme", "4dme")
    assert several.left_out == {"several classes (negative+surprise)": 1}
    rows = [
        (4, "EP12_01f", 1, 3, 5, "disgust"),
        (5, "EP01_01", 1, 3, 5, "Fear"),
        (6, "x", 1, 3, 5, "surprise"),
    ]
    sets.make(tmp_path, "casme2", rows)
    found = find.find(tmp_path, "casme2")
    assert found.left_out == {"'fear' is none of three classes": 1, "not in the MEGC 2019 list": 1}
    assert any("complete set has 145 of 24" in note for note in found.notes)
    assert len(find.find(tmp_path, "casme2", classes="native").clips) == 3


def test_roots_and_tables_are_found_where_people_keep_them(trees: Path, casme2: Path, tmp_path: Path) -> None:
    inner = find.find(casme2 / "CASME2_RAW_selected", "casme2")  # the table lies beside it
    assert len(inner.clips) == 3
    assert len(find.find(trees / "4dme" / "gray_micro", "4dme").clips) == 3
    table = next(casme2.glob("*.xlsx"))
    (tmp_path / "far").mkdir()
    other = shutil.move(table, tmp_path / "far" / "labels.xlsx")
    with pytest.raises(InputError, match=r"no annotation table of casme2 under .*--labels"):
        find.find(casme2, "casme2")
    assert len(find.find(casme2, "casme2", labels=other).clips) == 3
    shutil.copy(other, casme2 / "a.xlsx")
    shutil.copy(other, casme2 / "b.xlsx")
    with pytest.raises(InputError, match="2 files fit as annotation of casme2: name one with --labels"):
        find.find(casme2, "casme2")
    shutil.copytree(casme2 / "CASME2_RAW_selected", casme2 / "Cropped")
    with pytest.raises(InputError, match=r"2 folders under .* hold casme2 clips: name one of"):
        find.find(casme2, "casme2", labels=other)


def test_csv_and_headers_of_another_case(sets: Any, trees: Path, casme2: Path) -> None:
    next(casme2.glob("*.xlsx")).unlink()
    table = sets.write_table(casme2, "casme2", sets.ROWS["casme2"], "csv")
    text = (
        table.read_text(encoding="utf-8-sig")
        .replace("OnsetFrame", " onset frame")
        .replace("Filename", "FILENAME")
    )
    table.write_text(text, encoding="utf-16")
    assert len(find.find(casme2, "casme2").clips) == 3
    table.write_bytes(text.encode("utf-8").replace(b"disgust", b"d\xe9go\xfbt"))
    with pytest.raises(
        InputError, match=r"CASME2-coding-20140508.csv, line 3, is not UTF-8 \(byte 0xe9\): save it"
    ):
        find.find(casme2, "casme2")


# (what changes in the table: row index, column, value) or a change of the tree, and the words of the fault
ROWS_AT_FAULT = [
    ((0, 2, "x"), r"row 2: onset is 'x', not a frame number"),
    ((0, 2, None), r"row 2: the onset is blank"),
    ((0, 3, 40), r"row 2: the onset \(46\) comes after the apex \(40\)"),
    ((1, 4, 5), r"row 3: the offset \(5\) does not come after the onset \(8\) and there is no apex"),
    ((2, 5, "joyful"), r"row 4: unknown emotion 'joyful': this set has happiness, disgust"),
    ((2, 5, None), r"row 4: the emotion is blank"),
    ((2, 0, "Bob"), r"row 4: the subject is 'Bob'; a number such as 1"),
    ((2, 0, None), r"row 4: the subject is blank: fill it in"),
    ((2, 1, "EP99_01"), r"row 4: the clip folder .*EP99_01 is missing"),
    ((0, 4, 60), r"row 2: .*EP02_01f lacks frames: frames 54-60 of onset 46 to offset 60"),
]


@pytest.mark.parametrize("change, words", ROWS_AT_FAULT)
def test_a_faulty_row_is_named_with_file_row_and_cure(
    sets: Any, casme2: Path, change: Any, words: str
) -> None:
    index, column, value = change
    rows = [list(row) for row in sets.ROWS["casme2"]]
    rows[index][column] = value
    next(casme2.glob("*.xlsx")).unlink()
    sets.write_table(casme2, "casme2", rows)
    found = find.find(casme2, "casme2")
    assert len(found.faults) == 1 and len(found.clips) == 2
    with pytest.raises(InputError, match=words) as error:
        prepare.prepare_archive(str(casme2), "casme2", settings=FULL)
    assert "CASME2-coding-20140508.xlsx, sheet Sheet, row" in str(error.value)
    assert "--skip-bad leaves faulty clips out" in str(error.value)
    report = check_folder(casme2, "casme2")
    assert not report["ok"] and report["problem"] == found.faults[0] and "sub01/" in report["expected"]


def test_a_doubled_row_and_many_faults(sets: Any, casme2: Path) -> None:
    rows = [*sets.ROWS["casme2"], sets.ROWS["casme2"][0], (1, "EP03_02", 8, "/", None, "disgust")]
    next(casme2.glob("*.xlsx")).unlink()
    sets.write_table(casme2, "casme2", rows)
    found = find.find(casme2, "casme2")
    assert ["row 6" in found.faults[0], "row 7" in found.faults[1]] == [True, True]
    assert "sub01/EP02_01f is in row 2 already" in found.faults[0]
    assert "(the first of 2 faults)" in check_folder(casme2, "casme2")["problem"]
    made, report = prepare.prepare_archive(str(casme2), "casme2", settings=FULL, skip_bad=True)
    assert made.n == 3 and len(report.skipped) == 2


def test_gaps_and_other_numberings(casme2: Path) -> None:
    clip = casme2 / "CASME2_RAW_selected" / "sub01" / "EP02_01f"
    (clip / "img50.jpg").rename(clip / "img99.jpg")
    fault = find.find(casme2, "casme2").faults[0]
    assert "EP02_01f has a gap: frame 50 of onset 46 to offset 53 not there" in fault and "46 to 99" in fault
    (clip / "img99.jpg").rename(clip / "img50.jpg")
    for n in range(46, 54):  # renumbered from 1, as some copies of SAMM and CASME II are
        (clip / f"img{n}.jpg").rename(clip / f"img{n - 45}.jpg")
    found = find.find(casme2, "casme2")
    first = found.clips[0]
    assert (first.first, first.apex, len(first.frames)) == (1, 3, 8) and found.faults == []
    assert any("1 clips number their frames otherwise" in note for note in found.notes)
    assert "lacks frames: frames 46-53" in find.find(casme2, "casme2", numbering="file").faults[0]
    (clip / "img9.jpg").write_bytes((clip / "img8.jpg").read_bytes())  # one more than onset to offset
    assert "--numbering onset" in find.find(casme2, "casme2").faults[0]
    assert find.find(casme2, "casme2", numbering="onset").clips[0].frames[-1].name == "img8.jpg"
    (clip / "reg_img8.jpg").write_bytes(b"x")
    assert "are both frame 8" in find.find(casme2, "casme2").faults[0]


def test_doubtful_apexes_and_offsets_are_remarked_on(sets: Any, tmp_path: Path) -> None:
    rows = [
        ("006", "006_1_2", 10, 14, 17, "Anger"),
        ("006", "006_1_3", 10, 13, 17, "Happiness"),
        ("007", "007_3_1", 10, 12, 17, "Surprise"),
    ]
    table = sets.make(tmp_path, "samm", rows)
    table.unlink()
    changed = [
        (*rows[0][:3], 19, *rows[0][4:]),
        (*rows[1][:4], 5, rows[1][5]),
        (*rows[2][:3], 10, *rows[2][4:]),
    ]
    sets.write_table(tmp_path, "samm", changed)
    found = find.find(tmp_path, "samm")
    assert [c.apex for c in found.clips] == [None, 3, None] and not found.faults
    text = "\n".join(found.notes)
    assert "row 15 (006/006_1_2): the apex (19) is after the offset (17); it is spotted" in text
    assert "row 16 (006/006_1_3): the offset (5) does not come after the onset (10); not needed" in text
    assert "row 17 (007/007_3_1): apex and onset are one frame; the apex is spotted" in text


@pytest.mark.parametrize(
    "header, words",
    [
        (
            "ApexFrame ",
            r"has no apex column \(headers looked for: ApexFrame, Apex, ApexF\); .*row 1, has: Subject",
        ),
        ("Estimated Emotion", r"has no emotion column"),
    ],
)
def test_a_missing_column_is_named(
    sets: Any, casme2: Path, header: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = [h if h != header else "peak" for h in sets.HEADERS["casme2"]]
    monkeypatch.setitem(sets.HEADERS, "casme2", headers)
    sets.write_table(casme2, "casme2", sets.ROWS["casme2"])
    with pytest.raises(InputError, match=words):
        find.find(casme2, "casme2")


def test_tables_that_are_none(casme2: Path, tmp_path: Path) -> None:
    table = next(casme2.glob("*.xlsx"))
    table.write_bytes(b"not a workbook")
    with pytest.raises(InputError, match=r"is not a readable \.xlsx workbook"):
        find.find(casme2, "casme2")
    (tmp_path / "old.xls").write_bytes(b"x")
    for name, words in (("old.xls", "save it as .xlsx or .csv"), ("none.csv", "no such file")):
        with pytest.raises(InputError, match=words):
            find.find(casme2, "casme2", labels=tmp_path / name)


def test_trees_that_are_of_another_set(trees: Path, casme2: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"first mismatch: no folder under .* has a name of samm") as error:
        find.find(casme2, "samm")
    assert "expected tree of samm:" in str(error.value) and "Onset Frame" in str(error.value)
    with pytest.raises(InputError, match="is not there"):
        find.find(tmp_path / "none", "casme2")
    with pytest.raises(InputError, match="unknown data set 'x'"):
        find.find(casme2, "x")
    with pytest.raises(InputError, match="unknown numbering 'z': choose one of auto, file, onset"):
        find.find(casme2, "casme2", numbering="z")
    with pytest.raises(InputError, match="unknown classes '5': choose one of 3, native"):
        find.find(casme2, "casme2", classes="5")
    with pytest.raises(InputError, match="smic has its labels in the names of its folders"):
        find.find(trees / "smic", "smic", labels="x.csv")


def test_smic_faults(sets: Any, tmp_path: Path) -> None:
    sets.make_smic(tmp_path)
    clip = tmp_path / "HS" / "s1" / "micro" / "negative" / "s1_ne_01"
    (clip / "image1236.bmp").unlink()
    assert "s1_ne_01: frame 1236 is missing between 1234 and 1241" in find.find(tmp_path, "smic").faults[0]
    assert len(find.find(tmp_path, "smic", numbering="onset").clips) == 3
    (clip.parent).rename(clip.parent.with_name("angry"))
    assert "unknown emotion 'angry'" in find.find(tmp_path, "smic").faults[0]
    (tmp_path / "HS" / "people").mkdir()
    with pytest.raises(InputError, match=r"first mismatch: .*people is not a subject folder"):
        find.find(tmp_path, "smic")


def test_dfme_parts(sets: Any, tmp_path: Path) -> None:
    rows = [(*row[:6], None) for row in sets.ROWS["dfme"][1:]]
    sets.make(tmp_path, "dfme")
    next(tmp_path.glob("*.xlsx")).unlink()
    sets.write_table(tmp_path, "dfme", [*rows, ("sub0200", "c9", 1, 4, 8, "fear", 500)])
    faults = find.find(tmp_path, "dfme").faults
    assert "several part folders, by frame rate, may hold subject sub0400 (no fps)" in faults[0]
    assert "no part folder holds subject sub0200 (500 fps): unpack its part" in faults[2]


def test_the_other_releases_of_casme3_and_dfme(trees: Path, sets: Any, tmp_path: Path) -> None:
    cut = tmp_path / "casme3"
    for subject, clip, first in (("spNO.1", "a", 12), ("spNO.1", "a", 30), ("spNO.17", "b", 3)):
        for kind in ("frame", "depth"):
            place = cut / "Part_A_ME_clip" / kind / f"{subject.replace('NO', 'No')}_{clip}_{first}"
            shutil.copytree(trees / "casme3" / "part_A" / subject / clip / "color", place)
    sets.write_table(cut, "casme3", sets.ROWS["casme3"])
    found = find.find(cut, "casme3")
    assert [(c.clip, c.first) for c in found.clips] == [("a_12", 12), ("a_30", 30), ("b_3", 3)]
    assert found.clips[0].frames[0].parts[-3] == "frame"
    plain = tmp_path / "dfme" / "DFME_train"
    for file in ("c1", "c2"):
        shutil.copytree(next((trees / "dfme").glob(f"*/micro/*/{file}")), plain / file)
    sets.write_table(tmp_path / "dfme", "dfme", sets.ROWS["dfme"])
    found = find.find(tmp_path / "dfme", "dfme")
    assert [c.clip for c in found.clips] == ["c1", "c2"]
    assert "the clip folder c3 is missing in DFME_train" in found.faults[0]


def test_a_known_apex_needs_two_frames_only(trees: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from merveil.mer import jobs

    work = jobs.find_work(str(trees / "samm"), "samm")
    read: list[int] = []
    genuine = jobs.read_frames
    monkeypatch.setattr(jobs, "read_frames", lambda paths: (read.append(len(paths)), genuine(paths))[1])
    jobs.load(work.jobs[0], FULL)
    jobs.load(work.jobs[0], FULL, whole=True)
    jobs.load(work.jobs[1], FULL)
    jobs.load(work.jobs[0], Settings(apex="spotted"))
    assert read == [2, 7, 7, 7]
    keys = {
        jobs.cache_key(work.jobs[0], s) for s in (FULL, Settings(flow="dis", face="full", apex="spotted"))
    }
    assert len(keys) == 2
    with pytest.raises(InputError, match="--classes: for annotated sets alone"):
        jobs.find_work("synthetic", "synthetic", classes="3")
