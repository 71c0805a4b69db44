"""From one annotated row to one clip: its frames from onset to offset, its apex where valid, its label.

Assumes nothing about a set beyond what its `Layout` says. Every row ends as a clip, as a clip left out with a
reason, or as a fault that names file, row and cure; none vanishes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from merveil.mer.data.datasets.emotions import Emotions
from merveil.mer.data.tables import Columns, Row
from merveil.mer.data.video import PICTURES, visible
from merveil.mer.errors import InputError

UNKNOWN = ("", "/", "\\", "-", "--", "?", "n/a", "na", "nan", "none", "null")  # cells that give no frame
NUMBERINGS = ("auto", "file", "onset")


@dataclass(frozen=True)
class Clip:
    """One usable clip. frames: onset to offset in order. first: the number of frames[0] in its file name.
    apex: index into frames, None where it has to be spotted. where: the row that says so."""

    dataset: str
    subject: str
    clip: str
    label: int
    frames: tuple[Path, ...]
    first: int
    apex: int | None
    where: str


@dataclass
class Found:
    """What a data set's folder holds: clips, faults ('where: what'), clips left out by reason, remarks."""

    layout: str
    classes: tuple[str, ...]
    clips: list[Clip] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """One data set's form on disk.

    subjects: pattern of the folder names whose parent is the base folder. columns: of the annotation table,
    empty where folders say all. folder: (base, row) -> folder of frames; InputError where missing.
    subject: how a subject cell becomes a subject's name. complete: clips and subjects of the whole set in the
    three-class task, None where that is not settled. repeats: one file name may hold several expressions.
    inner: the one folder that holds the subjects, where they have no pattern.
    """

    name: str
    tree: str
    subjects: str
    emotions: Emotions
    columns: Columns
    folder: Callable[[Path, Row], Path]
    subject: Callable[[str], str]
    optional: tuple[str, ...] = ()
    complete: tuple[int, int] | None = None
    repeats: bool = False
    inner: str = ""


def check_numbering(mode: str) -> None:
    if mode not in NUMBERINGS:
        raise InputError(f"unknown numbering {mode!r}: choose one of {', '.join(NUMBERINGS)}")


def child(parent: Path, *names: str) -> Path:
    """The folder parent/name/..., case ignored where only one fits; InputError names what is missing."""
    here = parent
    for name in names:
        exact = here / name
        if not exact.is_dir():
            like = [e for e in visible(here) if e.is_dir() and e.name.lower() == name.lower()]
            if len(like) != 1:
                raise InputError(
                    f"the clip folder {exact} is missing: unpack that part of the set, or remove the row"
                )
            exact = like[0]
        here = exact
    return here


def frames_of(folder: Path) -> dict[int, Path]:
    """Frame number -> picture of one clip folder; other files are left alone.

    The last number of a name counts (`006_1_2_05562.jpg` is 5562).
    """
    found: dict[int, Path] = {}
    for path in visible(folder):
        numbers = re.findall(r"\d+", path.stem)
        if path.suffix.lower() not in PICTURES or not numbers:
            continue
        if (number := int(numbers[-1])) in found:
            raise InputError(f"{path} and {found[number].name} are both frame {number}: keep one of them")
        found[number] = path
    if not found:
        raise InputError(f"{folder} holds no numbered picture: unpack that clip again")
    return found


def frame_number(cell: str, name: str) -> int | None:
    """A frame number, None where the sheet gives none; InputError for anything else."""
    if cell.strip().lower() in UNKNOWN:
        return None
    match = re.fullmatch(r"\s*(\d{1,9})(?:\.0+)?\s*", cell)
    if match is None:
        raise InputError(
            f"{name} is {cell!r}, not a frame number: correct it in a copy and pass --labels COPY"
        )
    return int(match[1])


@dataclass(frozen=True)
class Span:
    """Numbers of onset and offset, and of the apex where it is valid; a remark on what was not."""

    onset: int
    apex: int | None
    offset: int
    remark: str = ""


def span(row: Row) -> Span:
    """Onset, apex and offset of a row by one rule.

    No apex, or one that equals the onset or lies after the offset: it is spotted, with a remark in the last
    two cases. A missing or impossible offset is remarked on where the apex is valid, since features need
    onset and apex alone. InputError: no onset, apex before onset, or nothing to spot in.
    """
    onset, apex, offset = (frame_number(row[name], name) for name in ("onset", "apex", "offset"))
    cure = "correct it in a copy of the table and pass --labels COPY"
    if onset is None:
        raise InputError(f"the onset is blank: {cure}")
    if apex is not None and apex < onset:
        raise InputError(f"the onset ({onset}) comes after the apex ({apex}): {cure}")
    if offset is None or offset <= onset:
        said = "is blank" if offset is None else f"({offset}) does not come after the onset ({onset})"
        if apex is None or apex == onset:
            raise InputError(f"the offset {said} and there is no apex, so nothing can be spotted: {cure}")
        return Span(onset, apex, apex, f"the offset {said}; not needed")
    if apex is not None and apex == onset:
        return Span(onset, None, offset, "apex and onset are one frame; the apex is spotted")
    if apex is not None and apex > offset:
        return Span(onset, None, offset, f"the apex ({apex}) is after the offset ({offset}); it is spotted")
    return Span(onset, apex, offset)


def cut(
    folder: Path, files: Mapping[int, Path], where: Span, numbering: str
) -> tuple[tuple[Path, ...], int, int | None, bool]:
    """Frames from onset to offset, the number of the first, the apex as an index, and whether files were
    counted from the onset.

    files: of the folder, by number. numbering: `file` takes the number in a file's name as the sheet's;
    `onset` takes the first file as the onset, whatever it is called; `auto` the first where onset and offset
    are there, else the second where the folder holds exactly that many frames. InputError: frames that are
    not there.
    """
    numbers, length = sorted(files), where.offset - where.onset + 1
    apex = None if where.apex is None else where.apex - where.onset
    absent = [n for n in range(where.onset, where.offset + 1) if n not in files]
    if numbering == "file" or (numbering == "auto" and not absent):
        if absent:
            raise InputError(_absent(folder, where, numbers, absent))
        return tuple(files[n] for n in range(where.onset, where.offset + 1)), where.onset, apex, False
    contiguous = numbers[-1] - numbers[0] + 1 == len(numbers)
    if numbering == "onset" and len(numbers) < length:
        raise InputError(
            f"{folder} holds {len(numbers)} frames, fewer than the {length} from onset {where.onset} to "
            f"offset {where.offset}: unpack that clip again"
        )
    if numbering == "onset" or (len(numbers) == length and contiguous):
        return tuple(files[n] for n in numbers[:length]), numbers[0], apex, True
    raise InputError(_absent(folder, where, numbers, absent))


def _absent(folder: Path, where: Span, numbers: Sequence[int], absent: Sequence[int]) -> str:
    kind = "has a gap" if numbers[0] <= where.onset and numbers[-1] >= where.offset else "lacks frames"
    shown = _runs(absent)
    text = (
        f"{folder} {kind}: frame{'s' if len(absent) > 1 else ''} {shown} of onset {where.onset} to offset "
        f"{where.offset} not there (files are numbered {numbers[0]} to {numbers[-1]})"
    )
    return f"{text}: unpack that clip again, or pass --numbering onset if its first file is the onset"


def _runs(numbers: Sequence[int], most: int = 4) -> str:
    """12-14, 20, ... of an ascending list."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    words = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:most]]
    return ", ".join(words) + (", ..." if len(runs) > most else "")


def tally(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))
