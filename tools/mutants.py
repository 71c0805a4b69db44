"""Changes of the SecAgg code, written by hand: one check or one step each, with the tests that must notice.

A mutant is (name, file, old text, new text, test files). The old text must occur exactly once, so the list
fails loudly when the code moves on. `tools/mutation.py` runs them beside those that it finds by itself.
"""

from typing import NamedTuple

S, C, K, M, N, D, P = (
    f"tests/protocols/secagg/test_{name}.py"
    for name in (
        "hostile_server",
        "hostile_clients",
        "keys",
        "messages",
        "snapshots",
        "dropouts",
        "params_policy",
    )
)


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _drop(name: str, file: str, condition: str, *tests: str) -> Mutant:
    """A check that never fires."""
    head, _, _ = condition.partition(" ")
    return Mutant(name, file, condition, f"{head} False and ({condition[len(head) + 1 : -1]}):", tests)


BASE, DESK, LISTS, CLIENT, SERVER, BOOK, UNMASK, KEYS, MESSAGES, POLICY, LEDGER, INIT = (
    f"protocols/{name}.py"
    for name in (
        "client",
        "server",
        "survivors",
        "secagg/client",
        "secagg/server",
        "secagg/book",
        "secagg/unmask",
        "secagg/keys",
        "secagg/messages",
        "policy",
        "ledger",
        "secagg/__init__",
    )
)

