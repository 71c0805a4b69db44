"""The archive of flow-feature images: its format, its validation, reading and writing.

Guarantees: an Archive that exists has passed every check below, so splits, training and scores need not
repeat them. A person is a string; equal strings are one human, and the default "<dataset>/<subject>" keeps
equal subject names of two datasets apart. No pickle is read or written.
"""

import hashlib
import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from merveil.mer.atomic import writing
from merveil.mer.data.meta import Meta
from merveil.mer.errors import InputError

__all__ = ["Archive", "Meta", "load_archive", "make_archive", "save_archive"]

Strings = NDArray[np.str_]
Index = NDArray[np.int64]
NEEDED = ("x", "y", "dataset", "subject", "clip")
OPTIONAL = ("site", "person", "near", "meta")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, MemoryError, NotImplementedError)


@dataclass(frozen=True, eq=False)
class Archive:
    """Clips as images: x uint8|float32 [n, h, w, c], y int64 [n] in 0..K-1, five name arrays [n].

    sha256: hex digest of the file, or of the content for an archive made in memory or by `select`.
    near: [n, versions, h, w, c] in x's type, each clip's images from frames about its apex, or None. They
    are for training on that clip alone: no score, fold or prediction reads them.
    notices: remarks for the user (no meta, arrays that were ignored); the command line says them.
    """

    x: NDArray[Any]
    y: Index
    dataset: Strings
    subject: Strings
    clip: Strings
    site: Strings
    person: Strings
    meta: Meta
    sha256: str
    notices: tuple[str, ...] = ()
    near: NDArray[Any] | None = None

    @property
    def n(self) -> int:
        return len(self.y)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.meta.classes

    def persons(self) -> list[str]:
        """Sorted unique persons."""
        return [str(name) for name in np.unique(self.person)]

    def key(self, i: int) -> str:
        """The clip's full name, "<dataset>/<subject>/<clip>", for messages."""
        return f"{self.dataset[i]}/{self.subject[i]}/{self.clip[i]}"

    def check_near(self, apex_jitter: float) -> None:
        """InputError where a training wants images near the apex and the archive has none."""
        if apex_jitter and self.near is None:
            raise InputError(
                "apex_jitter needs images from frames near the apex, and this archive has none: prepare it "
                "with --apex-jitter 2 or so, or leave apex_jitter at 0"
            )

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """SHA-256 of each clip's pixels; -0.0 counts as 0.0, so that equal images have equal digests."""
        return _digests(self.x)

    def select(self, index: ArrayLike) -> "Archive":
        """The clips at `index` (integers or a mask), in that order; a part may hold one class or person."""
        rows = np.asarray(index)
        rows = rows if rows.size else rows.astype(np.int64)
        names = {key: getattr(self, key)[rows] for key in ("dataset", "subject", "clip", "site", "person")}
        x, y, near = self.x[rows], self.y[rows], None if self.near is None else self.near[rows]
        digest = _content_sha256(x, y, names, self.meta, near)
        return Archive(x, y, **names, meta=self.meta, sha256=digest, near=near)


def make_archive(
    *,
    x: ArrayLike,
    y: ArrayLike,
    dataset: ArrayLike,
    subject: ArrayLike,
    clip: ArrayLike,
    site: ArrayLike | None = None,
    person: ArrayLike | None = None,
    near: ArrayLike | None = None,
    meta: Meta | None = None,
    sha256: str | None = None,
    notices: tuple[str, ...] = (),
) -> Archive:
    """Validate arrays and hold them as an Archive; InputError names the first fault and its clip."""
    meta = Meta() if meta is None else meta
    images = _images(np.asarray(x), meta)
    n = len(images)
    names = {
        key: _text(key, value, n)
        for key, value in (("dataset", dataset), ("subject", subject), ("clip", clip))
    }
    slashed = [name for name in np.unique(names["dataset"]) if "/" in name]
    if slashed:
        raise InputError(
            f"dataset {str(slashed[0])!r} has a '/', which separates dataset and subject: rename it"
        )
    names["site"] = names["dataset"] if site is None else _text("site", site, n)
    default = np.array([f"{d}/{s}" for d, s in zip(names["dataset"], names["subject"])])
    names["person"] = default if person is None else _text("person", person, n)
    labels = _labels(np.asarray(y), n, meta.classes)
    others = None if near is None else _near(np.asarray(near), images)
    digest = sha256 or _content_sha256(images, labels, names, meta, others)
    archive = Archive(images, labels, **names, meta=meta, sha256=digest, notices=notices, near=others)
    _check_values(archive)
    _check_names(archive)
    _check_content(archive)
    return archive


