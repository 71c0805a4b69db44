"""A small archive of smooth random feature images: no face, no file, the same for the same seed."""

import numpy as np
import pytest

from merveil.attacks.scenario import Task
from merveil.mer.data.archive import Archive, make_archive


def smooth_archive(persons: int = 12, clips: int = 10, seed: int = 0) -> Archive:
    """persons * clips images uint8 [28,28,3] with a person part, a class part and noise, all smooth."""
    rng = np.random.default_rng(seed)
    wave = np.cos(np.outer(np.arange(28) + 0.5, np.arange(6)) * np.pi / 28)

    def field() -> np.ndarray:
        return np.einsum("ha,wb,abc->hwc", wave, wave, rng.normal(size=(6, 6, 3)))

    kinds, people = [field() for _ in range(3)], [field() for _ in range(persons)]
    person = np.repeat(np.arange(persons), clips)
    label = rng.permutation(np.arange(persons * clips) % 3)
    images = [0.6 * kinds[k] + 0.6 * people[p] + field() for p, k in zip(person, label)]
    low = np.min(images, axis=(1, 2), keepdims=True)
    high = np.max(images, axis=(1, 2), keepdims=True)
    names = np.array([f"p{p:02d}" for p in person])
    return make_archive(
        x=np.rint(255 * (images - low) / (high - low)).astype(np.uint8),
        y=label.astype(np.int64),
        dataset=np.array(["waves"] * len(label)),
        subject=names,
        clip=np.array([f"c{i:03d}" for i in range(len(label))]),
    )


@pytest.fixture(scope="session")
def task() -> Task:
    return Task(smooth_archive())
