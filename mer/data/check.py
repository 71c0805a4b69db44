"""What an archive holds, for people and as JSON, and clips whose labels deserve a second look."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.data.archive import Archive, load_archive
from merveil.mer.errors import InputError

EXPECTED = (
    "an .npz archive: x uint8|float32 [clips, height, width, channels]; y int64 [clips], 0..K-1; dataset, "
    "subject, clip text [clips]; optional site, person text [clips]; optional near, like x [clips, versions, "
    "height, width, channels]; optional meta, a JSON string "
    '{"format": 1, "channels": [...], "classes": [...], "flow", "normalisation", "apex"}'
)
NEAR = 0.85  # on the public two-part maps 1 pair in 1,000 is above .79, and one with unequal labels above .85
COPY = 0.98  # between two persons: rather one clip twice than two faces
MOST = 20
BLOCK = 512


def check_archive(path: str | Path) -> dict[str, Any]:
    """The report of `merveil check` on one archive: {ok, kind, path, problem, expected, ...what is there}.

    A faulty archive gives ok False and its first fault; it raises nothing but OSError.
    """
    head = {"kind": "archive", "path": str(path), "expected": EXPECTED}
    try:
        archive = load_archive(path)
    except InputError as error:
        return {"ok": False, "problem": str(error), **head}
    return {"ok": True, "problem": None, **head, **describe(archive)}


def layouts() -> tuple[str, ...]:
    """Every layout of a folder, merveil's own first."""
    from merveil.mer.data.datasets.find import LAYOUTS as SETS
    from merveil.mer.data.folders import LAYOUTS as OWN

    return (*OWN, *SETS)


def check_folder(path: str | Path, layout: str, **options: Any) -> dict[str, Any]:
    """The same report for a dataset's folder: its tree, and for flow images all that an archive shows.

    options: classes, labels, numbering, of annotated sets alone. Raises InputError for an unknown layout (the
    text lists the known ones) or option, OSError for unreadable files.
    """
    from merveil.mer.data.datasets.find import LAYOUTS as SETS
    from merveil.mer.data.folders import describe_folder, expected_tree, read_flow_folder

    if layout not in layouts():
        raise InputError(f"unknown folder layout {layout!r}: choose one of {', '.join(layouts())}")
    if layout in SETS:
        return _annotated(path, layout, options)
    if options:
        words = ", ".join(f"--{name}" for name in sorted(options))
        raise InputError(f"{words}: for annotated sets alone ({', '.join(SETS)})")

    head = {"kind": layout, "path": str(path), "expected": expected_tree(layout)}
    try:
        found = describe_folder(path, layout)
        inside = describe(read_flow_folder(path)) if layout == "flow-folder" else {}
    except InputError as error:
        problem = str(error).split("\nexpected tree of ")[0]
        return {"ok": False, "problem": problem, **head}
    counted = {"clips": found["clips"], "persons": found["subjects"], "classes": found["classes"]}
    return {"ok": True, "problem": None, **head, **counted, "datasets": found["datasets"], **inside}


def _annotated(path: str | Path, layout: str, options: dict[str, Any]) -> dict[str, Any]:
    """An annotated set: every fault of its rows, the first of them as the problem."""
    from merveil.mer.data.datasets.emotions import check_mode
    from merveil.mer.data.datasets.find import describe, expected
    from merveil.mer.data.datasets.record import check_numbering

    check_mode(options.get("classes", "3"))
    check_numbering(options.get("numbering", "auto"))
    head = {"kind": layout, "path": str(path), "expected": expected(layout)}
    try:
        found = describe(path, layout, **options)
    except InputError as error:
        return {"ok": False, "problem": str(error).split("\nexpected tree of ")[0], **head}
    faults = found["faults"]
    more = f" (the first of {len(faults)} faults)" if len(faults) > 1 else ""
    problem = f"{faults[0]}{more}" if faults else None
    if problem is None and not found["clips"]:
        problem = f"{path} holds no clip of these classes"
    return {"ok": problem is None, "problem": problem, **head, **found}


def describe(archive: Archive) -> dict[str, Any]:
    """Counts, names and near-equal clips of a valid archive, as plain JSON values."""
    names = np.unique(archive.dataset).tolist()
    return {
        "clips": archive.n,
        "shape": list(archive.x.shape[1:]),
        "dtype": str(archive.x.dtype),
        "near_apex": 0 if archive.near is None else archive.near.shape[1],
        "persons": len(archive.persons()),
        "sites": {str(s): int((archive.site == s).sum()) for s in np.unique(archive.site)},
        "classes": _by_class(archive, np.ones(archive.n, dtype=bool)),
        "datasets": {name: _dataset(archive, archive.dataset == name) for name in names},
        "meta": {
            "channels": list(archive.meta.channels),
            "flow": archive.meta.flow,
            "normalisation": archive.meta.normalisation,
            "apex": archive.meta.apex,
        },
        "notices": list(archive.notices),
        "sha256": archive.sha256,
        **near_equal(archive),
    }


