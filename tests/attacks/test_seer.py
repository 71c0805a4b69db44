"""SEER: the trained gains are the network's own, its decoder reads a sum and an honest model's does not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from merveil.attacks import a23_seer, scenario, seer
from merveil.attacks.base import CURIOUS_SERVER
from merveil.attacks.population import population
from merveil.attacks.probe import build
from merveil.attacks.runner import SETTINGS
from merveil.attacks.scenario import Setting, Task

SMALL = replace(SETTINGS["seer"], cohort=8, rounds=6, people=60)


def clips(n: int = 12) -> tuple[Any, Any, Any]:
    archive = population(60)
    net = build("flow-mlp", 3, 28, 28, 3, hidden=64)
    return net, torch.from_numpy(net.prepare(archive.x[:n])), torch.from_numpy(archive.y[:n])


def test_a_gain_is_what_a_clip_brings_into_the_decoded_sum() -> None:
    net, x, y = clips()
    params = torch.from_numpy(net.init(3))
    direction = torch.randn(64, generator=torch.Generator().manual_seed(1))
    gain = seer.gains(net, params.clone().requires_grad_(True), direction, x, y).detach()
    rows = params.expand(len(x), -1).clone().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(
        net.logits(rows, x[:, None], train=True)[:, 0], y, reduction="sum"
    )
    (each,) = torch.autograd.grad(loss, rows)
    first = net.views(each)
    unit = direction / direction.norm()
    assert torch.allclose(gain, first["first.bias"] @ unit, atol=1e-6)
    decoded = torch.einsum("h,nhi->ni", unit, first["first.weight"])
    assert torch.allclose(decoded, gain[:, None] * x, atol=1e-5)


def test_standing_out_is_one_when_two_clips_are_alike_and_grows_for_a_loud_one() -> None:
    net, x, y = clips(2)
    same = seer.snr(net, net.init(1), x[:1].repeat(2, 1), y[:1].repeat(2))
    assert same == pytest.approx(1.0, abs=1e-3)
    many = seer.snr(net, net.init(1), x[:1].repeat(10, 1), y[:1].repeat(10))
    assert many == pytest.approx(1 / 3, abs=1e-3)


def test_a_prepared_model_shows_clips_it_was_not_prepared_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short preparation and few people: worse than the audit's, and far better than no preparation."""
    monkeypatch.setattr(seer, "STEPS", 250)
    seer.prepared.cache_clear()
    task, shares = SMALL.on(Task(population(60))), []
    for model in ("seer", ""):
        cases = scenario.record(task, "plain", replace(SMALL, crafted="seer"), CURIOUS_SERVER, 3)
        if not model:  # the honest model in its place, and the same secret
            cases = [_honest(task, case, number) for number, case in enumerate(cases)]
        rng = np.random.default_rng(0)
        guesses = [a23_seer.infer(c.view, c.public, rng) for c in cases]
        shares.append(a23_seer.score(guesses, [c.truth for c in cases], rng))
    seer.prepared.cache_clear()
    assert shares[0].details["correlation_median"] > shares[1].details["correlation_median"] + 0.1, shares
    assert shares[0].score > 0 == shares[1].score
    used = {p for p, out in zip(task.archive.person, scenario.outside_persons(task.archive)) if out}
    shown = {task.archive.person[i] for c in cases for rows in c.truth.held.values() for i in rows}
    assert not used & shown  # nobody whose clips are scored was prepared on


def _honest(task: Task, case: Any, number: int) -> Any:
    """The same round, trained from the model that the server began with."""
    public = replace(case.public, start=case.public.secret.honest)
    updates = scenario.client_updates(task, public, list(case.truth.held.values()))
    aggregate = scenario.aggregator("plain", public).mean(updates)
    return replace(case, public=public, view=aggregate.transcript.view(frozenset({0})))


def test_the_same_plan_prepares_the_same_model_and_other_images_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seer, "STEPS", 2)
    seer.prepared.cache_clear()
    archive, weight = population(60), np.ones(3)
    setting = Setting(clips=2, cohort=8, rounds=1, options=(("hidden", 8),))
    plans = [seer.plan(archive.x[s], archive.y[s], weight, setting, 5) for s in (slice(0, 40), slice(0, 40))]
    assert plans[0] == plans[1] and hash(plans[0]) == hash(plans[1])
    first, secret = seer.prepared(plans[0])
    seer.prepared.cache_clear()
    again, _ = seer.prepared(plans[1])
    assert np.array_equal(first, again) and np.linalg.norm(secret.direction) == pytest.approx(1)
    assert seer.plan(archive.x[40:80], archive.y[40:80], weight, setting, 5) != plans[0]
    seer.prepared.cache_clear()
