"""`merveil audit`: aggregators as black boxes, schemes through pytest, exit codes and the JSON."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from merveil.audits.blackbox import QUESTIONS, examine
from merveil.audits.candidate import Candidate, load, readings
from merveil.cli import audit, main
from merveil.fl.aggregator import SecureAggregator
from merveil.mer.errors import InputError
from merveil.protocols.primitives.packing import pack

NAIVE = Path(__file__).parents[2] / "examples" / "audit"


def verdicts(tool: Any) -> dict[str, str]:
    return {r["id"]: r["verdict"] for r in examine(Candidate(tool, "tool"))}


def test_the_naive_example_fails_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, schema: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(NAIVE)
    out = tmp_path / "a.json"
    words = ["audit", "--aggregator", "naive:NaiveAggregator", "--json", "--out", str(out)]
    assert main(words) == 4
    found = json.loads(capsys.readouterr().out)
    assert schema.check(found, schema.load("audit")) == []
    assert json.loads(out.read_text()) == found["audits"]
    by_name = {r["id"]: r["verdict"] for r in found["audits"]}
    assert by_name["reused-mask"] == "broken" and by_name["not-finite"] == "broken"
    assert by_name["exactness"] == by_name["weights"] == "protected"
    assert by_name["dropouts"] == "underpowered" and found["lost"]
    assert main(words[:3]) == 4
    assert "reused-mask     broken" in capsys.readouterr().out


def test_merveils_own_aggregator_passes_through_the_same_door(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--aggregator", "merveil:SecureAggregator", "--json", "--strict"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {r["id"] for r in found["audits"]} == set(QUESTIONS) and found["verdicts"] == {"protected": 10}


def test_plain_is_read_bit_for_bit_through_the_same_door() -> None:
    """The control of the door itself: packed residues in clear are found."""
    found = verdicts(SecureAggregator("plain", record=True))
    assert found["readable-upload"] == found["reused-mask"] == "broken"
    assert found["exactness"] == found["dropouts"] == "protected"


class Skewed:
    """Means off by a hundredth, weights ignored, lengths that tell zeros, one pad for everyone."""

    def mean(self, updates: Any, weights: Any = None) -> Any:
        return np.mean(updates, axis=0) + 0.01

    def uploads(self, updates: Any) -> Any:
        pad = np.random.default_rng().normal(0, 1e4, len(updates[0]))
        return [(u + pad).tobytes() + b"x" * int(np.count_nonzero(u)) for u in updates]


class Silent:
    """A right mean, and nothing to look at."""

    def mean(self, updates: Any) -> Any:
        if not np.isfinite(np.stack(updates)).all():
            raise ValueError("not finite")
        return np.mean(updates, axis=0)


def test_each_fault_has_its_name() -> None:
    found = verdicts(Skewed())
    for name in ("exactness", "weights", "wrap", "not-finite", "upload-length"):
        assert found[name] == "broken", name
    quiet = verdicts(Silent())
    for name in ("readable-upload", "reused-mask", "shared-mask", "upload-length", "weights", "dropouts"):
        assert quiet[name] == "underpowered", name
    assert quiet["not-finite"] == quiet["shape"] == quiet["exactness"] == "protected"


def test_one_pad_for_all_clients_is_found() -> None:
    class Shared(Skewed):
        def uploads(self, updates: Any) -> Any:
            pad = np.random.default_rng().normal(0, 1e4, len(updates[0]))
            return [u + pad for u in updates]

    found = verdicts(Shared())
    assert found["shared-mask"] == "broken"
    assert found["readable-upload"] == found["reused-mask"] == "protected"


def test_what_the_object_does_not_show_fails_only_when_strict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = "import numpy as np\nclass A:\n def mean(self, updates):\n  u = np.stack(updates)\n"
    source += "  if not np.isfinite(u).all(): raise ValueError\n  return u.mean(0)\n"
    (tmp_path / "quiet_sum.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    assert main(["audit", "--aggregator", "quiet_sum:A"]) == 0
    assert "the object does not let us ask" in capsys.readouterr().out
    assert main(["audit", "--aggregator", "quiet_sum:A", "--strict"]) == 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "takes module:object"),
        ("no_such_module:A", "no module 'no_such_module'"),
        ("merveil:Nothing", "has no 'Nothing'"),
        ("json:dumps", "cannot be made without arguments"),
        ("json:JSONDecoder", "no method mean"),
    ],
)
def test_a_bad_name_is_said(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=said):
        load(name)
    assert main(["audit", "--aggregator", name]) == 2


def test_an_aggregator_is_audited_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--scheme", "plain"], ["--jobs", "2"]):
        assert main(["audit", "--aggregator", "a:B", *words]) == 2
        assert "by itself" in capsys.readouterr().err


def test_readings_find_what_lies_in_bytes() -> None:
    values = np.arange(-8, 8)
    for kind in ("<f8", "<f4", "<i4", "i1", ">i2"):
        found = readings(b"head" + values.astype(kind).tobytes(), 16)
        assert (found[f"last {kind}"][0] == values).all()
    packed = pack(np.mod(values, 2**19).astype(np.uint64), 19)
    assert (readings(b"head" + packed, 16)["packed 19 bits"][0] == values).all()
    assert readings(b"", 16) == {}


def test_a_scheme_through_pytest_ends_with_records(capfd: pytest.CaptureFixture[str], schema: Any) -> None:
    assert main(["audit", "--scheme", "secagg", "--attack", "A06", "--attack", "a08", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert schema.check(found, schema.load("audit")) == []
    kept = {(r["id"], r["claim"], r["verdict"]) for r in found["audits"]}
    assert kept == {("A06", "C-44", "protected"), ("A08", "C-46", "protected")}
    assert not found["lost"] and found["verdicts"] == {"protected": 2}


def test_jobs_bring_the_same_records(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("xdist")
    words = ["audit", "--scheme", "secagg", "--attack", "A06", "--attack", "A08", "--json", "--jobs"]
    assert main([*words, "2"]) == 0
    printed = capfd.readouterr()
    assert {r["id"] for r in json.loads(printed.out)["audits"]} == {"A06", "A08"}
    assert "bringing up nodes" in printed.err
    assert main([*words, "0"]) == 0
    assert "bringing up nodes" not in capfd.readouterr().err
    assert main([*words, "-1"]) == 2
    assert "--jobs is 0 or more" in capfd.readouterr().err


def test_no_jobs_need_no_xdist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(scheme=None, attack=None, data=None, full=False, strict=False, jobs=0)
    monkeypatch.setattr(audit, "find_spec", lambda name: None)
    assert "-n" not in audit._command(args, [], Path("a.json"))
    monkeypatch.setitem(sys.modules, "xdist", None)
    assert main(["audit", "--scheme", "plain", "--jobs", "2"]) == 1
    assert "merveil[audits]" in capsys.readouterr().err