def near_equal(archive: Archive, near: float = NEAR, copy: float = COPY) -> dict[str, Any]:
    """Pairs of clips that look alike: {unequal_labels: [...], between_persons: [...]}, most alike first.

    Likeness is the correlation of two images after each channel's mean is taken off. unequal_labels: alike to
    `near` with different labels (of one person or two); between_persons: alike to `copy`, two persons. Each
    list is cut to the 20 most alike, with the number found beside it.
    """
    flat = _standard(archive)
    unequal: list[tuple[float, int, int]] = []
    between: list[tuple[float, int, int]] = []
    for start in range(0, archive.n, BLOCK):
        alike = flat[start : start + BLOCK] @ flat.T
        rows, columns = np.nonzero(alike >= min(near, copy))
        for i, j in zip((rows + start).tolist(), columns.tolist()):
            value = float(min(alike[i - start, j], 1.0))
            if i < j and archive.y[i] != archive.y[j] and value >= near:
                unequal.append((value, i, j))
            if i < j and archive.person[i] != archive.person[j] and value >= copy:
                between.append((value, i, j))
    return {
        "unequal_labels": [_pair(archive, *pair) for pair in sorted(unequal, reverse=True)[:MOST]],
        "unequal_labels_found": len(unequal),
        "between_persons": [_pair(archive, *pair) for pair in sorted(between, reverse=True)[:MOST]],
        "between_persons_found": len(between),
    }


def report(found: dict[str, Any]) -> str:
    """The report for people."""
    if not found["ok"]:
        return f"fault: {found['problem']}\nexpected: {found['expected']}"
    kind, clips, persons = found["kind"], found["clips"], found["persons"]
    lines = [f"{found['path']}: a valid {kind}, {clips} clips of {persons} persons"]
    lines.append("classes: " + _counts(found["classes"]))
    for name, part in found["datasets"].items():
        counts = f", {_counts(part['classes'])}" if "classes" in part else ""
        lines.append(f"  {name}: {part['clips']} clips, {part['subjects']} subjects{counts}")
    if "apex" in found:
        lines.append("apex: " + _counts(found["apex"]))
    if "shape" not in found:  # videos: their pixels are read by `merveil prepare`
        return "\n".join(lines)
    meta, shape = found["meta"], " x ".join(map(str, found["shape"]))
    lines.append(f"images: {shape} {found['dtype']}, channels {', '.join(meta['channels'])}")
    if found["near_apex"]:
        lines.append(f"near the apex: {found['near_apex']} images a clip, for training with apex_jitter")
    lines.append(
        f"made with: flow {meta['flow']}, normalisation {meta['normalisation']}, apex {meta['apex']}"
    )
    lines.append("sites: " + _counts(found["sites"]))
    lines += _pairs("near-equal clips with unequal labels", found, "unequal_labels")
    lines += _pairs("near-copies between two persons", found, "between_persons")
    return "\n".join(lines)


def _standard(archive: Archive) -> NDArray[np.float32]:
    """Centred images of length 1, [n, d]; a flat image is all 0, so it is like nothing."""
    x = archive.x.astype(np.float32)
    x /= max(float(np.abs(x).max()), 1e-30)  # so that squares of large floats stay finite
    size = np.linalg.norm(x.reshape(archive.n, -1), axis=1, keepdims=True)
    x = (x - x.mean(axis=(1, 2), keepdims=True)).reshape(archive.n, -1)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 1e-5 * size)


def _dataset(archive: Archive, rows: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "clips": int(rows.sum()),
        "subjects": len(np.unique(archive.subject[rows])),
        "classes": _by_class(archive, rows),
    }


def _by_class(archive: Archive, rows: NDArray[np.bool_]) -> dict[str, int]:
    counts = np.bincount(archive.y[rows], minlength=len(archive.classes))
    return {name: int(count) for name, count in zip(archive.classes, counts)}


def _pair(archive: Archive, value: float, i: int, j: int) -> dict[str, Any]:
    return {
        "clips": [archive.key(i), archive.key(j)],
        "labels": [archive.classes[archive.y[i]], archive.classes[archive.y[j]]],
        "likeness": round(value, 4),
    }


def _counts(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in values.items())


def _pairs(title: str, found: dict[str, Any], key: str) -> list[str]:
    number, pairs = found[f"{key}_found"], found[key]
    head = f"{title}: {number or 'none'}" + (f", the {len(pairs)} most alike:" if number > len(pairs) else "")
    rows = [
        f"  {pair['likeness']:.3f}  {pair['clips'][0]} ({pair['labels'][0]}) - "
        f"{pair['clips'][1]} ({pair['labels'][1]})"
        for pair in pairs
    ]
    return [head, *rows]
