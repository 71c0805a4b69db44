"""Several archives as one, such as the three sets of a composite; only what was made alike is pooled."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from merveil.mer.data.archive import Archive, load_archive, make_archive
from merveil.mer.data.meta import Meta
from merveil.mer.errors import InputError

SAME = ("channels", "classes", "flow", "normalisation")
COLUMNS = ("x", "y", "dataset", "subject", "clip", "site", "person")


def pool(paths: Sequence[str | Path]) -> Archive:
    """The clips of all archives, in the order of the files.

    InputError: fewer than two files, features or classes that were not made alike (the two files and what
    differs are named), and all that `make_archive` refuses, such as one clip in two files.
    """
    if len(paths) < 2:
        raise InputError("--layout archives puts several .npz files together: name at least two")
    parts = [load_archive(path) for path in paths]
    for path, part in zip(paths[1:], parts[1:]):
        _alike(str(paths[0]), parts[0], str(path), part)
    first = parts[0].meta
    meta = Meta(
        channels=first.channels,
        classes=first.classes,
        flow=first.flow,
        normalisation=first.normalisation,
        apex=_apexes([part.meta.apex for part in parts]),
    )
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
    near = [part.near for part in parts if part.near is not None]
    return make_archive(**columns, near=np.concatenate(near) if near else None, meta=meta)


def _alike(name: str, one: Archive, other_name: str, other: Archive) -> None:
    for key in SAME:
        a, b = getattr(one.meta, key), getattr(other.meta, key)
        if a != b:
            raise InputError(f"{name} and {other_name} differ in {key} ({a} and {b}): prepare both alike")
    forms = [_form(part) for part in (one, other)]
    if forms[0] != forms[1]:
        raise InputError(
            f"{name} and {other_name} differ in form ({forms[0]} and {forms[1]}): prepare both alike"
        )


def _form(part: Archive) -> str:
    near = "" if part.near is None else f" and {part.near.shape[1]} near the apex"
    return f"{part.x.dtype} {' x '.join(map(str, part.x.shape[1:]))}{near}"


def _apexes(texts: Sequence[str]) -> str:
    """`annotated 2, spotted 1` and `spotted 3` -> `annotated 2, spotted 4`; other texts one after another."""
    counts: Counter[str] = Counter()
    for text in texts:
        pairs = [re.fullmatch(r"(\w+) (\d+)", word) for word in text.split(", ")]
        if not all(pairs):
            return "; ".join(dict.fromkeys(texts))
        for pair in pairs:
            if pair is not None:
                counts[pair[1]] += int(pair[2])
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
