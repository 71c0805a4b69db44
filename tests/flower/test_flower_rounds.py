"""Rounds of a Flower app behind the mod and the secure grid, on an engine in one process."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian

from merveil.fl.flower import SecureGrid, SecureMod, secured
from merveil.fl.flower.grid import Settings
from merveil.fl.flower.polling import ask
from merveil.fl.flower.records import RECORD, Plan
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.registry import get, names

CLIP = 0.5


def secure(homes: Any, inner: Any, **changes: Any) -> SecureGrid:
    return SecureGrid(inner, homes.server, Settings(**{"scheme": "secagg", "clip": CLIP, **changes}))


def mean_of(replies: list[Message]) -> float:
    (reply,) = replies
    values = np.concatenate([a.numpy().reshape(-1) for a in reply.content["arrays"].values()])
    assert np.ptp(values) == 0
    return float(values[0])


@pytest.mark.parametrize("scheme", names())
def test_every_scheme_gives_the_weighted_mean(homes: Any, tools: Any, scheme: str) -> None:
    for home in homes.members:
        (home / "policy.toml").write_text(f'schemes = ["{scheme}"]\nmax_verify_bytes = 1073741824\n')
    inner = tools.make_grid(homes)
    grid = secure(homes, inner, scheme=scheme, bits=16)
    replies = list(grid.send_and_receive(tools.train_messages(inner), timeout=60))
    assert inner.exchange == len(get(scheme).phases)
    assert mean_of(replies) == pytest.approx(tools.weighted_mean(range(1, 6)), abs=0.02)
    assert replies[0].content["metrics"]["num-examples"] == 15
    assert grid.reports[0].survivors == tuple(f"site-{i}" for i in range(1, 6))


def test_the_mean_is_as_close_as_the_grid(homes: Any, tools: Any) -> None:
    inner = tools.make_grid(homes)
    replies = list(
        secure(homes, inner, bits=24, max_weight=8).send_and_receive(tools.train_messages(inner), timeout=60)
    )
    assert mean_of(replies) == pytest.approx(tools.weighted_mean(range(1, 6)), abs=1e-6)


def test_rounds_follow_each_other_and_survive_a_restart_of_the_server(homes: Any, tools: Any) -> None:
    inner = tools.make_grid(homes)
    for expected in (1, 2, 3):
        grid = secure(homes, inner)  # a new object: what it knows is in its folder
        assert len(list(grid.send_and_receive(tools.train_messages(inner), timeout=60))) == 1
        assert grid.reports[0].round == expected


@pytest.mark.parametrize("exchange", [1, 2, 3, 4, 5])
def test_a_node_lost_at_any_exchange_is_a_dropout(homes: Any, tools: Any, exchange: int) -> None:
    def lose(now: int, message: Message) -> Message | None:
        return None if now >= exchange and message.metadata.src_node_id == 102 else message

    inner = tools.make_grid(homes, up=lose)
    grid = secure(homes, inner)
    replies = list(grid.send_and_receive(tools.train_messages(inner), timeout=60))
    inside = [1, 3, 4, 5] if exchange <= 3 else [1, 2, 3, 4, 5]  # its vector had arrived
    assert mean_of(replies) == pytest.approx(tools.weighted_mean(inside), abs=1e-3)
    assert grid.reports[-1].survivors == tuple(f"site-{i}" for i in inside)


@pytest.mark.parametrize("exchange", [1, 2, 3, 4])
def test_two_lost_nodes_of_five_end_the_round(homes: Any, tools: Any, exchange: int) -> None:
    def lose(now: int, message: Message) -> Message | None:
        return None if now >= exchange and message.metadata.src_node_id in (102, 103) else message

    inner = tools.make_grid(homes, up=lose)
    grid = secure(homes, inner, attempts=1)
    replies = list(grid.send_and_receive(tools.train_messages(inner), timeout=60))
    assert all(r.has_error() for r in replies) and len(replies) == 5
    assert "BELOW_THRESHOLD" in replies[0].error.reason
    assert grid.reports[0].code is AbortCode.BELOW_THRESHOLD


def test_an_abort_before_any_answer_is_tried_again(homes: Any, tools: Any) -> None:
    def once(now: int, message: Message) -> Message | None:
        return None if now == 4 and message.metadata.src_node_id in (102, 103) else message

    inner = tools.make_grid(homes, up=once)
    grid = secure(homes, inner)
    assert mean_of(list(grid.send_and_receive(tools.train_messages(inner), timeout=60))) > 0
    assert [(r.round, r.attempt, r.code is None) for r in grid.reports] == [(1, 1, False), (1, 2, True)]


def test_an_abort_after_answers_is_not_tried_again(homes: Any, tools: Any) -> None:
    def late(now: int, message: Message) -> Message | None:
        return None if now == 5 and message.metadata.src_node_id in (102, 103) else message

    inner = tools.make_grid(homes, up=late)
    grid = secure(homes, inner, attempts=3)
    assert all(r.has_error() for r in grid.send_and_receive(tools.train_messages(inner), timeout=60))
    assert len(grid.reports) == 1
    assert (
        len(list(grid.send_and_receive(tools.train_messages(inner), timeout=60))) == 1
    )  # the next round is a new one
    assert grid.reports[-1].round == 2


def test_a_run_ends_after_too_many_rounds_without_a_sum(homes: Any, tools: Any) -> None:
    inner = tools.make_grid(homes, up=lambda now, message: None)
    grid = secure(homes, inner, attempts=1, max_aborted=2)
    assert all(r.has_error() for r in grid.send_and_receive(tools.train_messages(inner), timeout=60))
    with pytest.raises(Aborted) as caught:
        grid.send_and_receive(tools.train_messages(inner), timeout=60)
    assert caught.value.code is AbortCode.BELOW_THRESHOLD


def test_strategies_run_unchanged(homes: Any, tools: Any) -> None:
    model = ArrayRecord({name: Array(value) for name, value in tools.MODEL.items()})
    inner = tools.make_grid(homes)
    strategy = secured(FedAvg(min_available_nodes=5), clip=CLIP, home=homes.server, bits=24, max_weight=8)
    result = strategy.start(inner, model, num_rounds=2)
    clear = FedAvg(min_available_nodes=5).start(tools.make_grid(None), model, num_rounds=2)
    for name in tools.MODEL:
        np.testing.assert_allclose(result.arrays[name].numpy(), clear.arrays[name].numpy(), atol=1e-5)
    assert set(result.evaluate_metrics_clientapp) == {1, 2}
    assert [r.round for r in strategy.reports] == [1, 2]
    adam = secured(FedAdam(min_available_nodes=5), clip=CLIP, home=homes.server)
    assert adam.start(tools.make_grid(homes), model, num_rounds=1).arrays["layer.bias"].numpy().any()


def test_metrics_that_were_asked_for_come_as_a_mean_and_no_others(homes: Any, tools: Any) -> None:
    inner = tools.make_grid(homes)
    grid = secure(homes, inner, bits=24, max_weight=8, plan=Plan(metrics={"train_loss": 2.0}))
    (reply,) = grid.send_and_receive(tools.train_messages(inner), timeout=60)
    expected = sum(n * n / 10 for n in range(1, 6)) / 15
    assert reply.content["metrics"]["train_loss"] == pytest.approx(expected, abs=1e-5)
    assert "secret" not in reply.content["metrics"]
    for message in inner.seen:  # nothing of the app's own records is in any message of a node
        assert set(message.content) == {RECORD}


def test_a_strategy_of_single_updates_or_samples_is_refused(homes: Any) -> None:
    with pytest.raises(LocalError, match="every client's own update"):
        secured(FedMedian(), clip=1.0, home=homes.server)
    with pytest.raises(LocalError, match="fraction_train"):
        secured(FedAvg(fraction_train=0.5), clip=1.0, home=homes.server)
    with pytest.raises(LocalError, match="MERVEIL_HOME"):
        secured(FedAvg(), clip=1.0)


def test_messages_that_differ_are_refused(homes: Any, tools: Any) -> None:
    inner = tools.make_grid(homes)
    messages = tools.train_messages(inner)
    messages[2] = Message(RecordDict({"config": ConfigRecord({"a": 1})}), 103, "train")
    with pytest.raises(LocalError, match="same training message"):
        secure(homes, inner).send_and_receive(messages)
    with pytest.raises(LocalError, match="send_and_receive"):
        secure(homes, inner).push_messages(tools.train_messages(inner))


def test_torch_state_dicts_go_in_and_out(homes: Any, tools: Any) -> None:
    torch = pytest.importorskip("torch")
    from flwr.app import MetricRecord
    from flwr.clientapp import ClientApp

    app = ClientApp(mods=[SecureMod()])

    @app.train()
    def train(message: Message, context: Any) -> Message:
        net = torch.nn.Linear(3, 2)
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        with torch.no_grad():
            net.weight += 0.125
        content = RecordDict(
            {"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord({"num-examples": 4})}
        )
        return Message(content, reply_to=message)

    inner = tools.make_grid(homes, app)
    start = torch.nn.Linear(3, 2).state_dict()
    strategy = secured(FedAvg(fraction_evaluate=0.0, min_available_nodes=5), clip=1.0, home=homes.server)
    result = strategy.start(inner, ArrayRecord(start), num_rounds=1)
    found = result.arrays.to_torch_state_dict()
    assert torch.allclose(found["weight"], start["weight"] + 0.125, atol=1e-3)
    assert torch.allclose(found["bias"], start["bias"], atol=1e-3)


def test_what_is_no_training_passes_through(homes: Any, tools: Any) -> None:
    inner = tools.make_grid(homes)
    grid = secure(homes, inner)
    grid.set_run("this run")  # type: ignore[arg-type]
    assert grid.run == inner.current == "this run"
    (first, *_) = tools.train_messages(inner)
    message = grid.create_message(first.content, "evaluate", 103, "5")
    assert (message.metadata.dst_node_id, message.metadata.group_id) == (103, "5")
    (name,) = grid.push_messages([message])
    (reply,) = grid.pull_messages([name])
    assert (reply.metadata.src_node_id, reply.metadata.reply_to_message_id) == (103, name)
    assert list(grid.get_node_ids()) == [101, 102, 103, 104, 105]
    replies = list(grid.send_and_receive([Message(first.content, node, "evaluate") for node in (101, 102)]))
    assert [r.content["metrics"]["loss"] for r in replies] == [1.0, 1.0]


class Slow:
    """A grid whose replies come one a look, the third after nine looks; the first message is not taken."""

    def __init__(self, replies: list[Any]) -> None:
        self.replies, self.looks = replies, 0

    def push_messages(self, messages: Any) -> list[str | None]:
        return [None, *(f"m{i}" for i in range(1, len(list(messages))))]

    def pull_messages(self, waiting: Any) -> list[Any]:
        self.looks += 1
        due = {1: 0, 2: 1, 9: 2}.get(self.looks)
        return [] if due is None or due >= len(self.replies) else [self.replies[due]]


def reply_to(name: str) -> Any:
    return SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id=name))


def test_replies_are_given_as_they_come_and_waiting_ends(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    grid = Slow([reply_to("m1"), reply_to("m2"), reply_to("m3")])
    found = ask(grid, [None] * 4, 60.0)
    assert next(found).metadata.reply_to_message_id == "m1" and grid.looks == 1
    assert [r.metadata.reply_to_message_id for r in found] == ["m2", "m3"] and grid.looks == 9
    assert clock.now < 3.0  # what the engine's own loop would have slept at once
    assert "did not take 1 of 4" in caplog.text


def test_a_reply_that_never_comes_costs_the_timeout_and_no_more(clock: Any) -> None:
    grid = Slow([reply_to("m1")])
    assert len(list(ask(grid, [None] * 3, 20.0))) == 1
    assert clock.now == pytest.approx(20.0)
    before = grid.looks
    assert list(ask(grid, [None], 20.0)) == [] and grid.looks == before  # nothing was taken: nothing is due
