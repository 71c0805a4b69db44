"""Small archives with a learnable signal; no dataset of real faces."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from merveil.mer.data.archive import Archive, make_archive


def build(clips: Sequence[Sequence[int]], sites: Sequence[str] | None = None, side: int = 28) -> Archive:
    """One person an entry, `clips[p]` the labels of that person's clips; sites[p] the person's site."""
    rng = np.random.default_rng(5)
    patterns = rng.normal(size=(3, side, side, 3))
    labels = [label for person in clips for label in person]
    people = [p for p, person in enumerate(clips) for _ in person]
    x = [128 + 30 * patterns[label] + 25 * rng.normal(size=patterns[0].shape) for label in labels]
    names = [f"s{p:02d}" for p in people]
    where = [(sites[p] if sites else "a") for p in people]
    return make_archive(
        x=np.clip(np.array(x), 0, 255).astype(np.uint8),
        y=np.array(labels, dtype=np.int64),
        dataset=np.array(where),
        subject=np.array(names),
        clip=np.array([f"c{i:03d}" for i in range(len(labels))]),
    )


@pytest.fixture
def make() -> Callable[..., Archive]:
    return build


@pytest.fixture(scope="session")
def people() -> Archive:
    """Nine persons on two sites: one with a single clip, one with a single class, one with many clips."""
    clips = [[0, 1, 2, 0], [1, 1, 0], [2], [0, 0, 0], [0, 1, 2] * 3, [2, 1], [0, 2, 1], [1, 0, 0, 2], [0, 1]]
    return build(clips, sites=["a"] * 5 + ["b"] * 4)


def linear_net(shape, classes):
    """Softmax regression on pixels in [0, 1] as a stack: no dropout, so a gradient has one right value."""
    import torch

    from merveil.mer.models.stacked import StackedNet

    class Linear(StackedNet):
        name = "linear"

        def init(self, seed):
            return np.random.default_rng(seed).normal(0, 0.05, self.size).astype(np.float32)

        def prepare(self, x):
            return (x.reshape(len(x), -1) / 255.0 - 0.5).astype(np.float32)

        def logits(self, params, x, *, train, generator=None):
            parts = self.views(params)
            if x.ndim == 2:
                x = x.expand(len(params), *x.shape)
            return torch.baddbmm(parts["bias"][:, None], x, parts["weight"].transpose(1, 2))

    pixels = int(np.prod(shape))
    return Linear(shape, classes, (("weight", (classes, pixels)), ("bias", (classes,))))


@pytest.fixture
def linear(monkeypatch):
    """Federations of this test train softmax regression, whatever model is named."""
    monkeypatch.setattr(
        "merveil.fl.driver.build", lambda name, c, h, w, k, **options: linear_net((h, w, c), k)
    )


@pytest.fixture
def small(make) -> Archive:
    """Seven persons with 1 to 9 clips of 4x4 pixels on two sites."""
    clips = [[0, 1, 2, 0], [1, 1, 0], [2], [0, 0, 0], [0, 1, 2] * 3, [2, 1], [1, 0, 0, 2]]
    return make(clips, sites=["a"] * 4 + ["b"] * 3, side=4)
