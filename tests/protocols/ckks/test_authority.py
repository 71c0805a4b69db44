"""One client holds the key: what it saves, what must be allowed, what it checks, and what it could read."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from merveil.fl.aggregator import SecureAggregator
from merveil.protocols.ckks import encoding, ring
from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.constants import DATA
from merveil.protocols.ckks.wire import decode_polynomials
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.policy import Policy
from merveil.protocols.registry import get
from merveil.protocols.session import Phase
from merveil.protocols.simulation.driver import Traffic

HOLDER = 3


def held(kit: Any, holder: int = HOLDER, **settings: Any) -> Any:
    k = kit("ckks", **settings)
    k.params = replace(k.params, authority=holder)
    k.policy = replace(k.policy, allow_authority=True)
    return k


@pytest.mark.parametrize("dim", [7, 9000])
def test_the_sum_is_exact_with_dropouts_at_every_phase(kit: Any, dim: int) -> None:
    k = held(kit, cohort=9, dim=dim)
    outcome = k.run({1: Phase.KEYS, 6: Phase.MASKED, 9: Phase.CHECK})
    assert set(outcome.survivors) == {2, 3, 4, 5, 7, 8, 9}
    assert np.array_equal(outcome.codes, k.total(outcome.survivors))


@pytest.mark.parametrize("phase", [Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.CHECK, Phase.UNMASK])
def test_without_the_holder_there_is_no_sum(kit: Any, phase: Phase) -> None:
    k = held(kit, cohort=6)
    with pytest.raises(Aborted) as caught:
        k.run({HOLDER: phase})
    assert caught.value.code is AbortCode.BELOW_THRESHOLD
    assert caught.value.released is (phase is Phase.UNMASK)


def test_nobody_deals_and_nobody_but_the_holder_hears_c1(kit: Any) -> None:
    k, traffic = held(kit, cohort=6), Traffic(frames=[])
    k.run(traffic=traffic)
    frames = traffic.frames or []
    assert {f.sender for f in frames if f.kind == msg.Kind.SHARES} == {HOLDER}
    long = {f.to for f in frames if f.kind == msg.Kind.REQUEST and len(f.body) > 10_000}
    answers = {f.sender for f in frames if f.kind == msg.Kind.ANSWER and len(f.body) > 10_000}
    assert long == answers == {HOLDER}
    threshold = Traffic(frames=[])
    kit("ckks", cohort=6).run(traffic=threshold)
    assert max(traffic.uplink.values()) < 0.7 * max(threshold.uplink.values())


def test_it_must_be_allowed_and_named(kit: Any) -> None:
    k = held(kit, cohort=6)
    with pytest.raises(Aborted) as caught:
        k.client(1, policy=replace(k.policy, allow_authority=False))
    assert caught.value.code is AbortCode.PARAMS_BELOW_FLOOR
    assert Policy(bytes(32)).allow_authority is False
    outside = held(kit, holder=60, cohort=6)
    for make in (outside.server, lambda: outside.client(1)):
        with pytest.raises(LocalError, match="not in this round's cohort"):
            make()
    with pytest.raises(LocalError, match="audits/broken"):
        get("ckks").params(6, 10, keys="shared")  # type: ignore[call-arg]


def test_the_holder_checks_what_it_opens(kit: Any) -> None:
    """The server sends one client's part for all, or too few signatures: refused, nothing answered."""
    for spoil, code in (
        (lambda signed, parts: (signed, [parts[0]] * len(parts)), AbortCode.BAD_CIPHERTEXT),
        (lambda signed, parts: (dict(list(signed.items())[1:]), parts), AbortCode.BELOW_THRESHOLD),
    ):
        k = held(kit, cohort=6)
        sessions, server = {i: k.client(i) for i in k.context().cohort}, k.server()
        queue = list(server.start())
        for i, s in sessions.items():
            queue += [*s.start(), *s.submit(k.codes(i))]
        while queue:
            f = queue.pop(0)
            if f.kind == msg.Kind.REQUEST:
                if f.to == HOLDER:
                    break
                continue
            party = sessions[f.to] if f.to else server
            queue += party.receive(f.sender, f.encode())
        body = msg.encode_request(*spoil(*msg.decode_request(f.body, HOLDER, 6, 1, HOLDER)))
        with pytest.raises(Aborted) as caught:
            sessions[HOLDER].receive(0, replace(f, body=body).encode())
        assert caught.value.code is code and not caught.value.released


def test_with_the_traffic_the_holder_reads_everyone(kit: Any) -> None:
    """The declared difference to `threshold`: who holds the key and c0 opens single uploads."""
    k, traffic = held(kit, cohort=6, dim=50), Traffic(frames=[])
    sessions = {i: k.client(i) for i in k.context().cohort}
    kept: dict[str, Any] = {}
    holder = sessions[HOLDER]
    true = holder._answer

    def answer(*args: Any) -> bytes:
        kept["share"] = holder._state.share.copy()
        return true(*args)

    holder._answer = answer
    from merveil.protocols.simulation.driver import Driver

    codes = {i: k.codes(i) for i in sessions}
    Driver(k.server(), sessions, k.phases, None, traffic).run(codes)
    for frame in traffic.frames or []:
        if frame.kind == msg.Kind.UPLOAD:
            upload = msg.decode_upload(frame.body, frame.sender, 1)
            c0, c1 = (decode_polynomials(x, 1, DATA, frame.sender) for x in (upload.c0, upload.c1))
            found, quiet = encoding.read(k.params, ring.multiply_add(c0, c1, kept["share"]))
            assert quiet and np.array_equal(encoding.from_limbs(k.params, found), codes[frame.sender])


def test_snapshots_carry_the_holder(kit: Any) -> None:
    """Every party is suspended and resumed before every frame; the sum stays exact."""
    k = held(kit, cohort=6)
    sessions, server = {i: k.client(i) for i in k.context().cohort}, k.server()
    queue = list(server.start())
    for i, s in sessions.items():
        queue += [*s.start(), *s.submit(k.codes(i))]
    while queue:
        f = queue.pop(0)
        if f.to:
            sessions[f.to] = k.client(f.to, snapshot=bytes(sessions[f.to].suspend()))
            queue += sessions[f.to].receive(f.sender, f.encode())
        else:
            if server.phase is not Phase.DONE:
                server = k.server(snapshot=server.suspend())
            queue += server.receive(f.sender, f.encode())
    assert np.array_equal(server.result().codes, k.total(server.result().survivors))


def test_the_aggregator_takes_keys(kit: Any) -> None:
    rng = np.random.default_rng(0)
    updates = [rng.uniform(-1, 1, 300) for _ in range(6)]
    one, two = (SecureAggregator("ckks", keys=k).mean(updates) for k in ("authority", "threshold"))
    assert np.array_equal(one.value, two.value) and max(one.uplink_bytes) < max(two.uplink_bytes)
    for scheme, keys in (("secagg", "authority"), ("ckks", "shared")):
        with pytest.raises(LocalError, match="keys is"):
            SecureAggregator(scheme, keys=keys).mean(updates)
    with pytest.raises(Aborted, match="allow_authority"):
        SecureAggregator("ckks", keys="authority", policy=Policy(bytes(32))).mean(updates)
