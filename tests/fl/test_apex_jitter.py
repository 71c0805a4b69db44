"""Frames near the apex in federated training: the clients' own, every scheme alike, refused where idle."""

import hashlib
import json

import numpy as np
import pytest

from merveil.fl import options
from merveil.fl.clients import ClientRule, partition
from merveil.fl.driver import Federation, Run
from merveil.fl.evaluate import federated_predictions
from merveil.fl.options import resolve
from merveil.mer.data.archive import make_archive
from merveil.mer.data.splits import loso
from merveil.mer.errors import InputError

pytest.importorskip("torch")
QUICK = {"model": "flow-mlp", "rounds": 2, "apex_jitter": 0.6}


@pytest.fixture
def filmed(people):
    """The nine persons with three images near the apex of each clip."""
    noise = np.random.default_rng(1).integers(-20, 21, (people.n, 3, *people.x.shape[1:]))
    near = np.clip(people.x[:, None].astype(int) + noise, 0, 255).astype(np.uint8)
    names = ("x", "y", "dataset", "subject", "clip")
    return make_archive(near=near, **{name: getattr(people, name) for name in names})


def model(archive, **options):
    chosen = resolve(QUICK, options)
    fed = Federation(archive, [Run("", partition(archive, ClientRule("subject")))], chosen)
    state = fed.start()
    while state.rounds < chosen.rounds:
        state, _ = fed.advance(state)
    return state.params[0]


def test_clients_show_them_and_every_exact_scheme_gives_the_same_bits(filmed, people):
    found = model(filmed)
    assert (found != model(filmed, apex_jitter=0.0)).any()
    assert (model(people, apex_jitter=0.0) == model(filmed, apex_jitter=0.0)).all()
    for scheme in ("secagg", "lattice"):
        assert (model(filmed, scheme=scheme) == found).all()


def test_a_federated_score_reads_the_held_out_clips_own_image(filmed):
    fold = loso(filmed)[0]
    near = filmed.near.copy()
    near[fold.test] = 255 - near[fold.test]
    names = ("x", "y", "dataset", "subject", "clip")
    spoilt = make_archive(near=near, **{name: getattr(filmed, name) for name in names})
    first, second = (
        federated_predictions(
            archive, [fold], model="flow-mlp", scheme="plain", clients="subject", seed=0, rounds=2,
            options={"apex_jitter": 0.6},
        ).probabilities[fold.test]
        for archive in (filmed, spoilt)
    )  # fmt: skip
    assert (first == second).all() and np.isfinite(first).all()


def test_where_it_cannot_be_it_is_refused(people):
    with pytest.raises(InputError, match="this archive has none"):
        model(people)
    with pytest.raises(InputError, match="apex_jitter is not built for --dp sgd"):
        resolve(QUICK, {"dp": "sgd", "epsilon": 8.0, "delta": 1e-3, "norm_clip": 1.0, "batch": 4})
    with pytest.raises(InputError, match="exact-ridge is not trained by steps"):
        resolve({"model": "exact-ridge", "apex_jitter": 0.5})
    with pytest.raises(InputError, match="between 0 and 1"):
        resolve({"apex_jitter": 1.5})


def test_the_hash_is_as_before_where_it_is_not_used():
    base = resolve({})
    idle = {"apex_jitter", *options._UNHASHED, *options._DP, *options.dp_options.SGD_OPTIONS}
    before = {name: value for name, value in base.as_dict().items() if name not in idle}
    assert base.sha256 == hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()
    assert resolve({"apex_jitter": 0.5}).sha256 != base.sha256
