"""Read a data set's folder in its published layout: every annotated row to a clip, a reason or a fault."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from merveil.mer.data.datasets.emotions import check_mode
from merveil.mer.data.datasets.record import (
    Clip,
    Found,
    Layout,
    Span,
    check_numbering,
    cut,
    frames_of,
    span,
    tally,
)
from merveil.mer.data.tables import KINDS, Row, Table, matches, read_table
from merveil.mer.data.video import visible
from merveil.mer.errors import InputError

MODULES = {
    "casme2": "casme2",
    "smic": "smic",
    "samm": "samm",
    "casme3": "casme3",
    "mmew": "mmew",
    "4dme": "fourdme",
    "dfme": "dfme",
}
LAYOUTS = tuple(MODULES)
DEPTH_MAPS = "depth"  # of CAS(ME)^3, beside the pictures
DEPTH = 4  # folders between the given root and the base folder of a set


def layout_of(name: str) -> Layout:
    if name not in MODULES:
        raise InputError(f"unknown data set {name!r}: choose one of {', '.join(LAYOUTS)}")
    found: Layout = import_module(f"merveil.mer.data.datasets.{MODULES[name]}").LAYOUT
    return found


def expected(name: str) -> str:
    """The tree and the columns that a layout wants, as text for people."""
    layout = layout_of(name)
    if not layout.columns:
        return layout.tree
    words = ", ".join(headers[0] for headers in layout.columns.values())
    return f"{layout.tree}\nannotation columns, in any order, case and spacing: {words}"


def find(
    root: str | Path,
    name: str,
    *,
    classes: str = "3",
    labels: str | Path | None = None,
    numbering: str = "auto",
) -> Found:
    """All clips of a data set under `root`.

    classes: 3 (negative, positive, surprise) or native (the set's own words). labels: the annotation file,
    else the one table under root (or beside it) whose header fits. numbering: auto | file | onset, see
    `record.cut`. Faults of single rows are collected in the result; InputError where the folder as a whole
    does not fit, with the expected tree.
    """
    layout = layout_of(name)
    check_mode(classes)
    check_numbering(numbering)
    top = Path(root)
    if not top.is_dir():
        raise InputError(f"{top} is {'a file, not a folder' if top.exists() else 'not there'}")
    if labels is not None and not layout.columns:
        raise InputError(f"--labels: {name} has its labels in the names of its folders")
    found = Found(name, layout.emotions.classes(classes))
    try:
        base = base_of(top, layout)
        read = (
            _from_folders if not layout.columns else partial(_from_table, table=_table(top, layout, labels))
        )
        read(base, layout, found, classes, numbering)
    except InputError as error:
        raise InputError(f"{error}\nexpected tree of {name}:\n{expected(name)}") from error
    _remark_on_size(layout, found, classes)
    return found


def base_of(top: Path, layout: Layout) -> Path:
    """The folder whose children are the set's subjects, or what stands for them; InputError: none, or two."""
    if layout.inner and top.name.lower() == layout.inner:
        return top.resolve().parent
    level, bases = [top], []
    for _ in range(DEPTH + 1):
        bases = [f for f in level if any(re.fullmatch(layout.subjects, e.name) for e in _folders(f))]
        if bases:
            break
        level = [entry for folder in level for entry in _folders(folder)]
    if not bases:
        raise InputError(
            f"first mismatch: no folder under {top}, to a depth of {DEPTH}, has a name of {layout.name} "
            f"(pattern {layout.subjects})"
        )
    if len(bases) > 1:
        names = ", ".join(str(b) for b in bases[:4])
        raise InputError(f"{len(bases)} folders under {top} hold {layout.name} clips: name one of {names}")
    return bases[0]


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in visible(folder) if entry.is_dir() and entry.name.lower() != DEPTH_MAPS]


def _table(top: Path, layout: Layout, labels: str | Path | None) -> Table:
    """The named annotation file, else the one under root, or beside it, whose header fits."""
    if labels is not None:
        return read_table(Path(labels), layout.columns, layout.optional)
    for places in ((top, *_folders(top)), (top.resolve().parent,)):
        files = [e for p in places for e in visible(p) if e.is_file() and e.suffix.lower() in KINDS]
        fit = [f for f in files if not f.name.startswith("~") and matches(f, layout.columns, layout.optional)]
        if len(fit) > 1:
            names = ", ".join(str(f) for f in fit)
            raise InputError(
                f"{len(fit)} files fit as annotation of {layout.name}: name one with --labels: {names}"
            )
        if fit:
            return read_table(fit[0], layout.columns, layout.optional)
        if len(files) == 1:
            return read_table(files[0], layout.columns, layout.optional)  # raises, naming the first mismatch
    raise InputError(f"no annotation table of {layout.name} under {top}: name the file with --labels")


