"""The clients' training, replayed by the attacker: one full-batch SGD step or more, differentiable in x.

Guarantees: the same network, the same loss and the same class weights as the clients use (a test compares a
replayed update with the client's own), many clients at once. Assumes: full batch, plain SGD, no dropout; an
attack must replay the client's exact mode, so `scenario` records rounds in this mode.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.base import Public
from merveil.mer.errors import InputError
from merveil.mer.extras import need

Singles = NDArray[np.float32]


def scaled(x: NDArray[Any]) -> Singles:
    """Raw feature images [n,h,w,c] on the networks' scale 0-255: uint8 as it is, floats min-max scaled by
    clip and channel, as the networks' `prepare` does (a constant channel becomes 0)."""
    if x.dtype == np.uint8:
        return np.asarray(x, dtype=np.float32)
    low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    return np.asarray((x - low) * (255 / np.where(high > low, high - low, 1)), dtype=np.float32)


def loss_targets(y: Any, class_weight: NDArray[np.float64]) -> Any:
    """What -log p of each class weighs in torch's weighted mean cross-entropy: labels [M,B] -> [M,B,K]."""
    torch = need("torch", "attacks")
    weight = torch.from_numpy(np.asarray(class_weight, np.float32))
    mass = weight[y]
    return torch.nn.functional.one_hot(y, len(weight)) * (mass / mass.sum(1, keepdim=True))[..., None]


class AdamServer:
    """The server step of strategy fedadam on one model: Adam on the published mean gradient."""

    def __init__(self, start: NDArray[np.float32], rate: float) -> None:
        from merveil.mer.optim import OptimiserState

        self._torch = need("torch", "attacks")
        self._params = self._torch.from_numpy(np.array(start, np.float32)[None])
        self._state = OptimiserState.fresh("adam", 1, start.size)
        self._rate = rate

    @property
    def model(self) -> Singles:
        return np.array(self._params[0].numpy())

    def step(self, gradient: NDArray[np.floating]) -> None:
        """One round: gradient [P], the published mean."""
        found = self._torch.from_numpy(np.asarray(gradient, np.float32)[None])
        self._state.step(self._params, found, np.array([self._rate]), 0.0)


class Replay:
    """Local training as a function of the data, for one network and one start model.

    Images are float32 [..., h, w, c] on the network's own scale: 0-255, see `scaled`.
    """

    def __init__(self, public: Public) -> None:
        from merveil.attacks.probe import build

        self.torch = need("torch", "attacks")
        self.torch.set_num_threads(1)
        h, w, c = public.shape
        self.net = build(public.model, c, h, w, len(public.classes), **public.options)
        if self.net.buffers:
            raise InputError(f"{public.model} sends running statistics, which no attack here replays")
        self.public = public
        self.start = self.torch.from_numpy(np.ascontiguousarray(public.start, np.float32))

    def update(self, x: Any, y: Any, *, graph: bool = False) -> Any:
        """Updates [M,P] of M clients from images x [M,B,h,w,c] and labels y [M,B], as tensors.

        graph: keep what is needed to differentiate the update with respect to x.
        """
        torch = self.torch
        start = self.start.expand(len(x), -1)
        targets = loss_targets(y, self.public.class_weight)
        params = start.clone().requires_grad_(True)
        for _ in range(self.public.steps):
            scores = torch.log_softmax(self.net.logits(params, x, train=True), -1)
            loss = -(targets * scores).sum()
            (gradient,) = torch.autograd.grad(loss, params, create_graph=graph)
            params = params - self.public.lr * gradient
            if not graph:
                params = params.detach().requires_grad_(True)
        return params - start

    def updates_of(self, x: NDArray[Any], y: NDArray[np.int64], chunk: int = 128) -> Singles:
        """The update that each single clip would cause: raw x [n,h,w,c], y [n] -> float32 [n,P]."""
        torch, parts, ready = self.torch, [], scaled(x)
        for i in range(0, len(y), chunk):
            images = torch.from_numpy(ready[i : i + chunk])[:, None]
            labels = torch.from_numpy(np.asarray(y[i : i + chunk]))[:, None]
            parts.append(self.update(images, labels).detach().numpy())
        return np.concatenate(parts)

    def probabilities(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Start model's class probabilities of raw images, float64 [n,K]."""
        torch = self.torch
        with torch.no_grad():
            logits = self.net.logits(self.start[None], torch.from_numpy(scaled(x))[None], train=False)
        return np.asarray(torch.softmax(logits.double(), dim=-1)[0].numpy())

    def asked(self, models: NDArray[np.float32], x: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities [M,n,K] of models [M,P] on raw images, in the form in which they are trained."""
        torch, ready = self.torch, self.torch.from_numpy(self.net.prepare(x))
        with torch.no_grad():
            logits = self.net.logits(torch.from_numpy(models), ready, train=True)
        return np.asarray(torch.softmax(logits.double(), -1).numpy())

    def first_layer(self) -> tuple[slice, tuple[int, ...]]:
        """Where the weight [hidden, inputs] of a fully connected first layer lies, and its shape."""
        shape = self.net.layout[0][1]
        width = int(np.prod(self.net.prepare(np.zeros((1, *self.public.shape), np.float32)).shape[1:]))
        if len(shape) != 2 or shape[1] != width:
            raise InputError(
                f"{self.public.model} has no fully connected first layer, which this attack rests on"
            )
        return slice(0, int(np.prod(shape))), shape

    def hidden_layer(self) -> tuple[slice, slice, tuple[int, ...]]:
        """Where a hidden fully connected layer's weight and bias lie, and the weight's shape [units, inputs].

        InputError where the network has none; a last layer does not count, its rank is the classes'.
        """
        names = [name for name, _ in self.net.layout]
        for name, shape in self.net.layout:
            stem = name.removesuffix(".weight")
            if stem in ("first", "fc") and len(shape) == 2 and name != names[-2]:
                return self.slice_of(name), self.slice_of(f"{stem}.bias"), shape
        raise InputError(f"{self.public.model} has no hidden fully connected layer to read")

    def features(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """What the hidden layer gets of raw images under the start model: float64 [n, inputs]."""
        torch, ready = self.torch, self.torch.from_numpy(self.net.prepare(x))
        if not hasattr(self.net, "features"):
            return np.asarray(ready.flatten(1).double().numpy())
        with torch.no_grad():
            return np.asarray(self.net.features(self.start[None], ready)[0].double().numpy())

    def slice_of(self, suffix: str) -> slice:
        """Where the last parameter whose name ends in `suffix` lies in the flat vector."""
        at, found = 0, None
        for name, shape in self.net.layout:
            size = int(np.prod(shape))
            if name.endswith(suffix):
                found = slice(at, at + size)
            at += size
        if found is None:
            raise LookupError(f"{self.public.model} has no parameter named *{suffix}")
        return found
