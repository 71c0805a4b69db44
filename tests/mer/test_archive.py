"""The archive refuses every fault of its format by name, and what it accepts comes back unchanged."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.mer.data.archive import Meta, load_archive, make_archive, save_archive
from merveil.mer.errors import InputError

Arrays = dict[str, Any]


def without(key: str) -> Callable[[Arrays], None]:
    return lambda data: data.pop(key)


def put(key: str, value: Any) -> Callable[[Arrays], None]:
    return lambda data: data.update({key: value})


def edit(key: str, change: Callable[[Any], Any]) -> Callable[[Arrays], None]:
    return lambda data: data.update({key: change(data[key])})


def at(key: str, row: Any, value: Any) -> Callable[[Arrays], None]:
    def spoil(data: Arrays) -> None:
        data[key] = data[key].astype(object if value is None else data[key].dtype)
        if data[key].dtype.kind == "U":
            data[key] = data[key].astype("U32")
        data[key][row] = value

    return spoil


def as_float(row: int, value: float) -> Callable[[Arrays], None]:
    def spoil(data: Arrays) -> None:
        data["x"] = data["x"].astype(np.float32)
        data["x"][row, 3, 4, 1] = value

    return spoil


def twins(data: Arrays) -> None:
    data["x"][50] = data["x"][2]


def negative_zero_twins(data: Arrays) -> None:
    data["x"] = data["x"].astype(np.float32)
    data["x"][2], data["x"][50] = 0.0, -0.0


META = json.loads(Meta().to_json())
FAULTS: list[tuple[str, Callable[[Arrays], None], str]] = [
    ("missing x", without("x"), r"missing array x"),
    ("missing names", without("clip"), r"missing array clip"),
    ("object x", edit("x", lambda x: x.astype(object)), r"array x holds Python objects"),
    ("object subject", edit("subject", lambda s: s.astype(object)), r"array subject holds Python objects"),
    ("float64 x", edit("x", lambda x: x.astype(np.float64)), r"x has dtype float64.*uint8 or float32"),
    ("int x", edit("x", lambda x: x.astype(np.int32)), r"x has dtype int32"),
    ("flat x", edit("x", lambda x: x.reshape(len(x), -1)), r"x has shape \(60, 2352\)"),
    ("no pixels", edit("x", lambda x: x[:, :0]), r"no pixels"),
    ("one channel", edit("x", lambda x: x[..., :1]), r"x has 1 channels.*names 3"),
    ("nan", as_float(7, np.nan), r"clip alpha/s2/c2 \(row 7\) has NaN"),
    ("infinity", as_float(59, -np.inf), r"clip beta/s5/c6 \(row 59\)"),
    ("float labels", edit("y", lambda y: y.astype(float)), r"y has dtype float64"),
    ("bool labels", edit("y", lambda y: y > 0), r"y has dtype bool"),
    ("short y", edit("y", lambda y: y[:-1]), r"y has shape \(59,\).*60 clips"),
    ("column y", edit("y", lambda y: y[:, None]), r"y has shape \(60, 1\)"),
    ("label 3", at("y", 4, 3), r"label 3 of clip 4 is out of range"),
    ("label -1", at("y", 4, -1), r"label -1 of clip 4"),
    ("huge label", put("y", np.full(60, 2**64 - 1, dtype=np.uint64)), r"label 18446744073709551615"),
    ("one class", edit("y", np.zeros_like), r"one class \(negative\)"),
    ("empty", lambda d: d.update({k: v[:0] for k, v in d.items()}), r"empty"),
    ("short subject", edit("subject", lambda s: s[1:]), r"subject has shape \(59,\)"),
    ("number subjects", put("subject", np.arange(60)), r"subject holds int64"),
    ("blank subject", at("subject", 9, ""), r"subject of clip 9 is ''"),
    ("padded subject", at("subject", 9, "s1 "), r"subject of clip 9 is 's1 '"),
    ("newline in clip", at("clip", 9, "a\nb"), r"clip of clip 9"),
    ("slash in dataset", at("dataset", slice(0, 6), "a/b"), r"dataset 'a/b' has a '/'"),
    ("same key twice", at("clip", 1, "c1"), r"rows 0 and 1 have the same .*alpha/s1/c1"),
    ("content of another", twins, r"alpha/s1/c3 and beta/s4/c3 \(rows 2, 50\) have equal content"),
    ("-0 equals 0", negative_zero_twins, r"rows 2, 50\) have equal content"),
    (
        "two persons",
        put("person", np.array([f"p{i}" for i in range(60)])),
        r"alpha/s1 is two persons, 'p0' and 'p1'",
    ),
    ("short site", put("site", np.array(["a"] * 3)), r"site has shape"),
    ("meta not JSON", put("meta", np.array("{")), r"meta is not JSON"),
    ("meta a list", put("meta", np.array("[]")), r"meta must be a JSON object"),
    ("meta deep", put("meta", np.array("[" * 100_000)), r"meta is not JSON"),
    ("meta two strings", put("meta", np.array(["{}", "{}"])), r"meta must be one JSON string"),
    ("meta bytes", put("meta", np.array(b"{}")), r"meta must be one JSON string"),
    ("meta empty", put("meta", np.array("{}")), r"meta lacks format, channels, classes"),
    ("meta format", put("meta", np.array(json.dumps(META | {"format": 2}))), r"format 2; this version reads"),
    ("meta true", put("meta", np.array(json.dumps(META | {"format": True}))), r"format True"),
    (
        "meta channels",
        put("meta", np.array(json.dumps(META | {"channels": "uv"}))),
        r"channels must be a list",
    ),
    ("meta classes", put("meta", np.array(json.dumps(META | {"classes": ["a", "a"]}))), r"empty or repeated"),
    ("meta one class", put("meta", np.array(json.dumps(META | {"classes": ["a"]}))), r"at least 2"),
    ("meta flow", put("meta", np.array(json.dumps(META | {"flow": 3}))), r"flow must be text"),
]


@pytest.mark.parametrize("spoil, text", [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_each_fault_is_named(toy_data: Any, tmp_path: Path, spoil: Any, text: str) -> None:
    data = toy_data()
    spoil(data)
    np.savez(tmp_path / "bad.npz", **data)
    with pytest.raises(InputError, match=text) as caught:
        load_archive(tmp_path / "bad.npz")
    assert "bad.npz" in str(caught.value)


def test_round_trip_keeps_everything(toy_data: Any, tmp_path: Path) -> None:
    data = toy_data(dtype=np.float32)
    data["site"] = np.array([f"site{i % 3}" for i in range(60)])
    data["person"] = np.array([f"human-{s}" for s in data["subject"]])
    meta = Meta(classes=("down", "up", "wide"), flow="tvl1", normalisation="none", apex="annotated")
    loaded = load_archive(save_archive(tmp_path / "a.npz", **data, meta=meta))
    for key, value in data.items():
        assert np.array_equal(getattr(loaded, key), value) and getattr(loaded, key).dtype == value.dtype
    assert loaded.meta == meta and loaded.classes == ("down", "up", "wide") and loaded.notices == ()
    assert len(loaded.persons()) == 5


def test_equal_subject_names_of_two_datasets_are_two_people(toy_archive: Any) -> None:
    assert len(set(toy_archive.subject)) == 5
    assert len(toy_archive.persons()) == 10
    assert np.array_equal(toy_archive.site, toy_archive.dataset)


def test_no_meta_takes_the_default_and_says_so(toy_data: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **toy_data(), persons=np.zeros(3))
    archive = load_archive(tmp_path / "a.npz")
    assert archive.meta == Meta() and archive.meta.channels == ("strain", "v", "u")
    assert any("no meta" in notice and "strain" in notice for notice in archive.notices)
    assert any("ignored arrays" in notice and "persons" in notice for notice in archive.notices)


def test_damaged_files_are_input_errors(toy_file: Path, tmp_path: Path) -> None:
    whole = toy_file.read_bytes()
    flipped = bytearray(whole)
    flipped[400] ^= 0xFF
    single = tmp_path / "one.npy"
    np.save(single, np.zeros(3))
    cases = {
        "empty": (b"", r"not an .npz archive \(empty\)"),
        "half": (whole[: len(whole) // 2], "damaged or truncated"),
        "text": (b"hello", "another format"),
        "single": (single.read_bytes(), "single .npy array"),
        "flipped": (bytes(flipped), "array x is damaged"),
    }
    for name, (data, text) in cases.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"{name}\.npz: .*{text}"):
            load_archive(path)
    with pytest.raises(InputError, match="no such file"):
        load_archive(tmp_path / "absent.npz")
    with pytest.raises(InputError, match="is a folder"):
        load_archive(tmp_path)


def test_any_truncation_is_an_input_error(toy_file: Path, tmp_path: Path) -> None:
    whole = toy_file.read_bytes()
    for cut in np.random.default_rng(0).integers(0, len(whole), 40).tolist():
        (tmp_path / "cut.npz").write_bytes(whole[:cut])
        with pytest.raises(InputError):
            load_archive(tmp_path / "cut.npz")


def test_nothing_is_half_written(toy_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_data()
    target = save_archive(tmp_path / "a.npz", **data)
    before = target.read_bytes()
    assert save_archive(target, **data).read_bytes() == before  # equal content, equal bytes
    data["y"][0] = 9
    with pytest.raises(InputError):
        save_archive(target, **data)
    data["y"][0] = 0

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_archive(target, **data)
    assert target.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_select_is_a_part_with_its_own_digest(toy_archive: Any) -> None:
    part = toy_archive.select(toy_archive.person == "alpha/s1")
    assert part.n == 6 and part.persons() == ["alpha/s1"] and part.meta == toy_archive.meta
    assert part.sha256 != toy_archive.sha256
    assert toy_archive.select(np.arange(60)).sha256 == toy_archive.sha256
    assert toy_archive.select([]).n == 0


def test_content_digest_sees_every_field(toy_data: Any) -> None:
    digests = {make_archive(**toy_data()).sha256}
    for key, row, value in (("x", (0, 0, 0, 0), 77), ("y", 3, 2), ("clip", 3, "zz")):
        data = toy_data()
        data[key][row] = value
        digests.add(make_archive(**data).sha256)
    digests.add(make_archive(**toy_data(), meta=Meta(flow="dis")).sha256)
    assert len(digests) == 5
