"""Training over sites on loopback: as in process, and through failures of sites and server."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from merveil.fl.deploy import rounds
from merveil.fl.deploy.channel import Kind, Message, pack_list
from merveil.fl.deploy.desk import Notes
from merveil.fl.deploy.server import Server, read_status
from merveil.fl.deploy.site import Site
from merveil.fl.deploy.task import Task
from merveil.mer.errors import InputError
from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.session import Phase


def model_of(world: Any) -> np.ndarray:
    return world.model()


def in_process(world: Any) -> np.ndarray:
    return world.in_process()


def everyone(world: Any, *absent: int) -> None:
    for i in range(len(world.homes)):
        if i not in absent:
            world.start_site(world.site(i))


@pytest.mark.parametrize("scheme", ["secagg", "secagg+", "lattice"])
def test_the_model_is_that_of_the_in_process_run(world: Any, scheme: str) -> None:
    found = world(scheme=scheme, rounds=3)
    found.start_server()
    everyone(found)
    result = found.finish()
    assert (result["rounds"], result["clients"], result["scheme"]) == (3, 5, scheme)
    # Another order of division may change a last bit; a code that differed would change a fifth of a step.
    step = found.settings.options.update_clip / (1 << (found.settings.options.bits - 1))
    np.testing.assert_allclose(model_of(found), in_process(found), atol=0.05 * step, rtol=0)
    assert [line["survivors"] for line in found.lines()] == [5, 5, 5]
    status = read_status(found.settings.run)
    assert (status["rounds_done"], status["phase"]) == (3, "finished")


def test_plain_has_to_be_allowed_by_the_sites(world: Any) -> None:
    found = world(scheme="plain", rounds=1, class_weights=False)
    found.start_server(attempts=1, max_aborted=1)
    everyone(found)
    with pytest.raises(Aborted) as caught:
        found.finish()
    assert caught.value.code is AbortCode.BELOW_THRESHOLD
    assert "PARAMS_BELOW_FLOOR" in found.log()


def test_plain_runs_where_it_is_allowed(world: Any) -> None:
    found = world(scheme="plain", rounds=1)
    for home in found.homes:
        (home / "policy.toml").write_text('schemes = ["plain"]\n')
    found.start_server()
    everyone(found)
    assert found.finish()["guarantee"].startswith("none")


@pytest.mark.parametrize("exchange", range(5))
@pytest.mark.parametrize("fate", ["before", "after"])
def test_a_site_killed_at_any_exchange_is_a_dropout(world: Any, gone: Any, exchange: int, fate: str) -> None:
    found = world(rounds=1, class_weights=False)
    found.start_server()
    everyone(found, 2)
    victim = found.site(2, gone)
    victim.when = lambda tag: fate if tag == f"1.1.{exchange}" else ""
    found.start_site(victim)
    found.finish()
    masked = exchange > 2 or (exchange, fate) == (2, "after")
    names = [f"site-{i}" for i in (1, 2, 3, 4, 5) if masked or i != 3]
    assert found.lines()[0]["names"] == names


@pytest.mark.parametrize("exchange", range(5))
@pytest.mark.parametrize("fate", ["before", "after"])
def test_a_site_restarted_in_mid_round_goes_on(world: Any, gone: Any, exchange: int, fate: str) -> None:
    found = world(rounds=1, class_weights=False)
    found.start_server(grace_seconds=120)
    everyone(found, 2)
    victim = found.site(2, gone)
    victim.when = lambda tag: fate if tag == f"1.1.{exchange}" else ""
    assert found.start_site(victim).exception(120) is not None
    if exchange < 4 or fate == "before":
        found.start_site(found.site(2))
    found.finish()
    assert found.lines()[0]["survivors"] == 5


class Clock:
    """The time of the server's rounds, which a test moves on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Slow(Site):
    """Answers an exchange of the first round after its deadline: the server's time runs out once nobody
    else is missing, and the answer leaves when the next exchange is open."""

    world: Any = None
    clock: Any = None

    def _reply(self, link: Any, message: Any, done: Any) -> None:
        if message.text("tag") == "1.1.1":
            self.world.until(lambda: self._seen() == ("SHARES", ["site-5"]))
            self.clock.ahead += 1000.0
            self.world.until(lambda: self._seen()[0] != "SHARES")
        super()._reply(link, message, done)

    def _seen(self) -> tuple[str, list[str]]:
        progress = self.world.server._progress
        return progress.phase, progress.waiting


