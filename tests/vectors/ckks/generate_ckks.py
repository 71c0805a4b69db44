"""Rebuild the CKKS vectors byte for byte: `python tests/vectors/ckks/generate_ckks.py [FOLDER]`.

derivations.json: hashes, keys and polynomials by themselves, and a dealing with its proof, good and spoilt.
round-ckks.json: a whole round of five clients, the third of which sends no vector. Polynomials are too long
to list: they are given by the key of the stream that they are drawn from, as docs/wire.md has it for `a`, and
results by SHA-256 of their wire form. Answers hold smudging, which is made of floats: only their lengths are
listed. Seeds and keys come from SeededRng; nothing is secret. The schema is the one of ../README.md.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from merveil.protocols.api import client_session, server_session
from merveil.protocols.ckks import encryption
from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks import proof as proofs
from merveil.protocols.ckks.constants import DATA, PRIMES
from merveil.protocols.ckks.dealing import good_share
from merveil.protocols.ckks.messages import Kind
from merveil.protocols.ckks.sampling import Stream, expand, uniform
from merveil.protocols.ckks.sealing import box_keys
from merveil.protocols.ckks.wire import encode_polynomials
from merveil.protocols.errors import LocalError, RemoteError
from merveil.protocols.frame import Frame
from merveil.protocols.identity import Coordinator, Identity
from merveil.protocols.ledger import Ledger
from merveil.protocols.policy import Policy
from merveil.protocols.primitives.kdf import hash_fields
from merveil.protocols.registry import get
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import SPENT, Phase

Fields = dict[str, Any]
NOW = 1_700_000_000
HOLDERS = (1, 2, 4, 5)
DEALER, HOLDER, THRESHOLD = 2, 4, 3


def rng(name: str) -> SeededRng:
    return SeededRng(b"merveil ckks vectors 1").child(name)


def drawn(name: str, size: int = 32) -> str:
    return rng(name).draw(size, "input").hex()


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# Operations on JSON values: bytes are hexadecimal


def _common(v: Fields) -> Fields:
    a = expand(raw(v["context"]))
    return {"first": a[0, :, 0].tolist(), "last": a[0, :, -1].tolist(), "sha256": sha(encode_polynomials(a))}


def _public(v: Fields) -> bytes:
    return encode_polynomials(uniform(Stream(raw(v["b_key"])), 1, len(PRIMES)))


def _commit(v: Fields) -> Fields:
    public = _public(v)
    said = msg.commitment(raw(v["context"]), v["index"], raw(v["salt"]), public)
    return {"b_sha256": sha(public), "commitment": said.hex()}


def _session_id(v: Fields) -> Fields:
    adverts = {
        a["index"]: msg.Advert(raw(a["nonce"]), raw(a["share_key"]), raw(a["commitment"]))
        for a in v["adverts"]
    }
    return {"sid": msg.session_id(raw(v["context"]), adverts).hex()}


def _box_keys(v: Fields) -> Fields:
    found = box_keys(raw(v["sid"]), raw(v["chain"]), raw(v["seed"]), raw(v["peer_key"]), v["own"], v["peer"])
    return {"outgoing": found.outgoing.hex(), "incoming": found.incoming.hex()}


def _dealing(v: Fields) -> tuple[dict[int, bytes], bytes, bytes, Any]:
    """(contents of the boxes, nodes, response, challenge vectors) of a dealer."""
    f = uniform(Stream(raw(v["polynomial_key"])), v["threshold"], DATA)
    mask = proofs.decode_scalars(raw(v["mask"]))
    assert mask is not None and len(mask) == v["threshold"]
    plains = {
        x: encode_polynomials(encryption.share_at(f, x))
        + proofs.encode_scalars([proofs.at(mask, x)])
        + raw(salt)
        for x, salt in zip(v["holders"], v["salts"], strict=True)
    }
    nodes = proofs.nodes_of(v["dealer"], plains)
    rho = proofs.challenge(raw(v["sid"]), v["dealer"], raw(v["commitment"]), nodes)
    return plains, nodes, proofs.encode_scalars(proofs.respond(f, mask, rho)), rho


def _proof(v: Fields) -> Fields:
    plains, nodes, response, rho = _dealing(v)
    sid, dealer = raw(v["sid"]), v["dealer"]
    seed = hash_fields("ckks/1/challenge", sid, msg.index_bytes((dealer,)), raw(v["commitment"]), nodes)
    return {
        "boxes_sha256": [sha(plains[x]) for x in v["holders"]],
        "masks_at_holders": [plains[x][-msg.SALT - msg.SCALARS : -msg.SALT].hex() for x in v["holders"]],
        "nodes": nodes.hex(),
        "challenge_hash": seed.hex(),
        "challenge_first": rho[:, :, 0].tolist(),
        "challenge_last": rho[:, :, -1].tolist(),
        "response": response.hex(),
        "box_aad": msg.box_aad(sid, dealer, v["holders"][0], nodes + response).hex(),
    }


def _check_share(v: Fields) -> Fields:
    """What a holder says of an opened box, a byte of its content or of the proof changed."""
    plains, nodes, response, _ = _dealing(v)
    plain, proof = bytearray(plains[v["holder"]]), bytearray(nodes + response)
    for target, change in ((plain, v.get("content")), (proof, v.get("proof"))):
        if change:
            target[change["at"]] ^= change["xor"]
    content = bytes(plain[: v.get("length", len(plain))])
    good = good_share(
        content, raw(v["sid"]), v["dealer"], v["holder"], v["holders"], raw(v["commitment"]), bytes(proof)
    )
    return {"valid": good is not None}


def _digests(v: Fields) -> Fields:
    sid, body = raw(v["sid"]), msg.encode_survivors({int(i): raw(d) for i, d in v["survivors"].items()})
    view = msg.view_digest(sid, v["dealers"])
    root = msg.survivor_root(sid, view, body)
    return {
        "view": view.hex(),
        "survivors": body.hex(),
        "root": root.hex(),
        "decryptors": msg.subset_digest(root, v["decryptors"]).hex(),
    }


OPERATIONS: dict[str, Callable[[Fields], Fields]] = {
    "common_polynomial": _common,
    "commit": _commit,
    "session_id": _session_id,
    "box_keys": _box_keys,
    "dealing_proof": _proof,
    "check_share": _check_share,
    "lagrange": lambda v: {"weights": list(encryption.lagrange(v["points"], v["own"]))},
    "digests": _digests,
    "encode_complaint": lambda v: {"body": msg.encode_complaint(v["dealer"], raw(v["key"])).hex()},
    "decode_complaint": lambda v: {"dealer": msg.decode_complaint(raw(v["body"]), 3)[0]},
}


def run(operation: str, value: Fields) -> Fields:
    """{"out": ...} or {"error": class, "code": name} of one operation."""
    try:
        return {"out": OPERATIONS[operation](value)}
    except (LocalError, RemoteError) as error:
        return {"error": type(error).__name__, "code": error.code.name if error.code else None}


def vector(name: str, operation: str, value: Fields) -> Fields:
    return {"name": name, "operation": operation, "in": value, **run(operation, value)}


def _derivations() -> list[Fields]:
    context, sid = drawn("context"), drawn("sid")
    own = {"context": context, "index": DEALER, "salt": drawn("salt"), "b_key": drawn("b")}
    said = vector("a commitment to b", "commit", own)
    parts = ("nonce", "share_key", "commitment")
    adverts = [{"index": i, **{part: drawn(f"{part}/{i}") for part in parts}} for i in HOLDERS]
    pair = {"sid": sid, "chain": drawn("chain"), "seed": drawn("seed")}
    pair["peer_key"] = Identity.generate("peer", rng("peer")).member.agree_key.hex()
    survivors = {str(i): drawn(f"c1/{i}") for i in HOLDERS}
    signed = {"sid": sid, "dealers": list(HOLDERS), "survivors": survivors, "decryptors": [1, 4, 5]}
    complaint = {"dealer": DEALER, "key": drawn("box key")}
    body = vector("a complaint", "encode_complaint", complaint)
    sent = {"body": body["out"]["body"]}
    return [
        vector("the common polynomial", "common_polynomial", {"context": context}),
        said,
        vector("a session id", "session_id", {"context": context, "adverts": adverts}),
        vector("box keys, upwards", "box_keys", {**pair, "own": 2, "peer": 4}),
        vector("box keys, downwards", "box_keys", {**pair, "own": 4, "peer": 2}),
        vector("what survivors sign", "digests", signed),
        vector("a weight", "lagrange", {"points": [1, 4, 5], "own": 4}),
        body,
        vector("a complaint, back", "decode_complaint", sent),
        vector("complaint_short", "decode_complaint", {"body": sent["body"][:-2]}),
        vector("complaint_long", "decode_complaint", {"body": sent["body"] + "00"}),
        *_dealings({"sid": sid, "commitment": said["out"]["commitment"]}),
    ]


def _dealings(bound: Fields) -> list[Fields]:
    """A proof, and what a holder says to spoilt ones."""
    values = rng("mask").draw(msg.SCALARS * THRESHOLD, "input")
    mask = b"".join(
        (int.from_bytes(values[i : i + 8], "big") % PRIMES[i // 8 % DATA]).to_bytes(8, "big")
        for i in range(0, len(values), 8)
    )
    base = {
        **bound,
        "dealer": DEALER,
        "holders": list(HOLDERS),
        "threshold": THRESHOLD,
        "polynomial_key": drawn("polynomial"),
        "mask": mask.hex(),
        "salts": [drawn(f"node-salt/{i}") for i in HOLDERS],
    }
    held = {**base, "holder": HOLDER}
    nodes = msg.DIGEST * len(HOLDERS)
    mask_at = msg.CIPHERTEXT_BYTES
    bad = {
        "share_changed": {"content": {"at": 1000, "xor": 1}},
        "share_mask_changed": {"content": {"at": mask_at + 7, "xor": 1}},
        "share_salt_changed": {"content": {"at": mask_at + msg.SCALARS, "xor": 1}},
        "share_short": {"length": msg.BOX - 17},
        "proof_own_node_changed": {"proof": {"at": msg.DIGEST * 2, "xor": 1}},
        "proof_another_node_changed": {"proof": {"at": 0, "xor": 1}},
        "proof_response_changed": {"proof": {"at": nodes + 7, "xor": 1}},
        "proof_response_not_below_its_prime": {"proof": {"at": nodes, "xor": 128}},
    }
    return [
        vector("a dealing's proof", "dealing_proof", base),
        vector("a good share", "check_share", held),
        *(vector(name, "check_share", {**held, **change}) for name, change in bad.items()),
    ]


# A whole round


def _listed(f: Frame) -> Fields:
    data = f.encode()
    found: Fields = {"sender": f.sender, "to": f.to, "kind": Kind(f.kind).name, "bytes": len(data)}
    return found if f.kind == Kind.ANSWER else {**found, "sha256": sha(data)}


def play(size: int = 5, dim: int = 3) -> Fields:
    """Every frame of a seeded round in order of delivery; the third client sends no vector."""
    coordinator = Coordinator.generate(rng("coordinator"))
    people = [Identity.generate(f"member-{i}", rng(f"member/{i}")) for i in range(1, size + 1)]
    roster = coordinator.sign(
        [p.member for p in people], serial=1, not_before=NOW - 9, expires=NOW + 9, rng=rng("roster")
    )
    params = get("ckks").params(size, dim, bits=8, max_weight=2)
    common: Fields = {"params": params, "roster": roster, "model_hash": b"\x11" * 32,
                      "config_hash": b"\x22" * 32, "round": 4}  # fmt: skip
    policy = Policy(coordinator.anchor, frozenset({"ckks"}), allow_small_cohort=True)
    clients = {
        i: client_session("ckks", **common, identity=people[i - 1], policy=policy, now=NOW,
                          ledger=Ledger(rng=rng(f"ledger/{i}")), rng=rng(f"ckks/{i}"))
        for i in range(1, size + 1)
    }  # fmt: skip
    inputs = {i: np.array([i, -i, 10 * i, 1 + i % 2], dtype=np.int64) for i in clients if i != 3}
    server = server_session("ckks", **common)
    frames: list[Fields] = []
    queue = list(server.start())
    for i, c in clients.items():
        queue += [*c.start(), *(c.submit(inputs[i]) if i in inputs else ())]
    while server.phase not in SPENT:
        if not queue:
            queue += server.close_phase()
            continue
        f = queue.pop(0)
        frames.append(_listed(f))
        queue += (clients[f.to] if f.to else server).receive(f.sender, f.encode())
    assert server.phase is Phase.DONE
    done = server.result()
    return {
        "format": 1,
        "scheme": "ckks",
        "roster": roster.data.hex(),
        "params": params.encoded.decode(),
        "inputs": {str(i): v.tolist() for i, v in inputs.items()},
        "private_keys": {
            str(i): {
                "sign": people[i - 1].sign_key.private_bytes_raw().hex(),
                "agree": people[i - 1].agree_key.private_bytes_raw().hex(),
            }
            for i in clients
        },
        "frames": frames,
        "survivors": list(done.survivors),
        "sum": done.codes.tolist(),
    }


def files() -> dict[str, str]:
    groups = {"derivations.json": {"format": 1, "vectors": _derivations()}, "round-ckks.json": play()}
    return {name: json.dumps(value, indent=1) + "\n" for name, value in groups.items()}


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