MUTANTS = (
    # the client
    _drop("keys-context", CLIENT, "if difference is not None:", S),
    _drop("keys-stale", CLIENT, "if difference is AbortCode.STALE_KEY:", S),
    _drop("keys-session", CLIENT, "if frame.session != context.digest[:16]:", S),
    Mutant("keys-own-advert", CLIENT, "            != listed.root\n", "            is None\n", (S,)),
    _drop("keys-strangers", CLIENT, "if not set(listed.adverts) <= set(self._neighbours):", S),
    _drop("holders-enough", CLIENT, "if holders < self._seat.params.threshold:", S),
    Mutant("holders-own", CLIENT, "neighbours + int(", "neighbours + 1 + 0 * int(", (S,)),
    Mutant(
        "low-order-culprit",
        CLIENT,
        "agree(secret, advert.mask_key, 0)",
        "agree(secret, advert.mask_key, peer)",
        (S,),
    ),
    Mutant(
        "aad-path",
        CLIENT,
        "dealer_advert, holder_advert, path)\n    return",
        "dealer_advert, holder_advert)\n    return",
        (S,),
    ),
    Mutant(
        "aad-adverts", CLIENT, "(sid, ends, dealer_advert, holder_advert, path)", "(sid, ends, path)", (S,)
    ),
    _drop(
        "session-of-later-frames",
        BASE,
        "if kind is not self.OPENING and frame.session != self._binding(kind)[:16]:",
        S,
    ),
    _drop("relay-strangers", CLIENT, "if not set(entries) <= set(self._state.adverts):", S),
    Mutant("relay-enough", CLIENT, '        self._enough(len(entries), "shared")\n', "", (S,)),
    _drop("box-opens", CLIENT, "if plain is None:", S),
    Mutant("share-canonical", CLIENT, "if not held.canonical() or root", "if root", (C,)),
    Mutant("share-root", CLIENT, " or root != state.adverts[dealer].share_root", "", (C,)),
    Mutant(
        "mask-ledger",
        CLIENT,
        "seat.ledger.advance(context.federation, context.round, context.attempt, RoundState.MASKED)",
        "pass",
        (S,),
    ),
    Mutant(
        "mask-forget",
        CLIENT,
        "        state.forget_mask(frame.digest())\n",
        "        state.masked = frame.digest()\n",
        (N,),
    ),
    _drop("survivors-own", CLIENT, "if seat.index not in alive:", S),
    Mutant("survivors-entry", CLIENT, "listed.path) != listed.entries_root:", "listed.path) is None:", (S,)),
    _drop("survivors-strangers", CLIENT, "if strangers:", S),
    Mutant(
        "survivors-words",
        CLIENT,
        "            if not equal(words",
        "            if False and not equal(words",
        (S, C),
    ),
    _drop("survivors-words-number", CLIENT, "if len(words) != WORD * len(survivors):", S),
    _drop("survivors-threshold", CLIENT, "if len(alive) < seat.params.threshold:", S),
    _drop("difference", LISTS, "if 0 < difference < least:", S),
    Mutant("difference-equal-sets", LISTS, "if 0 < difference < least:", "if difference < least:", (S,)),
    Mutant(
        "difference-at-answer",
        CLIENT,
        "        check_difference(seat, alive)  # another",
        "        # another",
        (S,),
    ),
    Mutant("request-holders", CLIENT, "if i in self._holders and i in alive", "if i in alive", (S,)),
    Mutant("request-alive", CLIENT, "if i in self._holders and i in alive", "if i in self._holders", (S,)),
    Mutant("request-signatures", CLIENT, "if self._signed(i, signatures[i])", "if signatures[i]", (S,)),
    _drop("request-all-valid", CLIENT, "if len(valid) != len(signatures):", S),
    _drop("request-threshold", CLIENT, "if len(valid) < seat.params.threshold:", S),
    Mutant(
        "answer-ledger",
        LISTS,
        "    seat.ledger.answer(context.federation, context.round, context.attempt, bitmap)\n",
        "",
        (S,),
    ),
    Mutant("answer-one-kind", CLIENT, "0 if dealer in alive else 1)", "0)", (D,)),
    Mutant("chains-close", CLIENT, "        self._close_chains()\n", "", (K,)),
    Mutant(
        "chains-store",
        CLIENT,
        "        seat.ledger.store_chains(seat.roster.hash, context.round, chains)\n",
        "",
        (K,),
    ),
    _drop("client-sender", BASE, "if sender != 0:", S),
    _drop("client-to-suite", BASE, "if frame.suite != self._suite or frame.to != self._seat.index:", S),
    Mutant(
        "client-kind",
        BASE,
        '        if frame.kind not in self.DUE:\n            raise malformed(f"kind',
        '        if False:\n            raise malformed(f"kind',
        (S,),
    ),
    _drop(
        "equivocation",
        BASE,
        "if first is not None and ours and self._phase is not Phase.DONE:",
        S,
    ),
    Mutant(
        "equivocation-stale",
        BASE,
        "first is not None and ours and",
        "first is not None and",
        (S,),
    ),
    Mutant(
        "equivocation-done",
        BASE,
        "and ours and self._phase is not Phase.DONE:",
        "and ours:",
        (S,),
    ),
    _drop("client-due", BASE, "if self.DUE[kind] is not self._phase:", S),
    Mutant("client-guard", BASE, "            if over:\n", "            if False:\n", (S,)),
    _drop(
        "one-vector",
        BASE,
        "if self._has_vector():",
        S,
    ),
    Mutant("vector-copied", CLIENT, "codes.copy()", "codes", (S,)),
    # the server
    _drop("server-cohort", DESK, "if sender not in self._cohort:", C),
    _drop(
        "server-suite-to-kind",
        DESK,
        "if frame.suite != self._suite or frame.to != 0 or frame.kind not in self.DUE:",
        C,
    ),
    Mutant("server-excluded", DESK, "in SPENT or sender in self.excluded:", "in SPENT:", (C,)),
    Mutant(
        "server-signature",
        DESK,
        "        if not frame.verify(",
        "        if False and not frame.verify(",
        (C,),
    ),
    Mutant("server-session", DESK, "if binding and frame.session == binding[:16]:", "if True:", (C,)),
    Mutant("server-no-session", DESK, "if binding and frame.session", "if frame.session", (C,)),
    Mutant(
        "double-claim",
        DESK,
        "self.excluded[sender] = AbortCode.DOUBLE_CLAIM",
        "pass",
        (C,),
    ),
    Mutant("double-claim-withdraw", DESK, "                self._book.withdraw(sender, kind)\n", "", (C,)),
    Mutant("second-vector", SERVER, " - {Kind.MASKED}", "", (C,)),
    _drop("complaint-after-vector", SERVER, "if kind is Kind.COMPLAINT and sender in self._book.masked:", C),
    _drop("server-early", DESK, "if self._ranks[self._phase] < self._ranks[self.DUE[kind]]:", C),
    _drop("advert-fingerprint", SERVER, "if self._desk.context.difference(fingerprint) is not None:", C),
    _drop("advert-low-order", SERVER, "if is_low_order(advert.mask_key):", C),
    _drop("shares-root", SERVER, "if merkle.root(tree) != book.adverts[sender].share_root:", C),
    _drop("vector-length", SERVER, "if len(packed) != packed_size(params.size, params.modulus_bits):", C),
    _drop("vector-padding", SERVER, "if not tail_is_zero(packed, params.size, params.modulus_bits):", C),
    _drop(
        "vector-view",
        SERVER,
        "if frame.body[: msg.VIEW] != msg.view_digest(book.sid, book.dealers_around(sender)):",
        C,
        S,
    ),
    _drop("complaint-relayed", SERVER, "if dealer not in book.boxes or sender not in book.boxes[dealer]:", C),
    _drop("complaint-opens", SERVER, "if plain is None:", C),
    _drop(
        "complaint-good",
        SERVER,
        "if held.canonical() and held.node(dealer, sender) == book.node(dealer, sender):",
        C,
    ),
    Mutant("complaint-canonical", SERVER, "if held.canonical() and held.node", "if held.node", (C,)),
    _drop("signed-root", SERVER, "if frame.body != self._book.root:", C),
    Mutant(
        "doubtful",
        DESK,
        "            if (kind, error.code) in self.DOUBTFUL:\n",
        "            if False:\n",
        (C,),
    ),
    Mutant("doubtful-slot", DESK, "                del self._book.slots[sender, kind]\n", "", (C,)),
    Mutant(
        "implausible",
        SERVER,
        "            check_sum(self._desk.params,",
        "            (lambda *a: None)(self._desk.params,",
        (C,),
    ),
    Mutant(
        "released", DESK, "released = (self._phase, Event.FINISH) in self.TABLE", "released = False", (C, D)
    ),
    Mutant("unlucky", SERVER, "            kept -= short\n", "            kept = set()\n", (D,)),
    Mutant("unlucky-keys", SERVER, "        book.keep(joined)\n", "", (D,)),
    Mutant("unlucky-shares", SERVER, "        book.keep_dealers(shared)\n", "", (D,)),
    Mutant(
        "require-masked",
        SERVER,
        '        self._require(sorted(book.nodes), alive, "sent a vector")\n',
        "",
        (D,),
    ),
    Mutant(
        "relay-late",
        BOOK,
        "        nodes, boxes = self.nodes, self.boxes\n",
        "        nodes, boxes = self.nodes, {}\n",
        (D,),
    ),
    # unmasking
    Mutant(
        "seed-commitment",
        UNMASK,
        "return seed if msg.seed_commitment(context, dealer, seed) == advert.seed_commitment else None",
        "return seed",
        (C,),
    ),
    Mutant(
        "key-commitment",
        UNMASK,
        "return seed if public_bytes(mask_scalar(context, seed)) == advert.mask_key else None",
        "return seed",
        (C,),
    ),
    Mutant("share-proof", UNMASK, "        if msg.proves(", "        if True or msg.proves(", (C,)),
    Mutant(
        "holder-convicted",
        UNMASK,
        "            excluded[holder] = AbortCode.BAD_SHARE\n",
        "            pass\n",
        (C,),
    ),
    Mutant("good-enough", UNMASK, "    if len(good) < threshold:\n", "    if False:\n", (C,)),
    # messages
    Mutant(
        "bitmap-tail",
        MESSAGES,
        "    if cohort % 8 and bitmap[-1] >> (cohort % 8):\n",
        "    if False:\n",
        (M,),
    ),
    Mutant(
        "answer-field", MESSAGES, "        if not is_share(revealed[:SHARE]):\n", "        if False:\n", (C,)
    ),
    Mutant(
        "proof-salt",
        MESSAGES,
        "    leaf = share_leaf(dealer, holder, kind, salt, share)\n",
        "    leaf = share_leaf(dealer, holder, kind, bytes(SALT), share)\n",
        (M,),
    ),
    Mutant("leaf-kind", MESSAGES, "bytes((kind,))", 'b"\\x00"', (M,)),
    # keys and ledger
    Mutant("stale-chain", KEYS, "    if at > round_:\n", "    if False:\n", (K,)),
    Mutant("share-key-chain", KEYS, "derive_key(chain + shared, sid,", "derive_key(shared, sid,", (K,)),
    Mutant("share-key-ephemeral", KEYS, "derive_key(chain + shared, sid,", "derive_key(chain, sid,", (K,)),
    Mutant(
        "ledger-answered",
        LEDGER,
        "        if state == RoundState.ANSWERED:\n            raise",
        "        if False:\n            raise",
        (S,),
    ),
    _drop("ledger-attempt", LEDGER, "if attempt <= last:", S),
    Mutant(
        "ledger-advance",
        LEDGER,
        "        if last != attempt or state <= reached:\n",
        "        if False:\n",
        (S,),
    ),
    Mutant("ledger-snapshot", LEDGER, 'or int.from_bytes(head[:8], "big") != current:', ":", (N,)),
    Mutant("ledger-snapshot-used", LEDGER, "        self._snapshots[name] = current + 1\n", "", (N,)),
    # policy
    _drop("policy-split-view", POLICY, "if 2 * t <= holders + c:", P),
    _drop("policy-honest", POLICY, "if params.honest < self.min_honest and not self.allow_small_cohort:", P),
    Mutant(
        "policy-corrupt",
        INIT,
        "        elif params.corrupt < policy.corrupt_floor(params.cohort):\n",
        "        elif False:\n",
        (P,),
    ),
    _drop("policy-no-sparse", INIT, 'if params.scheme == "secagg" or k % 2 or k >= n - 1:', P),
    _drop("policy-connected", INIT, "if not stays_connected(n, corrupt, int(policy.delta * n), k):", P),
    _drop("policy-corrupt-neighbours", INIT, "if params.corrupt < bound:", P),
)

