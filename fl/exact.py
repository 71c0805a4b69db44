"""Exact federated learning: three sums through a scheme give the model that all clips in one place would.

Guarantee: every client's vector is of whole numbers that depend on its own clips and on the sums before, and
a scheme whose sums are exact adds them as they are. So the model equals `merveil.mer.exact_loso`'s to the
last bit, for any division of the clips among clients and for every exact scheme (on one machine and the same
versions). What the server learns are the three sums: which sites move where and how many clips each has,
moments and class counts, and the Gram matrix. From few clips they say much about them; see docs/models.md.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.fl import coins
from merveil.fl.aggregator import SecureAggregator
from merveil.fl.clients import parse_clients, partition
from merveil.fl.driver import Run, check_cohort, guarantee
from merveil.fl.options import TrainOptions
from merveil.mer.errors import InputError
from merveil.mer.exact import (
    MOST_CLIPS,
    Basis,
    ExactModel,
    Settings,
    basis_from,
    bounds,
    coefficients,
    gram_sums,
    warps_from,
)
from merveil.mer.exact_features import Warp, Whole, block_means
from merveil.mer.exact_loso import Clips
from merveil.protocols.registry import get as get_scheme
from merveil.protocols.transcript import Transcript

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive
    from merveil.mer.data.splits import Fold

SUMS = ("movement", "moments", "gram")
MODEL = "exact-ridge"


@dataclass(frozen=True)
class Sum:
    """One sum as the server knows it. numbers: in a client's vector; bits: of one; uplink_bytes: of all."""

    name: str
    numbers: int
    bits: int
    clients: int
    survivors: int
    uplink_bytes: int


@dataclass(frozen=True, eq=False)
class Trained:
    """A model and the three sums that made it."""

    model: ExactModel
    sums: tuple[Sum, ...]


class ExactFederation:
    """Federations of one archive that share settings; `train` runs one of them. InputError: options."""

    def __init__(self, archive: "Archive", options: TrainOptions) -> None:
        if options.private:
            raise InputError("exact-ridge has no differential privacy: its sums carry no noise")
        if options.rounds != len(SUMS):
            raise InputError(f"exact-ridge takes {len(SUMS)} sums, whatever the data: --rounds has no effect")
        self.options = options
        self.settings = Settings.make(len(archive.classes), archive.x.shape[1:], options.model_options)
        self.clips = Clips(archive, self.settings)
        self._blocks: dict[Any, Whole] = {}

    def train(self, run: Run) -> Trained:
        """Three sums over the run's clients. Aborted: a sum had too few survivors. LocalError: the scheme."""
        check_cohort(self.options.scheme, self.options.clients, len(run.clients), run.label)
        adder = _Adder(self.options, run)
        warps, total, block = self._registered(adder)
        basis = self._moments(adder, total, block)
        third = self._gram(adder, total, block, basis)
        solved = coefficients(third, basis, self.settings.lam)
        return Trained(ExactModel(self.settings, warps, basis, solved), tuple(adder.done))

    def recorded(self, run: Run, sums: int = len(SUMS)) -> tuple[Transcript, ...]:
        """The frames of a run's first `sums` sums, for the attacks; the sums are those of `train`."""
        check_cohort(self.options.scheme, self.options.clients, len(run.clients), run.label)
        adder = _Adder(self.options, run, record=True)
        _, total, block = self._registered(adder)
        if sums > 1:
            basis = self._moments(adder, total, block)
            if sums > 2:
                self._gram(adder, total, block, basis)
        return tuple(adder.transcripts)

    def _registered(self, adder: "_Adder") -> tuple[Mapping[str, Warp], int, Whole]:
        """The first sum: registration, clips in all, and every clip's block means under it."""
        clips = self.clips
        first = adder.add("movement", [clips.first(r) for r in adder.rows], bounds(MOST_CLIPS)[0])
        warps = warps_from(first, clips.names, self.settings)
        total = int(first.reshape(len(clips.names), -1)[:, -1].sum())
        return warps, total, self._block(warps)

    def _moments(self, adder: "_Adder", total: int, block: Whole) -> Basis:
        vectors = [self.clips.second(r, block) for r in adder.rows]
        return basis_from(adder.add("moments", vectors, bounds(total)[1]), self.settings.mirror)

    def _gram(self, adder: "_Adder", total: int, block: Whole, basis: Basis) -> Whole:
        y = self.clips.y
        vectors = [gram_sums(basis.features(block[r]), y[r], basis) for r in adder.rows]
        return adder.add("gram", vectors, bounds(total)[2])

    def _block(self, warps: Mapping[str, Any]) -> Whole:
        key = tuple(sorted(warps.items(), key=lambda pair: pair[0]))
        if key not in self._blocks:
            self._blocks = {key: block_means(self.clips.normal, self.clips.sites.tolist(), warps)}
        return self._blocks[key]


