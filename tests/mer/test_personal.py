"""Personalisation: the halves are apart, what is asked was never seen, and own clips count."""

from dataclasses import replace

import numpy as np
import pytest

from merveil.mer.data.splits import parse_protocol
from merveil.mer.data.synthetic import synthetic_archive
from merveil.mer.errors import InputError
from merveil.mer.exact_loso import exact_ridge_predictions
from merveil.mer.personal import halves, personalised


@pytest.fixture(scope="module")
def people():
    archive = synthetic_archive(5, 6, 0)
    return archive, parse_protocol("loso").folds(archive, 0)


def test_halves_share_no_clip_and_do_not_depend_on_order(people):
    archive, folds = people
    rows = folds[0].test
    first, second = halves(archive, rows)
    assert sorted([*first, *second]) == sorted(rows)
    again = halves(archive, rows[::-1])
    assert np.array_equal(first, again[0]) and np.array_equal(second, again[1])


def test_before_is_the_honest_model_and_after_has_seen_the_other_half_only(people):
    archive, folds = people
    found = personalised(archive, folds)
    assert sorted(found.rows) == list(range(archive.n))
    honest = exact_ridge_predictions(archive, folds)
    assert np.allclose(found.before, honest[found.rows], rtol=0, atol=1e-12)
    assert not np.allclose(found.before, found.after)
    # Another label of an asked clip changes nothing of its own answer.
    clip = int(halves(archive, folds[0].test)[0][0])
    labels = archive.y.copy()
    labels[clip] = (labels[clip] + 1) % 3
    other = personalised(replace(archive, y=labels), folds)
    same = found.rows == clip
    assert np.array_equal(found.after[same], other.after[same])


def test_too_few_clips_or_no_weight_are_refused(people):
    archive, folds = people
    with pytest.raises(InputError, match="at least once"):
        personalised(archive, folds, own=0)
    few = synthetic_archive(5, 3, 0)
    with pytest.raises(InputError, match="nobody has"):
        personalised(few, parse_protocol("loso").folds(few, 0))