F, W, R, X = (f"tests/protocols/test_{name}.py" for name in ("frame", "identity", "primitives", "context"))
FRAME, IDENTITY = "protocols/frame.py", "protocols/identity.py"

CORE = (
    Mutant(
        "frame-length",
        FRAME,
        "if HEAD.size + tail <= len(data) <= HEAD.size + max_body + tail:",
        "if True:",
        (F,),
    ),
    Mutant("frame-too-long", FRAME, "<= len(data) <= HEAD.size + max_body + tail:", "<= len(data):", (F,)),
    Mutant(
        "frame-claimed-sender",
        FRAME,
        "(magic, version, claimed, size) == (MAGIC, VERSION, sender,",
        "(magic, version, sender, size) == (MAGIC, VERSION, sender,",
        (F,),
    ),
    Mutant(
        "frame-magic",
        FRAME,
        "(magic, version, claimed, size) == (MAGIC,",
        "(MAGIC, version, claimed, size) == (MAGIC,",
        (F,),
    ),
    Mutant(
        "frame-version",
        FRAME,
        "(magic, version, claimed, size) == (MAGIC, VERSION,",
        "(magic, VERSION, claimed, size) == (MAGIC, VERSION,",
        (F,),
    ),
    Mutant(
        "frame-size-field",
        FRAME,
        "(magic, version, claimed, size) == (MAGIC, VERSION, sender, len(data) - HEAD.size - tail)",
        "(magic, version, claimed) == (MAGIC, VERSION, sender)",
        (F,),
    ),
    Mutant(
        "frame-sign-binding",
        FRAME,
        "        fields = (binding, self.head()",
        "        fields = (bytes(32), self.head()",
        (F,),
    ),
    Mutant(
        "frame-verify",
        FRAME,
        "        return verify(public, self.signature,",
        "        return True or verify(public, self.signature,",
        (F,),
    ),
    Mutant(
        "context-model",
        "protocols/context.py",
        "            self.model_hash,\n            self.config_hash,\n        )",
        "            self.config_hash,\n        )",
        (X,),
    ),
    Mutant(
        "context-params",
        "protocols/context.py",
        "            self.params,\n            self.model_hash",
        "            self.model_hash",
        (X,),
    ),
    Mutant(
        "context-round",
        "protocols/context.py",
        '            self.round.to_bytes(4, "big"),\n'
        '            self.attempt.to_bytes(2, "big"),\n            self.params',
        '            self.attempt.to_bytes(2, "big"),\n            self.params',
        (X,),
    ),
    Mutant(
        "context-attempt",
        "protocols/context.py",
        '            self.attempt.to_bytes(2, "big"),\n            self.params',
        "            self.params",
        (X,),
    ),
    Mutant(
        "context-cohort",
        "protocols/context.py",
        "            self._cohort,\n            self.round",
        "            self.round",
        (X,),
    ),
    Mutant(
        "roster-hash",
        IDENTITY,
        'hash_fields("roster/1/hash", self.data[:-SIGNATURE])',
        'hash_fields("roster/1/hash", self.data[:40])',
        (W,),
    ),
    Mutant(
        "share-field",
        "protocols/primitives/shamir.py",
        'return len(data) == SHARE and int.from_bytes(data, "big") < PRIME',
        "return len(data) == SHARE",
        (R, C),
    ),
    Mutant(
        "sharing-degree",
        "protocols/primitives/shamir.py",
        "for d in draws)][:threshold]",
        "for d in draws)][: threshold - 1]",
        (R,),
    ),
    Mutant(
        "low-order",
        "protocols/primitives/agreement.py",
        "    except ValueError:\n        return True",
        "    except ValueError:\n        return False",
        (R, W),
    ),
    Mutant(
        "key-canonical",
        "protocols/primitives/agreement.py",
        'if len(peer) != KEY or int.from_bytes(peer, "little") >= 2**255 - 19:',
        "if len(peer) != KEY:",
        (R, W),
    ),
    Mutant(
        "box-aad",
        "protocols/primitives/aead.py",
        "return AESGCM(key).decrypt(_ZERO, sealed, aad)",
        "return AESGCM(key).decrypt(_ZERO, sealed, None)",
        (R,),
    ),
    Mutant(
        "signature",
        "protocols/primitives/sign.py",
        "no curve point\n        return False",
        "no curve point\n        return True",
        (R,),
    ),
    Mutant(
        "compare",
        "protocols/primitives/kdf.py",
        "return hmac.compare_digest(left, right)",
        "return True",
        (R, W),
    ),
    Mutant(
        "merkle-node-tag",
        "protocols/primitives/merkle.py",
        "return hashlib.sha256(_NODE + left + right).digest()",
        "return hashlib.sha256(left + right).digest()",
        (R,),
    ),
)
