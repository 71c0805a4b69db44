"""Rebuild the SecAgg vectors byte for byte: `python tests/vectors/secagg/generate_secagg.py [FOLDER]`.

derivations.json: every hash, key and share by itself. messages.json: bodies of all kinds, good ones, and bad
ones with one fault each. round-sparse.json: a whole round on a ring of 20 clients. Seeds and keys come from
SeededRng; nothing is secret. The schema is the one of ../README.md.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from merveil.protocols.api import client_session, make_context, server_session
from merveil.protocols.errors import RemoteError
from merveil.protocols.frame import Frame, Reader
from merveil.protocols.identity import Coordinator, Identity
from merveil.protocols.ledger import Ledger
from merveil.protocols.policy import Policy
from merveil.protocols.primitives import merkle
from merveil.protocols.primitives.aead import open_once, seal_once
from merveil.protocols.primitives.agreement import agree, public_bytes
from merveil.protocols.primitives.kdf import derive_key
from merveil.protocols.primitives.prg import mask_range
from merveil.protocols.primitives.shamir import PRIME, lagrange, recover, split_pair
from merveil.protocols.registry import get
from merveil.protocols.rng import SeededRng
from merveil.protocols.secagg import keys
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.client import box_aad
from merveil.protocols.secagg.graph import ring
from merveil.protocols.secagg.messages import Kind
from merveil.protocols.session import Phase
from merveil.protocols.simulation.driver import Driver, Traffic
from merveil.protocols.survivors import from_bitmap

Fields = dict[str, Any]
NOW = 1_700_000_000


def rng(name: str) -> SeededRng:
    return SeededRng(b"merveil secagg vectors 1").child(name)


def drawn(name: str, size: int = 32) -> str:
    return rng(name).draw(size, "input").hex()


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


# Operations on JSON values: bytes are hexadecimal


def _pair_root(v: Fields) -> Fields:
    shared = agree(X25519PrivateKey.from_private_bytes(raw(v["agree_key"])), raw(v["peer_agree_key"]), 0)
    root = derive_key(shared, raw(v["roster_hash"]), "secagg/1/pair-root", raw(v["low"]), raw(v["high"]))
    return {"root": root.hex()}


def _pair_keys(v: Fields) -> Fields:
    found = keys.pair_keys(raw(v["sid"]), raw(v["chain"]), raw(v["shared"]), v["own"], v["peer"])
    return {name: value.hex() for name, value in found._asdict().items()}


def _mask_key(v: Fields) -> Fields:
    scalar = keys.mask_scalar(raw(v["context"]), raw(v["seed"]))
    return {"scalar": scalar.private_bytes_raw().hex(), "public": public_bytes(scalar).hex()}


def _mask(v: Fields) -> Fields:
    words = mask_range(
        v["bits"], v["start"], v["count"], [raw(k) for k in v["plus"]], [raw(k) for k in v["minus"]]
    )
    return {"words": [int(w) for w in words]}


def _shares(v: Fields) -> Fields:
    pairs = split_pair(raw(v["seed"]), raw(v["key_seed"]), v["threshold"], v["points"], raw(v["randomness"]))
    return {"seed_shares": [a.hex() for a, _ in pairs], "key_shares": [b.hex() for _, b in pairs]}


def _recover(v: Fields) -> Fields:
    points = tuple(v["points"])
    secret = recover(points, [raw(s) for s in v["shares"]])
    return {
        "coefficients": [f"{c:x}" for c in lagrange(points)],
        "secret": None if secret is None else secret.hex(),
    }


def _tree(v: Fields) -> Fields:
    tree = merkle.flat_tree([raw(leaf) for leaf in v["leaves"]])
    paths = [merkle.path(tree, i).hex() for i in range(len(v["leaves"]))]
    return {"root": merkle.root(tree).hex(), "paths": paths}


def _held(v: Fields) -> Fields:
    held = msg.Held(*(raw(v[name]) for name in ("seed_share", "key_share", "seed_salt", "key_salt")))
    ends = v["dealer"], v["holder"]
    return {
        "plaintext": held.encode().hex(),
        "leaves": [leaf.hex() for leaf in held.leaves(*ends)],
        "node": held.node(*ends).hex(),
        "revealed_seed": held.reveal(*ends, 0).hex(),
        "revealed_key": held.reveal(*ends, 1).hex(),
    }


def _box(v: Fields) -> Fields:
    adverts = raw(v["dealer_advert"]), raw(v["holder_advert"])
    aad = box_aad(raw(v["sid"]), v["dealer"], v["holder"], *adverts, raw(v["path"]))
    box = seal_once(raw(v["key"]), raw(v["plaintext"]), aad)
    assert open_once(raw(v["key"]), box, aad) == raw(v["plaintext"])
    return {"aad": aad.hex(), "box": box.hex()}


def _advert(v: Fields) -> Fields:
    advert = msg.read_advert(Reader(raw(v["advert"]), 0))
    return {"digest": advert.digest(raw(v["context"]), v["index"]).hex()}


def _graph(v: Fields) -> Fields:
    graph = ring(raw(v["beacon"]), raw(v["roster_hash"]), v["round"], tuple(v["cohort"]), v["neighbours"])
    return {
        "neighbours": {str(i): list(graph.neighbours(i)) for i in v["cohort"]},
        "holders": {str(i): list(graph.holders(i)) for i in v["cohort"]},
    }


def _signed(v: Fields) -> Fields:
    frame = Frame(
        v["suite"], Kind.SIGNED, raw(v["sid"])[:16], v["index"], 0, raw(v["root"]), raw(v["signature"])
    )
    return {"valid": frame.verify(raw(v["sign_key"]), raw(v["sid"]))}


def _decode(v: Fields) -> Fields:
    """Parse a body and encode what was found again."""
    body, kind = raw(v["body"]), Kind[v["kind"]]
    if kind is Kind.ADVERT:
        fingerprint, advert = msg.decode_advert(body, 1)
        return {"fingerprint": fingerprint.hex(), **{k: x.hex() for k, x in advert._asdict().items()}}
    if kind is Kind.KEYS:
        found = msg.decode_key_list(body, v["cohort"])
        adverts = {str(i): a.encode().hex() for i, a in found.adverts.items()}
        return {
            "root": found.root.hex(),
            "joined": found.joined,
            "path": found.path.hex(),
            "adverts": adverts,
        }
    if kind is Kind.SHARES:
        nodes, boxes = msg.decode_shares(body, 1, v["holders"], v["receivers"])
        return {"nodes": [n.hex() for n in nodes], "boxes": {str(i): b.hex() for i, b in boxes.items()}}
    if kind is Kind.RELAY:
        entries = msg.decode_relay(body, merkle.depth(v["holders"]))
        return {str(i): {"path": p.hex(), "box": b.hex()} for i, (p, b) in entries.items()}
    if kind is Kind.SURVIVORS:
        listed = msg.decode_survivors(body, v["cohort"])
        positions = sorted(from_bitmap(listed.bitmap))
        return {"positions": positions, **{k: x.hex() for k, x in listed._asdict().items()}}
    if kind is Kind.REQUEST:
        return {str(i): s.hex() for i, s in msg.decode_request(body).items()}
    if kind is Kind.ANSWER:
        return {str(i): s.hex() for i, s in msg.decode_answer(body, 1, v["dealers"]).items()}
    dealer, key = msg.decode_complaint(body, 1)
    return {"dealer": dealer, "key": key.hex()}


OPERATIONS: dict[str, Callable[[Fields], Fields]] = {
    "pair_root": _pair_root,
    "ratchet": lambda v: {"chain": keys.ratchet(raw(v["chain"])).hex()},
    "pair_keys": _pair_keys,
    "mask_key": _mask_key,
    "self_mask_key": lambda v: {"key": keys.self_mask_key(raw(v["sid"]), raw(v["seed"])).hex()},
    "mask": _mask,
    "shares": _shares,
    "recover": _recover,
    "merkle": _tree,
    "held": _held,
    "box": _box,
    "advert_digest": _advert,
    "seed_commitment": lambda v: {
        "commitment": msg.seed_commitment(raw(v["context"]), v["index"], raw(v["seed"])).hex()
    },
    "session_id": lambda v: {"sid": msg.session_id(raw(v["context"]), raw(v["root"]), v["joined"]).hex()},
    "view": lambda v: {"view": msg.view_digest(raw(v["sid"]), v["dealers"]).hex()},
    "survivor_entry": lambda v: {
        "entry": msg.survivor_entry(v["index"], raw(v["advert_digest"]), raw(v["frame_digest"])).hex()
    },
    "survivor_root": lambda v: {
        "root": msg.survivor_root(raw(v["sid"]), raw(v["bitmap"]), raw(v["entries_root"])).hex()
    },
    "graph": _graph,
    "signed": _signed,
    "decode": _decode,
}


def run(operation: str, value: Fields) -> Fields:
    try:
        return {"out": OPERATIONS[operation](value)}
    except RemoteError as error:
        return {"error": "RemoteError", "code": error.code.name if error.code else None}


def vector(name: str, operation: str, value: Fields) -> Fields:
    return {"name": name, "operation": operation, "in": value, **run(operation, value)}


def _derivations() -> list[Fields]:
    sid, context, shared = drawn("sid"), drawn("context"), drawn("shared")
    one, two = (X25519PrivateKey.from_private_bytes(raw(drawn(f"static/{i}"))) for i in (1, 2))
    shares = run("shares", {
        "seed": "ff" * 32, "key_seed": "00" * 32, "threshold": 3, "points": [1, 2, 3, 4, 5],
        "randomness": drawn("coefficients", 192),
    })["out"]  # fmt: skip
    path = drawn("path", 96)
    return [
        vector("pair root", "pair_root", {
            "agree_key": one.private_bytes_raw().hex(), "peer_agree_key": public_bytes(two).hex(),
            "roster_hash": drawn("roster"), "low": drawn("low", 75), "high": drawn("high", 80)}),
        vector("ratchet", "ratchet", {"chain": drawn("chain")}),
        vector("pair keys, lower index", "pair_keys",
               {"sid": sid, "chain": drawn("chain"), "shared": shared, "own": 3, "peer": 260}),
        vector("pair keys, higher index", "pair_keys",
               {"sid": sid, "chain": drawn("chain"), "shared": shared, "own": 260, "peer": 3}),
        vector("mask key", "mask_key", {"context": context, "seed": drawn("key seed")}),
        vector("self-mask key", "self_mask_key", {"sid": sid, "seed": drawn("seed")}),
        vector("mask of 32-bit words", "mask",
               {"bits": 19, "start": 0, "count": 9, "plus": [drawn("k", 16)], "minus": []}),
        vector("mask of 64-bit words", "mask",
               {"bits": 43, "start": 0, "count": 5, "plus": [drawn("k", 16)], "minus": []}),
        vector("later range of a mask", "mask",
               {"bits": 19, "start": 4, "count": 5, "plus": [drawn("k", 16)], "minus": []}),
        vector("masks added and subtracted", "mask",
               {"bits": 32, "start": 0, "count": 4, "plus": [drawn("k", 16)], "minus": [drawn("l", 16)]}),
        vector("shares of both seeds", "shares", {
            "seed": "ff" * 32, "key_seed": "00" * 32, "threshold": 3, "points": [1, 2, 3, 4, 5],
            "randomness": drawn("coefficients", 192)}),
        vector("shares, threshold one", "shares", {
            "seed": drawn("seed"), "key_seed": drawn("key seed"), "threshold": 1, "points": [1, 65535],
            "randomness": ""}),
        vector("recovery", "recover",
               {"points": [1, 3, 5], "shares": [shares["seed_shares"][i] for i in (0, 2, 4)]}),
        vector("recovery from wrong shares, above 32 bytes", "recover",
               {"points": [1], "shares": [(PRIME - 1).to_bytes(33, "big").hex()]}),
        *(vector(f"tree of {n}", "merkle", {"leaves": [drawn(f"leaf/{i}") for i in range(n)]})
          for n in (1, 2, 5, 8)),
        vector("held shares", "held", {
            "dealer": 3, "holder": 260, "seed_share": shares["seed_shares"][0],
            "key_share": shares["key_shares"][0], "seed_salt": drawn("s", 16), "key_salt": drawn("t", 16)}),
        vector("box", "box", {
            "sid": sid, "dealer": 3, "holder": 260, "dealer_advert": drawn("d"), "holder_advert": drawn("h"),
            "path": path, "key": drawn("box key"), "plaintext": drawn("plain", msg.BOX_PLAIN)}),
        vector("advert digest", "advert_digest",
               {"context": context, "index": 260, "advert": drawn("advert", 128)}),
        vector("commitment to a self-mask seed", "seed_commitment",
               {"context": context, "index": 260, "seed": drawn("seed")}),
        vector("session id", "session_id", {"context": context, "root": drawn("root"), "joined": 260}),
        vector("view", "view", {"sid": sid, "dealers": [1, 2, 260]}),
        vector("view of nobody", "view", {"sid": sid, "dealers": []}),
        vector("survivor entry", "survivor_entry",
               {"index": 260, "advert_digest": drawn("a"), "frame_digest": drawn("f")}),
        vector("survivor root", "survivor_root", {"sid": sid, "bitmap": "fb01", "entries_root": drawn("e")}),
        vector("complete graph", "graph", {"beacon": drawn("b"), "roster_hash": drawn("r"), "round": 1,
                                           "cohort": [1, 3, 4, 9], "neighbours": 0}),
        vector("ring", "graph", {"beacon": drawn("b"), "roster_hash": drawn("r"), "round": 7,
                                 "cohort": [1, 3, 4, 9, 10, 11, 260], "neighbours": 4}),
    ]  # fmt: skip


def play(scheme: str, cohort: int, dim: int, silent: int) -> Fields:
    """A round in which one client shares and then falls silent; frames in order of delivery."""
    people = [Identity.generate(f"member-{i}", rng(f"member/{i}")) for i in range(1, cohort + 1)]
    coordinator = Coordinator.generate(rng("coordinator"))
    members = [p.member for p in people]
    roster = coordinator.sign(members, serial=1, not_before=0, expires=2 * NOW, rng=rng("beacon"))
    made = get(scheme)
    params = made.params(cohort, dim, bits=8)
    common: dict[str, Any] = {
        "params": params, "roster": roster, "model_hash": bytes(32), "config_hash": b"\x01" * 32, "round": 2,
    }  # fmt: skip
    policy = Policy(roster.anchor, frozenset({scheme}), allow_small_cohort=True)
    clients = {
        i: client_session(scheme, identity=p, policy=policy, ledger=Ledger(), now=NOW,
                          rng=rng(f"client/{i}"), **common)
        for i, p in enumerate(people, 1)
    }  # fmt: skip
    codes = {i: np.array([(i * (j + 7)) % 255 - 127 for j in range(dim)]) for i in clients}
    frames: list[Frame] = []
    traffic = Traffic(frames=frames)
    driver = Driver(server_session(scheme, **common), clients, made.phases, {silent: Phase.MASKED}, traffic)
    outcome = driver.run(codes)
    context = make_context(made, params, roster, bytes(32), b"\x01" * 32, 2, 1)
    return {
        "format": 1,
        "scheme": scheme,
        "roster": roster.data.hex(),
        "params": params.encoded.decode(),
        "round": 2,
        "attempt": 1,
        "model_hash": bytes(32).hex(),
        "config_hash": (b"\x01" * 32).hex(),
        "context": context.digest.hex(),
        "private_keys": {
            str(i): {
                "sign": p.sign_key.private_bytes_raw().hex(),
                "agree": p.agree_key.private_bytes_raw().hex(),
            }
            for i, p in enumerate(people, 1)
        },
        "coins": {str(i): rng(f"client/{i}")._seed.hex() for i in clients},
        "inputs": {str(i): [int(x) for x in c] for i, c in codes.items()},
        "silent": [silent],
        "frames": [f.encode().hex() for f in frames],
        "survivors": list(outcome.survivors),
        "sum": [int(x) for x in outcome.codes],
    }


def _body(value: Fields, kind: Kind, index: int) -> str:
    for text in value["frames"]:
        sender = int(text[42:46], 16)
        frame = Frame.decode(raw(text), sender, 1 << 20)
        if frame.kind == kind and index in (frame.sender, frame.to):
            return frame.body.hex()
    raise KeyError(kind)


def _messages(complete: Fields) -> list[Fields]:
    """Client 2 of a round of five; 4 sent no vector."""
    n, everyone = 5, [1, 2, 3, 4, 5]
    body = {kind: _body(complete, kind, 2) for kind in list(Kind)[:9]}
    extra: dict[Kind, Fields] = {
        Kind.ADVERT: {}, Kind.KEYS: {"cohort": n}, Kind.SHARES: {"holders": n, "receivers": [1, 3, 4, 5]},
        Kind.RELAY: {"holders": n}, Kind.SURVIVORS: {"cohort": n}, Kind.REQUEST: {},
        Kind.ANSWER: {"dealers": everyone}, Kind.COMPLAINT: {},
    }  # fmt: skip
    body[Kind.COMPLAINT] = "0004" + drawn("complaint")
    found = []
    for kind, settings in extra.items():
        name = kind.name.lower()

        def one(title: str, text: str, kind: Kind = kind, settings: Fields = settings) -> Fields:
            return vector(title, "decode", {"kind": kind.name, **settings, "body": text})

        found += [one(name, body[kind]), one(f"{name}_short", body[kind][:-2])]
        if kind is not Kind.SURVIVORS:  # its end is known only to a receiver that knows the graph
            found.append(one(f"{name}_long", body[kind] + "00"))
    descending = "0002" + "0003" + "11" * 64 + "0002" + "22" * 64
    found += [
        vector("request_descending", "decode", {"kind": "REQUEST", "body": descending}),
        vector("request_twice", "decode", {"kind": "REQUEST", "body": "0002" + 2 * ("0003" + "11" * 64)}),
        vector("request_server", "decode", {"kind": "REQUEST", "body": "0001" + "0000" + "11" * 64}),
        vector("survivors_beyond", "decode",
               {"kind": "SURVIVORS", "cohort": n, "body": "3f" + body[Kind.SURVIVORS][2:]}),
        vector("answer_no_field_element", "decode", {
            "kind": "ANSWER", "dealers": everyone,
            "body": PRIME.to_bytes(33, "big").hex() + body[Kind.ANSWER][66:]}),
    ]  # fmt: skip
    return found + _signatures(complete)


def _signatures(complete: Fields) -> list[Fields]:
    sid = _sid(complete)
    text = next(t for t in complete["frames"] if (int(t[8:10], 16), int(t[42:46], 16)) == (Kind.SIGNED, 2))
    key = Identity.generate("member-2", rng("member/2")).member.sign_key.hex()
    base = {
        "suite": 1,
        "sid": sid,
        "index": 2,
        "root": text[58:-128],
        "signature": text[-128:],
        "sign_key": key,
    }
    return [
        vector("signature on a survivor list", "signed", base),
        vector("signed_another_session", "signed", {**base, "sid": sid[:32] + "00" * 16}),
        vector("signed_another_list", "signed", {**base, "root": "00" * 32}),
        vector("signed_another_index", "signed", {**base, "index": 3}),
    ]


def _sid(value: Fields) -> str:
    found = msg.decode_key_list(raw(_body(value, Kind.KEYS, 2)), 5)
    return msg.session_id(raw(value["context"]), found.root, found.joined).hex()


def files() -> dict[str, str]:
    def dump(value: Any) -> str:
        return json.dumps(value, indent=1) + "\n"

    return {
        "derivations.json": dump({"format": 1, "vectors": _derivations()}),
        "messages.json": dump({"format": 1, "vectors": _messages(play("secagg", 5, 3, 4))}),
        "round-sparse.json": dump(play("secagg+", 20, 3, 4)),
    }


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
