"""Who may connect, what a bent or hostile party gets, and what a site finds out before it takes part."""

import os
import shutil
import socket
import ssl
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from merveil.fl import coins
from merveil.fl.deploy import tls
from merveil.fl.deploy.channel import (
    BEFORE_LOGIN,
    SITE_PURPOSE,
    Kind,
    Message,
    pack,
    pack_list,
    proof_fields,
    size_of,
    unpack,
    unpack_list,
)
from merveil.fl.deploy.check import check_site
from merveil.fl.deploy.config import SiteSettings, read_server, read_site
from merveil.fl.deploy.member import Member
from merveil.fl.deploy.site import Link, Site
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.tls import new_certificate
from merveil.fl.ledger import FileStore
from merveil.fl.options import resolve
from merveil.fl.runs import RunLog
from merveil.mer.errors import InputError
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import Frame
from merveil.protocols.primitives.sign import sign


def everyone(world: Any, *absent: int) -> None:
    for i in range(len(world.homes)):
        if i not in absent:
            world.start_site(world.site(i))


def link_of(world: Any, **changes: Any) -> Link:
    given = SiteSettings(
        server=f"127.0.0.1:{world.server.port}", data="", certificate=world.server_home / "tls.crt"
    )
    return Link(replace(given, **changes))


# Logging in


def login(link: Link, member: Member, **bent: Any) -> None:
    """A login with some of it changed."""
    nonce = link.receive(BEFORE_LOGIN).data("nonce", 32)
    own = bytes(32)
    index = bent.get("index", member.index)
    certificate = bent.get("certificate", link.certificate)
    fields = proof_fields(member.roster, index, bent.get("nonce", nonce), own, certificate)
    head = {
        "index": index,
        "nonce": own.hex(),
        "proof": sign(member.identity.sign_key, SITE_PURPOSE, *fields).hex(),
        "version": bent.get("version", 1),
        "roster": bent.get("roster", member.roster.hash).hex(),
    }
    link.send(pack(Kind.LOGIN, head))
    if link.receive().kind is not Kind.WELCOME:
        raise ConnectionResetError("refused")


@pytest.mark.parametrize(
    "bent",
    [
        {"index": 2},
        {"index": 9},
        {"certificate": bytes(32)},
        {"nonce": bytes(32)},
        {"version": 2},
        {"roster": bytes(32)},
    ],
    ids=lambda b: next(iter(b)) + str(next(iter(b.values())))[:1],
)
def test_a_login_that_is_not_the_members_own_is_refused(world: Any, bent: dict[str, Any]) -> None:
    found = world(rounds=1)
    found.start_server()
    member = Member.load(found.homes[0])
    with closing(link_of(found)) as link:
        login(link, member)  # as it should be
    with closing(link_of(found)) as link, pytest.raises(ConnectionError):
        login(link, member, **bent)
    everyone(found)
    found.finish()


def test_a_server_under_another_certificate_is_not_dialled(world: Any, tmp_path: Path) -> None:
    found = world(rounds=1)
    found.start_server()
    (tmp_path / "other").mkdir()
    other = new_certificate(tmp_path / "other", ["127.0.0.1"])
    with pytest.raises(LocalError, match="is not the server of"):
        found.site(0, certificate=other).run()
    with pytest.raises(LocalError, match="is not the server of"):
        found.site(0, server_name="example.org").run()
    everyone(found)
    found.finish()


def test_older_tls_and_clear_text_are_refused(world: Any) -> None:
    found = world(rounds=1)
    found.start_server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=found.server_home / "tls.crt")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    where = ("127.0.0.1", found.server.port)
    with socket.create_connection(where, 60) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw, server_hostname="127.0.0.1")
    with socket.create_connection(where, 60) as raw:
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"nonce" not in raw.recv(1000)
    everyone(found)
    found.finish()


@pytest.mark.parametrize(
    "junk", [b"\xff" * 8, b"\x00\x00\x00\x01x", pack(Kind.REPLY, {})], ids=["long", "short", "early"]
)
def test_strangers_cannot_send_anything_large_or_odd(world: Any, junk: bytes) -> None:
    found = world(rounds=1)
    found.start_server()
    with closing(link_of(found)) as link:
        link.receive(BEFORE_LOGIN)
        link.send(junk)
        with pytest.raises((ConnectionError, ssl.SSLError)):  # and not that the time ran out
            link.receive()
    everyone(found)
    found.finish()


