"""From the members' answers to the sum: rebuild the key sum, open, and check."""

from merveil.protocols.codec import Codes
from merveil.protocols.lattice import packed
from merveil.protocols.lattice.book import Book
from merveil.protocols.lattice.encryption import open_sum
from merveil.protocols.lattice.params import LatticeParams


def open_answers(params: LatticeParams, context: bytes, book: Book) -> Codes:
    """The signed sum of the survivors' codes. Aborts with BAD_SHARE where the answers give a wrong key."""
    answers = {}
    for j, member in enumerate(book.members, 1):
        found = packed.decode(params, book.answers[member]) if member in book.answers else None
        if found is not None:
            answers[j] = found
    secret = packed.recover(params, dict(sorted(answers.items())[: params.quorum]))
    return open_sum(params, context, book.total, secret, len(book.survivors))
