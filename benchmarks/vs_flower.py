"""merveil's secagg and secagg+ beside Flower's own SecAgg workflow, in one process run.

    python benchmarks/vs_flower.py [--clients 100] [--size 100000] [--drop 10] [--json]

Flower's server workflow and client mod run as they are, over a stand-in for the grid that calls the mod of
each client in turn; nothing of them is changed. Both sides aggregate the same float vectors, at 16 bits for
merveil and at Flower's default grid of 22 bits. `share`: what one client computes before it can mask (for
Flower its set-up and share stages; opening the shares it received is not counted there). `mask`: from the
vector to the frame. `unmask`: the server's own time from the answers to the sum; `server` also the receiving
and adding. Medians over clients. Ratios are Flower's seconds over merveil's.
"""

import argparse
import copy
import json
import logging
import statistics
import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from merveil.protocols.api import client_session, server_session
from merveil.protocols.codec import Codec
from merveil.protocols.identity import Coordinator, Identity
from merveil.protocols.ledger import Ledger
from merveil.protocols.policy import Policy
from merveil.protocols.registry import get
from merveil.protocols.session import Phase

Row = dict[str, Any]


class Clock:
    """Seconds by (party, stage)."""

    def __init__(self) -> None:
        self.spent: dict[tuple[int, str], float] = {}

    def run(self, party: int, stage: str, call: Any, *args: Any) -> Any:
        begun = time.perf_counter()
        result = call(*args)
        if not isinstance(result, (bytes, np.ndarray)) and isinstance(result, Iterable):
            result = list(result)  # frames built on demand belong to the call
        key = (party, stage)
        self.spent[key] = self.spent.get(key, 0.0) + time.perf_counter() - begun
        return result

    def median(self, stage: str) -> float:
        return statistics.median(s for (party, kind), s in self.spent.items() if kind == stage and party)

    def server(self, *stages: str) -> float:
        return sum(self.spent.get((0, stage), 0.0) for stage in stages)


def merveil_round(scheme: str, updates: list[np.ndarray], drop: int) -> Row:
    """The first and a later round under one roster.

    In the first every pair makes its static agreement. A sparse graph is drawn anew each round, so with it
    some rounds pass until nearly all pairs have met; those in between run with short vectors.
    """
    n, d = len(updates), updates[0].size
    coordinator = Coordinator.generate()
    identities = [Identity.generate(f"c{i}") for i in range(n)]
    now = int(time.time())
    roster = coordinator.sign(
        [i.member for i in identities], serial=1, not_before=now - 1, expires=now + 10**6
    )
    params = get(scheme).params(n, d)
    policy = Policy(anchor=roster.anchor)
    ledgers = [Ledger() for _ in identities]
    rounds = 10 if params.neighbours else 2
    short = get(scheme).params(n, 16)
    small = [u[:16] for u in updates]
    first, clock, frame, exact = Clock(), Clock(), 0, False
    for r in range(1, rounds + 1):
        last = r == rounds
        chosen, vectors = (params, updates) if last else (short, small)
        clock, frame, exact = _one_round(
            scheme, chosen, roster, policy, identities, ledgers, r, vectors, drop if last else 0
        )
        first = clock if r == 1 else first
    return {
        "what": f"merveil {scheme}",
        "neighbours": params.neighbours or n - 1,
        "threshold": params.threshold,
        "share": clock.median("share"),
        "share_first_round": first.median("share"),
        "mask": clock.median("mask"),
        "unmask": clock.server("unmask"),
        "server": clock.server("collect", "unmask"),
        "bytes_per_value": frame / d,
        "exact": exact,
    }