class _Adder:
    """Sums of whole numbers over one run's clients; who misses a sum is silent in the ones that follow."""

    def __init__(self, options: TrainOptions, run: Run, record: bool = False) -> None:
        self.options, self.run = options, run
        self.rows = [client.index for client in run.clients]
        self.aggregator = SecureAggregator(options.scheme, record=record)
        self.transcripts: list[Transcript] = []
        self.scheme = get_scheme(options.scheme)
        self.done: list[Sum] = []
        self._seen = hashlib.sha256(b"merveil/fl/1/exact")
        self._silent = self._failures()

    def add(self, name: str, vectors: Sequence[Whole], bound: int) -> Whole:
        """The exact sum of one vector a client, int64; no entry of a client exceeds `bound`."""
        bits = max(4, bound.bit_length() + 1)
        size, clients = len(vectors[0]), len(vectors)
        levels = float((1 << (bits - 1)) - 1)  # a clip of as many units makes one grid step one unit
        params = self.scheme.params(clients, size, bits=bits, clip=levels, max_weight=1)
        # What the vectors rest on enters the context: clients that were shown different sums add nothing up.
        self._seen.update(name.encode())
        found = self.aggregator.total(vectors, params, drop=self._silent, model_hash=self._seen.digest())
        self._seen.update(found.codes.tobytes())
        if found.transcript is not None:
            self.transcripts.append(found.transcript)
        self._silent |= {i: self._first for i in range(clients) if i not in found.survivors}
        self.done.append(Sum(name, size, bits, clients, len(found.survivors), sum(found.uplink_bytes)))
        return found.codes

    @property
    def _first(self) -> str:
        return str(self.scheme.phases[0].value)

    def _failures(self) -> dict[int, str]:
        """Simulated failures, drawn from the training seed once for all sums."""
        if not self.options.drop_rate:
            return {}
        drawn = coins.stream(self.options.seed, "drop", self.run.label, 0).random(len(self.run.clients))
        return dict.fromkeys(np.flatnonzero(drawn < self.options.drop_rate).tolist(), self._first)


def exact_predictions(
    archive: "Archive",
    folds: Sequence["Fold"],
    options: TrainOptions,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """(probabilities [n, K], info): one federation a fold, without the held-out people."""
    federation, rule = ExactFederation(archive, options), parse_clients(options.clients)
    found = np.full((archive.n, len(archive.classes)), np.nan)
    clips, sums, present = federation.clips, list[Sum](), list[int]()
    for done, fold in enumerate(folds, 1):
        run = Run(fold.name, partition(archive, rule, fold.train))
        trained = federation.train(run)
        found[fold.test] = trained.model.probabilities(
            clips.normal[fold.test], clips.sites[fold.test].tolist()
        )
        sums += trained.sums
        present.append(len(run.clients))
        if progress is not None:
            progress(done, len(folds))
    survivors = sum(s.survivors for s in sums)
    info = {
        "clients": len(partition(archive, rule)),
        "client_rule": options.clients,
        "clients_in_a_fold": [min(present), max(present)],
        "rounds": len(SUMS),
        "strategy": "exact",
        "parameters": int(np.prod(trained.model.coefficients.shape)),
        "sums": [{"name": s.name, "numbers": s.numbers, "bits": s.bits} for s in trained.sums],
        "uplink_bytes_per_client": round(sum(s.uplink_bytes for s in sums) / survivors),
        "drop_rate": options.drop_rate,
        "guarantee": guarantee(options.scheme, min(present)),
        "privacy": None,
        "options": options.as_dict(),
        "options_sha256": options.sha256,
    }
    return found, info