def load_archive(path: str | Path) -> Archive:
    """Read and validate an .npz archive; InputError names the file and its first fault."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: {'is a folder, not an archive' if file.is_dir() else 'no such file'}")
    data = file.read_bytes()
    try:
        arrays, ignored = _arrays(data)
        notices = _notices(ignored)
        meta = Meta.from_json(_meta_text(arrays.pop("meta"))) if "meta" in arrays else None
        if meta is None:
            notices = (
                *notices,
                f"no meta: taken as channels {list(Meta().channels)}, classes {list(Meta().classes)}",
            )
        return make_archive(**arrays, meta=meta, sha256=hashlib.sha256(data).hexdigest(), notices=notices)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def save_archive(
    path: str | Path,
    *,
    x: ArrayLike,
    y: ArrayLike,
    dataset: ArrayLike,
    subject: ArrayLike,
    clip: ArrayLike,
    site: ArrayLike | None = None,
    person: ArrayLike | None = None,
    near: ArrayLike | None = None,
    meta: Meta | None = None,
) -> Path:
    """Validate, then write an archive whole or not at all; equal content gives equal bytes. Returns path."""
    archive = make_archive(
        x=x, y=y, dataset=dataset, subject=subject, clip=clip, site=site, person=person, near=near, meta=meta
    )
    arrays = {key: getattr(archive, key) for key in (*NEEDED, "site", "person")}
    if archive.near is not None:
        arrays["near"] = archive.near
    with writing(path) as file:
        np.savez_compressed(file, **arrays, meta=np.array(archive.meta.to_json()))
    return Path(path)


def _arrays(data: bytes) -> tuple[dict[str, Any], list[str]]:
    """The known arrays of an .npz and the names of the others; no object array is ever unpickled."""
    if not data.startswith(b"PK"):
        single = data.startswith(b"\x93NUMPY")
        what = "empty" if not data else "a single .npy array" if single else "another format"
        raise InputError(f"not an .npz archive ({what}); `merveil prepare` writes one")
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
    except DAMAGED as error:
        raise InputError(f"a damaged or truncated .npz archive: {error}") from error
    with loaded:
        missing = [key for key in NEEDED if key not in loaded.files]
        if missing:
            raise InputError(f"missing array {', '.join(missing)}; an archive has {', '.join(NEEDED)}")
        arrays: dict[str, Any] = {}
        for key in (*NEEDED, *(name for name in OPTIONAL if name in loaded.files)):
            try:
                arrays[key] = loaded[key]
            except DAMAGED as error:
                if "allow_pickle" in str(error):
                    raise InputError(f"array {key} holds Python objects, which are never read") from error
                raise InputError(f"array {key} is damaged or truncated: {error}") from error
        return arrays, [key for key in loaded.files if key not in NEEDED + OPTIONAL]


def _notices(ignored: list[str]) -> tuple[str, ...]:
    return (f"ignored arrays that the format does not know: {', '.join(ignored)}",) if ignored else ()


def _meta_text(value: NDArray[Any]) -> str:
    if value.size != 1 or value.dtype.kind != "U":
        raise InputError(f"meta must be one JSON string, not {value.dtype} of shape {value.shape}")
    return str(value.reshape(())[()])


def _images(x: NDArray[Any], meta: Meta) -> NDArray[Any]:
    if x.dtype.kind == "O":
        raise InputError("x holds Python objects; clips of unequal size cannot be one array: resize them")
    if x.dtype not in (np.dtype(np.uint8), np.dtype(np.float32)):
        raise InputError(f"x has dtype {x.dtype}; it must be uint8 or float32")
    if x.ndim != 4:
        raise InputError(f"x has shape {x.shape}; it must be [clips, height, width, channels]")
    if len(x) == 0:
        raise InputError("the archive is empty: x holds no clip")
    if 0 in x.shape:
        raise InputError(f"x has shape {x.shape}: its clips hold no pixels")
    if x.shape[3] != len(meta.channels):
        named = f"[{', '.join(meta.channels)}]"
        raise InputError(
            f"x has {x.shape[3]} channels and meta (or its default) names {len(meta.channels)} {named}"
        )
    return np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="), copy=False))


def _near(near: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    if near.ndim != 5 or len(near) != len(x) or near.shape[2:] != x.shape[1:] or not near.shape[1]:
        raise InputError(
            f"near has shape {near.shape}; for x of {x.shape} it must be "
            f"[{len(x)}, versions, {', '.join(map(str, x.shape[1:]))}] with at least one version"
        )
    if near.dtype.newbyteorder("=") != x.dtype:
        raise InputError(f"near has dtype {near.dtype}; it must be that of x, {x.dtype}")
    return np.ascontiguousarray(near.astype(x.dtype, copy=False))


def _labels(y: NDArray[Any], n: int, classes: tuple[str, ...]) -> Index:
    if y.dtype.kind not in "iu":
        raise InputError(f"y has dtype {y.dtype}; labels must be integers (int64)")
    if y.shape != (n,):
        raise InputError(f"y has shape {y.shape}; x holds {n} clips, so it must be ({n},)")
    bad = np.flatnonzero((y < 0) | (y >= len(classes)))
    if len(bad):
        i = int(bad[0])
        raise InputError(
            f"label {int(y[i])} of clip {i} is out of range: there are {len(classes)} classes "
            f"({', '.join(classes)}), so 0..{len(classes) - 1}"
        )
    return y.astype(np.int64)


def _text(key: str, value: ArrayLike, n: int) -> Strings:
    names = np.asarray(value)
    if names.dtype.kind != "U":
        what = "Python objects" if names.dtype.kind == "O" else str(names.dtype)
        raise InputError(f"{key} holds {what}; it must be an array of text")
    if names.shape != (n,):
        raise InputError(f"{key} has shape {names.shape}; x holds {n} clips, so it must be ({n},)")
    for i, name in enumerate(names):
        if not name or name != name.strip() or not name.isprintable():
            raise InputError(f"{key} of clip {i} is {str(name)!r}: empty, padded or not printable; rename it")
    return names


def _check_values(archive: Archive) -> None:
    if archive.x.dtype == np.float32:
        bad = np.flatnonzero(~np.isfinite(archive.x).all(axis=(1, 2, 3)))
        if len(bad):
            raise InputError(f"clip {archive.key(bad[0])} (row {bad[0]}) has NaN or infinite values in x")
        if archive.near is not None:
            bad = np.flatnonzero(~np.isfinite(archive.near).all(axis=(1, 2, 3, 4)))
            if len(bad):
                raise InputError(
                    f"clip {archive.key(bad[0])} (row {bad[0]}) has NaN or infinite values in near"
                )
    present = np.unique(archive.y)
    if len(present) < 2:
        only = archive.classes[int(present[0])]
        raise InputError(
            f"all {archive.n} clips have one class ({only}): at least two are needed to learn or score"
        )


def _check_names(archive: Archive) -> None:
    seen: dict[tuple[str, str, str], int] = {}
    owner: dict[tuple[str, str], str] = {}
    for i in range(archive.n):
        subject = (str(archive.dataset[i]), str(archive.subject[i]))
        first = seen.setdefault((*subject, str(archive.clip[i])), i)
        if first != i:
            raise InputError(f"rows {first} and {i} have the same (dataset, subject, clip): {archive.key(i)}")
        person = str(archive.person[i])
        if owner.setdefault(subject, person) != person:
            raise InputError(
                f"subject {'/'.join(subject)} is two persons, {owner[subject]!r} and {person!r} "
                f"(row {i}): one person would be in train and test"
            )


def _check_content(archive: Archive) -> None:
    first: dict[bytes, int] = {}
    clips = [(i, digest) for i, digest in enumerate(archive.digests)]
    if archive.near is not None:
        versions = archive.near.shape[1]
        found = _digests(archive.near.reshape(-1, *archive.x.shape[1:]))
        clips += [(k // versions, digest) for k, digest in enumerate(found)]
    for i, digest in clips:
        j = first.setdefault(digest, i)
        if (archive.dataset[i], archive.subject[i]) != (archive.dataset[j], archive.subject[j]):
            raise InputError(
                f"clips {archive.key(j)} and {archive.key(i)} (rows {j}, {i}) have equal content under two "
                "subjects: a clip would be in train and test"
            )


def _digests(x: NDArray[Any]) -> tuple[bytes, ...]:
    x = x + np.float32(0) if x.dtype == np.float32 else x
    return tuple(hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in x)


def _content_sha256(
    x: NDArray[Any], y: Index, names: dict[str, Strings], meta: Meta, near: NDArray[Any] | None = None
) -> str:
    head = [str(x.dtype), x.shape, {key: names[key].tolist() for key in sorted(names)}, meta.to_json()]
    digest = hashlib.sha256(json.dumps(["merveil/archive/1", *head]).encode())
    digest.update(np.ascontiguousarray(x))
    digest.update(np.ascontiguousarray(y))
    if near is not None:
        digest.update(f"near {near.shape}".encode())
        digest.update(np.ascontiguousarray(near))
    return digest.hexdigest()
