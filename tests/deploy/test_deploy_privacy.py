"""Differential privacy over sites: what a site judges and pays by itself, and what comes of a training."""

import json
import math
import re
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.fl import coins, dp
from merveil.fl.clients import Client
from merveil.fl.deploy import private
from merveil.fl.deploy.account import Account
from merveil.fl.deploy.channel import Kind, Message
from merveil.fl.deploy.check import check_site
from merveil.fl.deploy.config import SiteSettings, read_server
from merveil.fl.deploy.member import Member, load_policy
from merveil.fl.deploy.server import OVER_SPENT, Server, read_status
from merveil.fl.deploy.site import Site
from merveil.fl.deploy.step import begin
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Work, pack_model
from merveil.fl.dp_ledger import Budget, BudgetSpent
from merveil.fl.driver import federated_net
from merveil.fl.local import Job, LocalTrainer
from merveil.fl.options import resolve
from merveil.fl.runs import RunLog
from merveil.mer.errors import InputError
from merveil.protocols.dp.accountant import epsilon
from merveil.protocols.dp.discrete import Mechanism, clip_norm, plan
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError

DP = {"dp": "distributed", "epsilon": 8.0, "delta": 1e-3, "norm_clip": 1.0, "strategy": "fedavg"}
POLICY = {"dp_epsilon": 8.0, "dp_delta": 1e-3, "dp_norm_clip": 1.0}
BELOW = AbortCode.PARAMS_BELOW_FLOOR


def write_policy(home: Path, **values: Any) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**POLICY, **values}.items()]
    (home / "policy.toml").write_text("\n".join(lines) + "\n")


@pytest.fixture
def noisy(world: Any) -> Any:
    """`noisy(policy={...}, **options)`: five sites whose policies limit epsilon."""

    def make(policy: dict[str, Any] | None = None, **options: Any) -> Any:
        found = world(**{**DP, "rounds": 1, **options})
        schemes = {"schemes": ["plain"]} if found.settings.options.scheme == "plain" else {}
        for home in found.homes:
            write_policy(home, **schemes, **(policy or {}))
        return found

    return make


def everyone(world: Any, *absent: int) -> None:
    for i in range(len(world.homes)):
        if i not in absent:
            world.start_site(world.site(i))


def uploads(home: Path) -> int:
    value = json.loads((home / private.LEDGER).read_text())
    return sum(row["count"] for row in value["charges"])


def net_of(found: Any) -> Any:
    return federated_net(found.settings.options, found.settings.data.shape, 3)


def honest_mechanism(found: Any) -> Mechanism:
    options = found.settings.options
    budget = Budget(None, "f", options.epsilon, options.delta)
    return dp.mechanism_for(options, net_of(found).size, len(found.homes), budget)


class Asked:
    """A server that is asked for its tasks and never listens, and the first of its sites."""

    def __init__(self, found: Any) -> None:
        self.world, self.options = found, found.settings.options
        found.server = self.server = Server(found.settings, RunLog(verbosity=-1))
        self.mechanism = honest_mechanism(found)
        self.server._account = Account(self.options, self.mechanism, Budget(None, "f", math.inf, 1e-3))
        net = net_of(found)
        start = net.init(coins.derive(self.options.seed, "init", "")).astype(float)
        self.work = Work("train", 0, self.options, found.settings.data, pack_model(start, np.ones(3)))
        self.site = found.site(0)

    def task(self, mechanism: Mechanism | None = None, round_: int = 1, attempt: int = 1) -> Task:
        return self.server._noisy_task(round_, attempt, self.work, mechanism or self.mechanism)

    def announced(self, task: Task, work: Work) -> Task:
        """The task with the hashes of this work: a server that lies does not lie about them."""
        model, config = work.hashes(task.mechanism)
        return replace(task, model_hash=model, config_hash=config)

    def ask(self, task: Task, work: Work | None = None, site: Site | None = None) -> Any:
        work = work or self.work
        task = self.announced(task, work)
        head = {"task": task.encode().decode(), "work": work.head(), "tag": "1.1.0"}
        return (site or self.site)._invited(Message(Kind.TASK, head, work.payload))


