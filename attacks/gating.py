"""The field of A23-gate: a site's own code, honest trainings, and a server that sends crafted models.

Guarantees: the member is `fl.deploy.work.Trainer`, as `merveil site` runs it, and the adversary sees only
whether it trained or with which code it refused. A model counts as trained on as soon as local training has
run, whatever becomes of the update afterwards. Honest models come from real federated trainings on drawn
people (`attacks.population`). The figures of docs/attacks.md come from the same parts (tools/model_gate.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.crafting import bins, trap
from merveil.attacks.population import population
from merveil.fl.clients import parse_clients, partition
from merveil.fl.deploy.config import DataShape
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Trainer, Work, pack_model
from merveil.fl.driver import Federation, Run, federated_net
from merveil.fl.gate import tensors
from merveil.fl.options import TrainOptions, resolve
from merveil.fl.update import Layout
from merveil.protocols.errors import AbortCode, Aborted, LocalError

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive

FACTORS = (0.9, 0.95, 0.97, 0.99)  # of trap rows
WIDE = 100  # inputs of a layer from which on crafted rows are worth a server's while
SITES = "site:6"
PEOPLE, CLIPS, DRAWN = 12, 8, 60  # of one training; how many people there are to draw from
ROUNDS = 5  # the most honest rounds before the crafted model
# One training in four is of the second network; both have layers that crafted rows fit.
KINDS = (("flow-mlp", "fedadamw"), ("flow-mlp", "fedavg"), ("flow-mlp", "fedadamw"), ("rcn", "fedadamw"))
Models = NDArray[np.float32]


def choose(name: str, options: dict[str, Any], strategy: str, seed: int) -> TrainOptions:
    """The options of one training of six sites under `plain`: every exact scheme gives the same models."""
    given = {"model_options": options} if options else {}
    return resolve({"model": name, "strategy": strategy, "seed": seed, "clients": SITES, **given})


def training(archive: "Archive", chosen: TrainOptions, rounds: int) -> tuple[Layout, Models]:
    """Layout, and the models before each round and after the last [rounds + 1, P], of an honest training."""
    federation = Federation(archive, [Run("", partition(archive, parse_clients(SITES)))], chosen)
    state, found = federation.start(), []
    for _ in range(min(rounds, chosen.rounds)):
        found.append(state.params[0].astype(np.float32))
        state, _ = federation.advance(state)
    return federation.layout, np.stack([*found, state.params[0].astype(np.float32)])


def crafted(
    layout: Layout, model: Models, rng: np.random.Generator, drawn: bool = True
) -> Iterator[tuple[str, Models]]:
    """Kind and model, for every wide layer of a network and every kind of crafted row.

    drawn: with trap rows whose halves are drawn apart, beside those as published.
    """
    at, wide = 0, {name for name, w in tensors(layout, model) if w.shape[1] >= WIDE}
    for name, shape in layout.entries:
        size = int(np.prod(shape))
        if name in wide:
            rows, width = shape[0], size // shape[0]
            kinds = [("bins", bins(np.zeros(rows), width)[0])]
            for factor in FACTORS:
                kinds.append((f"trap {factor} mirrored", trap(rows, width, factor, rng)))
                if drawn:
                    kinds.append((f"trap {factor} drawn", trap(rows, width, factor, rng, mirrored=False)))
            for kind, weight in kinds:
                bad = model.copy()
                bad[at : at + size] = weight.ravel()
                yield kind, bad
        at += size


@dataclass(frozen=True)
class Answer:
    """What a server sees of a member that it sent a model: whether it trained, or with which code not."""

    trained: bool
    code: str = ""


class GateField:
    """One member in one training. The honest models, and how the member answers whatever it is sent."""

    def __init__(self, gate: Callable[[], Any], scheme: str, seed: int, number: int) -> None:
        """gate: makes what judges models at the member. number: of the training; seed: of what is drawn."""
        self._scheme = scheme
        self._rng = np.random.default_rng([seed, number, 95])
        archive = population(DRAWN)
        who = self._rng.permutation(archive.persons())[:PEOPLE]
        self._archive = archive.select(np.isin(archive.person, who))
        name, strategy = KINDS[number % len(KINDS)]
        self.options = choose(name, {}, strategy, int(self._rng.integers(2**31)))
        self.rounds = 1 + int(self._rng.integers(ROUNDS))
        self.layout, self.models = training(self._archive, self.options, self.rounds)
        own = partition(self._archive, parse_clients(SITES))[0]
        self._member = Trainer(self._archive.select(own.index), own.name, gate())
        self._data = DataShape()

    def send(self, params: Models, round_: int, **changes: Any) -> Answer:
        """The member's answer to a model for a round (from 0); changes: options other than the training's."""
        options = replace(self.options, scheme=self._scheme, **changes)
        weights = np.ones(len(self._data.classes))
        work = Work("train", round_, options, self._data, pack_model(params.astype(np.float64), weights))
        task = Task(self._scheme, 1 + round_, 1, 6, len(params), 16, 64.0, 64, 0, *work.hashes())
        try:
            self._member.codes(task, work, 1.0)
        except Aborted as error:
            return Answer(False, error.code.name)
        except LocalError as error:  # of the codec, after training: it takes no update that is no number
            if error.code is not AbortCode.INPUT_NOT_FINITE:
                raise
        return Answer(True)

    def crafted(self) -> list[Models]:
        """The last honest model with imprint bins or trap rows as published in each of its wide layers."""
        return [bad for _, bad in crafted(self.layout, self.models[-1], self._rng, drawn=False)]

    def other(self) -> tuple[Models, dict[str, Any]]:
        """A start model of another network, and the options that go with it."""
        name = "ststnet" if self.options.model == "flow-mlp" else "flow-mlp"
        changed = {"model": name, "model_options": {}}
        net = federated_net(replace(self.options, **changed), self._data.shape, len(self._data.classes))
        return net.init(int(self._rng.integers(2**31))), changed
