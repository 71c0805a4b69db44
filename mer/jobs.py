"""Which clips a source holds, what each needs read, and the key under which its features are kept."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.data import folders, synthetic
from merveil.mer.data.datasets import find
from merveil.mer.data.meta import CLASSES
from merveil.mer.data.video import content_hash, files_hash, read_clip, read_frames
from merveil.mer.errors import InputError
from merveil.mer.features.extract import Settings, near_apex, settings_key

LAYOUTS = ("synthetic", "flow-folder", "video-folder", "archives", *find.LAYOUTS)


@dataclass(frozen=True)
class Job:
    """One clip to be processed: `path` of a video or frame folder; or `frames` of an annotated set, onset to
    offset, with the apex as an index where it is known; or (source, row, column) of a synthetic clip."""

    dataset: str
    subject: str
    clip: str
    site: str
    label: int
    kind: str
    path: Path | None = None
    frames: tuple[Path, ...] = ()
    apex: int | None = None
    first: int = 0
    source: synthetic.Source | None = None
    row: int = 0
    column: int = 0

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.subject}/{self.clip}"


@dataclass(frozen=True)
class Work:
    """The jobs of a source in a fixed order, the classes of their labels; faults of single rows, each as
    'where: what'; and remarks."""

    jobs: Sequence[Job]
    classes: tuple[str, ...] = CLASSES
    faults: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")


def find_work(source: str, layout: str, **options: Any) -> Work:
    """Everything that a source holds. options: classes, labels and numbering, of annotated sets alone."""
    check_layout(layout)
    if layout not in find.LAYOUTS:
        if options:
            words = ", ".join(f"--{name}" for name in sorted(options))
            raise InputError(f"{words}: for annotated sets alone ({', '.join(find.LAYOUTS)})")
        return Work(find_jobs(source, layout))
    found = find.find(source, layout, **options)
    jobs = [
        Job(
            c.dataset,
            c.subject,
            c.clip,
            c.dataset,
            c.label,
            found.classes[c.label],
            frames=c.frames,
            apex=c.apex,
            first=c.first,
        )
        for c in found.clips
    ]
    return Work(jobs, found.classes, found.faults, found.notes)


def find_jobs(source: str, layout: str) -> list[Job]:
    """The clips of a video-folder or of the synthetic source, in a fixed order."""
    if layout == "video-folder":
        items = folders.scan(source, layout)
        return [
            Job(i.dataset, i.subject, i.clip, i.dataset, i.label, CLASSES[i.label], path=i.path)
            for i in items
        ]
    made = synthetic.parse_source(source)
    table = synthetic.labels(made)
    jobs = []
    for row, column in np.ndindex(*table.shape):
        subject, clip, site = synthetic.names(row, column)
        label = int(table[row, column])
        jobs.append(
            Job(
                synthetic.DATASET,
                subject,
                clip,
                site,
                label,
                CLASSES[label],
                source=made,
                row=row,
                column=column,
            )
        )
    return jobs


def few_frames(job: Job, settings: Settings) -> bool:
    """Whether the onset frame and those about the apex are all that the features of a job depend on."""
    return bool(job.frames) and job.apex is not None and settings.apex in ("auto", "annotated")


def needed(job: Job, settings: Settings) -> list[int]:
    """Positions, ascending, of the frames that features need where onset and apex are known."""
    apex = job.apex or 0
    return sorted({0, apex, *near_apex(0, apex, len(job.frames), settings.apex_jitter)})


def load(
    job: Job, settings: Settings, *, whole: bool = False
) -> tuple[NDArray[np.uint8], int | None, int | None]:
    """Grey frames and, where known, annotated onset and apex among them.

    Of an annotated set with a known apex only `needed` frames are read, unless `whole` asks for all.
    """
    if job.source is not None:
        clip = synthetic.make_clip(job.source, job.row, job.column)
        return clip.frames, clip.onset, clip.apex
    if job.frames and job.apex is not None:
        if few_frames(job, settings) and not whole:
            wanted = needed(job, settings)
            return read_frames([job.frames[at] for at in wanted]), 0, wanted.index(job.apex)
        return read_frames(job.frames), 0, job.apex
    if job.frames:
        return read_frames(job.frames), 0, None
    if job.path is None:
        raise ValueError("a job has a path, frames or a synthetic source")
    return read_clip(job.path), None, None


def cache_key(job: Job, settings: Settings) -> str:
    """SHA-256 over the clip's content and every setting and version its features depend on."""
    if job.source is not None:
        content = f"{job.source} row={job.row} column={job.column} version={synthetic.VERSION}"
    elif few_frames(job, settings):
        content = "pair " + files_hash([job.frames[at] for at in needed(job, settings)])
    elif job.frames:
        content = f"frames apex={job.apex} " + files_hash(job.frames)
    else:
        content = content_hash(job.path or "")
    record = json.dumps([content, settings_key(settings)], sort_keys=True)
    return hashlib.sha256(record.encode()).hexdigest()
