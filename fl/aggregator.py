"""A drop-in secure mean over updates that are already in one process.

The object plays all parties with real sessions and frames, and makes their identities itself. So it holds
every key: it tests, measures and simulates; it protects nobody. A deployment uses `client_session` and
`server_session`, or the federation engine, with keys that stay where they belong.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.api import client_session, server_session
from merveil.protocols.codec import Codec, Codes
from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.identity import Coordinator, Identity, Roster
from merveil.protocols.ledger import Ledger
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy
from merveil.protocols.primitives.kdf import hash_fields
from merveil.protocols.registry import get
from merveil.protocols.session import Phase
from merveil.protocols.simulation.driver import Driver, Traffic
from merveil.protocols.transcript import Transcript

Floats = NDArray[np.float64]
_YEAR = 365 * 86_400


@dataclass(frozen=True)
class Aggregate:
    """A weighted mean.

    value: the structure of one update. survivors: 0-based positions in `updates` that are in the mean.
    uplink_bytes: per client, in the order of `updates` (0 for one that sent nothing). cut: share of the
    survivors' coordinates that were clipped. weight: the sum of their weights. transcript: None unless asked.
    """

    value: Any
    survivors: tuple[int, ...]
    uplink_bytes: tuple[int, ...]
    cut: float
    weight: int
    transcript: Transcript | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Total:
    """A sum of integer codes: signed, shape (size,). The rest as in Aggregate."""

    codes: Codes = field(repr=False)
    survivors: tuple[int, ...]
    uplink_bytes: tuple[int, ...]
    transcript: Transcript | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Leaf:
    """Where one array of an update lies in the flat vector."""

    key: Any
    shape: tuple[int, ...]
    start: int
    stop: int
    like: Any


class Structure:
    """Flat vector <-> an array, a sequence of arrays, or a state dict (numpy arrays or torch tensors)."""

    def __init__(self, example: Any, skip: Sequence[str] = ()) -> None:
        self._skip = frozenset(skip)
        self._kind = type(example) if isinstance(example, (list, tuple)) else None
        self._mapping = isinstance(example, Mapping)
        self._leaves: list[_Leaf] = []
        at = 0
        for key, leaf in self._items(example):
            array = _as_array(key, leaf)
            self._leaves.append(_Leaf(key, array.shape, at, at + array.size, leaf))
            at += array.size
        if at == 0:
            raise LocalError("an update holds no numbers", AbortCode.SHAPE_MISMATCH)
        self.size = at

    def _items(self, update: Any) -> list[tuple[Any, Any]]:
        if isinstance(update, Mapping):
            return [(k, v) for k, v in update.items() if k not in self._skip]
        if isinstance(update, (list, tuple)):
            return list(enumerate(update))
        return [(None, update)]

    def describe(self) -> bytes:
        """Names and shapes in order: the layout that all clients must share."""
        return "\n".join(f"{leaf.key}:{leaf.shape}" for leaf in self._leaves).encode()

    def flatten(self, update: Any) -> Floats:
        """The update as float64, shape (size,). LocalError SHAPE_MISMATCH names the first difference."""
        items = self._items(update)
        if [k for k, _ in items] != [leaf.key for leaf in self._leaves]:
            raise LocalError(
                "its keys or number of arrays differ from the first update's", AbortCode.SHAPE_MISMATCH
            )
        out = np.empty(self.size, dtype=np.float64)
        for (key, value), leaf in zip(items, self._leaves):
            array = _as_array(key, value)
            if array.shape != leaf.shape:
                where = "" if key is None else f"{key!r} "
                raise LocalError(
                    f"{where}has shape {array.shape}, not {leaf.shape}", AbortCode.SHAPE_MISMATCH
                )
            out[leaf.start : leaf.stop] = array.reshape(-1)
        return out

    def restore(self, flat: Floats) -> Any:
        """Inverse of `flatten`, with the dtypes, and for tensors the devices, of the first update."""
        values = {}
        for leaf in self._leaves:
            part = flat[leaf.start : leaf.stop].reshape(leaf.shape)
            if hasattr(leaf.like, "new_tensor"):
                values[leaf.key] = leaf.like.new_tensor(part)
            else:
                values[leaf.key] = part.astype(np.asarray(leaf.like).dtype)
        if self._mapping:
            return values
        if self._kind is not None:
            return self._kind(values.values())
        return values[None]


def _as_array(key: Any, value: Any) -> NDArray[Any]:
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    if array.dtype.kind != "f":
        where = "the update" if key is None else f"{key!r}"
        raise LocalError(
            f"{where} holds {array.dtype}, not floats: leave such entries out with skip=[...]",
            AbortCode.SHAPE_MISMATCH,
        )
    return array


class _Federation:
    """Ephemeral identities, roster and ledgers for n clients, kept over many rounds."""

    def __init__(self, clients: int) -> None:
        coordinator = Coordinator.generate()
        self.identities = [Identity.generate(f"client-{i}") for i in range(1, clients + 1)]
        now = int(time.time())
        self.roster: Roster = coordinator.sign(
            [i.member for i in self.identities],
            serial=1,
            not_before=now - 86_400,
            expires=now + 10 * _YEAR,
            max_rounds=2**31,
        )
        self.ledgers = [Ledger() for _ in self.identities]
        self.round = 0


class SecureAggregator:
    """Weighted means of updates through a secure-aggregation scheme.

    scheme: a name of the registry. clip: largest magnitude of a coordinate, update units. bits: grid bits a
    value. threshold: fewest survivors, None for the scheme's default. max_weight: public bound on weights,
    None for the power of two at or above the largest. policy: None for the default floor; its anchor is
    replaced by the object's own coordinator. max_cut: largest share of one client's coordinates that may be
    clipped. keys: of `ckks` only, "threshold" (the default) or "authority" (the first client holds the key
    alone; without a policy of its own the object then allows that). key_release: of `lattice` only,
    "committee" (the default) or "secagg+" (the key is summed by that scheme, in its phases). record: keep the
    frames of each mean as a Transcript.
    """

    def __init__(
        self,
        scheme: str = "secagg+",
        *,
        clip: float = 1.0,
        bits: int = 16,
        threshold: int | None = None,
        max_weight: int | None = None,
        policy: Policy | None = None,
        max_cut: float = 0.01,
        keys: str | None = None,
        key_release: str | None = None,
        record: bool = False,
    ) -> None:
        self._scheme = get(scheme)
        self._clip = float(clip)
        self._bits = bits
        self._threshold = threshold
        self._max_weight = max_weight
        self._policy = policy
        self._max_cut = max_cut
        if keys is not None and scheme != "ckks":
            raise LocalError(f"keys is an option of ckks, not of {scheme}")
        if key_release is not None and scheme != "lattice":
            raise LocalError(f"key_release is an option of lattice, not of {scheme}")
        given = {"keys": keys, "key_release": key_release}
        self._extra: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        self._phases = get(key_release if key_release == "secagg+" else scheme).phases
        self._record = record
        self._federation: _Federation | None = None
        self._params: Params | None = None

    @property
    def params(self) -> Params | None:
        """The parameters of the last mean."""
        return self._params

    def mean(
        self,
        updates: Sequence[Any],
        weights: Sequence[int] | None = None,
        drop: Mapping[int, str] | None = None,
        *,
        coins: Sequence[Floats] | None = None,
        skip: Sequence[str] = (),
        model_hash: bytes | None = None,
    ) -> Aggregate:
        """The mean over the survivors, weighted where weights are given.

        updates: one a client, all of one structure. weights: integers >= 1. drop: position -> name of the
        phase from which on that client is silent. coins: uniforms in [0, 1) for stochastic rounding, one
        array a client; None draws nothing and rounds to the nearest step. skip: keys of a state dict to leave
        out. Raises LocalError for bad input, naming the client, and Aborted where there is no sum.
        """
        if len(updates) == 0:
            raise LocalError("no updates to aggregate")
        structure = Structure(updates[0], skip)
        counts = _weights(weights, len(updates))
        params = self._make_params(len(updates), structure.size, counts)
        codec = Codec(params)
        codes, cuts = self._encode(codec, structure, updates, counts, coins)
        silent = self._silent(drop, len(updates))
        layout = model_hash or hash_fields("aggregator/1/layout", structure.describe())
        transcript, outcome, traffic = self._round(params, codes, silent, layout)
        mean = codec.decode(outcome.codes, len(outcome.survivors))
        survivors = tuple(i - 1 for i in outcome.survivors)
        cut = sum(cuts[i] for i in survivors) / (structure.size * len(survivors))
        uplink = tuple(traffic.uplink.get(i, 0) for i in range(1, len(updates) + 1))
        return Aggregate(structure.restore(mean.value), survivors, uplink, cut, mean.weight, transcript)

    def total(
        self,
        codes: Sequence[Codes],
        params: Params,
        drop: Mapping[int, str] | None = None,
        *,
        model_hash: bytes,
    ) -> Total:
        """The exact sum of codes that a mechanism made, one vector a client, under its own parameters."""
        self._params = params
        silent = self._silent(drop, len(codes))
        transcript, outcome, traffic = self._round(params, codes, silent, model_hash)
        uplink = tuple(traffic.uplink.get(i, 0) for i in range(1, len(codes) + 1))
        return Total(outcome.codes, tuple(i - 1 for i in outcome.survivors), uplink, transcript)

    def _make_params(self, clients: int, dim: int, counts: Sequence[int]) -> Params:
        bound = self._max_weight or 1 << (max(counts) - 1).bit_length()
        for i, w in enumerate(counts):
            if w > bound:
                raise LocalError(f"client {i}: weight {w} exceeds max_weight {bound}", AbortCode.INPUT_RANGE)
        self._params = self._scheme.params(
            clients,
            dim,
            bits=self._bits,
            clip=self._clip,
            max_weight=bound,
            threshold=self._threshold,
            **self._extra,
        )
        return self._params

    def _encode(
        self,
        codec: Codec,
        structure: Structure,
        updates: Sequence[Any],
        counts: Sequence[int],
        coins: Sequence[Floats] | None,
    ) -> tuple[list[Codes], list[int]]:
        if coins is not None and len(coins) != len(updates):
            raise LocalError(f"coins for {len(coins)} of {len(updates)} clients", AbortCode.SHAPE_MISMATCH)
        codes, cuts = [], []
        for i, update in enumerate(updates):
            try:
                flat = structure.flatten(update)
                codes.append(codec.encode(flat, counts[i], None if coins is None else coins[i]))
            except LocalError as error:
                told = LocalError(f"client {i}: {error}")
                told.code = error.code
                raise told from error
            cuts.append(codec.cut(flat))
            if cuts[-1] > self._max_cut * flat.size:
                raise LocalError(
                    f"client {i}: {cuts[-1]} of {flat.size} coordinates exceed clip {self._clip}: "
                    "raise clip, scale the update, or raise max_cut",
                    AbortCode.INPUT_RANGE,
                )
        return codes, cuts

    def _silent(self, drop: Mapping[int, str] | None, clients: int) -> dict[int, Phase]:
        silent = {}
        known = {p.value: p for p in self._phases}
        for position, name in (drop or {}).items():
            if not 0 <= position < clients:
                raise LocalError(f"drop names client {position} of {clients}")
            if name not in known:
                raise LocalError(f"drop names phase {name!r}: the phases are {', '.join(known)}")
            silent[position + 1] = known[name]
        return silent

    def _round(
        self, params: Params, codes: Sequence[Codes], silent: Mapping[int, Phase], layout: bytes
    ) -> tuple[Transcript | None, Any, Traffic]:
        if self._federation is None or len(self._federation.identities) != params.cohort:
            self._federation = _Federation(params.cohort)
        fed = self._federation
        fed.round += 1
        policy = self._own_policy(fed.roster)
        common: dict[str, Any] = {
            "params": params,
            "roster": fed.roster,
            "model_hash": layout,
            "config_hash": hash_fields("aggregator/1/config"),
            "round": fed.round,
        }
        name = self._scheme.name
        clients = {
            i: client_session(name, identity=identity, policy=policy, ledger=ledger, **common)
            for i, (identity, ledger) in enumerate(zip(fed.identities, fed.ledgers), 1)
        }
        server = server_session(name, **common)
        traffic = Traffic(frames=[] if self._record else None)
        inputs = dict(enumerate(codes, 1))
        outcome = Driver(server, clients, self._phases, silent, traffic).run(inputs)
        return self._transcript(params, traffic, inputs, outcome), outcome, traffic

    def _own_policy(self, roster: Roster) -> Policy:
        if self._policy is not None:
            return replace(self._policy, anchor=roster.anchor)
        schemes = frozenset({self._scheme.name})
        return Policy(
            anchor=roster.anchor,
            schemes=schemes,
            max_rounds=roster.max_rounds,
            max_weight=2**31,
            allow_authority=self._extra.get("keys") == "authority",
        )

    def _transcript(
        self, params: Params, traffic: Traffic, inputs: Mapping[int, Codes], outcome: Any
    ) -> Transcript | None:
        if traffic.frames is None:
            return None
        states = {i: {"codes": c} for i, c in inputs.items()}
        context = traffic.frames[0].session if traffic.frames else b""
        return Transcript(params, context, tuple(traffic.frames), states, outcome.survivors, outcome.codes)


def _weights(weights: Sequence[int] | None, clients: int) -> list[int]:
    if weights is None:
        return [1] * clients
    if len(weights) != clients:
        raise LocalError(f"{len(weights)} weights for {clients} updates", AbortCode.SHAPE_MISMATCH)
    return [_weight(i, w) for i, w in enumerate(weights)]


def _weight(client: int, given: Any) -> int:
    """An integer >= 1; a float that is one passes, anything else is refused."""
    whole = isinstance(given, (int, np.integer)) and not isinstance(given, (bool, np.bool_))
    if isinstance(given, (float, np.floating)):
        whole = float(given).is_integer()
    if not whole or given < 1:
        raise LocalError(
            f"client {client}: a weight is an integer >= 1, not {given!r}", AbortCode.INPUT_RANGE
        )
    return int(given)
