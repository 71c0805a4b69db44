"""From answers to the sum: correct them where more than t came, rebuild the key sum, open, check."""

from merveil.protocols.codec import Codes
from merveil.protocols.lattice import packed
from merveil.protocols.lattice.book import Book
from merveil.protocols.lattice.decoding import without_errors
from merveil.protocols.lattice.encryption import open_sum
from merveil.protocols.lattice.params import LatticeParams


def open_answers(params: LatticeParams, context: bytes, book: Book) -> Codes:
    """The signed sum of the survivors' codes. Aborts with BAD_SHARE where the answers give a wrong key.

    Wrong answers are left out as far as t + 2e of them tell e wrong ones; a dealer whose shares do not lie on
    a polynomial looks the same, so nobody is blamed.
    """
    answers = {}
    for j, member in enumerate(book.members, 1):
        found = packed.decode(params, book.answers[member]) if member in book.answers else None
        if found is not None:
            answers[j] = found
    answers = without_errors(params.field, params.quorum, answers)
    secret = packed.recover(params, dict(sorted(answers.items())[: params.quorum]))
    return open_sum(params, context, book.total, secret, len(book.survivors))
