"""What an engine that lies, or a node that pretends, gets from the mod and the secure grid: nothing."""

import shutil
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from merveil.fl.deploy.member import Member
from merveil.fl.deploy.task import Task
from merveil.fl.federation import Folder
from merveil.fl.flower import SecureGrid
from merveil.fl.flower.grid import Settings
from merveil.fl.flower.mod import NODE_PURPOSE, node_fields
from merveil.fl.flower.records import RECORD
from merveil.fl.keys import save_identity
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.identity import Identity
from merveil.protocols.primitives.sign import sign


def secure(homes: Any, inner: Any, **changes: Any) -> SecureGrid:
    return SecureGrid(inner, homes.server, Settings(**{"scheme": "secagg", "clip": 0.5, **changes}))


def copy_of(state: RecordDict) -> RecordDict:
    return RecordDict({name: ConfigRecord(dict(value)) for name, value in state.items()})


def codes(replies: Any) -> set[str]:
    return {str(r.content[RECORD].get("code")) for r in replies if r.has_content()}


def test_a_training_message_in_clear_gets_no_update(homes: Any, tools: Any) -> None:
    inner = tools.make_grid(homes)
    for reply in inner.send_and_receive(tools.train_messages(inner), timeout=60):
        assert reply.has_error() and "trains only inside" in reply.error.reason


def test_an_evaluation_that_answers_with_arrays_is_held_back(homes: Any, tools: Any) -> None:
    inner = tools.make_grid(homes)
    for leak in (False, True):
        (first, *_) = tools.train_messages(inner, {"leak": leak})
        (reply,) = inner.send_and_receive([Message(first.content, 101, "evaluate")])
        assert reply.has_error() == leak


def test_scheme_and_parameters_below_the_policy_are_refused(homes: Any, tools: Any) -> None:
    inner = tools.make_grid(homes)
    for changes in ({"scheme": "plain"}, {"threshold": 2}):
        before = len(inner.seen)
        replies = list(
            secure(homes, inner, attempts=1, **changes).send_and_receive(
                tools.train_messages(inner), timeout=60
            )
        )
        assert all(r.has_error() for r in replies)
        assert codes(inner.seen[before:]) == {"PARAMS_BELOW_FLOOR"}


@pytest.mark.parametrize("name", ["layer.bias", "config"])
def test_another_model_or_configuration_for_one_node_is_refused(homes: Any, tools: Any, name: str) -> None:
    def bend(exchange: int, message: Message) -> Message:
        if message.metadata.dst_node_id == 103 and "arrays" in message.content:
            if name == "config":
                message.content["config"]["lr"] = 9.0
            else:
                arrays = {n: a.numpy().copy() for n, a in message.content["arrays"].items()}
                arrays[name][0] += 1e-3
                message.content["arrays"] = ArrayRecord({n: tools.array(a) for n, a in arrays.items()})
        return message

    inner = tools.make_grid(homes, down=bend)
    grid = secure(homes, inner)
    (reply,) = grid.send_and_receive(tools.train_messages(inner), timeout=60)
    assert not reply.has_error()
    assert grid.reports[0].survivors == ("site-1", "site-2", "site-4", "site-5")
    assert grid.reports[0].told[3].startswith("MODEL_MISMATCH")


@pytest.mark.parametrize(("value", "code"), [(float("nan"), "INPUT_NOT_FINITE"), (None, "ARCH_MISMATCH")])
def test_a_model_without_numbers_or_of_another_form_is_refused_before_the_app_sees_it(
    homes: Any, tools: Any, value: float | None, code: str
) -> None:
    inner = tools.make_grid(homes)
    first = secure(homes, inner)
    assert not next(iter(first.send_and_receive(tools.train_messages(inner), timeout=60))).has_error()
    before, messages = len(inner.seen), tools.train_messages(inner)
    for message in messages:
        arrays = {n: a.numpy().copy() for n, a in message.content["arrays"].items()}
        if value is None:
            arrays["another"] = np.ones(3)
        else:
            arrays["layer.bias"][0] = value
        message.content["arrays"] = ArrayRecord({n: tools.array(a) for n, a in arrays.items()})
    replies = list(secure(homes, inner, attempts=1).send_and_receive(messages))
    assert all(r.has_error() for r in replies)
    assert code in codes(inner.seen[before:])


