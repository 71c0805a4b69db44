"""Positive controls of A11, A12, A13, A32 and A33: shares without commitments, sums without headroom, a codec
that checks nothing, sessions without a ledger, shares sealed under static keys.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from merveil.fl.aggregator import SecureAggregator
from merveil.protocols.api import client_session, make_context
from merveil.protocols.frame import Frame
from merveil.protocols.ledger import Ledger
from merveil.protocols.params import Params
from merveil.protocols.primitives import merkle
from merveil.protocols.primitives.aead import seal_once
from merveil.protocols.primitives.prg import mask_range
from merveil.protocols.primitives.shamir import SHARE, recover
from merveil.protocols.registry import get
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.client import SecAggClient, box_aad
from merveil.protocols.secagg.keys import pair_keys, self_mask_key
from merveil.protocols.secagg.server import SecAggServer
from merveil.protocols.session import Desk, Phase


class BareShamirServer(SecAggServer):
    """Rebuilds seeds from the first t shares and believes the result; nobody drops out."""

    def _close_unmask(self) -> Sequence[Frame]:
        book, params = self._book, self._desk.params
        keys = []
        for dealer in sorted(book.nodes):
            holders = [(j + 1, h) for j, h in enumerate(book.holders(dealer)) if h in book.answers]
            first = holders[: params.threshold]
            shares = [book.answers[h][dealer][:SHARE] for _, h in first]
            seed = recover(tuple(p for p, _ in first), shares) or bytes(32)
            keys.append(self_mask_key(book.sid, seed))
        book.total -= mask_range(params.modulus_bits, 0, book.total.size, keys, ())
        book.total &= book.total.dtype.type(params.modulus - 1)
        self._phase = Phase.DONE
        return ()


def bare_server(
    scheme: str,
    *,
    params: Params,
    roster: Any,
    model_hash: bytes,
    config_hash: bytes,
    round: int,
    attempt: int = 1,
    snapshot: bytes | None = None,
) -> BareShamirServer:
    found = get(scheme)
    context = make_context(found, params, roster, model_hash, config_hash, round, attempt)
    return BareShamirServer(found.suite, Desk(params, context, roster), snapshot)


class Narrow(Params):
    """A modulus as wide as one value, for any number of clients."""

    def __post_init__(self) -> None:
        pass

    @cached_property
    def modulus_bits(self) -> int:
        return self.bits


class NarrowAggregator(SecureAggregator):
    """A mean modulo 2^16, whatever the cohort."""

    def _make_params(self, clients: int, dim: int, counts: Sequence[int]) -> Params:
        sound = super()._make_params(clients, dim, counts)
        self._params = Narrow(**{name: getattr(sound, name) for name in Params.__dataclass_fields__})
        return self._params


class Trusting(SecureAggregator):
    """Quantises whatever it is given, cut or filled up to the first update's length."""

    def _encode(self, codec: Any, structure: Any, updates: Any, counts: Any, coins: Any) -> Any:
        levels = codec._params.levels
        codes = []
        for update in updates:
            flat = np.resize(np.asarray(update, dtype=np.float64).ravel(), structure.size)
            with np.errstate(invalid="ignore"):
                steps = np.rint(np.clip(flat, -1, 1) * levels).astype(np.int64)
            codes.append(np.clip(steps, -levels, levels))
        return codes, [0] * len(codes)


def forgetful(scheme: str, **settings: Any) -> Any:
    """A client whose ledger is new in every session."""
    return client_session(scheme, **{**settings, "ledger": Ledger()})


class StaticBoxes(SecAggClient):
    """Shares are sealed under the pair's static keys alone."""

    def _seal_boxes(self, sid: bytes, listed: msg.KeyList) -> dict[int, bytes]:
        boxes = super()._seal_boxes(sid, listed)
        seat, state, context = self._seat, self._state, self._seat.context.digest
        for peer, advert in listed.adverts.items():
            stored = seat.ledger.chain(seat.roster.hash, peer)
            assert stored is not None
            keys = pair_keys(sid, stored[1], bytes(32), seat.index, peer)
            path = merkle.path(state.tree, self._graph.place(seat.index, peer))
            ends = self._digest(seat.index), advert.digest(context, peer)
            aad = box_aad(sid, seat.index, peer, *ends, path)
            boxes[peer] = seal_once(keys.outgoing, state.dealt[peer].encode(), aad)
            state.incoming[peer] = keys.incoming
        return boxes
