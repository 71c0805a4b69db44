"""Removing the masks: recover seeds, check each against its commitment, subtract.

A seed that is rebuilt from t shares is compared with what its dealer committed to. Only where that fails are
the shares checked one by one: a share that contradicts its leaf convicts its holder, and others take its
place; where all shares are the committed ones the dealer is convicted, and there is no sum.
"""

from collections.abc import Sequence

from merveil.protocols.errors import AbortCode
from merveil.protocols.primitives.agreement import agree, public_bytes
from merveil.protocols.primitives.prg import mask_range, ranges
from merveil.protocols.primitives.shamir import SHARE, recover
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.book import Book
from merveil.protocols.secagg.keys import mask_scalar, pair_mask_key, self_mask_key
from merveil.protocols.session import Desk

_SEED, _KEY = 0, 1


class _Culprits(Exception):
    def __init__(self, code: AbortCode, culprits: Sequence[int]) -> None:
        super().__init__(code.name)
        self.code = code
        self.culprits = frozenset(culprits)


def remove_masks(
    desk: Desk, book: Book, excluded: dict[int, AbortCode]
) -> tuple[frozenset[int], AbortCode | None]:
    """Turn book.total into the sum of the survivors' codes, in place.

    Holders convicted of a wrong share are added to `excluded`. Returns (culprits, code) with code None where
    it worked, BAD_SHARE where a dealer's shares are wrong, BELOW_THRESHOLD where good ones are too few.
    """
    try:
        plus, minus = _mask_keys(desk, book, excluded)
    except _Culprits as found:
        return found.culprits, found.code
    bits, size = desk.params.modulus_bits, book.total.size
    workers = getattr(desk.executor, "_max_workers", 1) if desk.executor else 1
    jobs = ranges(size, workers, book.total.itemsize)
    columns = list(zip(*((bits, at, count, plus, minus) for at, count in jobs)))
    parts = desk.executor.map(mask_range, *columns) if desk.executor else map(mask_range, *columns)
    for (at, count), part in zip(jobs, parts):
        book.total[at : at + count] -= part
    mask = (1 << bits) - 1
    book.total &= book.total.dtype.type(mask)
    return frozenset(), None


def _mask_keys(desk: Desk, book: Book, excluded: dict[int, AbortCode]) -> tuple[list[bytes], list[bytes]]:
    """Keys of the masks that are in the sum with sign plus and with sign minus."""
    context = desk.context.digest
    plus: list[bytes] = []
    minus: list[bytes] = []
    for dealer in sorted(book.nodes):
        if dealer in book.masked:
            seed = _seed(desk, book, dealer, _SEED, excluded)
            plus.append(self_mask_key(book.sid, seed))
            continue
        secret = mask_scalar(context, _seed(desk, book, dealer, _KEY, excluded))
        for peer in book.neighbours(dealer):
            if peer in book.masked:
                shared = agree(secret, book.adverts[peer].mask_key, peer)
                key = pair_mask_key(book.sid, shared, dealer, peer)
                (plus if peer < dealer else minus).append(key)
    return plus, minus


def _seed(desk: Desk, book: Book, dealer: int, kind: int, excluded: dict[int, AbortCode]) -> bytes:
    """A dealer's seed of a kind, checked against its advert."""
    holders = book.holders(dealer)
    threshold = desk.params.threshold
    candidates = [(j + 1, h) for j, h in enumerate(holders) if h in book.answers and h not in excluded]
    seed = _try(desk, book, dealer, kind, candidates[:threshold])
    if seed is not None:
        return seed
    good = []
    for point, holder in candidates:
        revealed = book.answers[holder][dealer]
        if msg.proves(revealed, dealer, holder, kind, book.node(dealer, holder)):
            good.append((point, holder))
        else:
            excluded[holder] = AbortCode.BAD_SHARE
    if len(good) < threshold:
        raise _Culprits(AbortCode.BELOW_THRESHOLD, [])
    seed = _try(desk, book, dealer, kind, good[:threshold])
    if seed is None:
        raise _Culprits(AbortCode.BAD_SHARE, [dealer])
    return seed


def _try(desk: Desk, book: Book, dealer: int, kind: int, holders: Sequence[tuple[int, int]]) -> bytes | None:
    if len(holders) < desk.params.threshold:
        return None
    shares = [book.answers[h][dealer][:SHARE] for _, h in holders]
    seed = recover(tuple(p for p, _ in holders), shares)
    if seed is None:
        return None
    context, advert = desk.context.digest, book.adverts[dealer]
    if kind == _SEED:
        return seed if msg.seed_commitment(context, dealer, seed) == advert.seed_commitment else None
    return seed if public_bytes(mask_scalar(context, seed)) == advert.mask_key else None
