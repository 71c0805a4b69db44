"""What the sums of exact-ridge tell: certain membership below 677 clips, nothing by the span above."""

import numpy as np
import pytest

from merveil.attacks.gram import lone_clip, span_of, took_part
from merveil.attacks.population import population
from merveil.mer.exact import WIDTH, Settings, basis_from, gram_sums, moment_sums, warps_from
from merveil.mer.exact_features import block_means
from merveil.mer.exact_loso import Clips


@pytest.fixture(scope="module")
def drawn():
    archive = population(20, 8, 3)
    clips = Clips(archive, Settings(3, archive.x.shape[1:3]))
    warps = warps_from(clips.first(np.arange(archive.n)), clips.names, clips.settings)
    return clips, block_means(clips.normal, clips.sites.tolist(), warps)


def sums(clips, block, rows):
    basis = basis_from(clips.second(rows, block), clips.settings.mirror)
    return basis, gram_sums(basis.features(block[rows]), clips.y[rows], basis)


def test_who_took_part_is_certain_in_a_small_sum(drawn):
    clips, block = drawn
    rows = np.arange(40)
    basis, third = sums(clips, block, rows)
    span = span_of(third)
    assert span.axes.shape[1] == 40 and not span.full
    found = took_part(block, span, basis)
    assert found[:40].all() and not found[40:].any()


def test_a_sum_of_more_clips_than_features_places_nobody(drawn):
    clips, block = drawn
    rng = np.random.default_rng(0)
    rows = np.arange(80)
    basis, _ = sums(clips, block, rows)
    many = rng.normal(size=(WIDTH + 50, WIDTH)) / 20
    span = span_of(gram_sums(many, rng.integers(0, 3, len(many)), basis))
    assert span.full
    assert took_part(block[80:], span, basis).all()  # everybody lies inside: the test says nothing


def test_the_second_sum_counts_classes_and_is_a_lone_clip(drawn):
    clips, block = drawn
    one = moment_sums(block[7:8], clips.y[7:8], 3)
    assert np.array_equal(lone_clip(one), block[7])
    assert np.array_equal(clips.second(np.arange(30), block)[-3:], np.bincount(clips.y[:30], minlength=3))