def _one_round(
    scheme: str,
    params: Any,
    roster: Any,
    policy: Policy,
    identities: list[Identity],
    ledgers: list[Ledger],
    round_: int,
    updates: list[np.ndarray],
    drop: int,
) -> tuple[Clock, int, bool]:
    clock, codec = Clock(), Codec(params)
    common: Row = {
        "params": params,
        "roster": roster,
        "model_hash": bytes(32),
        "config_hash": bytes(32),
        "round": round_,
    }
    server = server_session(scheme, **common)
    clients = {
        i: client_session(scheme, identity=who, policy=policy, ledger=ledger, **common)
        for i, (who, ledger) in enumerate(zip(identities, ledgers), 1)
    }
    alive = {i: c for i, c in clients.items() if i > drop}
    server.start()

    def pass_on(frames: list[Any], stage: str, into: str, to: dict[int, Any]) -> list[Any]:
        found = []
        for frame in frames:
            if frame.to in to:
                for answer in clock.run(frame.to, stage, to[frame.to].receive, 0, frame.encode()):
                    found += clock.run(0, into, server.receive, answer.sender, answer.encode())
        return found

    down = []
    for i, client in clients.items():
        for frame in clock.run(i, "share", client.start):
            down += clock.run(0, "setup", server.receive, frame.sender, frame.encode())
    down = pass_on(down, "share", "setup", clients)
    pass_on(down, "share", "setup", alive)
    down, size, total = [], 0, 0
    for i, client in alive.items():
        codes = clock.run(i, "mask", codec.encode, updates[i - 1])
        total = total + codes
        (frame,) = clock.run(i, "mask", client.submit, codes)
        data = clock.run(i, "mask", frame.encode)
        size = len(data)
        down += clock.run(0, "collect", server.receive, i, data)
    if server.phase is Phase.MASKED:
        down = clock.run(0, "collect", server.close_phase)
    down = pass_on(down, "check", "collect", alive)
    pass_on(down, "answer", "unmask", alive)
    return clock, size, bool((server.result().codes == total).all())


def flower_round(updates: list[np.ndarray], drop: int, shares: int | float) -> Row:
    """Flower's SecAggPlusWorkflow with its client mod; clients 1..drop answer no vector request."""
    from flwr.app import ConfigRecord, Error, Message
    from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
    from flwr.common import Code, Context, FitRes, RecordDict, Status, ndarrays_to_parameters
    from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
    from flwr.compat.common import recorddict_compat as compat
    from flwr.server.compat.legacy_context import LegacyContext
    from flwr.server.workflow import SecAggPlusWorkflow
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
    from flwr.server.workflow.constant import Key as WorkflowKey
    from flwr.supercore.task_identity import TaskIdentity

    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    clock, n, d = Clock(), len(updates), updates[0].size
    sizes: list[int] = []
    contexts = {
        i: Context(run_id=1, node_id=i, node_config={}, state=RecordDict(), run_config={})
        for i in range(1, n + 1)
    }

    def train(message: Any, context: Any) -> Any:
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([updates[context.node_id - 1]]), 1, {})
        return Message(compat.fitres_to_recorddict(result, False), reply_to=message)

    class Grid:
        def send_and_receive(self, messages: Any, **_: Any) -> list[Any]:
            begun, answers = time.perf_counter(), []
            for sent in messages:
                message = copy.deepcopy(sent)  # a real grid serialises; the mod empties what it is given
                node = message.metadata.dst_node_id
                stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
                if stage in (Stage.COLLECT_MASKED_VECTORS, Stage.UNMASK) and node <= drop:
                    answers.append(Message(Error(0, "dropped"), reply_to=message))
                    continue
                label = {Stage.COLLECT_MASKED_VECTORS: "mask", Stage.UNMASK: "answer"}.get(stage, "share")
                answer = clock.run(node, label, secaggplus_mod, message, contexts[node], train)
                if label == "mask":
                    record = answer.content.config_records[RECORD_KEY_CONFIGS]
                    sizes.append(sum(len(b) for b in record[Key.MASKED_PARAMETERS]))
                answers.append(answer)
            clock.spent[(0, "waiting")] = clock.server("waiting") + time.perf_counter() - begun
            return answers

    class Proxy:
        def __init__(self, node: int) -> None:
            self.node_id = node

    class Strategy:
        def configure_fit(self, *_: Any) -> list[Any]:
            from flwr.common import FitIns

            empty = ndarrays_to_parameters([np.zeros(d, dtype=np.float64)])
            return [(Proxy(i), FitIns(empty, {})) for i in contexts]

        def aggregate_fit(self, _round: int, results: Any, failures: Any) -> Any:
            Strategy.mean = results[0][1].parameters
            return Strategy.mean, {}

    class Manager:
        def num_available(self) -> int:
            return n

    state = RecordDict()
    state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(
        ndarrays_to_parameters([np.zeros(d)]), True
    )
    outer = Context(run_id=1, node_id=0, node_config={}, state=state, run_config={})
    legacy = LegacyContext(outer, None, Strategy(), Manager())  # type: ignore[arg-type]
    legacy.state = state
    workflow = SecAggPlusWorkflow(shares, 2 / 3, clipping_range=1.0, max_weight=1.0)
    from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState

    inner = WorkflowState()
    grid = Grid()
    for name in ("setup_stage", "share_keys_stage", "collect_masked_vectors_stage", "unmask_stage"):
        before, begun = clock.server("waiting"), time.perf_counter()
        if not getattr(workflow, name)(grid, legacy, inner):
            raise RuntimeError(f"Flower's {name} halted")
        own = time.perf_counter() - begun - (clock.server("waiting") - before)
        label = {"unmask_stage": "unmask", "collect_masked_vectors_stage": "collect"}.get(name, "setup")
        clock.spent[(0, label)] = clock.server(label) + own
    from flwr.common import parameters_to_ndarrays

    mean = parameters_to_ndarrays(Strategy.mean)[0]  # type: ignore[attr-defined]
    error = float(np.abs(mean - np.mean(updates[drop:], axis=0)).max())
    return {
        "what": f"Flower SecAgg+ ({inner.num_shares} shares)",
        "neighbours": inner.num_shares - 1,
        "threshold": inner.threshold,
        "share": clock.median("share"),
        "mask": clock.median("mask"),
        "unmask": clock.server("unmask"),
        "server": clock.server("collect", "unmask"),
        "bytes_per_value": statistics.median(sizes) / d,
        "exact": error < 1e-5,
    }


