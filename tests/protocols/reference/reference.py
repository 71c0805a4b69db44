"""SecAgg again, from docs/wire.md, as plainly as possible: no line is shared with merveil.

Python integers for the field, the curve and the packing; `hmac` for HKDF; pycryptodome for AES and Ed25519.
It plays all parties of one honest round, given the members' private keys and every coin, and says what each
frame must be.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass, field

from Crypto.Cipher import AES
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

P = 2**256 + 297
CURVE = 2**255 - 19
ADVERT, KEYS, SHARES, RELAY, MASKED, SURVIVORS, SIGNED, REQUEST, ANSWER = range(1, 10)


# Hashing


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def prefixed(*fields: bytes) -> bytes:
    out = b""
    for f in fields:
        out += u32(len(f)) + f
    return out


def tagged(purpose: str, *fields: bytes) -> bytes:
    return prefixed(f"merveil/{purpose}".encode(), *fields)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def h(purpose: str, *fields: bytes) -> bytes:
    return sha(tagged(purpose, *fields))


def hkdf(secret: bytes, salt: bytes, length: int, purpose: str, *fields: bytes) -> bytes:
    """RFC 5869, extract then expand."""
    key = hmac.new(salt, secret, "sha256").digest()
    out, block, i = b"", b"", 1
    while len(out) < length:
        block = hmac.new(key, block + tagged(purpose, *fields) + bytes([i]), "sha256").digest()
        out, i = out + block, i + 1
    return out[:length]


def coins(seed: bytes, label: str, size: int) -> bytes:
    """The first draw under a label of the seeded generator that the tests use."""
    head = u32(len(seed)) + seed + (0).to_bytes(8, "big")
    return hashlib.shake_256(b"merveil/rng/1/seeded" + head + label.encode()).digest(size)


# X25519, RFC 7748 section 5


def ladder(scalar: bytes, point: bytes) -> bytes:
    k = int.from_bytes(scalar, "little")
    k = (k & ~7 & ((1 << 255) - 1)) | 1 << 254
    u = int.from_bytes(point, "little") % 2**255
    x1, x2, z2, x3, z3, swap = u, 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a, c * b, a * a, b * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % CURVE, x1 * (da - cb) ** 2 % CURVE
        x2, z2 = aa * bb % CURVE, e * (aa + 121665 * e) % CURVE
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, CURVE - 2, CURVE) % CURVE).to_bytes(32, "little")


def public(scalar: bytes) -> bytes:
    return ladder(scalar, (9).to_bytes(32, "little"))


# Shamir, Merkle, packing, ciphers


def polynomial(secret: bytes, randomness: bytes) -> list[int]:
    parts = [randomness[i : i + 48] for i in range(0, len(randomness), 48)]
    return [int.from_bytes(secret, "big")] + [int.from_bytes(p, "big") % P for p in parts]


def evaluate(coefficients: list[int], x: int) -> bytes:
    return (sum(c * x**i for i, c in enumerate(coefficients)) % P).to_bytes(33, "big")


def interpolate(points: dict[int, bytes]) -> bytes:
    total = 0
    for x, share in points.items():
        top = bottom = 1
        for y in points:
            if y != x:
                top, bottom = top * y % P, bottom * (y - x) % P
        total += int.from_bytes(share, "big") * top * pow(bottom, -1, P)
    return (total % P).to_bytes(32, "big")


def node(left: bytes, right: bytes) -> bytes:
    return sha(tagged("merkle/1/node") + left + right)


def merkle_root(leaves: list[bytes]) -> bytes:
    size = 1
    while size < len(leaves):
        size *= 2
    return subtree(leaves + [bytes(32)] * (size - len(leaves)))


def subtree(row: list[bytes]) -> bytes:
    if len(row) == 1:
        return row[0]
    half = len(row) // 2
    return node(subtree(row[:half]), subtree(row[half:]))


def merkle_path(leaves: list[bytes], position: int) -> bytes:
    """Siblings, lowest first."""
    size = 1
    while size < len(leaves):
        size *= 2
    row = leaves + [bytes(32)] * (size - len(leaves))
    path = b""
    while len(row) > 1:
        half = len(row) // 2
        other = row[:half] if position >= half else row[half:]
        path = subtree(other) + path
        row, position = (row[half:], position - half) if position >= half else (row[:half], position)
    return path


def pack(values: list[int], bits: int) -> bytes:
    stream = 0
    for i, v in enumerate(values):
        stream |= (v % 2**bits) << (i * bits)
    return stream.to_bytes((len(values) * bits + 7) // 8, "little")


def unpack(data: bytes, count: int, bits: int) -> list[int]:
    stream = int.from_bytes(data, "little")
    return [stream >> (i * bits) & (2**bits - 1) for i in range(count)]


def mask_words(key: bytes, count: int, bits: int) -> list[int]:
    width = 4 if bits <= 32 else 8
    cipher = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0)
    stream = cipher.encrypt(bytes(width * count))
    return [int.from_bytes(stream[i : i + width], "little") for i in range(0, len(stream), width)]


def seal(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    cipher = AES.new(key, AES.MODE_GCM, nonce=bytes(12), mac_len=16)
    cipher.update(aad)
    data, tag = cipher.encrypt_and_digest(plaintext)
    return data + tag


# The round


@dataclass
class Client:
    """One party: private keys of its identity, its seed of coins, its vector, and what it derives."""

    index: int
    sign_seed: bytes
    agree_seed: bytes
    coins: bytes
    codes: list[int]
    entry: bytes = b""
    holders: list[int] = field(default_factory=list)
    seed: bytes = b""
    key_seed: bytes = b""
    scalar: bytes = b""
    held: dict[int, bytes] = field(default_factory=dict)
    nodes: list[bytes] = field(default_factory=list)
    advert: bytes = b""
    digest: bytes = b""


@dataclass
class Round:
    """Everything public, and the clients. no_vector: clients that share and then fall silent."""

    suite: int
    name: str
    federation: bytes
    serial: int
    beacon: bytes
    roster: bytes
    cohort: list[int]
    params: dict[str, object]
    model_hash: bytes
    config_hash: bytes
    number: int
    attempt: int
    clients: dict[int, Client]
    no_vector: set[int] = field(default_factory=set)

    def play(self) -> tuple[dict[tuple[int, int, int], bytes], list[int]]:
        """All frames by (kind, sender, to), and the signed sum of the survivors."""
        self.frames: dict[tuple[int, int, int], bytes] = {}
        self.bits = int(self.params["bits"]) + (len(self.cohort) - 1).bit_length()
        self.size = int(self.params["dim"]) + (int(self.params["max_weight"]) > 1)
        self.t, self.k = int(self.params["threshold"]), int(self.params["neighbours"])
        self.roster_hash = h("roster/1/hash", self.roster)
        self.context, self.fingerprint = self.contexts()
        self.make_graph()
        for c in self.clients.values():
            self.advertise(c)
        self.list_keys()
        for c in self.clients.values():
            self.share(c)
        self.relay()
        self.alive = [i for i in self.cohort if i not in self.no_vector]
        total = [0] * self.size
        for i in self.alive:
            total = [a + b for a, b in zip(total, self.mask(self.clients[i]))]
        self.check()
        return self.frames, self.unmask(total)

    def send(self, kind: int, sender: int, to: int, body: bytes, binding: bytes) -> None:
        head = struct.pack(">2sBBB16sHHI", b"MV", 1, self.suite, kind, binding[:16], sender, to, len(body))
        data = head + body
        if sender:
            key = ECC.construct(curve="Ed25519", seed=self.clients[sender].sign_seed)
            signed = tagged("frame/1/sign", binding, head, sha(body))
            data += eddsa.new(key, "rfc8032").sign(signed)
        self.frames[kind, sender, to] = data

    def contexts(self) -> tuple[bytes, bytes]:
        lines = []
        for name, value in self.params.items():
            lines.append(f"{name}={value.hex() if isinstance(value, float) else value}")
        params = "\n".join(lines).encode()
        cohort = b"".join(u16(i) for i in self.cohort)
        suite = self.name.encode()
        context = h(
            "context/1", suite, self.federation, u32(self.serial), self.roster_hash, cohort,
            u32(self.number), u16(self.attempt), params, self.model_hash, self.config_hash,
        )  # fmt: skip
        parts = [
            self.roster_hash + self.federation + u32(self.serial) + cohort,
            suite + b"\x00" + params,
            self.model_hash,
            self.config_hash,
            u32(self.number),
            u16(self.attempt),
        ]
        return context, b"".join(h("context/1/part", p)[:8] for p in parts)

    def make_graph(self) -> None:
        n = len(self.cohort)
        if self.k == 0:
            self.around = {i: [j for j in self.cohort if j != i] for i in self.cohort}
            for c in self.clients.values():
                c.holders = list(self.cohort)
            return
        seed = h("cohort/1/ring", self.beacon, self.roster_hash, u32(self.number))
        order = sorted(self.cohort, key=lambda i: h("cohort/1/rank", seed, u16(i)))
        self.around = {}
        for p, i in enumerate(order):
            steps = [s for s in range(-self.k // 2, self.k // 2 + 1) if s]
            self.around[i] = sorted(order[(p + s) % n] for s in steps)
        for i, c in self.clients.items():
            c.holders = self.around[i]

    def advertise(self, c: Client) -> None:
        t, count = self.t, len(c.holders)
        c.seed = coins(c.coins, "secagg/self-mask-seed", 32)
        c.key_seed = coins(c.coins, "secagg/mask-key-seed", 32)
        c.scalar = hkdf(c.key_seed, self.context, 32, "secagg/1/mask-scalar")
        randomness = coins(c.coins, "secagg/coefficients", 96 * (t - 1))
        half = 48 * (t - 1)
        one = polynomial(c.seed, randomness[:half])
        two = polynomial(c.key_seed, randomness[half:])
        salts = coins(c.coins, "secagg/salts", 32 * count)
        for j, holder in enumerate(c.holders):
            a, b = evaluate(one, j + 1), evaluate(two, j + 1)
            s, r = salts[32 * j : 32 * j + 16], salts[32 * j + 16 : 32 * j + 32]
            c.held[holder] = a + b + s + r
            c.nodes.append(node(*self.leaves(c.index, holder, c.held[holder])))
        commitment = h("secagg/1/self-mask-commitment", self.context, u16(c.index), c.seed)
        nonce = coins(c.coins, "secagg/nonce", 32)
        c.advert = nonce + public(c.scalar) + commitment + merkle_root(c.nodes)
        c.digest = h("secagg/1/advert", self.context, u16(c.index), c.advert)
        self.send(ADVERT, c.index, 0, self.fingerprint + c.advert, self.context)

    def leaves(self, dealer: int, holder: int, held: bytes) -> tuple[bytes, bytes]:
        a, b, s, r = held[:33], held[33:66], held[66:82], held[82:]
        ends = u16(dealer) + u16(holder)
        tag = tagged("secagg/1/share-leaf")
        return sha(tag + ends + b"\x00" + s + a), sha(tag + ends + b"\x01" + r + b)

    def list_keys(self) -> None:
        leaves = [self.clients[i].digest for i in self.cohort]
        root = merkle_root(leaves)
        self.sid = h("secagg/1/sid", self.context, root, u16(len(self.cohort)))
        for p, i in enumerate(self.cohort):
            body = self.fingerprint + root + u16(len(self.cohort)) + merkle_path(leaves, p)
            body += u16(len(self.around[i]))
            for j in self.around[i]:
                body += u16(j) + self.clients[j].advert
            self.send(KEYS, 0, i, body, self.context)

    def pair(self, a: int, b: int) -> tuple[bytes, bytes]:
        """Share keys and words of a pair (80 bytes), and its mask key (16 bytes)."""
        low, high = sorted((a, b))
        one, two = self.clients[low], self.clients[high]
        chain = hkdf(
            ladder(one.agree_seed, public(two.agree_seed)), self.roster_hash, 32,
            "secagg/1/pair-root", one.entry, two.entry,
        )  # fmt: skip
        for _ in range(self.number - 1):
            chain = h("secagg/1/ratchet", chain)
        shared = ladder(one.scalar, public(two.scalar))
        ends = (u16(low), u16(high))
        both = hkdf(chain + shared, self.sid, 80, "secagg/1/share-keys", *ends)
        return both, hkdf(shared, self.sid, 16, "secagg/1/pair-mask", *ends)

    def share(self, c: Client) -> None:
        self.boxes = getattr(self, "boxes", {})
        body = b"".join(c.nodes)
        for peer in self.around[c.index]:
            both, _ = self.pair(c.index, peer)
            key = both[:32] if c.index < peer else both[32:64]
            path = merkle_path(c.nodes, c.holders.index(peer))
            ends = u16(c.index) + u16(peer)
            aad = h("secagg/1/box", self.sid, ends, c.digest, self.clients[peer].digest, path)
            self.boxes[c.index, peer] = seal(key, c.held[peer], aad)
            body += self.boxes[c.index, peer]
        self.send(SHARES, c.index, 0, body, self.sid)

    def relay(self) -> None:
        for i in self.cohort:
            body = u16(len(self.around[i]))
            for dealer in self.around[i]:
                d = self.clients[dealer]
                body += u16(dealer) + merkle_path(d.nodes, d.holders.index(i)) + self.boxes[dealer, i]
            self.send(RELAY, 0, i, body, self.sid)

    def mask(self, c: Client) -> list[int]:
        key = hkdf(c.seed, self.sid, 16, "secagg/1/self-mask")
        values = [x + m for x, m in zip(c.codes, mask_words(key, self.size, self.bits))]
        words = b""
        for peer in self.around[c.index]:
            both, key = self.pair(c.index, peer)
            sign = 1 if c.index < peer else -1
            values = [x + sign * m for x, m in zip(values, mask_words(key, self.size, self.bits))]
            words += both[64:72] if c.index < peer else both[72:80]
        view = h("secagg/1/view", self.sid, b"".join(u16(j) for j in self.around[c.index]))[:16]
        body = view + (words if self.k else b"") + pack(values, self.bits)
        self.send(MASKED, c.index, 0, body, self.sid)
        return values

    def check(self) -> None:
        bitmap = bytearray((len(self.cohort) + 7) // 8)
        entries = []
        for p, i in enumerate(self.cohort):
            if i not in self.alive:
                entries.append(bytes(32))
                continue
            bitmap[p // 8] |= 1 << (p % 8)
            frame = self.frames[MASKED, i, 0][:-64]
            entries.append(h("secagg/1/survivor", u16(i), self.clients[i].digest, sha(frame)))
        root = merkle_root(entries)
        signed = h("secagg/1/survivors", self.sid, bytes(bitmap), root)
        for i in self.alive:
            body = bytes(bitmap) + root + merkle_path(entries, self.cohort.index(i))
            for j in self.around[i] if self.k else []:
                if j in self.alive:
                    both, _ = self.pair(i, j)
                    body += both[64:72] if j < i else both[72:80]
            self.send(SURVIVORS, 0, i, body, self.sid)
            self.send(SIGNED, i, 0, signed, self.sid)
        for i in self.alive:
            signers = [j for j in self.clients[i].holders if j in self.alive][: self.t]
            body = u16(len(signers))
            for j in signers:
                body += u16(j) + self.frames[SIGNED, j, 0][-64:]
            self.send(REQUEST, 0, i, body, self.sid)

    def unmask(self, total: list[int]) -> list[int]:
        for i in self.alive:
            body = b""
            for dealer in self.cohort:
                if i in self.clients[dealer].holders:
                    held = self.clients[dealer].held[i]
                    leaves = self.leaves(dealer, i, held)
                    if dealer in self.alive:
                        body += held[:33] + held[66:82] + leaves[1]
                    else:
                        body += held[33:66] + held[82:] + leaves[0]
            self.send(ANSWER, i, 0, body, self.sid)
        for dealer in self.cohort:
            total = self.remove(dealer, total)
        half = 2 ** (self.bits - 1)
        dim = int(self.params["dim"])
        total = [x % 2**self.bits for x in total]
        return [x - 2 * half if x >= half and p < dim else x for p, x in enumerate(total)]

    def remove(self, dealer: int, total: list[int]) -> list[int]:
        d = self.clients[dealer]
        at = 0 if dealer in self.alive else 33
        answering = [j for j in d.holders if j in self.alive][: self.t]
        seed = interpolate({d.holders.index(j) + 1: d.held[j][at : at + 33] for j in answering})
        if dealer in self.alive:
            keys = [(1, hkdf(seed, self.sid, 16, "secagg/1/self-mask"))]
        else:
            scalar = hkdf(seed, self.context, 32, "secagg/1/mask-scalar")
            keys = []
            for peer in self.around[dealer]:
                if peer in self.alive:
                    low, high = sorted((dealer, peer))
                    shared = ladder(scalar, self.clients[peer].advert[32:64])
                    key = hkdf(shared, self.sid, 16, "secagg/1/pair-mask", u16(low), u16(high))
                    keys.append((1 if peer < dealer else -1, key))
        for sign, key in keys:
            total = [x - sign * m for x, m in zip(total, mask_words(key, self.size, self.bits))]
        return total