# Trainings


@pytest.mark.parametrize("scheme", ["secagg", "secagg+", "lattice", "plain"])
def test_the_model_is_the_known_mean_and_the_noise_that_is_counted(noisy: Any, scheme: str) -> None:
    """One round of fedavg: what is left after the sites' own clipped updates has the mechanism's variance."""
    found = noisy(scheme=scheme, server_lr=1.0)
    found.start_server()
    everyone(found)
    result = found.finish()
    mechanism = honest_mechanism(found)
    options, net = found.settings.options, net_of(found)
    start = net.init(coins.derive(options.seed, "init", "")).astype(np.float32)
    known = []
    for i, archive in enumerate(found.archives):
        client = Client(f"site-{i + 1}", np.arange(archive.n))
        trainer = LocalTrainer(net, net.prepare(archive.x), archive.y, [Job(0, "", client)], options)
        (update,) = trainer.updates(start[None], np.ones((1, 3)), 0)
        known.append(clip_norm(update, options.norm_clip))
    noise = found.model() - start - np.mean(known, axis=0)
    # Rounding adds at most a quarter of a squared step a share; an estimate deviates by sqrt(2 / dim).
    expected = mechanism.noise_of_mean(5) ** 2
    rounding = 0.25 * mechanism.step**2 / 5
    slack = 1 + 5 * math.sqrt(2 / net.size)
    assert expected / slack < float(np.mean(noise**2)) < (expected + rounding) * slack
    assert abs(float(np.mean(noise))) < 5 * math.sqrt(expected / net.size)
    # the same figures as in process, at the server and, each by itself, at the sites
    privacy = result["privacy"]
    cost = dp.epsilon_of_rounds(mechanism, 1, 1e-3)
    assert privacy["epsilon"] == cost <= 8 and privacy["uploads"] == 1
    assert privacy["mechanism"] == dp.to_json(mechanism)
    for home in found.homes:
        told = private.spent(Member.load(home))
        assert told is not None and (told["epsilon"], told["uploads"]) == (cost, 1)
    assert found.lines()[0]["survivors"] == 5


def test_status_result_and_manifest_say_what_is_promised(noisy: Any) -> None:
    found = noisy(rounds=2)
    found.start_server()
    everyone(found)
    result = found.finish()
    status = read_status(found.settings.run)
    manifest = json.loads((found.settings.run / "manifest.json").read_text())
    for told in (result["privacy"], status["privacy"], manifest["privacy"]):
        assert told["unit"] == "client" and told["protects"].startswith("a site's whole update")
        assert told["relation"].startswith("one client's vector is replaced by zero")
        assert (told["delta"], told["uploads"], told["target_epsilon"]) == (1e-3, 2, 8.0)
        assert 0 < told["epsilon"] <= 8 and told["accountant"].startswith("RDP of skellam")
        assert "noise shares are unknown to them in every sum" in told["against"]
    assert (result["status"], status["phase"], manifest["status"]) == ("finished",) * 3
    assert "client-level (8, 0.001)-differential privacy" in result["guarantee"]
    assert "differential privacy" in found.log()


def test_a_spent_budget_ends_the_training_by_name_on_both_sides(noisy: Any) -> None:
    """The server asks for three rounds; the sites' own limits pay two."""
    found = noisy(rounds=3)
    two = dp.epsilon_of_rounds(honest_mechanism(found), 2, 1e-3)
    for home in found.homes:
        write_policy(home, dp_epsilon=two)
    found.start_server()
    everyone(found)
    result = found.finish()
    assert (result["status"], result["rounds"]) == ("budget_spent", 2)
    assert read_status(found.settings.run)["phase"] == "budget_spent"
    assert "BUDGET_SPENT: stopped after round 2 of 3" in found.log()
    for i, home in enumerate(found.homes):
        assert found.sites[i].result(1) == OVER_SPENT
        log = (home / "log.txt").read_text()
        assert "BUDGET_SPENT: this site sits the round out: the next round would bring epsilon" in log
        assert OVER_SPENT in log and uploads(home) == 2
    # a site's figures stay at the site
    assert "would bring epsilon" not in found.log() and f"{two:.4g}" not in found.log()


