"""What a view holds: the vector in each client's frame, and the published sum.

Guarantees: reads frames and public parameters only. The vector is decoded as if it were in clear, which it
is under `plain`; a masked vector decodes to residues that look uniform, and attacks get exactly those.
Assumes: the vector is the packed tail of its frame's body, as docs/wire.md lays out; a scheme of another
layout adds itself to `READERS`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.base import Floats, Public
from merveil.protocols.codec import Codec, to_signed
from merveil.protocols.frame import SERVER, Frame
from merveil.protocols.params import Params
from merveil.protocols.primitives.packing import packed_size, unpack
from merveil.protocols.transcript import View

Codes = NDArray[np.int64]


# scheme -> kind of the frame that carries a client's vector (docs/wire.md); a scheme that is not listed is
# read from each client's longest frame.
VECTOR_KIND = {"plain": 1, "secagg": 5, "secagg+": 5}


def vector_frames(view: View) -> dict[int, Frame]:
    """Each client's frame to the server that carries its vector."""
    kind = VECTOR_KIND.get(view.params.scheme)
    found: dict[int, Frame] = {}
    for frame in view.frames:
        if frame.sender == SERVER or frame.to != SERVER or kind not in (None, frame.kind):
            continue
        held = found.get(frame.sender)
        if held is None or len(frame.body) > len(held.body):
            found[frame.sender] = frame
    return found


def packed_tail(params: Params, body: bytes) -> Codes:
    """The last packed residues of a body as signed codes [size]; a short body is filled up with zeros."""
    need = packed_size(params.size, params.modulus_bits)
    data = body[-need:].rjust(need, b"\0")
    return to_signed(params, unpack(data, params.size, params.modulus_bits))


READERS: dict[str, Callable[[Params, bytes], Codes]] = {}  # scheme -> reader, where the layout differs


def codes(view: View) -> dict[int, Codes]:
    """client -> signed codes [size], the weight coordinate included where the round is weighted."""
    read = READERS.get(view.params.scheme, packed_tail)
    return {client: read(view.params, frame.body) for client, frame in vector_frames(view).items()}


def uploads(view: View, public: Public) -> dict[int, Floats]:
    """client -> update [P] as its frame decodes, in update units; weights are divided out where readable.

    The adversary's own clients are left out.
    A weight outside 1..max_weight cannot be one, so it is taken as max_weight (a masked frame).
    """
    params, found = view.params, {}
    for client, row in codes(view).items():
        if client in view.corrupted:
            continue
        weight = int(row[params.dim]) if params.weighted else 1
        if not 1 <= weight <= params.max_weight:
            weight = params.max_weight
        found[client] = row[: params.dim] * (params.clip / params.levels * (params.max_weight / weight))
    return found


def weights(view: View) -> dict[int, int]:
    """client -> the weight coordinate as the frame decodes; empty for an unweighted round."""
    if not view.params.weighted:
        return {}
    return {client: int(row[view.params.dim]) for client, row in codes(view).items()}


def published_sum(view: View, public: Public) -> Floats:
    """The mean update [P] that everyone receives. LookupError where the round ended without a sum."""
    if public.aggregate is not None:  # where noise and rotation stand between the codec's sum and the mean
        return public.aggregate
    if view.total is None:
        raise LookupError("the round ended without a sum")
    total = np.asarray(view.total, dtype=np.int64)
    return Codec(view.params).decode(total, len(view.survivors)).value


def honest_sum(view: View, public: Public) -> Floats:
    """The published mean without the adversary's own clients, whose inputs it knows."""
    own = [i for i in view.survivors if i in view.corrupted]
    if not own or view.total is None:
        return published_sum(view, public)
    total = np.asarray(view.total, dtype=np.int64) - sum(np.asarray(view.states[i]["codes"]) for i in own)
    return Codec(view.params).decode(total, len(view.survivors) - len(own)).value
