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
