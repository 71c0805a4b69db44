"""`merveil federation`: the whole life of a roster, exit codes, and that no secret leaves its file."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from merveil.cli import main
from merveil.fl.keys import load_coordinator, load_identity
from merveil.fl.ledger import FileStore
from merveil.protocols.ledger import Ledger


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str) -> int:
    return main(["federation", *words])


def member(name: str) -> str:
    assert call("identity", name, "--name", name, "--federation", "hq/federation.json") == 0
    return f"{name}/request.bin"


@pytest.fixture
def signed(home: Path) -> Path:
    """A coordinator's folder `hq` with three members a, b, c and a signed roster."""
    assert call("init", "hq") == 0
    for name in "abc":
        assert call("add", "hq", member(name)) == 0
    assert call("sign", "hq") == 0
    return home


def show(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert call("show", "hq", "--json", *words) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_from_keys_to_a_verified_roster(
    signed: Path, capsys: pytest.CaptureFixture[str], schema: Any
) -> None:
    found = show(capsys)
    assert schema.check(found, schema.load("federation-show")) == []
    assert [m["name"] for m in found["members"]] == ["a", "b", "c"] and found["serial"] == 1
    assert [m["index"] for m in found["members"]] == [1, 2, 3]
    assert found["valid_now"] and not found["pending_changes"]
    assert call("verify", "hq/roster.bin", "--federation", "hq/federation.json", "--json") == 0
    assert json.loads(capsys.readouterr().out) == found
    assert call("show", "hq/roster.bin", "--federation", "hq/federation.json") == 0
    table = capsys.readouterr().out
    assert found["fingerprint"] in table and all(m["sign_key"][:16] in table for m in found["members"])


def test_each_signing_has_the_next_serial_and_a_new_beacon(
    signed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, data = show(capsys), (signed / "hq/roster.bin").read_bytes()
    assert call("sign", "hq") == 0
    second = show(capsys)
    assert (first["serial"], second["serial"]) == (1, 2)
    assert first["fingerprint"] != second["fingerprint"]
    (signed / "hq/roster.bin").unlink()
    assert call("sign", "hq") == 0
    assert show(capsys)["serial"] == 3, "a lost roster file does not reset the serial"
    assert data[93:125] != (signed / "hq/roster.bin").read_bytes()[93:125]


def test_add_remove_rotate_take_effect_at_the_next_signing(
    signed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = show(capsys)
    assert call("remove", "hq", "b") == 0
    assert call("add", "hq", member("d")) == 0
    assert call("identity", "a", "--name", "a", "--federation", "hq/federation.json", "--force") == 0
    assert call("rotate", "hq", "a/request.bin") == 0
    pending = show(capsys)
    assert pending["pending_changes"] and pending["members"] == before["members"]
    assert call("sign", "hq") == 0
    after = show(capsys)
    assert [m["name"] for m in after["members"]] == ["a", "c", "d"] and not after["pending_changes"]
    assert after["members"][0]["sign_key"] != before["members"][0]["sign_key"]
    assert after["members"][0]["sign_key"] == load_identity(signed / "a/identity.key").member.sign_key.hex()


def test_private_files_are_private_and_print_nothing(
    signed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("hq/coordinator.key", "a/identity.key", "a/ledger"):
        assert (signed / name).stat().st_mode & 0o777 == 0o600
    assert call("show", "hq") == 0
    assert call("sign", "hq") == 0
    text = "".join(capsys.readouterr())
    for name in ("hq/coordinator.key", "a/identity.key"):
        secret = json.loads((signed / name).read_text())["secret"]
        assert secret[:64] not in text and secret[64:] not in text
        public = [p for p in signed.rglob("*") if p.is_file() and not p.name.endswith(".key")]
        assert not any(bytes.fromhex(secret[:64]) in p.read_bytes() or secret[:64].encode() in p.read_bytes()
                       for p in public)  # fmt: skip


def test_a_member_gets_a_ledger_that_is_its_own(signed: Path) -> None:
    with FileStore(signed / "a/ledger") as store:
        Ledger(store).open_round(bytes(32), 1, 1)


@pytest.mark.parametrize("name", ["a/identity.key", "hq/coordinator.key"])
def test_a_key_that_others_may_read_is_refused(signed: Path, name: str) -> None:
    (signed / name).chmod(0o644)
    if name.startswith("hq"):
        assert call("sign", "hq") == 2
    else:
        with pytest.raises(Exception, match="chmod 600"):
            load_identity(signed / name)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["init", "hq"], "exists"),
        (["identity", "a", "--name", "a", "--federation", "hq/federation.json"], "exists"),
        (["identity", "x", "--name", "", "--federation", "hq/federation.json"], "name"),
        (["identity", "x", "--name", "n" * 65, "--federation", "hq/federation.json"], "name"),
        (["identity", "x", "--name", "x", "--federation", "nowhere.json"], "does not exist"),
        (["identity", "x", "--name", "x", "--federation", "a/request.bin"], "no JSON"),
        (["identity", "x", "--name", "x", "--federation", "hq/members.json"], "not a merveil-federation"),
        (["add", "hq", "a/request.bin"], "member 'a'"),
        (["add", "hq", "hq/members.json"], "members.json"),
        (["add", "nowhere", "a/request.bin"], "does not exist"),
        (["remove", "hq", "z"], "no member"),
        (["rotate", "hq", "a/request.bin"], "repeats a key"),
        (["sign", "hq", "--days", "0"], "days"),
        (["sign", "hq", "--max-rounds", "0"], "max_rounds"),
        (["show", "nowhere"], "does not exist"),
        (["show", "hq/roster.bin"], "--federation"),
        (["verify", "hq/roster.bin"], "--federation"),
        (["verify", "a/request.bin", "--federation", "hq/federation.json"], "no roster"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(
    signed: Path, words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in signed.rglob("*") if p.is_file()}
    code = call(*words)
    error = capsys.readouterr().err
    assert code == 2 and part in error, error
    assert {p: p.read_bytes() for p in before} == before


def test_a_roster_of_another_coordinator_is_refused(signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("init", "other") == 0
    capsys.readouterr()
    assert call("verify", "hq/roster.bin", "--federation", "other/federation.json") == 3
    assert "BAD_SIGNATURE" in capsys.readouterr().err


def test_a_spoilt_roster_is_refused(signed: Path) -> None:
    data = bytearray((signed / "hq/roster.bin").read_bytes())
    data[-70] ^= 1
    (signed / "hq/roster.bin").write_bytes(bytes(data))
    assert call("verify", "hq/roster.bin", "--federation", "hq/federation.json") == 3


def test_an_expired_roster_is_shown_and_not_verified(
    signed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 400 * 86_400
    monkeypatch.setattr("merveil.cli.federation.time.time", lambda: later)
    assert show(capsys)["valid_now"] is False
    assert call("show", "hq") == 0 and "NOT VALID NOW" in capsys.readouterr().out
    assert call("verify", "hq/roster.bin", "--federation", "hq/federation.json") == 3
    assert "STALE_ROSTER" in capsys.readouterr().err


def test_a_request_for_another_federation_is_refused(signed: Path) -> None:
    assert call("init", "other") == 0
    assert call("add", "other", "a/request.bin") == 2


def test_passphrases(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "good").write_text("correct horse\n")
    (home / "bad").write_text("wrong\n")
    (home / "none").write_text("\n")
    assert call("init", "hq", "--passphrase-file", "none") == 2
    assert call("init", "hq", "--passphrase-file", "good") == 0
    words = ["identity", "a", "--name", "a", "--federation", "hq/federation.json"]
    assert call(*words, "--passphrase-file", "good") == 0
    for extra, code in ((["--passphrase-file", "bad"], 2), ([], 2), (["--passphrase-file", "good"], 0)):
        assert call("add", "hq", "a/request.bin", *extra) == code
    assert "secret" not in json.loads((home / "hq/coordinator.key").read_text())
    load_coordinator(home / "hq/coordinator.key", "correct horse")
    for phrase, part in (("wrong", "wrong passphrase"), (None, "sealed")):
        with pytest.raises(Exception, match=part):
            load_identity(home / "a/identity.key", phrase)
    assert "correct horse" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("change", [{"name": "eve"}, {"sign_key": "00" * 32}, {"sealed": "AAAA"},
                                    {"scrypt": {"n": 2, "r": 8, "p": 1, "salt": "00" * 16}}, {"format": 2}],
                         ids=str)  # fmt: skip
def test_a_sealed_key_is_bound_to_its_public_part(home: Path, change: dict[str, Any]) -> None:
    (home / "good").write_text("phrase\n")
    assert call("init", "hq") == 0
    words = ["identity", "a", "--name", "a", "--federation", "hq/federation.json"]
    assert call(*words, "--passphrase-file", "good") == 0
    path = home / "a/identity.key"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **change}))
    os.chmod(path, 0o600)
    with pytest.raises(Exception, match=r"passphrase|damaged|settings|format"):
        load_identity(path, "phrase")


def test_force_makes_a_new_federation(signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (signed / "hq/federation.json").read_bytes()
    assert call("init", "hq", "--force") == 0
    assert (signed / "hq/federation.json").read_bytes() != before
    assert call("show", "hq") == 2
    assert "no roster was signed" in capsys.readouterr().err


def test_new_keys_are_refused_while_the_party_runs(signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (signed / "a/identity.key").read_bytes()
    with FileStore(signed / "a/ledger"):
        words = ["identity", "a", "--name", "a", "--federation", "hq/federation.json", "--force"]
        assert call(*words) == 2
    assert "in use" in capsys.readouterr().err and (signed / "a/identity.key").read_bytes() == before