def test_a_member_that_sends_junk_hurts_only_itself(world: Any) -> None:
    class Junk(Site):
        def _reply(self, link: Link, message: Message, done: Any) -> None:
            if message.text("tag").endswith(".1"):
                link.send(pack(Kind.REPLY, {"tag": message.text("tag")}, b"\x00\x00\x00\x09"))
            else:
                super()._reply(link, message, done)

    found = world(rounds=1, class_weights=False)
    found.start_server()
    everyone(found, 3)
    found.start_site(found.site(3, Junk))
    found.finish()
    assert found.lines()[0]["names"] == ["site-1", "site-2", "site-3", "site-5"]


# Members that break the protocol


class Doubled(Site):
    """Signs two different adverts for one round."""

    def _reply(self, link: Link, message: Message, done: Any) -> None:
        if message.text("tag") == "1.1.0":
            task, member = Task.decode(message.text("task").encode()), self._member
            first = Frame.decode(done.frames[0], member.index, 1 << 20)
            body = first.body[:-1] + bytes((first.body[-1] ^ 1,))
            second = replace(first, body=body).signed(
                member.identity.sign_key, task.context(member.roster).digest
            )
            done = replace(done, frames=(done.frames[0], second.encode()))
        super()._reply(link, message, done)


class Patient(Site):
    """Adverts last: a second advert counts while its phase is open, so it must not come after that."""

    others: Any = None  # () -> names that the server still waits for

    def _reply(self, link: Link, message: Message, done: Any) -> None:
        if message.text("tag") == "1.1.0":
            deadline = time.monotonic() + 60
            while self.others() != ["site-1"]:
                assert time.monotonic() < deadline, "the other sites never answered"
                time.sleep(0.02)
        super()._reply(link, message, done)


def test_a_site_that_signs_twice_is_named_and_left_out(world: Any) -> None:
    found = world(rounds=2, class_weights=False)
    found.start_server()
    everyone(found, 0, 4)
    patient = found.site(0, Patient)
    patient.others = lambda: found.server._progress.waiting
    found.start_site(patient)
    found.start_site(found.site(4, Doubled))
    found.finish()
    first, second = found.lines()
    assert first["excluded"] == {"site-5": "DOUBLE_CLAIM"}
    assert first["names"] == ["site-1", "site-2", "site-3", "site-4"] and second["survivors"] == 5
    assert "'site-5' broke the protocol (DOUBLE_CLAIM)" in found.log()


class Bent(Site):
    """Its frames are damaged on the way, then sent as they should be, and once more."""

    def _reply(self, link: Link, message: Message, done: Any) -> None:
        if done.frames:
            (frame,) = done.frames
            damaged = frame[:-1] + bytes((frame[-1] ^ 1,))
            done = replace(done, frames=(damaged, frame, frame))
        super()._reply(link, message, done)


def test_damaged_and_repeated_frames_change_no_sum(world: Any) -> None:
    found = world(rounds=1, class_weights=False)
    found.start_server()
    everyone(found, 0)
    found.start_site(found.site(0, Bent))
    found.finish()
    assert found.lines()[0]["survivors"] == 5
    assert "BAD_SIGNATURE" in found.log()


# A server that lies


def test_a_site_refuses_work_that_is_not_the_announced_one(world: Any, tmp_path: Path) -> None:
    found = world(rounds=1)
    found.start_server()
    site = found.site(0)
    from merveil.fl.deploy.work import Work

    options, data = found.settings.options, found.settings.data
    work = Work("train", 0, options, data, b"\0" * 100)
    task = found.server._make_task(1, 1, found.server._layout.size, work)
    head = {"task": task.encode().decode(), "work": work.head(), "tag": "1.1.0"}
    for message in (
        Message(Kind.TASK, head, b"\0" * 101),
        Message(Kind.TASK, {**head, "work": replace(work, round=1).head()}, work.payload),
    ):
        assert site._invited(message).code is AbortCode.MODEL_MISMATCH
    assert site._invited(Message(Kind.TASK, {**head, "work": "{}"}, b"")).code is AbortCode.MALFORMED_FRAME
    assert site._invited(Message(Kind.TASK, head, work.payload)).frames
    everyone(found)
    found.finish()


