"""What a round of `merveil server` asks of a site, and what a site makes of it.

Two kinds of work: `counts`, the clips of each class once at the start (a secure sum), and `train`, one
round of local training. The model and the options travel with the task; the site recomputes both hashes of
the task from what it received, so a site that was sent something else ends in another context.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.fl import coins
from merveil.fl.clients import Client, class_counts
from merveil.fl.deploy.config import DataShape, unbuilt
from merveil.fl.deploy.task import Task, digest
from merveil.fl.gate import ModelGate, architecture
from merveil.fl.options import TrainOptions, resolve
from merveil.fl.update import Layout
from merveil.mer.errors import InputError
from merveil.protocols.codec import Codec, Codes
from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive

KINDS = ("counts", "train")
HEAD_LIMIT = 65_536


@dataclass(frozen=True, eq=False)
class Work:
    """kind: of KINDS. round: of the training, from 0. options: of the run. data: the shape that all share.
    payload: float32 parameters, then float64 class weights, little-endian; empty for counts."""

    kind: str
    round: int
    options: TrainOptions
    data: DataShape
    payload: bytes = b""

    def head(self) -> str:
        """Canonical JSON of everything but the payload."""
        value = {
            "kind": self.kind,
            "round": self.round,
            "options": self.options.as_dict(),
            "height": self.data.height,
            "width": self.data.width,
            "channels": list(self.data.channels),
            "classes": list(self.data.classes),
        }
        return json.dumps(value, sort_keys=True)

    @classmethod
    def decode(cls, head: str, payload: bytes) -> "Work":
        """RemoteError (MALFORMED_FRAME, culprit 0) for a head that is none, or options out of range."""
        try:
            if len(head) > HEAD_LIMIT:
                raise ValueError("the head is too long")
            value: dict[str, Any] = json.loads(head)
            if value["kind"] not in KINDS or type(value["round"]) is not int or value["round"] < 0:
                raise ValueError("unknown kind of work or round")
            shape = DataShape(
                int(value["height"]),
                int(value["width"]),
                tuple(str(c) for c in value["channels"]),
                tuple(str(c) for c in value["classes"]),
            )
            options = resolve(value["options"])
            if missing := unbuilt(options):
                raise ValueError(f"{missing} is nothing that sites carry out")
            return cls(value["kind"], value["round"], options, shape, payload)
        except (ValueError, KeyError, TypeError, AttributeError, InputError, RecursionError) as error:
            why = f"the server's work is malformed: {error}"
            raise RemoteError(why, (0,), AbortCode.MALFORMED_FRAME) from error

    def hashes(self, mechanism: str = "") -> tuple[str, str]:
        """Model and configuration hash of a task with this mechanism."""
        parts = (self.head().encode(), mechanism.encode()) if mechanism else (self.head().encode(),)
        return digest("model", self.payload), digest("config", *parts)

    def check_announced(self, task: Task) -> None:
        """Aborted MODEL_MISMATCH unless the task is of this work, and of the mechanism that it names."""
        if self.hashes(task.mechanism) != (task.model_hash, task.config_hash):
            raise Aborted(AbortCode.MODEL_MISMATCH, "the work is not the announced one", (0,))


def pack_model(params: NDArray[np.float64], weights: NDArray[np.float64]) -> bytes:
    """Parameters as float32 and class weights as float64, little-endian."""
    return params.astype("<f4").tobytes() + weights.astype("<f8").tobytes()


class Trainer:
    """A site's data and network. name: the member's, which labels its coins. gate: what judges a model before
    it is trained on; without one the models of this process are remembered. InputError: other data than the
    federation's."""

    def __init__(self, archive: "Archive", name: str, gate: ModelGate | None = None) -> None:
        self.archive, self.name, self._gate = archive, name, gate or ModelGate()
        rows = np.arange(archive.n, dtype=np.int64)
        self.client = Client(name, rows)
        self._options: TrainOptions | None = None

    def codes(self, task: Task, work: Work, max_cut: float) -> Codes:
        """The vector of a task. LocalError: too much of it would be cut. Aborted: MODEL_MISMATCH,
        ARCH_MISMATCH or INPUT_NOT_FINITE, before anything is trained."""
        work.check_announced(task)
        self._check(work.data)
        codec = Codec(task.params())
        if work.kind == "counts":
            return codec.encode(class_counts(self.archive, self.client))
        update = self._update(work)
        cut = codec.cut(update)
        if cut > max_cut * update.size:
            raise LocalError(
                f"{cut} of {update.size} coordinates exceed update_clip {task.clip}: the server sets it",
                AbortCode.INPUT_RANGE,
            )
        draw = coins.rounding(work.options.seed, update.size, "", work.round, self.name)
        return codec.encode(update, min(self.client.clips, task.max_weight), draw)

    def noisy_codes(self, task: Task, work: Work, mechanism: Mechanism, public: bytes) -> Codes:
        """The vector of a task with a mechanism: clipped, rotated by `public`, rounded, and this site's noise
        from the operating system on it. Errors as of `codes`; LocalError INPUT_NOT_FINITE: a broken update.
        """
        work.check_announced(task)
        self._check(work.data)
        return mechanism.encode(self._update(work, noisy=True), public)

    def _check(self, data: DataShape) -> None:
        found = self.archive.x.shape[1:], tuple(self.archive.meta.channels), self.archive.classes
        if found != (data.shape, data.channels, data.classes):
            raise InputError(f"this site's clips are {found}, the federation's {data}")

    def _update(self, work: Work, noisy: bool = False) -> NDArray[np.float64]:
        from merveil.fl.driver import federated_net
        from merveil.fl.local import Job, LocalTrainer
        from merveil.mer.train import prepared

        options, shape = work.options, work.data.shape
        if self._options != options:
            net = federated_net(options, shape, len(work.data.classes))
            jobs = [Job(0, "", self.client)]
            x, versions = prepared(net, self.archive, options.apex_jitter)
            self._trainer = LocalTrainer(net, x, self.archive.y, jobs, options, versions=versions)
            self._options, self._size, self._net = options, net.size, net
        classes = len(work.data.classes)
        if len(work.payload) != 4 * self._size + 8 * classes:
            raise Aborted(AbortCode.ARCH_MISMATCH, "the model has another size than its options say", (0,))
        params = np.frombuffer(work.payload, "<f4", self._size).astype(np.float32)
        weights = np.frombuffer(work.payload, "<f8", classes, 4 * self._size).astype(np.float64)
        self._admit(work, params, weights, noisy)
        (update,) = self._trainer.updates(params[None], weights[None], work.round)
        return update

    def _admit(
        self, work: Work, params: NDArray[np.float32], weights: NDArray[np.float64], noisy: bool
    ) -> None:
        """The gate's word on the model; the first one of a training follows from its seed."""
        options, layout = work.options, Layout.of(self._net.layout)
        if not np.isfinite(weights).all():
            raise Aborted(AbortCode.INPUT_NOT_FINITE, "a class weight of the server is no number", (0,))
        start = self._net.init(coins.derive(options.seed, "init", "")) if work.round == 0 else None
        shape = architecture(options.model, options.model_options, layout)
        self._gate.admit(layout, params, shape, training=options.sha256, start=start, noisy=noisy)