def compare(ours: Row, theirs: Row) -> dict[str, float]:
    found = {k: theirs[k] / ours[k] for k in ("share", "mask", "unmask", "server", "bytes_per_value")}
    return {"share, first round": theirs["share"] / ours["share_first_round"], **found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--drop", type=int, default=10)
    parser.add_argument("--sparse-shares", type=int, default=25, help="Flower's sparse setting")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    updates = [rng.uniform(-0.5, 0.5, args.size) for _ in range(args.clients)]
    pairs = []
    for scheme, shares in (("secagg", 1.0), ("secagg+", args.sparse_shares)):
        # ours before and after the peer: the better of both would hide drift, so both are shown
        before = merveil_round(scheme, updates, args.drop)
        theirs = flower_round(updates, args.drop, shares)
        after = merveil_round(scheme, updates, args.drop)
        pairs.append(
            {
                "ours": [before, after],
                "flower": theirs,
                "ratios": [compare(o, theirs) for o in (before, after)],
            }
        )
    result = {"clients": args.clients, "size": args.size, "drop": args.drop, "pairs": pairs}
    if args.json:
        json.dump(result, sys.stdout)
        print()
        return 0
    print(f"n = {args.clients}, d = {args.size}, {args.drop} clients share and then send no vector")
    for pair in pairs:
        for row in (*pair["ours"], pair["flower"]):
            print(
                f"{row['what']:34} k={row['neighbours']:<3} t={row['threshold']:<3}"
                f" share {row['share'] * 1e3:9.2f} ms  mask {row['mask'] * 1e3:8.2f} ms"
                f"  unmask {row['unmask']:8.3f} s  server {row['server']:8.3f} s"
                f"  {row['bytes_per_value']:.2f} B/value  exact={row['exact']}"
            )
        for ratio in pair["ratios"]:
            print("  ratios: " + ", ".join(f"{k} {v:.1f}x" for k, v in ratio.items()))
    print("secagg+ of merveil: gamma = delta = 0.1, 2^-40 each for security and correctness")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
