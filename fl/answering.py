"""The answering rule of a federation: from its own people, by models that have not seen them, in one sum.

The people are cut into folds; a federation without a fold's people predicts them, and each client adds up
losses and a histogram of confidences of its own clips. The sum of these vectors through the scheme is all
that the server gets for the rule.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from merveil.fl.aggregator import SecureAggregator
from merveil.fl.clients import parse_clients, partition
from merveil.fl.options import TrainOptions
from merveil.mer.calibration import Answering, answering_from, bound, calibration_sums
from merveil.mer.data.splits import kfold
from merveil.mer.errors import InputError
from merveil.protocols.primitives.kdf import hash_fields
from merveil.protocols.registry import get as get_scheme

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive

FOLDS = 4


def answering_rule(
    archive: "Archive", options: TrainOptions, progress: Callable[[int, int], None] | None = None
) -> Answering | None:
    """The rule for `options.coverage`; None where that is 0. Takes as long as FOLDS further trainings.

    InputError: with differential privacy, whose noise these sums would not have; too few persons.
    """
    from merveil.fl.evaluate import federated_predictions

    if not options.coverage:
        return None
    if options.private:
        raise InputError("--coverage rests on sums that have no noise: not with --dp")
    folds = kfold(archive, min(FOLDS, len(archive.persons())), options.seed)
    own = {**options.as_dict(), "coverage": 0.0}
    named = {name: own.pop(name) for name in ("model", "scheme", "clients", "rounds", "seed")}
    found = federated_predictions(archive, folds, **named, options=own, progress=progress).probabilities
    clients = partition(archive, parse_clients(options.clients))
    vectors = [calibration_sums(found[c.index], archive.y[c.index]) for c in clients]
    bits = bound(archive.n).bit_length() + 1
    params = get_scheme(options.scheme).params(
        len(clients), len(vectors[0]), bits=bits, clip=float((1 << (bits - 1)) - 1), max_weight=1
    )
    adder = SecureAggregator(options.scheme)
    total = adder.total(vectors, params, model_hash=hash_fields("aggregator/1/layout", b"answering"))
    return answering_from(np.asarray(total.codes), options.coverage)
