"""Every registered scheme by the same tests: equal to the clear sum, whoever drops and whoever sleeps."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError, SessionSpent
from merveil.protocols.frame import SERVER, Frame
from merveil.protocols.ledger import Ledger, MemoryStore, RoundState
from merveil.protocols.plain.messages import decode_vector
from merveil.protocols.policy import Policy
from merveil.protocols.primitives.packing import pack
from merveil.protocols.registry import get, names
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import SPENT, Phase
from merveil.protocols.simulation.driver import Traffic

SCHEMES = names()
PHASES = [(name, phase) for name in SCHEMES for phase in get(name).phases]
SECURE = [name for name in SCHEMES if name != "plain"]
BURNS = {"ckks"}  # whose chosen decryptors must all answer: one that is lost then costs the round


def play(k: Any, clients: dict[int, Any], server: Any, hook: Callable[..., None] | None = None) -> None:
    """A round over perfect links, first in first out; `hook(place, index)` may replace the sessions."""
    queue: list[tuple[int, int, bytes]] = []

    def post(frames: Sequence[Frame]) -> None:
        queue.extend((f.sender, f.to, f.encode()) for f in frames)

    cell = {"server": server}

    def call(what: str, index: int) -> None:
        if hook is not None:
            hook(what, index, clients, cell)

    post(cell["server"].start())
    for i in clients:
        call("start", i)
        post(clients[i].start())
        call("submit", i)
        post(clients[i].submit(k.codes(i)))
    for _ in range(10_000):
        if cell["server"].phase in SPENT:
            break
        if not queue:
            post(cell["server"].close_phase())
            continue
        sender, to, data = queue.pop(0)
        if to == SERVER:
            call("server", 0)
            post(cell["server"].receive(sender, data))
        else:
            call("receive", to)
            post(clients[to].receive(SERVER, data))
    k.server_object = cell["server"]


# The sum


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("cohort", "dim", "bits", "max_weight"),
    [(5, 1, 16, 1), (5, 7, 16, 1), (6, 200, 4, 15), (7, 65, 40, 1), (5, 64, 32, 9), (11, 3, 5, 2)],
)
def test_equals_the_clear_sum_bit_for_bit(
    kit: Any, scheme: str, cohort: int, dim: int, bits: int, max_weight: int
) -> None:
    k = kit(scheme, cohort=cohort, dim=dim, bits=bits, max_weight=max_weight, spare=2)
    outcome = k.run()
    assert outcome.survivors == k.context().cohort and outcome.excluded == {}
    assert outcome.codes.dtype == np.int64 and np.array_equal(outcome.codes, k.total(outcome.survivors))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_full_cohort_at_the_edge_of_the_grid_does_not_wrap(kit: Any, scheme: str, sign: int) -> None:
    k = kit(scheme, cohort=8, dim=5, bits=40, max_weight=65_535)
    edge = np.full(6, sign * k.params.levels, dtype=np.int64)
    edge[-1] = 65_535
    k.codes = lambda index: edge
    assert k.run().codes.tolist() == [8 * sign * k.params.levels] * 5 + [8 * 65_535]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_many_rounds_with_the_same_ledgers(kit: Any, scheme: str) -> None:
    k = kit(scheme, cohort=5)
    for round_ in (1, 2, 3, 7, 8):
        drop = {k.context(round=round_).cohort[round_ % 5]: k.phases[round_ % len(k.phases)]}
        outcome = k.run(drop, round=round_)
        assert np.array_equal(outcome.codes, k.total(outcome.survivors))


# Dropouts


@pytest.mark.parametrize(("scheme", "phase"), PHASES)
@pytest.mark.parametrize("who", [(1,), (6,), (2, 5)])
def test_clients_may_drop_at_every_phase(kit: Any, scheme: str, phase: Phase, who: tuple[int, ...]) -> None:
    k = kit(scheme, cohort=8, dim=9)
    try:
        outcome = k.run(dict.fromkeys(who, phase))
    except Aborted as error:
        assert scheme in BURNS and phase is k.phases[-1] and error.released
        return
    assert np.array_equal(outcome.codes, k.total(outcome.survivors))
    sent = Phase.MASKED if Phase.MASKED in k.phases else k.phases[0]
    late = k.phases.index(phase) > k.phases.index(sent)
    expected = set(k.context().cohort) - (set() if late else set(who))
    assert set(outcome.survivors) == expected, "who drops after its vector arrived stays in the sum"


@pytest.mark.parametrize(("scheme", "phase"), PHASES)
def test_below_the_threshold_there_is_no_sum(kit: Any, scheme: str, phase: Phase) -> None:
    k = kit(scheme, cohort=8, threshold=6 if scheme == "plain" else None)
    most = 8 - k.params.threshold
    who = k.context().cohort
    burns = scheme in BURNS and phase is k.phases[-1]
    k.run(dict.fromkeys(who[: 0 if burns else most], phase), round=1)
    with pytest.raises(Aborted) as caught:
        k.run(dict.fromkeys(who[: most + 1], phase), round=2)
    assert caught.value.code is AbortCode.BELOW_THRESHOLD and "missing" in str(caught.value)
    assert caught.value.released is (phase is k.phases[-1]), "only the last phase releases answers"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nobody_at_all_aborts(kit: Any, scheme: str) -> None:
    server = kit(scheme).server()
    server.start()
    with pytest.raises(Aborted) as caught:
        while True:
            server.close_phase()
    assert caught.value.code is AbortCode.BELOW_THRESHOLD and not caught.value.released
    assert server.phase is Phase.ABORTED


# The ledger


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_answered_round_is_refused_in_every_attempt(kit: Any, scheme: str) -> None:
    k = kit(scheme)
    k.run()
    for i in k.context().cohort:
        assert k.ledger(i).state(k.roster.federation, 1) == (1, RoundState.ANSWERED)
        for attempt in (1, 2, 9):
            session = k.client(i, attempt=attempt)
            with pytest.raises(Aborted) as caught:
                session.start()
            assert caught.value.code is AbortCode.ROUND_REUSED and caught.value.released
            assert session.phase is Phase.ABORTED


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_used_attempt_is_refused_and_the_next_one_is_open(kit: Any, scheme: str) -> None:
    k = kit(scheme)
    for i in k.context().cohort:
        k.client(i).start()
    for i in k.context().cohort:
        with pytest.raises(Aborted) as caught:
            k.client(i).start()
        assert caught.value.code is AbortCode.ROUND_REUSED and not caught.value.released
    outcome = k.run(attempt=2)
    assert np.array_equal(outcome.codes, k.total(outcome.survivors))


class Recorder(MemoryStore):
    """Notes what the ledger held each time a frame left."""

    def state(self, k: Any) -> tuple[int, RoundState] | None:
        copy = MemoryStore()
        copy.save(self.load() or b"")
        return Ledger(copy, SeededRng(0)).state(k.roster.federation, 1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_ledger_is_durable_before_a_frame_leaves(kit: Any, scheme: str) -> None:
    """With a store that raises, no frame of that step leaves, in any phase."""
    k = kit(scheme)
    stores = {i: Recorder() for i in k.context().cohort}
    for i, store in stores.items():
        k.ledgers[i] = Ledger(store, SeededRng(i))
    seen: dict[int, list[RoundState]] = {i: [] for i in stores}
    clients = {i: k.client(i) for i in stores}

    def watched(session: Any, index: int) -> Any:
        class Watch:
            def __getattr__(self, name: str) -> Any:
                method = getattr(session, name)
                if name not in ("start", "submit", "receive"):
                    return method

                def call(*args: Any) -> Any:
                    frames = method(*args)
                    if frames:
                        entry = stores[index].state(k)
                        assert entry is not None and entry[0] == 1
                        seen[index].append(entry[1])
                    return frames

                return call

        return Watch()

    play(k, {i: watched(c, i) for i, c in clients.items()}, k.server())
    for states in seen.values():
        assert states == sorted(states) and states[-1] is RoundState.ANSWERED
        assert states.count(RoundState.ANSWERED) == 1, "one answer, and nothing after it"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("write", range(8))
def test_a_write_that_fails_lets_no_frame_out(kit: Any, scheme: str, write: int) -> None:
    k = kit(scheme)
    victim = k.context().cohort[2]

    class Failing(MemoryStore):
        left = write + 2  # the first two: its creation, and the roster's serial

        def save(self, data: bytes) -> None:
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device")
            super().save(data)

    k.ledgers[victim] = Ledger(Failing(), SeededRng(1))
    clients = {i: k.client(i) for i in k.context().cohort}
    spoken: list[Frame] = []
    silent = False

    class Victim:
        def __getattr__(self, name: str) -> Any:
            def call(*args: Any) -> Any:
                nonlocal silent
                if silent:
                    return ()
                try:
                    frames = getattr(clients[victim], name)(*args)
                except OSError:
                    silent = True
                    return ()
                spoken.extend(frames)
                return frames

            return call

    own = Victim()
    try:
        play(k, {i: own if i == victim else c for i, c in clients.items()}, k.server())
    except Aborted as error:
        assert scheme in BURNS and silent and error.released, "only a lost decryptor costs the round"
        return
    outcome = k.server_object.result()
    assert np.array_equal(outcome.codes, k.total(outcome.survivors))
    if silent:
        assert len(spoken) < len(k.phases), "the step whose write failed sent nothing"


# Suspend and resume


@pytest.mark.parametrize("scheme", SCHEMES)
def test_everyone_may_sleep_between_any_two_messages(kit: Any, scheme: str) -> None:
    k = kit(scheme, cohort=5, dim=9)
    old: list[tuple[int, bytes]] = []

    def sleep(what: str, index: int, clients: dict[int, Any], cell: dict[str, Any]) -> None:
        if what == "server":
            spent = cell["server"]
            cell["server"] = k.server(snapshot=spent.suspend())
            with pytest.raises(SessionSpent):
                spent.receive(1, b"whatever it is")
            assert spent.phase is Phase.SUSPENDED
            with pytest.raises(SessionSpent):
                spent.close_phase()
            return
        session = clients[index]
        blob = session.suspend()
        assert session.phase is Phase.SUSPENDED
        for move in (session.start, session.suspend, lambda: session.submit(k.codes(index)),
                     lambda: session.receive(SERVER, b"")):  # fmt: skip
            with pytest.raises(SessionSpent):
                move()
        clients[index] = k.client(index, snapshot=blob)
        old.append((index, blob))

    clients = {i: k.client(i) for i in k.context().cohort}
    play(k, clients, k.server(), sleep)
    outcome = k.server_object.result()
    assert outcome.survivors == k.context().cohort and np.array_equal(
        outcome.codes, k.total(outcome.survivors)
    )
    assert len(old) >= 5 * 2
    for index, blob in old:
        with pytest.raises(Aborted) as caught:
            k.client(index, snapshot=blob)
        assert caught.value.code is AbortCode.STATE_ROLLBACK


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_snapshot_is_not_readable_and_resumes_once(kit: Any, scheme: str) -> None:
    k = kit(scheme)
    i = k.context().cohort[0]
    session = k.client(i)
    session.start()
    blob = session.suspend()
    for secret in (k.federation.identities[i - 1].sign_key, k.federation.identities[i - 1].agree_key):
        assert secret.private_bytes_raw() not in blob
    k.client(i, snapshot=blob)
    with pytest.raises(Aborted) as caught:
        k.client(i, snapshot=blob)
    assert caught.value.code is AbortCode.STATE_ROLLBACK


# Disagreement

MISMATCH = {
    "model": ({"model_hash": b"m" * 32}, AbortCode.MODEL_MISMATCH),
    "config": ({"config_hash": b"c" * 32}, AbortCode.MODEL_MISMATCH),
    "params": ({"params": "clip"}, AbortCode.PARAMS_MISMATCH),
    "dim": ({"params": "dim"}, AbortCode.PARAMS_MISMATCH),
    "round": ({"round": 2}, AbortCode.STALE_KEY),
    "attempt": ({"attempt": 2}, AbortCode.STALE_KEY),
    "roster": ({"roster": None}, AbortCode.ROSTER_MISMATCH),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("what", MISMATCH)
def test_a_client_in_another_context_is_named_and_left_out(kit: Any, scheme: str, what: str) -> None:
    k = kit(scheme, cohort=6)
    changes, code = dict(MISMATCH[what][0]), MISMATCH[what][1]
    if "params" in changes:
        field = changes["params"]
        changes["params"] = replace(k.params, **{field: {"clip": 0.5, "dim": k.params.dim - 1}[field]})
    if "roster" in changes:
        members = [i.member for i in k.federation.identities]
        changes["roster"] = k.federation.coordinator.sign(
            members, serial=2, not_before=k.roster.not_before, expires=k.roster.expires
        )
    odd = k.context().cohort[1]
    stray = k.client(odd, **changes)
    codes = k.codes(odd)[: stray._seat.params.size]
    frames = [*stray.start(), *stray.submit(codes)]
    server = k.server()
    server.start()
    assert frames, "a client speaks first"
    for f in frames:
        with pytest.raises(RemoteError) as caught:
            server.receive(odd, f.encode())
        assert caught.value.code is code and caught.value.culprits == {odd}
    k.ledgers.pop(odd)
    clients = {i: k.client(i) for i in k.context().cohort if i != odd}
    play(k, clients, k.server())
    outcome = k.server_object.result()
    assert odd not in outcome.survivors and np.array_equal(outcome.codes, k.total(outcome.survivors))


# Hostile bytes at the door


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_server_takes_frames_from_the_cohort_under_its_own_keys_only(kit: Any, scheme: str) -> None:
    k = kit(scheme, cohort=5, spare=1)
    cohort = k.context().cohort
    session = k.client(cohort[0])
    (frame, *_) = [*session.start(), *session.submit(k.codes(cohort[0]))]
    data, key = frame.encode(), k.federation.identities[cohort[1] - 1].sign_key
    outside = next(i for i in range(1, 7) if i not in cohort)
    server = k.server()
    with pytest.raises(LocalError, match="start"):
        server.receive(cohort[0], data)
    server.start()
    stolen = replace(frame, sender=cohort[1])
    cases = [
        (outside, replace(frame, sender=outside).encode(), AbortCode.ROSTER_MISMATCH),
        (0, data, AbortCode.ROSTER_MISMATCH),
        (cohort[1], data, AbortCode.MALFORMED_FRAME),
        (cohort[1], stolen.encode(), AbortCode.BAD_SIGNATURE),
        (cohort[0], frame.signed(key, k.context().digest).encode(), AbortCode.BAD_SIGNATURE),
        (cohort[0], data[:-1] + bytes((data[-1] ^ 1,)), AbortCode.BAD_SIGNATURE),
        (cohort[0], data[:-65] + bytes((data[-65] ^ 1,)) + data[-64:], AbortCode.BAD_SIGNATURE),
        (cohort[0], replace(frame, suite=frame.suite ^ 64).encode(), AbortCode.MALFORMED_FRAME),
        (cohort[0], replace(frame, kind=99).encode(), AbortCode.MALFORMED_FRAME),
        (cohort[0], replace(frame, to=cohort[1]).encode(), AbortCode.MALFORMED_FRAME),
        (cohort[0], data + b"\x00", AbortCode.MALFORMED_FRAME),
        (cohort[0], b"", AbortCode.MALFORMED_FRAME),
    ]
    for sender, raw, code in cases:
        with pytest.raises(RemoteError) as caught:
            server.receive(sender, raw)
        assert caught.value.code is code and caught.value.culprits == {sender}
    assert server.receive(cohort[0], data) == () and server.late == 0 and not server.excluded
    assert server.receive(cohort[0], data) == () and server.late == 1, "an identical duplicate is no fault"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_client_hears_only_the_server(kit: Any, scheme: str) -> None:
    k = kit(scheme)
    session = k.client(1)
    session.start()
    for sender, data in ((2, b""), (0, b""), (0, b"MV" + bytes(27)), (0, bytes(100))):
        with pytest.raises(RemoteError) as caught:
            session.receive(sender, data)
        assert caught.value.culprits == {sender}
    assert session.phase not in SPENT


@pytest.mark.parametrize("scheme", SCHEMES)
def test_codes_are_checked_before_anything_is_sent(kit: Any, scheme: str) -> None:
    k = kit(scheme, max_weight=3)
    session = k.client(1)
    session.start()
    good = k.codes(1)
    bad = [good[:-1], good.astype(np.int32), good.astype(float), good.tolist(), None]
    bad += [np.append(good[:-1], 4), np.append(good[:-1], 0), np.append(k.params.levels + 1, good[1:])]
    for codes in bad:
        with pytest.raises(LocalError):
            session.submit(codes)
    assert session.phase not in SPENT
    session.submit(good)
    with pytest.raises(LocalError):
        session.submit(good)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_moves_out_of_order_are_the_callers_mistake(kit: Any, scheme: str) -> None:
    k = kit(scheme)
    session, server = k.client(1), k.server()
    for move in (lambda: session.submit(k.codes(1)), server.close_phase, server.result, server.suspend):
        with pytest.raises(LocalError) as caught:
            move()
        assert not isinstance(caught.value, SessionSpent)
    session.start()
    server.start()
    for move in (session.start, server.start, server.result):
        with pytest.raises(LocalError):
            move()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_sum_is_the_callers_own_copy(kit: Any, scheme: str) -> None:
    k = kit(scheme)
    clients = {i: k.client(i) for i in k.context().cohort}
    play(k, clients, k.server())
    first = k.server_object.result()
    first.codes[:] = 0
    assert np.array_equal(k.server_object.result().codes, k.total(first.survivors))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_late_frames_change_nothing(kit: Any, scheme: str) -> None:
    k = kit(scheme, cohort=6)
    late = k.context().cohort[3]
    session = k.client(late)
    frames = [*session.start(), *session.submit(k.codes(late))]
    server = k.server()
    play(k, {i: k.client(i) for i in k.context().cohort if i != late}, server)
    before = server.result()
    count = server.late
    for f in frames:
        assert server.receive(late, f.encode()) == ()
    assert server.late == count + len(frames)
    after = server.result()
    assert after.survivors == before.survivors and np.array_equal(after.codes, before.codes)


# What a client agrees to


@pytest.mark.parametrize("scheme", SECURE)
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (
            {"threshold": 7},
            AbortCode.PARAMS_BELOW_FLOOR,
        ),  # 2 * 7 <= 12 + 3: two survivor sets could be answered
        ({"threshold": 1}, AbortCode.PARAMS_BELOW_FLOOR),
        ({"corrupt": 2}, AbortCode.PARAMS_BELOW_FLOOR),  # the default policy asks for 3 of 12
        ({"neighbours": 2, "threshold": 2, "corrupt": 0}, AbortCode.PARAMS_BELOW_FLOOR),
    ],
    ids=str,
)
def test_weak_parameters_are_refused_before_anything_is_said(
    kit: Any, scheme: str, change: dict[str, int], code: AbortCode
) -> None:
    k = kit(scheme, cohort=12)
    strict = replace(k.policy, allow_small_cohort=False)
    k.client(1, policy=strict)
    with pytest.raises(Aborted) as caught:
        k.client(2, policy=strict, params=replace(k.params, **change))
    assert caught.value.code is code and not caught.value.released
    assert k.ledger(2).state(k.roster.federation, 1) is None


@pytest.mark.parametrize("scheme", SECURE)
def test_a_small_cohort_is_refused_unless_it_is_allowed(kit: Any, scheme: str) -> None:
    k = kit(scheme, cohort=3)
    k.client(1)
    with pytest.raises(Aborted) as caught:
        k.client(2, policy=replace(k.policy, allow_small_cohort=False))
    assert caught.value.code is AbortCode.COHORT_TOO_SMALL


def test_plain_has_to_be_accepted_by_name(kit: Any) -> None:
    k = kit("plain")
    default = Policy(k.roster.anchor)
    with pytest.raises(Aborted) as caught:
        k.client(1, policy=default)
    assert caught.value.code is AbortCode.PARAMS_BELOW_FLOOR


# What the server sees


@pytest.mark.parametrize("scheme", SECURE)
def test_weights_are_hidden_and_lengths_do_not_tell(kit: Any, scheme: str) -> None:
    """Frames have one size whatever the weight, and no frame holds the weight or the vector in clear."""
    sizes = []
    for weight in (1, 4, 65_535):
        k = kit(scheme, cohort=5, dim=40, max_weight=65_535)
        marked = np.arange(1000, 1041, dtype=np.int64)
        marked[-1] = weight
        k.codes = lambda index, marked=marked: marked
        traffic = Traffic(frames=[])
        k.run(traffic=traffic)
        up = [f for f in traffic.frames or () if f.to == SERVER]
        sizes.append(sorted((f.kind, len(f.body)) for f in up))
        clear = pack(np.mod(marked, k.params.modulus).astype(np.uint64), k.params.modulus_bits)
        assert not any(clear[:40] in f.body or clear[-8:] in f.body for f in up)
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize("scheme", SECURE)
def test_two_attempts_share_no_masked_byte(kit: Any, scheme: str) -> None:
    """The same vector twice gives unrelated frames: equal bits at the rate of chance."""
    # lanes of `lattice` end in zeros, some hundred bits in all: long enough a vector that they do not count
    k = kit(scheme, cohort=5, dim=50_000 if scheme == "lattice" else 2000)
    bodies = []
    for round_ in (1, 2):
        traffic = Traffic(frames=[])
        k.run(traffic=traffic, round=round_)
        longest = max((f for f in traffic.frames or () if f.sender == 2), key=lambda f: len(f.body))
        bodies.append(np.unpackbits(np.frombuffer(longest.body, dtype=np.uint8)))
    count = bodies[0].size
    equal = int((bodies[0] == bodies[1]).sum())
    assert abs(equal - count / 2) < 5 * (count / 4) ** 0.5


def test_in_plain_the_server_reads_everything(kit: Any) -> None:
    """The positive control of the two tests above."""
    k = kit("plain")
    traffic = Traffic(frames=[])
    k.run(traffic=traffic)
    for f in traffic.frames or ():
        assert np.array_equal(decode_vector(k.params, f.body, f.sender)[2], k.codes(f.sender))