def test_a_site_with_a_lower_limit_leaves_early(noisy: Any) -> None:
    found = noisy(rounds=3)
    one = dp.epsilon_of_rounds(honest_mechanism(found), 1, 1e-3)
    write_policy(found.homes[1], dp_epsilon=one)
    found.start_server()
    everyone(found)
    assert found.finish()["rounds"] == 3
    assert [line["survivors"] for line in found.lines()] == [5, 4, 4]
    assert "site-2" not in found.lines()[1]["names"] and uploads(found.homes[1]) == 1


def test_the_servers_own_account_ends_a_training_too(noisy: Any, gone: Any) -> None:
    """An attempt that was lost after its vectors were asked for was paid, so the last round cannot be."""
    found = noisy(policy={"dp_epsilon": 50.0}, rounds=2)
    found.start_server(grace_seconds=0.3)
    lost = lose_an_attempt(found, gone)
    result = found.finish()
    assert (result["status"], result["rounds"]) == ("budget_spent", 1)
    assert "over the budget of 8 at delta 0.001" in found.log()
    assert [uploads(home) for home in found.homes] == [2] * 5 and len(lost) == 2
    # it was known before anybody was asked for a round that could not be paid
    assert all("round 2, attempt 1" not in (home / "log.txt").read_text() for home in found.homes)