@pytest.mark.parametrize(
    "option",
    [
        {"dp": "central", "epsilon": 8.0, "delta": 1e-3, "norm_clip": 1.0, "scheme": "secagg"},
        {"dp": "sgd", "epsilon": 8.0, "delta": 1e-3, "norm_clip": 1.0, "batch": 4},
        {"dp_unit": "person", "dp": "distributed", "epsilon": 8.0, "delta": 1e-3, "norm_clip": 1.0},
        {"model": "exact-ridge"},
        {"strategy": "scaffold"},
        {"server_ema": 0.9},
        {"logit_tau": 1.0},
        {"coverage": 0.5},
    ],
    ids=lambda option: next(iter(option)),
)
def test_a_site_refuses_options_that_sites_do_not_carry_out(option: dict[str, Any]) -> None:
    """Else a server's settings might promise noise that nobody adds."""
    from merveil.fl.deploy.config import DataShape
    from merveil.fl.deploy.work import Work

    work = Work("train", 0, resolve(option), DataShape(28, 28, ("strain", "v", "u"), ("a", "b")))
    with pytest.raises(RemoteError, match="nothing that sites carry out") as caught:
        Work.decode(work.head(), b"")
    assert caught.value.code is AbortCode.MALFORMED_FRAME and caught.value.culprits == {0}
    plain = Work("train", 0, resolve({}), work.data)
    assert Work.decode(plain.head(), b"").options == plain.options


def test_a_site_that_is_asked_for_an_exchange_out_of_order_answers_nothing(world: Any) -> None:
    found = world(rounds=1)
    found.start_server()
    site = found.site(0)
    task = found.server._make_task(1, 1, 3, _counts(found))
    head = {"task": task.encode().decode(), "tag": "1.1.3", "exchange": 3}
    answer = site._heard(Message(Kind.FRAMES, head, pack_list([])))
    assert (answer.frames, answer.code) == ((), AbortCode.STATE_ROLLBACK)
    everyone(found)
    found.finish()


def _counts(found: Any) -> Any:
    from merveil.fl.deploy.work import Work

    return Work("counts", 0, found.settings.options, found.settings.data)


# Disks and clocks


