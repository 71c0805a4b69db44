"""What the sums of exact-ridge tell: certain membership by the span, and beyond its end by leverage."""

import numpy as np
import pytest

from merveil.attacks.gram import INSIDE, Span, candidate_rows, distances, lone_clip, span_of, took_part
from merveil.attacks.population import population
from merveil.attacks.stats import auc
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


def test_leverage_tells_where_the_span_is_full():
    archive = population(120, 8, 5)
    clips = Clips(archive, Settings(3, archive.x.shape[1:3]))
    rows = np.arange(480)
    warps = warps_from(clips.first(rows), clips.names, clips.settings)
    block = block_means(clips.normal, clips.sites.tolist(), warps)
    basis, third = sums(clips, block, rows)
    span = span_of(third)
    assert span.full
    assert (span.outside(candidate_rows(block, 0, basis)) < INSIDE).all()  # the span alone says nothing
    found, near = took_part(block, span, basis), -distances(block, span, basis)
    assert found[:480].all()
    assert found[480:].mean() < 0.2
    assert auc(near[:480], near[480:]) > 0.98


def test_leverage_is_one_at_most_in_the_sum_and_that_of_a_row_put_in():
    """A row's g becomes g / (1 + g); both against numpy's inverse, on whole rows."""
    rng = np.random.default_rng(0)
    rows = rng.integers(-900, 900, (WIDTH + 40, WIDTH)).astype(float)

    def span(held):
        values, axes = np.linalg.eigh(held.T @ held)
        return Span(axes, values, WIDTH)

    without, held = span(rows[1:]), span(rows)
    g = without.leverage(rows)
    assert g[0] == pytest.approx(rows[0] @ np.linalg.inv(rows[1:].T @ rows[1:]) @ rows[0])
    assert held.leverage(rows)[0] == pytest.approx(g[0] / (1 + g[0]))
    assert held.leverage(rows).max() <= 1 and g[0] > 1


def test_the_second_sum_counts_classes_and_is_a_lone_clip(drawn):
    clips, block = drawn
    one = moment_sums(block[7:8], clips.y[7:8], 3)
    assert np.array_equal(lone_clip(one), block[7])
    assert np.array_equal(clips.second(np.arange(30), block)[-3:], np.bincount(clips.y[:30], minlength=3))
