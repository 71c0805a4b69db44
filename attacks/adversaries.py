"""The declared adversaries of the protocol attacks: whom they hold, what they may do, what they know.

Where clients collude, each play draws which; `corrupted` names the server, and `knows` says how many clients.
"""

from merveil.attacks.base import Adversary, Power

_SERVER = frozenset({0})


def _server(name: str, knows: str, *powers: Power) -> Adversary:
    return Adversary(name, _SERVER, frozenset({Power.READ, *powers}), knows)


REPLAYER = _server(
    "replaying server",
    "every frame so far; a vector that the victim submits later, because the server chose the model for it",
    Power.REPLAY, Power.INJECT, Power.CHOOSE_MODEL,
)  # fmt: skip
EQUIVOCATOR = _server(
    "equivocating server with c clients",
    "the keys and memory of as many clients as the parameters tolerate",
    Power.DROP, Power.FORK, Power.INJECT,
)  # fmt: skip
ALL_BUT_TWO = _server(
    "curious server with all clients but two",
    "every mask of the victim but one: far more than any claim allows, so that one mask alone is tried",
)
POOL = _server(
    "server with t - 1 clients",
    "the memory of one client fewer than the threshold",
)
DROPPER = _server(
    "server that decides who drops out",
    "the sums that it announces and whom it left out; it sends the same model again, so vectors repeat",
    Power.DROP, Power.CHOOSE_MODEL,
)  # fmt: skip
FORKER = _server(
    "server that sends different models",
    "a model on which a client's update is zero",
    Power.FORK, Power.CHOOSE_MODEL, Power.MODIFY,
)  # fmt: skip
SYBIL = _server(
    "server that mints members",
    "the keys of every member but the victim, in a roster of the server's own making",
    Power.INJECT, Power.CHOOSE_PARAMS,
)  # fmt: skip
MAN_IN_THE_MIDDLE = _server(
    "server that substitutes keys", "ephemeral keys of its own", Power.MODIFY, Power.INJECT
)
DOWNGRADER = _server(
    "server that announces parameters",
    "nothing beyond the frames",
    Power.CHOOSE_PARAMS, Power.FORK, Power.INJECT,
)  # fmt: skip
ROLLBACK = _server(
    "server that keeps the clients' snapshots",
    "every sealed snapshot, since they lie in the engine's store; a later vector of the victim",
    Power.RESTORE, Power.REPLAY, Power.CHOOSE_MODEL,
)  # fmt: skip
SHARE_TAMPERER = Adversary(
    "client that alters shares, or a relay that does",
    frozenset({0, 1}),
    frozenset({Power.READ, Power.MODIFY, Power.INJECT}),
    "one client's keys, or the frames on the way",
)
BAD_INPUT = Adversary(
    "client with extreme or broken inputs",
    frozenset({1}),
    frozenset({Power.READ, Power.INJECT}),
    "its own update, and the code that submits it",
)
RETRIER = _server(
    "server that retries",
    "the answers of a finished attempt, and every snapshot",
    Power.DROP, Power.REPLAY, Power.RESTORE, Power.FORK,
)  # fmt: skip
THIEF = _server(
    "thief with the server's archive",
    "every frame of closed rounds, and afterwards one client's long-term keys",
)
NOISE_NAMER = _server(
    "server that names the noise",
    "the keys of all other members, whose vectors are zero, so that its sum is the site's vector",
    Power.CHOOSE_PARAMS, Power.CHOOSE_MODEL, Power.INJECT, Power.DROP,
)  # fmt: skip