@pytest.mark.parametrize("kept", [2, 3, 4])
def test_a_rolled_back_engine_store_is_refused(homes: Any, tools: Any, kept: int) -> None:
    """The engine keeps node 104's store of after exchange `kept`, puts it back and repeats the message."""
    inner = tools.make_grid(homes)
    stores: dict[int, RecordDict] = {}
    messages: dict[int, Message] = {}

    def watch(exchange: int, message: Message) -> Message:
        if message.metadata.dst_node_id == 104:
            stores[exchange] = copy_of(inner.contexts[104].state)  # as it was before this exchange
            messages[exchange] = message
        return message

    inner.down = watch
    (reply,) = secure(homes, inner).send_and_receive(tools.train_messages(inner), timeout=60)
    assert not reply.has_error()
    inner.down = lambda exchange, message: message
    inner.contexts[104].state = stores[kept]
    (again,) = inner.send_and_receive([inner.sent_to(104, kept)])
    assert codes([again]) == {"STATE_ROLLBACK"}
    assert not again.content[RECORD].get("frames")


def test_the_store_holds_neither_the_vector_nor_a_key_in_clear(homes: Any, tools: Any) -> None:
    inner = tools.make_grid(homes)
    states: list[bytes] = []

    def watch(exchange: int, message: Message) -> Message:
        state = inner.contexts[message.metadata.dst_node_id].state.config_records.get(RECORD)
        if state is not None:
            assert set(state) == {"task", "snapshot"}
            states.append(bytes(state["snapshot"]))
        return message

    inner.down = watch
    list(secure(homes, inner).send_and_receive(tools.train_messages(inner), timeout=60))
    assert len(states) == 20 and len(set(states)) == 20
    assert not inner.contexts[101].state  # nothing is left when the round is over
    for home in homes.members:
        member = Member.load(home)
        keys = (member.identity.sign_key.private_bytes_raw(), member.identity.agree_key.private_bytes_raw())
        assert not any(key in state for key in keys for state in states)


def test_a_lost_ledger_stops_the_node(homes: Any, tools: Any) -> None:
    (homes.members[0] / "ledger").unlink()
    inner = tools.make_grid(homes)
    grid = secure(homes, inner)
    (reply,) = grid.send_and_receive(tools.train_messages(inner), timeout=60)
    assert not reply.has_error() and grid.reports[0].survivors[0] == "site-2"


def test_a_server_that_forgets_its_rounds_is_refused(homes: Any, tools: Any) -> None:
    inner = tools.make_grid(homes)
    list(secure(homes, inner).send_and_receive(tools.train_messages(inner), timeout=60))
    (homes.server / "rounds.json").unlink()
    before = len(inner.seen)
    replies = list(secure(homes, inner).send_and_receive(tools.train_messages(inner), timeout=60))
    assert all(r.has_error() for r in replies)
    assert codes(inner.seen[before:]) == {"ROUND_REUSED"}


def impostor(homes: Any, kind: str) -> Any:
    """Replies of exchange 1 so that node 105 speaks for site-2, and is heard first."""

    def arrange(exchange: int, replies: list[Message]) -> list[Message]:
        if exchange > 1:
            return replies
        by_node = {m.metadata.src_node_id: m for m in replies}
        honest, record = by_node[102].content[RECORD], by_node[105].content[RECORD]
        record["index"] = 2
        if kind == "copied proof":
            record["proof"], record["frames"] = honest["proof"], honest["frames"]
        if kind == "own key":
            member = Member.load(homes.members[4])
            task = Task.decode(arrange.task)
            record["proof"] = sign(member.identity.sign_key, NODE_PURPOSE, *node_fields(task, member, 7, 105))
        return [by_node[105], *(by_node[n] for n in (101, 102, 103, 104))]

    return arrange


@pytest.mark.parametrize("kind", ["copied proof", "own key", "old proof"])
def test_a_node_cannot_speak_for_another_member(homes: Any, tools: Any, kind: str) -> None:
    arrange = impostor(homes, kind)

    def note(exchange: int, message: Message) -> Message:
        if exchange == 1:
            arrange.task = message.content[RECORD]["task"]
        return message

    inner = tools.make_grid(homes, down=note, arrange=arrange)
    grid = secure(homes, inner)
    (reply,) = grid.send_and_receive(tools.train_messages(inner), timeout=60)
    assert not reply.has_error()
    # The impostor is nobody; the member it named is in the sum, with its own value.
    assert grid.reports[0].survivors == ("site-1", "site-2", "site-3", "site-4")
    value = float(reply.content["arrays"]["layer.bias"].numpy()[0])
    assert value == pytest.approx(tools.weighted_mean([1, 2, 3, 4]), abs=1e-3)


