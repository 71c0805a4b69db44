"""A site shows its own frames near the apex where the federation asks for it; without any it refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from merveil.fl import coins
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Trainer, Work, pack_model
from merveil.fl.driver import federated_net
from merveil.mer.errors import InputError


def codes(found: Any, archive: Any, share: float) -> np.ndarray:
    options, data = replace(found.settings.options, apex_jitter=share), found.settings.data
    net = federated_net(options, data.shape, 3)
    params = net.init(coins.derive(options.seed, "init", "")).astype(float)
    work = Work("train", 0, options, data, pack_model(params, np.ones(3)))
    task = Task("secagg", 1, 1, 5, net.size, 24, 16.0, 16, 0, *work.hashes())
    return np.asarray(Trainer(archive, "site-1").codes(task, work, 0.01))


def test_a_site_trains_on_frames_near_the_apex_or_refuses(world: Any) -> None:
    found = world(rounds=1)
    archive = found.archives[0]
    near = np.repeat(archive.x[:, None], 2, 1)[:, :, ::-1].copy()
    filmed = replace(archive, near=near)
    plain = codes(found, archive, 0.0)
    assert (codes(found, filmed, 0.0) == plain).all()
    assert (codes(found, filmed, 0.9) != plain).any()
    with pytest.raises(InputError, match="this archive has none"):
        codes(found, archive, 0.9)