def test_a_site_that_answers_too_late_is_a_dropout_and_its_frame_changes_nothing(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world(rounds=3, class_weights=False)
    clock = Clock()
    monkeypatch.setattr(rounds, "time", clock)
    found.start_server()
    everyone(found, 4)
    slow = found.site(4, Slow)
    slow.world, slow.clock = found, clock
    found.start_site(slow)
    found.finish()
    lines = found.lines()
    assert lines[0]["names"] == ["site-1", "site-2", "site-3", "site-4"]
    assert all(line["survivors"] >= 4 and not line["excluded"] for line in lines)


def test_an_answer_that_has_arrived_counts_although_its_site_has_left_since(world: Any) -> None:
    """A busy server reads its inbox after the site has gone, and after the exchange's time: both in time."""
    found, taken = world(), []
    replies: Any = asyncio.Queue()
    hub = SimpleNamespace(inbox=replies, peers={}, name=str, answered=taken.append, close_exchange=list)
    hub.open_exchange = lambda messages: asyncio.sleep(0)
    desk = SimpleNamespace(phase=Phase.MASKED, notes=Notes(), close=list)
    desk.take = lambda index, frames: taken.append((index, frames))
    settings = replace(found.settings, grace_seconds=0, train_seconds=0, phase_seconds=0)
    task = Task("secagg", 1, 1, 5, 10, 16, 1.0, 1, 0, "00" * 32, "11" * 32)
    running = rounds.Rounds(hub, None, settings, None, lambda progress: None)  # type: ignore[arg-type]
    for tag in ("1.1.1", "1.1.2"):  # the first is late, and changes nothing
        replies.put_nowait((3, Message(Kind.REPLY, {"tag": tag}, pack_list([tag.encode()]))))
    asyncio.run(running._exchange(desk, task, 2, {3: b"", 4: b""}))  # type: ignore[arg-type]
    assert taken == [3, (3, [b"1.1.2"])]


def test_two_sites_lost_at_once_end_the_round(world: Any, gone: Any) -> None:
    found = world(rounds=1, class_weights=False)
    found.start_server(attempts=1, max_aborted=1)
    everyone(found, 1, 2)
    for i in (1, 2):
        victim = found.site(i, gone)
        victim.when = lambda tag: "before" if tag == "1.1.2" else ""
        found.start_site(victim)
    with pytest.raises(Aborted) as caught:
        found.finish()
    assert caught.value.code is AbortCode.BELOW_THRESHOLD


def test_a_server_that_was_killed_goes_on_to_the_same_model(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world(rounds=4)
    stop = Server._line

    def die(self: Server, round_: int, done: Any) -> Any:
        if round_ == 1:
            raise OSError(9, "killed")
        return stop(self, round_, done)

    monkeypatch.setattr(Server, "_line", die)
    found.start_server()
    everyone(found)
    with pytest.raises(OSError, match="killed"):
        found.finish()
    monkeypatch.setattr(Server, "_line", stop)
    found.start_server(listen=f"127.0.0.1:{found.server.port}")  # the sites dial the same address again
    result = found.finish()
    assert result["rounds"] == 4
    np.testing.assert_allclose(model_of(found), in_process(found), atol=1e-6, rtol=0)
    assert "going on after round 2" in found.log()


def test_other_options_do_not_go_on(world: Any) -> None:
    from merveil.fl.runs import RunLog

    found = world(rounds=1)
    found.start_server()
    everyone(found)
    found.finish()
    other = replace(found.settings, options=replace(found.settings.options, rounds=2))
    with pytest.raises(InputError, match="another"):
        Server(other, RunLog(verbosity=-1)).run()


def test_logs_and_status_hold_no_secret(world: Any) -> None:
    from merveil.fl.deploy.member import Member

    found = world(rounds=1)
    found.start_server()
    everyone(found)
    found.finish()
    texts = [
        p.read_bytes() for p in found.root.rglob("*") if p.suffix in (".txt", ".json", ".jsonl", ".toml")
    ]
    for home in found.homes:
        member = Member.load(home)
        for key in (member.identity.sign_key, member.identity.agree_key):
            raw = key.private_bytes_raw()
            assert not any(raw in t or raw.hex().encode() in t for t in texts)
