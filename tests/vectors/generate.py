"""Rebuild every vector file byte for byte: `python tests/vectors/generate.py [FOLDER]`.

All keys and coins come from SeededRng, so the files hold no secret. README.md has the schema.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from merveil.protocols.api import client_session, make_context, server_session
from merveil.protocols.codec import Codec, check_codes
from merveil.protocols.cohort import draw_cohort, shuffled
from merveil.protocols.context import Context
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.frame import SERVER, Frame
from merveil.protocols.identity import Coordinator, Identity, Roster
from merveil.protocols.ledger import Ledger
from merveil.protocols.params import Params
from merveil.protocols.plain.messages import decode_vector
from merveil.protocols.policy import Policy
from merveil.protocols.primitives import agreement
from merveil.protocols.primitives.kdf import derive_key, encode_fields, hash_fields
from merveil.protocols.primitives.packing import pack, tail_is_zero, unpack
from merveil.protocols.primitives.sign import sign, verify
from merveil.protocols.registry import get, names
from merveil.protocols.rng import SeededRng
from merveil.protocols.secagg.messages import session_id
from merveil.protocols.session import SPENT

Fields = dict[str, Any]
SEED = b"merveil vectors 1"
NOW = 1_700_000_000
APART = {"ckks"}  # megabytes a round, and smudging by floats: digests in ckks/ instead


def rng(name: str) -> SeededRng:
    return SeededRng(SEED).child(name)


COORDINATOR = Coordinator.generate(rng("coordinator"))
PEOPLE = tuple(Identity.generate(f"member-{i}", rng(f"member/{i}")) for i in range(1, 7))
ROSTER = COORDINATOR.sign(
    [p.member for p in PEOPLE],
    serial=3,
    not_before=NOW - 100,
    expires=NOW + 100,
    max_rounds=50,
    rng=rng("roster"),
)


# Operations: inputs to outputs, both JSON values. The test runs the same table over the files.


def _hex(data: str) -> bytes:
    return bytes.fromhex(data)


def _params(value: Fields) -> Params:
    return Params(**{**value, "clip": float.fromhex(value["clip"])}) if "clip" in value else Params(**value)


def _context(value: Fields) -> Context:
    binary = {k: _hex(value[k]) for k in ("federation", "roster_hash", "model_hash", "config_hash")}
    text = {"params": value["params"].encode(), "cohort": tuple(value["cohort"])}
    return Context(**{**value, **binary, **text})


def _open_frame(value: Fields) -> Fields:
    f = Frame.decode(_hex(value["data"]), value["sender"], value["max_body"])
    if "public" in value and not f.verify(_hex(value["public"]), _hex(value["binding"])):
        raise RemoteError("signature", (value["sender"],), AbortCode.BAD_SIGNATURE)
    return {
        "suite": f.suite,
        "kind": f.kind,
        "session": f.session.hex(),
        "to": f.to,
        "body": f.body.hex(),
        "digest": f.digest().hex(),
    }


def _roster(value: Fields) -> Fields:
    r = Roster.open(_hex(value["data"]), _hex(value["anchor"]))
    r.check_time(value["now"])
    members = [
        {"name": m.name, "sign_key": m.sign_key.hex(), "agree_key": m.agree_key.hex()} for m in r.members
    ]
    return {
        "federation": r.federation.hex(),
        "serial": r.serial,
        "max_rounds": r.max_rounds,
        "beacon": r.beacon.hex(),
        "hash": r.hash.hex(),
        "fingerprint": r.fingerprint(),
        "members": members,
    }


def _admit(value: Fields) -> Fields:
    own = Coordinator(
        _hex(value["federation"]),
        Ed25519PrivateKey.from_private_bytes(bytes(32)),
        agreement.private_key(_hex(value["coordinator_agree_private"])),
    )
    m = own.admit(_hex(value["request"]))
    return {"name": m.name, "sign_key": m.sign_key.hex(), "agree_key": m.agree_key.hex()}


def _unpack(value: Fields) -> Fields:
    data, count, bits = _hex(value["data"]), value["count"], value["bits"]
    if not tail_is_zero(data, count, bits):
        raise RemoteError("padding", (1,), AbortCode.MALFORMED_FRAME)
    return {"values": unpack(data, count, bits).tolist()}


def _encode(value: Fields) -> Fields:
    p = _params(value["params"])
    update = np.array([float.fromhex(x) for x in value["update"]])
    coins = None if value["coins"] is None else np.array([float.fromhex(x) for x in value["coins"]])
    codes = Codec(p).encode(update, value["weight"], coins)
    return {"codes": codes.tolist()}


def _decode(value: Fields) -> Fields:
    mean = Codec(_params(value["params"])).decode(np.array(value["total"]), value["survivors"])
    return {"value": [float(x).hex() for x in mean.value], "weight": mean.weight}


def _plain(value: Fields) -> Fields:
    p = _params(value["params"])
    nonce, fingerprint, codes = decode_vector(p, _hex(value["body"]), 1)
    check_codes(p, codes)
    return {"nonce": nonce.hex(), "fingerprint": fingerprint.hex(), "codes": codes.tolist()}


def _sign(value: Fields) -> Fields:
    key = Ed25519PrivateKey.from_private_bytes(_hex(value["private"]))
    fields = [_hex(f) for f in value["fields"]]
    return {
        "public": key.public_key().public_bytes_raw().hex(),
        "signature": sign(key, value["purpose"], *fields).hex(),
    }


def _verify(value: Fields) -> Fields:
    fields = [_hex(f) for f in value["fields"]]
    return {"valid": verify(_hex(value["public"]), _hex(value["signature"]), value["purpose"], *fields)}


OPERATIONS: dict[str, Callable[[Fields], Fields]] = {
    "encode_fields": lambda v: {"data": encode_fields(v["purpose"], *map(_hex, v["fields"])).hex()},
    "hash_fields": lambda v: {"hash": hash_fields(v["purpose"], *map(_hex, v["fields"])).hex()},
    "derive_key": lambda v: {
        "key": derive_key(
            _hex(v["secret"]), _hex(v["salt"]), v["purpose"], *map(_hex, v["fields"]), length=v["length"]
        ).hex()
    },
    "agree": lambda v: {
        "secret": agreement.agree(agreement.private_key(_hex(v["private"])), _hex(v["public"]), 1).hex()
    },
    "sign": _sign,
    "verify": _verify,
    "seeded_rng": lambda v: {"bytes": SeededRng(v["seed"].encode()).draw(v["size"], v["label"]).hex()},
    "pack": lambda v: {"data": pack(np.array(v["values"], dtype=np.uint64), v["bits"]).hex()},
    "unpack": _unpack,
    "params": lambda v: {
        "encoded": _params(v).encoded.decode(),
        "modulus_bits": _params(v).modulus_bits,
        "levels": _params(v).levels,
        "size": _params(v).size,
    },
    "context": lambda v: {"digest": _context(v).digest.hex(), "fingerprint": _context(v).fingerprint.hex()},
    "cohort": lambda v: {
        "cohort": list(
            draw_cohort(_hex(v["beacon"]), _hex(v["roster_hash"]), v["round"], v["members"], v["size"])
        )
    },
    "shuffled": lambda v: {
        "order": list(
            shuffled(_hex(v["beacon"]), _hex(v["roster_hash"]), v["purpose"], v["round"], tuple(v["members"]))
        )
    },
    "open_frame": _open_frame,
    "open_roster": _roster,
    "admit": _admit,
    "encode_update": _encode,
    "decode_sum": _decode,
    "plain_body": _plain,
    "secagg_session_id": lambda v: {
        "sid": session_id(_hex(v["context"]), _hex(v["root"]), v["joined"]).hex()
    },
}


def run(operation: str, value: Fields) -> Fields:
    """{"out": ...} or {"error": class, "code": name} of one operation."""
    try:
        return {"out": OPERATIONS[operation](value)}
    except (LocalError, RemoteError, Aborted) as error:
        return {"error": type(error).__name__, "code": error.code.name if error.code else None}


def vector(name: str, operation: str, value: Fields) -> Fields:
    return {"name": name, "operation": operation, "in": value, **run(operation, value)}


def _kdf() -> list[Fields]:
    own = rng("kdf")
    secret, salt = own.draw(32, "secret").hex(), own.draw(32, "salt").hex()
    rows = [
        ("one field", ["00ff"]),
        ("no fields", []),
        ("an empty field is a field", [""]),
        ("fields do not run together (1)", ["6162", "63"]),
        ("fields do not run together (2)", ["61", "6263"]),
    ]
    out = []
    for name, fields in rows:
        value = {"purpose": "example/1/purpose", "fields": fields}
        out += [vector(name, op, value) for op in ("encode_fields", "hash_fields")]
        for length in (32, 16):
            more = {**value, "secret": secret, "salt": salt, "length": length}
            out.append(vector(f"{name}, {length} bytes", "derive_key", more))
    key = {"private": own.draw(32, "ed25519").hex(), "purpose": "example/1/sign", "fields": ["01", "0203"]}
    made = vector("a signature", "sign", key)
    good = {**made["out"], "purpose": key["purpose"], "fields": key["fields"]}
    out += [
        made,
        vector("it verifies", "verify", good),
        vector("over_other_fields", "verify", {**good, "fields": ["0102", "03"]}),
    ]
    pair = {"private": own.draw(32, "x25519").hex(), "public": PEOPLE[0].member.agree_key.hex()}
    out.append(vector("an agreement", "agree", pair))
    out.append(vector("agree_low_order_point", "agree", {**pair, "public": "00" * 32}))
    out.append(vector("the vectors' own source", "seeded_rng", {"seed": "abc", "size": 40, "label": "label"}))
    return out


def _packing() -> list[Fields]:
    out = []
    for bits, count in ((1, 9), (4, 3), (7, 8), (16, 5), (23, 65), (33, 3), (64, 2)):
        words = np.frombuffer(rng("packing").draw(8 * count, f"{bits}"), dtype="<u8") >> np.uint64(64 - bits)
        packed = vector(f"{count} values of {bits} bits", "pack", {"values": words.tolist(), "bits": bits})
        out.append(packed)
        value = {"data": packed["out"]["data"], "count": count, "bits": bits}
        out.append(vector(f"{count} values of {bits} bits, back", "unpack", value))
    spoilt = {"data": "ffffffff", "count": 3, "bits": 10}
    out.append(vector("packing_dirty_padding", "unpack", spoilt))
    return out


def _bound() -> list[Fields]:
    base: Fields = {
        "scheme": "plain",
        "cohort": 5,
        "dim": 7,
        "bits": 16,
        "clip": (1.0).hex(),
        "max_weight": 1,
        "threshold": 1,
        "corrupt": 0,
        "neighbours": 0,
    }
    rows = [
        ("plain", {}),
        ("weighted", {"max_weight": 8}),
        ("a clip of one tenth", {"clip": (0.1).hex()}),
        ("sparse", {"scheme": "secagg+", "cohort": 100, "threshold": 22, "corrupt": 11, "neighbours": 32}),
        ("params_weights_do_not_fit", {"bits": 4, "max_weight": 26}),
        ("params_bits_too_few", {"bits": 3}),
        ("params_clip_not_finite", {"clip": "inf"}),
    ]
    out = [vector(name, "params", {**base, **change}) for name, change in rows]
    context: Fields = {
        "suite": "plain/1",
        "federation": COORDINATOR.federation.hex(),
        "serial": 3,
        "roster_hash": ROSTER.hash.hex(),
        "cohort": [1, 2, 3, 4, 5],
        "round": 7,
        "attempt": 2,
        "params": _params(base).encoded.decode(),
        "model_hash": "11" * 32,
        "config_hash": "22" * 32,
    }
    out.append(vector("a context", "context", context))
    out.append(vector("another attempt", "context", {**context, "attempt": 3}))
    out.append(vector("context_round_zero", "context", {**context, "round": 0}))
    sid = {"context": out[-2]["out"]["digest"], "root": "33" * 32, "joined": 5}
    out.append(vector("a session id", "secagg_session_id", sid))
    place = {"beacon": ROSTER.beacon.hex(), "roster_hash": ROSTER.hash.hex(), "round": 7}
    out.append(vector("a drawn cohort", "cohort", {**place, "members": 20, "size": 6}))
    out.append(vector("everyone", "cohort", {**place, "members": 6, "size": 6}))
    out.append(vector("an order", "shuffled", {**place, "purpose": "graph", "members": list(range(1, 13))}))
    return out


def _flip(data: bytes, at: int, bit: int = 1) -> str:
    spoilt = bytearray(data)
    spoilt[at] ^= bit
    return bytes(spoilt).hex()


def _frames() -> list[Fields]:
    binding = rng("frames").draw(32, "binding")
    client = Frame(0, 1, binding[:16], 2, SERVER, b"a body").signed(PEOPLE[1].sign_key, binding)
    server = Frame(1, 2, binding[:16], SERVER, 2, b"from the server")
    public = {"public": PEOPLE[1].member.sign_key.hex(), "binding": binding.hex()}
    good = {"data": client.encode().hex(), "sender": 2, "max_body": 64, **public}
    data = client.encode()
    bad = {
        "frame_wrong_magic": _flip(data, 0),
        "frame_wrong_version": _flip(data, 2, 2),
        "frame_another_sender": _flip(data, 22),
        "frame_length_too_large": _flip(data, 28, 16),
        "frame_trailing_byte": data.hex() + "00",
        "frame_truncated": data[:-1].hex(),
        "frame_empty": "",
        "frame_body_changed": _flip(data, 30),
        "frame_signature_changed": _flip(data, len(data) - 1),
        "frame_suite_changed": _flip(data, 3),
        "frame_receiver_changed": _flip(data, 24),
    }
    out = [vector("from a client", "open_frame", good)]
    out.append(
        vector("from the server", "open_frame", {"data": server.encode().hex(), "sender": 0, "max_body": 64})
    )
    out += [vector(name, "open_frame", {**good, "data": value}) for name, value in bad.items()]
    out.append(vector("frame_body_over_the_limit", "open_frame", {**good, "max_body": 5}))
    out.append(vector("frame_bound_to_another_context", "open_frame", {**good, "binding": "00" * 32}))
    return out


def _rosters() -> list[Fields]:
    good = {"data": ROSTER.data.hex(), "anchor": COORDINATOR.anchor.hex(), "now": NOW}
    body = ROSTER.data[:-64]

    def signed(raw: bytes) -> str:
        return (raw + sign(COORDINATOR.sign_key, "roster/1/sign", raw)).hex()

    entry = PEOPLE[0].member.encode()
    start = body[: -len(entry) * 6 - 2]
    twice = start + (2).to_bytes(2, "big") + entry + entry
    weak = start + (1).to_bytes(2, "big") + entry[:-32] + bytes(32)
    forged = start + (1).to_bytes(2, "big") + entry[:9] + b"\x01" + bytes(31) + entry[-32:]
    out = [vector("a roster", "open_roster", good)]
    bad = {
        "roster_another_anchor": {"anchor": PEOPLE[0].member.sign_key.hex()},
        "roster_expired": {"now": NOW + 101},
        "roster_not_yet_valid": {"now": NOW - 101},
        "roster_serial_changed": {"data": _flip(ROSTER.data, 72)},
        "roster_member_changed": {"data": _flip(ROSTER.data, len(body) - 1)},
        "roster_truncated": {"data": ROSTER.data[:-1].hex()},
        "roster_trailing_byte": {"data": good["data"] + "00"},
        "roster_member_twice": {"data": signed(twice)},
        "roster_low_order_agreement_key": {"data": signed(weak)},
        "roster_low_order_signature_key": {"data": signed(forged)},
        "roster_without_members": {"data": signed(start + bytes(2))},
    }
    out += [vector(name, "open_roster", {**good, **change}) for name, change in bad.items()]
    request = PEOPLE[0].request(COORDINATOR.federation, COORDINATOR.agree_public)
    ask = {
        "federation": COORDINATOR.federation.hex(),
        "request": request.hex(),
        "coordinator_agree_private": COORDINATOR.agree_key.private_bytes_raw().hex(),
    }
    out.append(vector("an enrolment request", "admit", ask))
    out.append(vector("request_for_another_federation", "admit", {**ask, "federation": "00" * 32}))
    out.append(vector("request_proof_changed", "admit", {**ask, "request": _flip(request, len(entry))}))
    out.append(
        vector("request_signature_changed", "admit", {**ask, "request": _flip(request, len(request) - 1)})
    )
    out.append(vector("request_trailing_byte", "admit", {**ask, "request": request.hex() + "00"}))
    return out


def _codec() -> list[Fields]:
    params: Fields = {"scheme": "plain", "cohort": 3, "dim": 4, "bits": 8, "clip": (0.5).hex()}
    weighted = {**params, "max_weight": 10}
    update = [x.hex() for x in (0.5, -0.5, 0.1, -0.123456789)]
    coins = [x.hex() for x in (0.999, 0.0, 0.25, 0.75)]
    base: Fields = {"params": params, "update": update, "weight": 1, "coins": None}
    rows: list[tuple[str, Fields]] = [
        ("nearest step", {}),
        ("stochastic rounding", {"coins": coins}),
        ("weighted", {"params": weighted, "weight": 7}),
        ("clipped", {"update": [x.hex() for x in (9.0, -9.0, 0.0, 1.0)]}),
        ("codec_not_a_number", {"update": ["nan", *update[1:]]}),
        ("codec_infinite", {"update": [*update[:3], "inf"]}),
        ("codec_too_short", {"update": update[:3]}),
        ("codec_weight_too_large", {"params": weighted, "weight": 11}),
        ("codec_weight_zero", {"params": weighted, "weight": 0}),
        ("codec_coin_of_one", {"coins": [*coins[:3], (1.0).hex()]}),
    ]
    out = [vector(name, "encode_update", {**base, **change}) for name, change in rows]
    total = {"params": weighted, "total": [300, -300, 17, 0, 12], "survivors": 3}
    out.append(vector("a weighted mean", "decode_sum", total))
    out.append(vector("sum_beyond_the_survivors", "decode_sum", {**total, "total": [382, 0, 0, 0, 12]}))
    out.append(vector("sum_of_weights_too_small", "decode_sum", {**total, "total": [0, 0, 0, 0, 2]}))
    return out


def _plain_bodies() -> list[Fields]:
    params: Fields = {
        "scheme": "plain",
        "cohort": 5,
        "dim": 3,
        "bits": 6,
        "clip": (1.0).hex(),
        "max_weight": 3,
    }
    p = _params(params)
    codes = np.array([31, -31, -1, 2], dtype=np.int64)
    head = rng("plain").draw(80, "nonce and fingerprint")

    def body(values: np.ndarray) -> bytes:
        return head + pack(np.mod(values, p.modulus).astype(np.uint64), p.modulus_bits)

    good = body(codes)
    rows = {
        "a body": good.hex(),
        "plain_truncated": good[:-1].hex(),
        "plain_trailing_byte": good.hex() + "00",
        "plain_dirty_padding": _flip(good, len(good) - 1, 128),
        "plain_code_out_of_range": body(np.array([32, 0, 0, 1])).hex(),
        "plain_weight_zero": body(np.array([0, 0, 0, 0])).hex(),
        "plain_weight_too_large": body(np.array([0, 0, 0, 4])).hex(),
    }
    return [vector(name, "plain_body", {"params": params, "body": value}) for name, value in rows.items()]


def whole_round(scheme: str) -> Fields:
    """Every frame of a seeded round of five clients, the third of which sends no vector."""
    params = get(scheme).params(5, 3, bits=8, max_weight=2)
    common: Fields = {
        "params": params,
        "roster": ROSTER,
        "model_hash": b"\x11" * 32,
        "config_hash": b"\x22" * 32,
        "round": 4,
    }
    context = make_context(get(scheme), params, ROSTER, b"\x11" * 32, b"\x22" * 32, 4, 1)
    policy = Policy(COORDINATOR.anchor, frozenset({scheme}), allow_small_cohort=True)
    silent = context.cohort[2]
    clients = {
        i: client_session(
            scheme,
            **common,
            identity=PEOPLE[i - 1],
            policy=policy,
            now=NOW,
            ledger=Ledger(rng=rng(f"ledger/{i}")),
            rng=rng(f"{scheme}/{i}"),
        )
        for i in context.cohort
    }
    inputs = {i: np.array([i, -i, 10 * i, 1 + i % 2], dtype=np.int64) for i in context.cohort}
    server = server_session(scheme, **common)
    frames: list[Fields] = []
    queue = list(server.start())
    for i, c in clients.items():
        queue += c.start()
        if i != silent:
            queue += c.submit(inputs[i])
    while server.phase not in SPENT:
        if not queue:
            queue += server.close_phase()
            continue
        f = queue.pop(0)
        frames.append({"sender": f.sender, "to": f.to, "data": f.encode().hex()})
        party = server if f.to == SERVER else clients[f.to]
        queue += party.receive(f.sender, f.encode())
    done = server.result()
    return {
        "scheme": scheme,
        "roster": ROSTER.data.hex(),
        "params": params.encoded.decode(),
        "context": context.digest.hex(),
        "cohort": list(context.cohort),
        "inputs": {str(i): v.tolist() for i, v in inputs.items() if i != silent},
        "private_keys": {
            str(i): {
                "sign": PEOPLE[i - 1].sign_key.private_bytes_raw().hex(),
                "agree": PEOPLE[i - 1].agree_key.private_bytes_raw().hex(),
            }
            for i in context.cohort
        },
        "frames": frames,
        "survivors": list(done.survivors),
        "sum": done.codes.tolist(),
    }


def files() -> dict[str, str]:
    """File name to content."""
    groups = {
        "kdf": _kdf(),
        "packing": _packing(),
        "context": _bound(),
        "frames": _frames(),
        "roster": _rosters(),
        "codec": _codec(),
        "plain": _plain_bodies(),
    }
    out = {f"{name}.json": {"format": 1, "vectors": rows} for name, rows in groups.items()}
    out |= {
        f"round-{name.replace('+', '-plus')}.json": {"format": 1, **whole_round(name)}
        for name in names()
        if name not in APART
    }
    return {name: json.dumps(value, indent=1) + "\n" for name, value in out.items()}


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