def test_a_full_disk_makes_a_dropout_and_the_site_stays(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = world(rounds=2, class_weights=False)
    full, save = found.homes[1] / "ledger", FileStore.save
    counted = []

    def failing(self: FileStore, data: bytes) -> None:
        if self.path == full and not counted:
            counted.append(1)
            raise OSError(28, "No space left on device", str(full))
        save(self, data)

    monkeypatch.setattr(FileStore, "save", failing)
    found.start_server()
    everyone(found)
    found.finish()
    assert [line["survivors"] for line in found.lines()] == [4, 5]
    assert "could not write" in found.log() and "No space left" in (found.homes[1] / "log.txt").read_text()


class Late(Site):
    """Runs in a thread of its own name, so that a test can give it another clock."""

    def run(self, sleep: Any = time.sleep) -> str:
        threading.current_thread().name = "late"
        return super().run(sleep)


def test_a_wrong_clock_is_a_dropout_that_says_why(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import merveil.protocols.api as api

    found = world(rounds=1, class_weights=False)
    late = time.time() + 400 * 86_400
    roster = Member.load(found.homes[2]).roster

    class Clock:
        """Only the thread of site 3 has the wrong time."""

        @staticmethod
        def time() -> float:
            return late if threading.current_thread().name == "late" else time.time()

    monkeypatch.setattr(api, "time", Clock)
    found.start_server()
    everyone(found, 2)
    found.start_site(found.site(2, Late))
    found.finish()
    assert roster.expires < late
    assert found.lines()[0]["survivors"] == 4 and "STALE_ROSTER" in found.log()


# --check


def checks(world: Any, i: int = 0, **changes: Any) -> dict[str, Any]:
    settings = SiteSettings(
        server=f"127.0.0.1:{world.server.port}",
        home=world.homes[i],
        data="here",
        certificate=world.server_home / "tls.crt",
    )
    archive = changes.pop("archive", world.archives[i])
    found = check_site(replace(settings, **changes), None, lambda data: archive)
    return {c.name: c for c in found}


def test_check_passes_and_writes_nothing(world: Any) -> None:
    found = world(rounds=1)
    found.start_server()
    before = (found.homes[0] / "ledger").read_bytes()
    done = checks(found)
    assert list(done) == ["keys", "roster", "ledger", "privacy", "disk", "data", "tls", "clock", "policy"]
    assert all(c.ok for c in done.values()), done
    assert (found.homes[0] / "ledger").read_bytes() == before
    everyone(found)
    found.finish()


def test_check_says_beforehand_that_frames_near_the_apex_are_missing(world: Any) -> None:
    found = world(rounds=1, apex_jitter=0.5)
    found.start_server()
    told = checks(found)["policy"]
    assert not told.ok and "this archive has none: prepare it with --apex-jitter" in told.text
    archive = found.archives[0]
    filmed = replace(archive, near=np.repeat(archive.x[:, None], 2, 1))
    assert checks(found, archive=filmed)["policy"].ok
    found.archives = [replace(a, near=np.repeat(a.x[:, None], 2, 1)) for a in found.archives]
    everyone(found)
    found.finish()


def test_a_member_takes_part_from_one_process(world: Any) -> None:
    found = world(rounds=1)
    found.start_server()
    running = found.start_site(found.site(0))
    found.connected(0)  # so it holds the lock
    with pytest.raises(LocalError, match="another process takes part"):
        found.site(0).run()
    everyone(found, 0)
    found.finish()
    assert running.result() and (found.homes[0] / "session.bin").stat().st_mode & 0o777 == 0o600


def test_check_names_what_is_wrong(world: Any, toy_builder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = world(rounds=1, scheme="secagg")
    found.start_server()
    assert not checks(found, free_megabytes=10**9)["disk"].ok
    assert "clips" in checks(found, archive=toy_builder(persons=2, clips=3, size=32))["policy"].text
    (found.homes[1] / "policy.toml").write_text('schemes = ["ckks"]\n')
    assert "does not accept scheme" in checks(found, 1)["policy"].text
    with FileStore(found.homes[2] / "ledger"):
        assert "in use" in checks(found, 2)["ledger"].text
    os.chmod(found.homes[3] / "identity.key", 0o644)
    assert "chmod 600" in checks(found, 3)["keys"].text
    os.chmod(found.homes[3] / "identity.key", 0o600)
    (found.homes[4] / "tls.crt").write_text("nothing")
    assert not checks(found, 4, certificate=found.homes[4] / "tls.crt")["tls"].ok
    import merveil.fl.deploy.check as module

    shifted = type(
        "Clock", (), {"time": staticmethod(lambda: time.time() + 3600), "monotonic": time.monotonic}
    )
    monkeypatch.setattr(module, "time", shifted)
    assert "set both by the same source" in checks(found)["clock"].text
    monkeypatch.undo()
    (found.homes[1] / "policy.toml").unlink()
    everyone(found)
    found.finish()


# Files and messages


def test_messages_survive_and_nothing_else_passes() -> None:
    data = pack(Kind.TASK, {"a": 1, "b": "ä"}, b"xyz")
    assert size_of(data[:4], 100) == len(data) - 4
    message = unpack(data[4:])
    assert (message.kind, message.head, message.payload) == (Kind.TASK, {"a": 1, "b": "ä"}, b"xyz")
    assert unpack_list(pack_list([b"", b"a", b"bc"])) == [b"", b"a", b"bc"]
    for cut in range(len(data) - 4):
        body = bytearray(data[4:])
        body[cut] ^= 0xFF
        try:
            unpack(bytes(body))
        except RemoteError:
            continue
    for bad in (b"", b"\0\0\0\1", pack_list([b"a"]) + b"x", pack_list([b"a"])[:-1], b"\xff" * 12):
        with pytest.raises(RemoteError):
            unpack_list(bad)
    with pytest.raises(RemoteError):
        size_of(b"\x7f\xff\xff\xff", 1000)


def test_settings_files_say_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    cases = {
        "[server]\nlisen = 'x'\n": "did you mean 'listen'",
        "[server]\ngather_seconds = 'long'\n": "another type",
        "[server]\n[train]\nrouns = 3\n": "did you mean 'rounds'",
        "[server]\n[train]\ndrop_rate = 0.5\n": "drop_rate",
        "[server]\n[train]\nserver_ema = 0.9\n": "server_ema = 0.9",
        "[server]\n[train]\nlogit_tau = 1.0\n": "logit_tau",
        "[server]\n[train]\ncoverage = 0.75\n": "coverage",
        "[server]\n[train]\nstrategy = 'scaffold'\n": "scaffold",
        "[server]\n[train]\nmodel = 'exact-ridge'\n": "exact-ridge",
        "[server]\n[trian]\n": "is not known",
        "[site]\n": "no [server]",
        "x": "not valid TOML",
    }
    for text, message in cases.items():
        file.write_text(text)
        with pytest.raises(InputError, match=message.replace("[", r"\[")):
            read_server(file)
    file.write_text("[site]\nserver = 'host'\ndata = 'x'\n")
    with pytest.raises(InputError, match="host:port"):
        read_site(file)
    file.write_text("[site]\nserver = 'host:1'\n")
    with pytest.raises(InputError, match="needs data"):
        read_site(file)


def test_policies_are_read_strictly(tmp_path: Path) -> None:
    from merveil.fl.deploy.member import load_policy

    file = tmp_path / "policy.toml"
    assert load_policy(file, bytes(32)).min_honest == 3
    file.write_text('schemes = ["secagg"]\nmin_honest = 4\nbits = [8, 24]\ngamma = 0.2\n')
    policy = load_policy(file, bytes(32))
    assert (policy.schemes, policy.min_honest, policy.bits) == (frozenset({"secagg"}), 4, (8, 24))
    for text in ("anchor = 'x'", "min_honest = true", "schemes = 'secagg'", "bits = [1]", "gama = 1", "= 1"):
        file.write_text(text)
        with pytest.raises(LocalError, match=r"policy\.toml"):
            load_policy(file, bytes(32))


def test_tasks_are_read_strictly(world: Any) -> None:
    task = Task("secagg", 1, 1, 5, 10, 16, 1.0, 1, 0, "00" * 32, "11" * 32)
    assert Task.decode(task.encode()) == task
    good = task.encode()
    for bad in (
        b"{}",
        b"[" * 5000,
        good.replace(b'"dim": 10', b'"dim": "10"'),
        good.replace(b'"00', b'"zz'),
        good[:-1],
        good.replace(b'"dim"', b'"din"'),
    ):
        with pytest.raises(RemoteError):
            Task.decode(bad)


@pytest.mark.parametrize("damage", [b"", b"x" * 30, b"\xff\xff\xff\xff", None])
def test_a_damaged_session_file_loses_the_round_and_only_it(tmp_path: Path, damage: bytes | None) -> None:
    from merveil.fl.deploy.site import Asleep

    kept = Asleep(b"task", "work", b"model", 3, b"sealed", (b"one", b"two"))
    kept.save(tmp_path / "session.bin")
    assert Asleep.load(tmp_path / "session.bin") == kept
    whole = (tmp_path / "session.bin").read_bytes()
    (tmp_path / "session.bin").write_bytes(whole[:-1] if damage is None else damage)
    assert Asleep.load(tmp_path / "session.bin") is None
    assert Asleep.load(tmp_path / "none.bin") is None


def test_a_small_federation_is_told_what_it_does_not_get(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from merveil.fl.deploy.server import Server
    from merveil.fl.runs import RunLog

    found = world(sites=2)
    Server(found.settings, RunLog(verbosity=0))
    assert "allow_small_cohort" in capsys.readouterr().err


def test_options_that_no_network_takes_are_refused_by_the_site(world: Any) -> None:
    from merveil.fl.deploy.work import Trainer, Work
    from merveil.fl.options import resolve

    found = world(rounds=1)
    trainer = Trainer(found.archives[0], "site-1")
    odd = resolve({"model_options": {"bogus": 1}, "max_weight": 4})
    work = Work("train", 0, odd, found.settings.data, b"")
    model, config = work.hashes()
    task = Task("secagg", 1, 1, 5, 10, 16, 1.0, 4, 0, model, config)
    with pytest.raises(InputError):
        trainer.codes(task, work, 0.01)


@pytest.mark.parametrize("where", ["model", "weights", "later"])
def test_a_site_refuses_a_model_without_numbers_before_it_trains(
    world: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from merveil.fl.deploy.work import Trainer, Work, pack_model
    from merveil.fl.driver import federated_net
    from merveil.fl.local import LocalTrainer

    found = world(rounds=3)
    options, data = found.settings.options, found.settings.data
    net, trainer = federated_net(options, data.shape, 3), Trainer(found.archives[0], "site-1")
    params, weights = net.init(coins.derive(options.seed, "init", "")).astype(float), np.ones(3)

    def ask(round_: int) -> Any:
        work = Work("train", round_, options, data, pack_model(params, weights))
        task = Task("secagg", 1 + round_, 1, 5, net.size, 24, 16.0, 16, 0, *work.hashes())
        return trainer.codes(task, work, 0.01)

    assert len(ask(0)) == net.size + 1

    def trained(*_: Any) -> Any:
        raise AssertionError("the site trained on a model without numbers")

    monkeypatch.setattr(LocalTrainer, "updates", trained)
    (weights if where == "weights" else params)[0] = np.nan
    with pytest.raises(Aborted, match=r"server's model|class weight") as error:
        ask(1 if where == "later" else 0)
    assert error.value.code is AbortCode.INPUT_NOT_FINITE and error.value.culprits == {0}


def test_a_site_refuses_a_first_model_of_the_servers_own_and_another_network(world: Any) -> None:
    from merveil.fl.deploy.work import Trainer, Work, pack_model
    from merveil.fl.driver import federated_net
    from merveil.fl.options import resolve

    found = world(rounds=3)
    data, trainer = found.settings.data, Trainer(found.archives[0], "site-1")

    def ask(options: Any, seed: int) -> AbortCode | None:
        net = federated_net(options, data.shape, 3)
        work = Work("train", 0, options, data, pack_model(net.init(seed).astype(float), np.ones(3)))
        task = Task("secagg", 1, 1, 5, net.size, 24, 64.0, 16, 0, *work.hashes())
        try:
            trainer.codes(task, work, 0.01)
        except Aborted as error:
            return error.code
        return None

    options = found.settings.options
    assert ask(options, 1) is AbortCode.MODEL_MISMATCH
    assert ask(options, coins.derive(options.seed, "init", "")) is None
    assert ask(resolve({"model": "rcn", "max_weight": 16}), 1) is AbortCode.ARCH_MISMATCH


def test_a_certificate_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    path = new_certificate(tmp_path, ["127.0.0.1", "fl.example.org"])
    assert (tmp_path / "tls.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(LocalError, match="exists"):
        new_certificate(tmp_path, ["x"])
    os.chmod(tmp_path / "tls.key", 0o640)
    with pytest.raises(LocalError, match="chmod 600"):
        tls.server_context(path, tmp_path / "tls.key")
    shutil.copy(path, tmp_path / "copy")
    with pytest.raises(LocalError, match="no certificate and its key"):
        os.chmod(tmp_path / "copy", 0o600)
        tls.server_context(path, tmp_path / "copy")


def test_a_servers_last_word_makes_no_line_of_a_sites_log(tmp_path: Path) -> None:
    site = object.__new__(Site)
    site._log = RunLog(file=tmp_path / "log.txt")
    goodbye = SimpleNamespace(kind=Kind.BYE, head={"why": "over\nround 7: trained" + "x" * 1000})
    site._serve(SimpleNamespace(receive=lambda: goodbye))  # type: ignore[arg-type]
    (line,) = (tmp_path / "log.txt").read_text().splitlines()
    assert line.startswith("the server's last word: 'over") and len(line) < 400