def test_a_second_node_of_one_member_is_left_out(homes: Any, tools: Any, tmp_path: Any) -> None:
    """A member that copied its folder, ledger and all, to another node gets one seat."""
    shutil.copytree(homes.members[1], tmp_path / "copy")
    inner = tools.make_grid(homes)
    inner.contexts[105].node_config["merveil-home"] = str(tmp_path / "copy")
    grid = secure(homes, inner)
    (reply,) = grid.send_and_receive(tools.train_messages(inner), timeout=60)
    assert not reply.has_error()
    assert grid.reports[0].survivors == ("site-1", "site-2", "site-3", "site-4")


def test_a_stranger_is_no_member(homes: Any, tools: Any, many_homes: Any, tmp_path: Any) -> None:
    """A node with keys that the coordinator never saw is turned away, at the node and at the server."""
    shutil.copytree(homes.members[4], tmp_path / "stranger")
    save_identity(tmp_path / "stranger" / "identity.key", Identity.generate("stranger"), force=True)
    inner = tools.make_grid(homes)
    inner.contexts[105].node_config["merveil-home"] = str(tmp_path / "stranger")
    grid = secure(homes, inner)
    (reply,) = grid.send_and_receive(tools.train_messages(inner), timeout=60)
    assert not reply.has_error() and grid.reports[0].survivors == tuple(f"site-{i}" for i in (1, 2, 3, 4))


def test_frames_that_are_bent_or_repeated_change_no_sum(homes: Any, tools: Any) -> None:
    for exchange in range(1, 6):

        def bend(now: int, message: Message, at: int = exchange) -> Message:
            record = message.content[RECORD]
            if now % 5 == at % 5 and message.metadata.src_node_id == 102 and record.get("frames"):
                (frame,) = record["frames"]
                record["frames"] = [frame[:-1] + bytes((frame[-1] ^ 1,)), frame, frame]
            return message

        inner = tools.make_grid(homes, up=bend)
        grid = secure(homes, inner)
        (reply,) = grid.send_and_receive(tools.train_messages(inner), timeout=60)
        value = float(reply.content["arrays"]["layer.bias"].numpy()[0])
        assert value == pytest.approx(tools.weighted_mean(range(1, 6)), abs=1e-3)
        assert (2, AbortCode.BAD_SIGNATURE) in grid.reports[0].refused


def test_garbage_from_nodes_and_server_is_no_crash(homes: Any, tools: Any) -> None:
    junk: list[Any] = [{}, {"index": "2"}, {"index": 2, "proof": b"x"}, {"index": 99, "proof": b""}]

    def bend(exchange: int, message: Message) -> Message:
        if message.metadata.src_node_id == 102:
            message.content[RECORD] = ConfigRecord(junk[(exchange - 1) % len(junk)])
        return message

    inner = tools.make_grid(homes, up=bend)
    grid = secure(homes, inner)
    (reply,) = grid.send_and_receive(tools.train_messages(inner), timeout=60)
    assert not reply.has_error() and len(grid.reports[0].survivors) == 4

    for record in ({"task": b"{}"}, {"task": b"\xff"}, {"frames": [b"x"]}, {"frames": "x"}, {"task": 3}):
        (answer,) = inner.send_and_receive(
            [Message(RecordDict({RECORD: ConfigRecord(record)}), 101, "train")]
        )
        assert codes([answer]) <= {"MALFORMED_FRAME", "STATE_ROLLBACK"}


def test_another_federations_counter_is_refused(homes: Any, tools: Any, tmp_path: Any) -> None:
    (homes.server / "rounds.json").write_text('{"federation": "00", "last": 5}')
    with pytest.raises(LocalError, match="round counter"):
        secure(homes, tools.make_grid(homes))


def test_a_roster_of_another_coordinator_is_refused(homes: Any, many_homes: Any, tmp_path: Any) -> None:
    (tmp_path / "other").mkdir()
    other = Folder.init(tmp_path / "other" / "hq", None)
    other.save()
    shutil.copy(tmp_path / "other" / "hq" / "federation.json", homes.members[0] / "federation.json")
    with pytest.raises(Aborted) as caught:
        Member.load(homes.members[0])
    assert caught.value.code is AbortCode.BAD_SIGNATURE
