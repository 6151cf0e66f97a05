"""Ranks with ties, against scipy's."""

import numpy as np
import pytest
from scipy import stats as theirs

from mtdlr.stats.ranks import midranks, spearman, tie_sum


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_ranks_and_their_correlation_are_scipys(levels):
    """Midranks, the sum over ties, and Spearman's correlation with its p equal scipy's, with many ties and with few."""
    rng = np.random.default_rng(levels)
    for n in (3, 8, 50):
        x, y = np.arange(n) % 2 + rng.integers(0, levels, n), np.arange(n) % 3 + rng.normal(size=n).round(1)
        assert np.array_equal(midranks(x), theirs.rankdata(x))
        counts = np.unique(x, return_counts=True)[1]
        assert tie_sum(x) == (counts**3 - counts).sum()
        if np.ptp(x) and np.ptp(y):
            np.testing.assert_allclose(spearman(x, y), tuple(theirs.spearmanr(x, y)), rtol=1e-10, atol=1e-12)


def test_each_column_is_ranked_by_itself():
    """A table's columns are ranked one by one."""
    table = np.random.default_rng(1).integers(0, 4, (9, 3)).astype(float)
    assert np.array_equal(midranks(table), theirs.rankdata(table, axis=0))


def test_the_same_and_the_reverse_order_are_certain():
    """A correlation of 1 or -1 has p 0; two values have none."""
    assert spearman([1, 2, 3], [2, 4, 9]) == (1.0, 0.0)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1])[1] == 0.0
    assert np.isnan(spearman([1, 2], [1, 2])[1])