def _from_table(
    base: Path, layout: Layout, found: Found, classes: str, numbering: str, *, table: Table
) -> None:
    seen: dict[tuple[str, str], int] = {}
    listing = lru_cache(maxsize=8)(frames_of)  # rows of one long video follow each other
    left: Counter[str] = Counter()
    remarks: Counter[str] = Counter()
    for row in table.rows:
        where = table.where(row)
        try:
            made = _clip(base, layout, row, where, classes, numbering, seen, listing)
        except InputError as error:
            found.faults.append(f"{where}: {error}")
            continue
        if isinstance(made, str):
            left[made] += 1
            continue
        clip, remark, counted = made
        found.clips.append(clip)
        if remark:
            found.notes.append(f"{where} ({clip.subject}/{clip.clip}): {remark}")
        remarks["counted from the onset"] += counted
        remarks["no apex"] += clip.apex is None and not remark
    found.left_out = dict(sorted(left.items()))
    if remarks["no apex"]:
        found.notes.append(f"{remarks['no apex']} clips have no annotated apex: it is spotted")
    if remarks["counted from the onset"]:
        found.notes.append(
            f"{remarks['counted from the onset']} clips number their frames otherwise than the table; each "
            "holds exactly onset to offset; its first file is taken for the onset (--numbering file: no)"
        )


def _clip(
    base: Path,
    layout: Layout,
    row: Row,
    where: str,
    classes: str,
    numbering: str,
    seen: dict[tuple[str, str], int],
    listing: Callable[[Path], Mapping[int, Path]],
) -> tuple[Clip, str, bool] | str:
    """The clip of one row, a remark and whether frames were counted from the onset; or why it is left out."""
    for name in ("subject", "file"):
        if not row[name]:
            raise InputError(
                f"the {name} is blank: fill it in (merged cells: in every row) and pass --labels COPY"
            )
    subject = layout.subject(row["subject"])
    name = f"{row['file']}_{row['onset']}" if layout.repeats else row["file"]
    first = seen.setdefault((subject, name), row.number)
    if first != row.number:
        raise InputError(
            f"{subject}/{name} is in row {first} already: remove one of them in a copy and pass --labels COPY"
        )
    label = layout.emotions.label(layout.emotions.read(row["emotion"]), classes, subject, name)
    if isinstance(label, str):
        return label
    numbers: Span = span(row)
    folder = layout.folder(base, row)
    frames, start, apex, counted = cut(folder, listing(folder), numbers, numbering)
    clip = Clip(layout.name, subject, name, label, frames, start, apex, where)
    return clip, numbers.remark, counted


def _from_folders(base: Path, layout: Layout, found: Found, classes: str, numbering: str) -> None:
    """Sets without a table (SMIC): a clip's folder holds onset to offset, and the apex is spotted."""
    for subject, emotion, folder in _class_folders(base, layout):
        try:
            words = layout.emotions.read(emotion.name)
            label = layout.emotions.label(words, classes, subject.name, folder.name)
            files = frames_of(folder)
            numbers = sorted(files)
            missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
            if missing and numbering != "onset":
                raise InputError(
                    f"frame {missing[0]} is missing between {numbers[0]} and {numbers[-1]}: unpack that clip "
                    "again, or pass --numbering onset to take the files as they follow each other"
                )
            if len(files) < 3:
                raise InputError(f"it has {len(files)} frames, and an apex is spotted in at least 3")
        except InputError as error:
            found.faults.append(f"{folder}: {error}")
            continue
        frames = tuple(files[n] for n in numbers)
        assert isinstance(label, int)  # every word of such a set is one of the three classes
        found.clips.append(
            Clip(layout.name, subject.name, folder.name, label, frames, numbers[0], None, str(folder))
        )
    if found.clips:
        found.notes.append(f"{layout.name} has no annotated apex: it is spotted in {len(found.clips)} clips")


def _class_folders(base: Path, layout: Layout) -> Iterator[tuple[Path, Path, Path]]:
    for subject in _folders(base):
        if re.fullmatch(layout.subjects, subject.name) is None:
            raise InputError(f"first mismatch: {subject} is not a subject folder ({layout.subjects})")
        micro = subject / "micro"
        if not micro.is_dir():
            raise InputError(f"first mismatch: {micro} is not there")
        for emotion in _folders(micro):
            for folder in _folders(emotion):
                yield subject, emotion, folder


def _remark_on_size(layout: Layout, found: Found, classes: str) -> None:
    if found.left_out:
        found.notes.append(f"left out, by reason: {tally(found.left_out)}")
    if layout.complete is None or classes != "3":
        return
    here = (len(found.clips), len({c.subject for c in found.clips}))
    if here != layout.complete:
        found.notes.append(
            f"{here[0]} clips of {here[1]} subjects; the complete set has {layout.complete[0]} of "
            f"{layout.complete[1]} in three classes (MEGC 2019): scores on fewer are not comparable"
        )


def describe(root: str | Path, name: str, **options: Any) -> dict[str, Any]:
    """What is there, for `merveil check`: clips, classes, subjects, apexes, notes, and all faults."""
    found = find(root, name, **options)
    counts = Counter(clip.label for clip in found.clips)
    people = len({clip.subject for clip in found.clips})
    by_class = {word: counts[i] for i, word in enumerate(found.classes)}
    return {
        "clips": len(found.clips),
        "persons": people,
        "classes": by_class,
        "datasets": {name: {"clips": len(found.clips), "subjects": people, "classes": by_class}},
        "apex": {
            "annotated": sum(clip.apex is not None for clip in found.clips),
            "to be spotted": sum(clip.apex is None for clip in found.clips),
        },
        "left_out": found.left_out,
        "notices": found.notes,
        "faults": found.faults,
    }