def test_a_server_started_again_goes_on_with_what_is_spent(
    noisy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = noisy(rounds=3)
    line = Server._line

    def die(self: Server, round_: int, done: Any) -> Any:
        if round_ == 1:
            raise OSError(9, "killed")
        return line(self, round_, done)

    monkeypatch.setattr(Server, "_line", die)
    found.start_server()
    everyone(found)
    with pytest.raises(OSError, match="killed"):
        found.finish()
    monkeypatch.setattr(Server, "_line", line)
    found.start_server(listen=f"127.0.0.1:{found.server.port}")
    result = found.finish()
    assert (result["status"], result["rounds"], result["privacy"]["uploads"]) == ("finished", 3, 3)
    assert result["privacy"]["mechanism"] == dp.to_json(honest_mechanism(found))
    assert [uploads(home) for home in found.homes] == [3] * 5


def test_budgets_outlive_a_training(noisy: Any) -> None:
    """A third of the budget was used: a new training takes more noise, and its log says how much. The next
    one is refused before anybody is asked, with what is left and what to do."""
    found = noisy(rounds=3)
    usual = honest_mechanism(found)
    federation = Member.load(found.homes[0]).roster.federation.hex()
    with Budget(found.server_home / private.LEDGER, federation, 8.0, 1e-3) as budget:
        budget.charge(usual.release())
    found.start_server()
    everyone(found)
    privacy = found.finish()["privacy"]
    factor = privacy["noise_multiplier"] / usual.release().multiplier
    assert privacy["uploads"] == 4 and privacy["epsilon"] <= 8 and 1 < factor < 2
    assert f"the noise is {factor:.3g} times that of a first training" in found.log()
    assert f"the noise of a round is {privacy['noise_to_clip']:.2g} times as long" in found.log()
    assert [uploads(home) for home in found.homes] == [3] * 5
    shutil.rmtree(found.settings.run)
    with pytest.raises(
        BudgetSpent, match=r"nearly spent.* times the noise .*4 uploads cost epsilon"
    ) as caught:
        Server(found.settings, RunLog(verbosity=-1)).run()
    assert "as --epsilon" in str(caught.value) and "fewer rounds" in str(caught.value)
    assert [uploads(home) for home in found.homes] == [3] * 5


def test_a_server_that_forgets_is_stopped_by_the_sites(noisy: Any) -> None:
    found = noisy()
    found.start_server()
    everyone(found)
    found.finish()
    (found.server_home / private.LEDGER).unlink()
    shutil.rmtree(found.settings.run)
    found.sites.clear()
    found.start_server()
    everyone(found)
    with pytest.raises(BudgetSpent, match="spent their own budgets"):
        found.finish()
    assert read_status(found.settings.run)["phase"] == "budget_spent"
    assert [uploads(home) for home in found.homes] == [1] * 5


def test_sites_without_figures_of_their_own_take_no_part(noisy: Any) -> None:
    found = noisy()
    for home in found.homes:
        (home / "policy.toml").unlink()
    found.start_server(attempts=1, max_aborted=1)
    everyone(found)
    with pytest.raises(Aborted) as caught:
        found.finish()
    assert caught.value.code is AbortCode.BELOW_THRESHOLD
    assert "PARAMS_BELOW_FLOOR" in found.log() and "dp_epsilon" in found.log()


def test_sites_with_figures_refuse_a_training_without_noise(world: Any) -> None:
    found = world(rounds=1)  # its first round is the count of the classes
    for home in found.homes:
        write_policy(home)
    found.start_server(attempts=1, max_aborted=1)
    everyone(found)
    with pytest.raises(Aborted):
        found.finish()
    assert "PARAMS_BELOW_FLOOR" in found.log() and "has no noise" in found.log()


# What a site judges


def test_a_site_takes_the_honest_mechanism(noisy: Any) -> None:
    asked = Asked(noisy())
    done = asked.ask(asked.task())
    assert done.frames and done.code is None


def test_half_the_variance_is_over_the_limit(noisy: Any) -> None:
    """The site's own accountant says so; nothing else about the task is wrong."""
    asked = Asked(noisy())
    half = replace(asked.mechanism, variance=asked.mechanism.variance / 2)
    done = asked.ask(asked.task(half))
    assert (done.frames, done.code, done.spent) == ((), BELOW, True)
    assert str(dp.epsilon_of_rounds(half, 1, 1e-3))[:4] not in done.why  # the figures stay at the site
    assert uploads(asked.world.homes[0]) == 0


def test_one_more_honest_share_than_the_parameters_guarantee_is_refused(noisy: Any) -> None:
    asked = Asked(noisy())
    more = replace(asked.mechanism, honest=asked.mechanism.honest + 1)
    done = asked.ask(asked.task(more))
    assert (done.frames, done.code) == ((), BELOW) and "honest noise shares" in done.why
    # a threshold that the task names raises what its sums hold, and then the site's session asks for it
    assert asked.ask(replace(asked.task(more), threshold=5)).frames


REFUSED = {
    "central": ({"central": True, "honest": 1}, "by itself"),
    "cohort": ({"cohort": 6}, "the roster has 5"),
    "norm clip": ({"norm_clip": 1.5}, "norm clip"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_noise_outside_the_policy_is_refused(noisy: Any, name: str) -> None:
    changes, why = REFUSED[name]
    asked = Asked(noisy(policy={"dp_epsilon": 1000.0}))  # so that no cost refuses it
    done = asked.ask(asked.task(replace(asked.mechanism, **changes)))
    assert (done.frames, done.code) == ((), BELOW) and why in done.why and not done.spent


def test_another_delta_weights_or_scheme_is_refused(noisy: Any) -> None:
    asked = Asked(noisy(policy={"schemes": ["secagg", "ckks"], "max_weight": 16}))
    looser = replace(asked.work, options=replace(asked.options, delta=2e-3))
    assert "delta" in asked.ask(asked.task(), looser).why
    done = asked.ask(replace(asked.task(), max_weight=2, dim=asked.mechanism.size - 1))
    assert done.code is BELOW and "weight" in done.why
    done = asked.ask(replace(asked.task(), scheme="ckks"))
    assert done.code is BELOW and "not with ckks" in done.why
    done = asked.ask(replace(asked.task(), bits=asked.mechanism.bits - 1))
    assert done.code is BELOW and "not those of the mechanism" in done.why


def test_a_delta_that_would_publish_a_site_whole_is_refused(noisy: Any) -> None:
    asked = Asked(noisy(policy={"dp_delta": 0.2}))
    done = asked.ask(asked.task())
    assert (done.frames, done.code) == ((), BELOW) and "one over" in done.why


def test_options_and_mechanism_say_the_same(noisy: Any) -> None:
    asked = Asked(noisy())
    bare = replace(asked.task(), mechanism="")
    assert asked.ask(bare).code is BELOW
    clear = replace(asked.work, options=resolve({"scheme": "secagg", "class_weights": False}))
    assert "dp 'none'" in asked.ask(asked.task(), clear).why
    counts = replace(asked.work, kind="counts")
    assert asked.ask(asked.task(), counts).code is BELOW
    # and with a policy that names no figures, noise that is promised and not in the task is refused as well
    (asked.world.homes[1] / "policy.toml").unlink()
    assert asked.ask(bare, site=asked.world.site(1)).code is BELOW


@pytest.mark.parametrize("kind", ["counts", "train"])
def test_sums_without_noise_are_refused_under_figures(noisy: Any, kind: str) -> None:
    asked = Asked(noisy())
    clear = replace(asked.work, kind=kind, options=resolve({"scheme": "secagg", "max_weight": 16}))
    task = replace(asked.task(), mechanism="")
    done = asked.ask(task, clear)
    assert (done.frames, done.code) == ((), BELOW) and "no noise" in done.why
    ridge = replace(asked.work, options=resolve({"model": "exact-ridge"}))
    assert asked.ask(asked.task(), ridge).code is AbortCode.MALFORMED_FRAME  # sites have no such work at all


def test_a_mechanism_is_read_only_in_its_canonical_form() -> None:
    mechanism = plan("skellam", 100, 5, 3, 1.0, 0.5)
    text = private.encode(mechanism)
    assert private.decode(text) == mechanism
    assert private.decode(private.encode(replace(mechanism, norm_clip=1))) == mechanism
    value = json.loads(text)

    def bent(**changes: Any) -> str:
        return json.dumps({**value, **changes}, sort_keys=True, separators=(",", ":"))

    assert bent() == text
    for odd in (
        "",
        "[]",
        "[" * 5000,
        json.dumps(value),
        bent(extra=1),
        bent(kind="laplace"),
        bent(kind="rounded"),
        bent(cohort=True),
        bent(honest=6),
        bent(honest=0),
        bent(steps=1 << 50),
        bent(dim=0),
        bent(norm_clip=float("nan")),
        bent(norm_clip=-1.0),
        bent(variance="1e999999999"),
        bent(variance="1/0"),
        bent(variance="2/4"),
        bent(variance="0"),
        bent(variance="1000000000000000"),  # a table that no site could build
        bent(tail=13),
    ):
        with pytest.raises(RemoteError) as caught:
            private.decode(odd)
        assert caught.value.code is AbortCode.MALFORMED_FRAME and caught.value.culprits == {0}


def test_who_adds_no_noise_takes_no_task_that_asks_for_it(noisy: Any) -> None:
    """The steps that Flower's mod and NVFlare's executor take: they name no mechanism."""
    asked = Asked(noisy())
    member, task = Member.load(asked.world.homes[0]), asked.announced(asked.task(), asked.work)
    done = begin(member, task)
    assert (done.frames, done.code) == ((), BELOW)
    done = begin(member, replace(task, mechanism=""))
    assert (done.frames, done.code) == ((), BELOW) and "no noise" in done.why
    (asked.world.homes[1] / "policy.toml").unlink()
    free = Member.load(asked.world.homes[1])
    assert begin(free, replace(task, round=2)).code is BELOW
    assert begin(free, replace(task, mechanism="", round=3)).frames


class Told(Site):
    """A site to which the server tells another mechanism than to the others, with the hashes that fit."""

    def _changed(self, message: Message) -> Message:
        task = Task.decode(message.text("task").encode())
        mechanism = private.decode(task.mechanism)
        text = private.encode(replace(mechanism, variance=mechanism.variance + Fraction(1, 16)))
        if not hasattr(self, "_hash"):
            work = Work.decode(message.text("work"), message.payload)
            self._hash = work.hashes(text)[1]
        task = replace(task, mechanism=text, config_hash=self._hash)
        return replace(message, head={**message.head, "task": task.encode().decode()})

    def _invited(self, message: Message) -> Any:
        return super()._invited(self._changed(message))

    def _heard(self, message: Message) -> Any:
        return super()._heard(self._changed(message))


def test_another_mechanism_at_one_site_means_no_common_sum(noisy: Any) -> None:
    found = noisy()
    found.start_server()
    everyone(found, 2)
    found.start_site(found.site(2, Told))
    found.finish()
    assert found.lines()[0]["names"] == ["site-1", "site-2", "site-4", "site-5"]


def test_another_mechanism_than_the_announced_one_is_noticed(noisy: Any) -> None:
    asked = Asked(noisy())
    task = asked.task()
    other = private.encode(replace(asked.mechanism, variance=asked.mechanism.variance + 1))
    for bent in (replace(task, mechanism=other), replace(task, mechanism="")):
        head = {"task": bent.encode().decode(), "work": asked.work.head(), "tag": "1.1.0"}
        done = asked.site._invited(Message(Kind.TASK, head, asked.work.payload))
        assert (done.frames, done.code) == ((), AbortCode.MODEL_MISMATCH)


# What a site pays


class Killed(Site):
    """A site whose process ends once, after the charge and before its session has the vector."""

    done = False

    def _codes(self, *given: Any) -> Any:
        found = super()._codes(*given)
        if not self.done:
            self.done = True
            raise KeyboardInterrupt
        return found


def test_a_restart_between_charge_and_frame_is_charged_once(noisy: Any) -> None:
    found = noisy()
    found.start_server(grace_seconds=120)
    everyone(found, 2)
    assert isinstance(found.start_site(found.site(2, Killed)).exception(120), KeyboardInterrupt)
    assert uploads(found.homes[2]) == 1
    found.sites.pop()
    found.start_site(found.site(2))
    found.finish()
    assert found.lines()[0]["survivors"] == 5 and uploads(found.homes[2]) == 1


@pytest.mark.parametrize("fate", ["before", "after"])
def test_a_restart_between_frame_and_reply_sends_the_kept_frames(noisy: Any, gone: Any, fate: str) -> None:
    found = noisy()
    found.start_server(grace_seconds=120)
    everyone(found, 2)
    victim = found.site(2, gone)
    victim.when = lambda tag: fate if tag == "1.1.2" else ""
    assert found.start_site(victim).exception(120) is not None
    kept = (found.homes[2] / "session.bin").read_bytes()
    again = found.site(2)
    again._trainer = None  # a second vector cannot even be made
    found.start_site(again)
    found.finish()
    assert found.lines()[0]["survivors"] == 5 and uploads(found.homes[2]) == 1 and kept


def lose_an_attempt(found: Any, gone: Any) -> list[Any]:
    """All sites; two of them are killed after their vectors left, and started again for the next attempt."""
    everyone(found, 1, 2)
    lost = []
    for i in (1, 2):
        victim = found.site(i, gone)
        victim.when = lambda tag: "before" if tag == "1.1.3" else ""
        lost.append(found.start_site(victim))
    for victim in lost:
        assert victim.exception(120) is not None
    found.until(lambda: "round 1, attempt 1" in found.log())
    for i in (1, 2):
        found.start_site(found.site(i))
    return lost


def test_two_attempts_of_one_round_are_two_charges(noisy: Any, gone: Any) -> None:
    found = noisy(policy={"dp_epsilon": 50.0}, rounds=2)
    found.start_server(grace_seconds=0.3, max_aborted=5)
    lose_an_attempt(found, gone)
    found.finish()
    assert (found.lines()[0]["attempt"], found.lines()[0]["survivors"]) == (2, 5)
    assert [uploads(home) for home in found.homes] == [2] * 5


def test_the_charge_is_on_disk_before_the_session_has_the_vector(
    noisy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(noisy(scheme="plain"))  # its vector is due at once
    home, seen = asked.world.homes[0], []
    from merveil.fl.deploy import site

    def watched(*given: Any, **more: Any) -> Any:
        seen.append(uploads(home))
        return begin(*given, **more)

    monkeypatch.setattr(site, "begin", watched)
    assert asked.ask(asked.task()).frames and seen == [1]
    # the same attempt again is a repeat; another one is another charge, and here one too many
    assert asked.ask(asked.task()).frames and uploads(home) == 1
    done = asked.ask(asked.task(attempt=2))
    assert (done.frames, done.spent, uploads(home)) == ((), True, 1)


def test_a_limit_that_was_met_in_between_stops_the_vector(
    noisy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check before training is a courtesy; the charge itself refuses."""
    asked = Asked(noisy(scheme="plain"))
    monkeypatch.setattr(private, "afford", lambda *_: None)
    half = replace(asked.mechanism, variance=asked.mechanism.variance / 2)
    done = asked.ask(asked.task(half))
    assert (done.frames, done.spent, uploads(asked.world.homes[0])) == ((), True, 0)


def test_a_charge_that_cannot_be_written_lets_nothing_leave(
    noisy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from merveil.fl.ledger import FileStore

    asked = Asked(noisy(scheme="plain"))
    save, path = FileStore.save, asked.world.homes[0] / private.LEDGER

    def full(self: FileStore, data: bytes) -> None:
        if self.path == path and b'"count"' in data:
            raise OSError(28, "No space left on device", str(path))
        save(self, data)

    monkeypatch.setattr(FileStore, "save", full)
    assert asked.ask(asked.task()).frames == ()
    monkeypatch.setattr(FileStore, "save", save)
    assert uploads(asked.world.homes[0]) == 0
    assert asked.ask(asked.task()).frames and uploads(asked.world.homes[0]) == 1


def test_a_refused_upload_stays_unpaid(tmp_path: Path) -> None:
    release = plan("skellam", 100, 5, 3, 1.0, 0.5).release()
    with private.UploadBudget(tmp_path / private.LEDGER, "f", 0.1, 1e-3) as found:
        for _ in range(2):  # asked again, it is not taken for the one that was charged last
            with pytest.raises(BudgetSpent):
                found.pay(release, "upload")
        assert (found.uploads, found.last) == (0, "")


def test_a_ledger_put_back_forgets_which_is_the_declared_non_claim(noisy: Any) -> None:
    """What no check can stop, shown; a ledger that is gone is noticed."""
    asked = Asked(noisy(scheme="plain"))
    home = asked.world.homes[0]
    path, copy = home / private.LEDGER, home / "copy"
    with private.budget(Member.load(home)):
        pass
    shutil.copy(path, copy)
    assert asked.ask(asked.task()).frames
    assert asked.ask(asked.task(round_=2)).spent
    shutil.copy(copy, path)
    assert asked.ask(asked.task(round_=3)).frames and uploads(home) == 1  # two left, one is known of
    path.unlink()
    done = asked.ask(asked.task(round_=4))
    assert done.frames == () and not done.spent
    assert "is gone" in (home / "log.txt").read_text()
    with pytest.raises(LocalError, match="is gone"):
        private.spent(Member.load(home))


def test_a_ledger_of_another_federation_is_refused(noisy: Any) -> None:
    asked = Asked(noisy(scheme="plain"))
    home = asked.world.homes[0]
    with private.UploadBudget(home / private.LEDGER, "other", 8.0, 1e-3) as other:
        other.pay(asked.mechanism.release(), "upload")
    assert asked.ask(asked.task()).frames == ()
    assert "belongs to other data or clients" in (home / "log.txt").read_text()


def test_how_many_rounds_can_still_be_paid(noisy: Any) -> None:
    asked = Asked(noisy(policy={"dp_epsilon": 30.0}))
    member, release = Member.load(asked.world.homes[0]), asked.mechanism.release()
    left = private.rounds_left(member, asked.mechanism)
    assert epsilon([(release, left)], 1e-3) <= 30 < epsilon([(release, left + 1)], 1e-3)
    private.pay(member, asked.task(), asked.mechanism)
    assert private.rounds_left(member, asked.mechanism) == left - 1


# Before taking part, and settings


def checks_of(found: Any, i: int) -> dict[str, tuple[bool, str]]:
    given = SiteSettings(
        server=f"127.0.0.1:{found.server.port}",
        home=found.homes[i],
        data="clips",
        certificate=found.server_home / "tls.crt",
    )
    return {c.name: (c.ok, c.text) for c in check_site(given, None, lambda _: found.archives[i])}


def test_check_shows_the_policy_and_what_is_left(noisy: Any) -> None:
    found = noisy(rounds=2)
    one = dp.epsilon_of_rounds(honest_mechanism(found), 1, 1e-3)
    write_policy(found.homes[0], dp_epsilon=one)
    (found.homes[1] / "policy.toml").unlink()
    write_policy(found.homes[2], dp_epsilon=one / 2)
    found.start_server()
    first, second, third = checks_of(found, 0), checks_of(found, 1), checks_of(found, 2)
    assert (
        first["privacy"][0] and "epsilon 0 of" in first["privacy"][1] and "0 uploads" in first["privacy"][1]
    )
    assert first["policy"][0] and "1 rounds of it can be paid" in first["policy"][1]
    assert not (found.homes[0] / private.LEDGER).exists()  # a check writes nothing
    assert second["privacy"][0] and not second["policy"][0] and "dp_epsilon" in second["policy"][1]
    assert not third["policy"][0] and "BUDGET_SPENT" in third["policy"][1]
    write_policy(found.homes[1])
    write_policy(found.homes[2])
    everyone(found)
    found.finish()
    told = private.spent(Member.load(found.homes[0]))
    assert told is not None and told["uploads"] == 1


def test_policy_figures_go_together(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    for text in (
        "dp_epsilon = 8.0",
        "dp_epsilon = 8.0\ndp_delta = 1e-3",
        "dp_delta = 1e-3\ndp_norm_clip = 1",
        "dp_epsilon = -1.0\ndp_delta = 1e-3\ndp_norm_clip = 1.0",
        "dp_epsilon = inf\ndp_delta = 1e-3\ndp_norm_clip = 1.0",
        "dp_epsilon = nan\ndp_delta = 1e-3\ndp_norm_clip = 1.0",
        "dp_epsilon = 8.0\ndp_delta = 1.0\ndp_norm_clip = 1.0",
        'dp_epsilon = "8"\ndp_delta = 1e-3\ndp_norm_clip = 1.0',
    ):
        path.write_text(text)
        with pytest.raises(LocalError):
            load_policy(path, bytes(32))
    path.write_text("dp_epsilon = 8\ndp_delta = 1e-3\ndp_norm_clip = 1")
    found = load_policy(path, bytes(32))
    assert (found.dp_epsilon, found.dp_delta, found.dp_norm_clip) == (8, 1e-3, 1)


@pytest.mark.parametrize(
    ("train", "missing"),
    [
        ('dp = "central"', "dp = 'central'"),
        ('dp = "sgd"\nbatch = 4', "dp = 'sgd'"),
        ('dp = "distributed+sgd"\nbatch = 4\nsgd_clip = 1.0', "dp = 'distributed+sgd'"),
        ('dp = "distributed"\ndp_unit = "person"', "dp_unit = 'person'"),
    ],
)
def test_what_sites_do_not_carry_out_is_refused_by_name(tmp_path: Path, train: str, missing: str) -> None:
    figures = 'scheme = "secagg"\nepsilon = 8.0\ndelta = 1e-3\nnorm_clip = 1.0\n'
    path = tmp_path / "federation.toml"
    path.write_text(f"[server]\n[train]\n{figures}{train}\n")
    with pytest.raises(InputError, match=re.escape(missing)):
        read_server(path)
    path.write_text(f'[server]\n[train]\n{figures}dp = "distributed"\n')
    assert read_server(path).options.noisy_sums


def test_a_run_without_its_ledger_does_not_go_on(noisy: Any) -> None:
    found = noisy()
    found.start_server()
    everyone(found)
    found.finish()
    (found.server_home / private.LEDGER).unlink()
    with pytest.raises(LocalError, match="is gone"):
        Server(found.settings, RunLog(verbosity=-1)).run()
