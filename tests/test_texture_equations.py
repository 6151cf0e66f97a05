"""Every feature of every class against its equation, written out as a loop over the cells of a small matrix.

The equations are those of the IBSI reference manual (arXiv 1612.07003), sections 3.6 to 3.11, and, where a feature is
PyRadiomics' alone (Imc1, Imc2, MCC, Idmn, Idn, RunEntropy ...), of its documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import exp, log2, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from mtdlr.texture.firstorder import firstorder
from mtdlr.texture.glcm import glcm_features
from mtdlr.texture.ngtdm import ngtdm_features
from mtdlr.texture.profile import GLCM
from mtdlr.texture.sizes import DEPENDENCE, RUN, ZONE, size_features

GRAY = np.array([1, 2, 4, 7])
"""Grey levels with gaps: an equation that counts rows instead of levels gives another number."""

PAIRS = np.array([[5, 3, 0, 1], [2, 8, 4, 0], [1, 6, 2, 3], [0, 0, 5, 9]])
SIZES = np.array([1, 2, 5])
COUNTED = np.array([[4, 1, 0], [3, 0, 2], [0, 6, 1], [2, 2, 2]])

Cells = list[tuple[float, float, float]]


def _cells(p: NDArray[np.float64], rows: NDArray, columns: NDArray) -> Cells:
    """(level, level or size, share) of each occupied cell."""
    return [(float(rows[i]), float(columns[j]), float(p[i, j])) for i in range(len(rows)) for j in range(len(columns))
            if p[i, j] > 0]


def _entropy(shares: list[float]) -> float:
    return -sum(q * log2(q) for q in shares if q > 0)


def _sum_by(cells: Cells, key: Callable[[float, float], float]) -> dict[float, float]:
    """Shares added by a number of each cell: a marginal, p(i + j) or p(|i - j|)."""
    found: dict[float, float] = {}
    for i, j, q in cells:
        found[key(i, j)] = found.get(key(i, j), 0.0) + q
    return found


def co_occurrence(counts: NDArray, gray: NDArray, symmetric: bool) -> dict[str, float]:
    """The 24 GLCM features of one matrix of counts."""
    whole = (counts + counts.T if symmetric else counts).astype(float)
    p = _cells(whole / whole.sum(), gray, gray)
    x, y = _sum_by(p, lambda i, j: i), _sum_by(p, lambda i, j: j)
    plus, minus = _sum_by(p, lambda i, j: i + j), _sum_by(p, lambda i, j: abs(i - j))
    ux, uy = (sum(i * q for i, q in side.items()) for side in (x, y))
    vx, vy = (sum((i - u)**2 * q for i, q in side.items()) for side, u in ((x, ux), (y, uy)))
    n_levels, average = float(gray[-1]), sum(d * q for d, q in minus.items())
    hx, hy, hxy = (_entropy(list(side.values())) for side in (x, y, {(i, j): q for i, j, q in p}))
    hxy1 = -sum(q * log2(x[i] * y[j]) for i, j, q in p)
    hxy2 = -sum(a * b * log2(a * b) for a in x.values() for b in y.values())
    return {
        "Autocorrelation": sum(i * j * q for i, j, q in p),
        "ClusterProminence": sum((i + j - ux - uy)**4 * q for i, j, q in p),
        "ClusterShade": sum((i + j - ux - uy)**3 * q for i, j, q in p),
        "ClusterTendency": sum((i + j - ux - uy)**2 * q for i, j, q in p),
        "Contrast": sum((i - j)**2 * q for i, j, q in p),
        "Correlation": sum((i - ux) * (j - uy) * q for i, j, q in p) / sqrt(vx * vy),
        "DifferenceAverage": average,
        "DifferenceEntropy": _entropy(list(minus.values())),
        "DifferenceVariance": sum((d - average)**2 * q for d, q in minus.items()),
        "Id": sum(q / (1 + abs(i - j)) for i, j, q in p),
        "Idm": sum(q / (1 + (i - j)**2) for i, j, q in p),
        "Idmn": sum(q / (1 + (i - j)**2 / n_levels**2) for i, j, q in p),
        "Idn": sum(q / (1 + abs(i - j) / n_levels) for i, j, q in p),
        "Imc1": (hxy - hxy1) / max(hx, hy),
        "Imc2": sqrt(1 - exp(-2 * (hxy2 - hxy))),
        "InverseVariance": sum(q / (i - j)**2 for i, j, q in p if i != j),
        "JointAverage": ux,
        "JointEnergy": sum(q * q for _, _, q in p),
        "JointEntropy": hxy,
        "MCC": sqrt(sorted(np.linalg.eigvals(_q_matrix(p, x, y)).real)[-2]),
        "MaximumProbability": max(q for _, _, q in p),
        "SumAverage": sum(s * q for s, q in plus.items()),
        "SumEntropy": _entropy(list(plus.values())),
        "SumSquares": vx,
    }


def _q_matrix(p: Cells, x: dict[float, float], y: dict[float, float]) -> NDArray[np.float64]:
    """Q(i, j) = sum over k of p(i, k) p(j, k) / (p_x(i) p_y(k))."""
    at = {(i, j): q for i, j, q in p}
    levels = sorted(x)
    return np.array([[sum(at.get((i, k), 0) * at.get((j, k), 0) / (x[i] * y[k]) for k in y) for j in levels]
                     for i in levels])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", GLCM)
def test_co_occurrence(name: str, symmetric: bool) -> None:
    """Each GLCM feature is its equation, of pairs counted in both orders or in one."""
    found = glcm_features(PAIRS[None], GRAY, symmetric=symmetric)[0, GLCM.index(name)]
    assert found == pytest.approx(co_occurrence(PAIRS, GRAY, symmetric)[name], rel=1e-9)


def test_each_matrix_has_its_own_row() -> None:
    """Several matrices give one row each, in their order, none of them touched by its neighbours."""
    several = np.stack([PAIRS, PAIRS[::-1, ::-1], np.eye(4, dtype=np.int64)])
    rows = glcm_features(several, GRAY)
    assert rows.shape == (3, 24)
    for k in range(3):
        np.testing.assert_array_equal(rows[k], glcm_features(several[k:k + 1], GRAY)[0])


def test_transposed_pairs_are_the_same_when_symmetric() -> None:
    """Looking along a direction or against it gives the same symmetric features."""
    np.testing.assert_allclose(glcm_features(PAIRS.T[None], GRAY), glcm_features(PAIRS[None], GRAY), rtol=1e-12)


def test_twice_the_pairs_are_the_same_shares() -> None:
    """Features of co-occurrences see shares and not counts."""
    np.testing.assert_allclose(glcm_features(7 * PAIRS[None], GRAY), glcm_features(PAIRS[None], GRAY), rtol=1e-12)


def test_grey_levels_moved_by_a_constant() -> None:
    """Five more on every grey level moves the averages by as much, and no feature of differences or of shares."""
    name = {n: k for k, n in enumerate(GLCM)}
    before, after = (dict(zip(GLCM, glcm_features(PAIRS[None], GRAY + s)[0], strict=True)) for s in (0, 5))
    assert after["JointAverage"] == pytest.approx(before["JointAverage"] + 5)
    assert after["SumAverage"] == pytest.approx(before["SumAverage"] + 10)
    levels = ("Autocorrelation", "JointAverage", "SumAverage", "Idmn", "Idn")
    kept = [n for n in name if n not in levels]
    assert {n: after[n] for n in kept} == pytest.approx({n: before[n] for n in kept}, rel=1e-9)
    assert after["Idn"] > before["Idn"] and after["Idmn"] > before["Idmn"], "the same gap counts less of more levels"


def test_one_grey_level_pairs_with_itself() -> None:
    """One level: contrast 0, correlation and MCC 1, information measures 0, energy 1."""
    found = dict(zip(GLCM, glcm_features(np.array([[[6]]]), np.array([3]))[0].tolist(), strict=True))
    assert {n: found[n] for n in ("Contrast", "Imc1", "Imc2", "InverseVariance", "SumSquares")} == dict.fromkeys(
        ("Contrast", "Imc1", "Imc2", "InverseVariance", "SumSquares"), 0.0)
    assert (found["Correlation"], found["MCC"], found["JointEnergy"], found["Idmn"]) == (1.0, 1.0, 1.0, 1.0)
    assert (found["Autocorrelation"], found["SumAverage"]) == (9.0, 6.0)


def sizes_by_hand(counts: NDArray, gray: NDArray, size: NDArray) -> Iterator[float]:
    """The 16 features that GLRLM, GLSZM and GLDM share, in the order of `RUN`."""
    n = float(counts.sum())
    p = _cells(counts.astype(float), gray, size)
    by_level, by_size = _sum_by(p, lambda i, j: i), _sum_by(p, lambda i, j: j)
    yield sum(q / j**2 for _, j, q in p) / n
    yield sum(q * j**2 for _, j, q in p) / n
    yield sum(q**2 for q in by_level.values()) / n
    yield sum(q**2 for q in by_level.values()) / n**2
    yield sum(q**2 for q in by_size.values()) / n
    yield sum(q**2 for q in by_size.values()) / n**2
    yield n / sum(j * q for _, j, q in p)
    mean_i, mean_j = (sum((i, j)[k] * q / n for i, j, q in p) for k in (0, 1))
    yield sum((i - mean_i)**2 * q / n for i, _, q in p)
    yield sum((j - mean_j)**2 * q / n for _, j, q in p)
    yield _entropy([q / n for _, _, q in p])
    yield sum(q / i**2 for i, _, q in p) / n
    yield sum(q * i**2 for i, _, q in p) / n
    yield sum(q / i**2 / j**2 for i, j, q in p) / n
    yield sum(q * i**2 / j**2 for i, j, q in p) / n
    yield sum(q * j**2 / i**2 for i, j, q in p) / n
    yield sum(q * i**2 * j**2 for i, j, q in p) / n


@pytest.mark.parametrize("place", range(16))
def test_sizes(place: int) -> None:
    """Each feature of runs, zones and dependences is its equation, with levels and sizes that have gaps."""
    found = size_features(COUNTED[None], GRAY, SIZES)[0, place]
    assert found == pytest.approx(list(sizes_by_hand(COUNTED, GRAY, SIZES))[place], rel=1e-12), RUN[place]


def test_the_three_lists_name_the_same_equations() -> None:
    """What is short in runs is small in zones and in dependences; PyRadiomics has no name for two of the latter."""
    assert len(RUN) == len(ZONE) == len(DEPENDENCE) == 16
    to_zone = {"ShortRun": "SmallArea", "LongRun": "LargeArea", "RunLength": "SizeZone", "Run": "Zone"}
    to_dependence = {"ShortRun": "SmallDependence", "LongRun": "LargeDependence", "RunLength": "Dependence",
                     "GrayLevelRun": "GrayLevel", "Run": "Dependence"}
    for k, name in enumerate(RUN):
        for names, words in ((ZONE, to_zone), (DEPENDENCE, to_dependence)):
            word = next((w for w in words if w in name), "")
            expected = name.replace(word, words[word]) if word else name
            assert names[k] in (expected, ""), (name, names[k])
    assert [RUN[k] for k, name in enumerate(DEPENDENCE) if not name] == ["GrayLevelNonUniformityNormalized",
                                                                        "RunPercentage"]


def test_one_run_of_the_whole_region() -> None:
    """One zone of nine voxels at level 2: no variance, no entropy, one zone for nine voxels."""
    found = dict(zip(ZONE, size_features(np.array([[[1]]]), np.array([2]), np.array([9]))[0].tolist(), strict=True))
    assert (found["ZoneVariance"], found["GrayLevelVariance"], found["ZonePercentage"]) == (0.0, 0.0, 1 / 9)
    assert found["ZoneEntropy"] == pytest.approx(0.0, abs=1e-12)
    assert (found["LargeAreaHighGrayLevelEmphasis"], found["SmallAreaLowGrayLevelEmphasis"]) == (
        pytest.approx(324.0), pytest.approx(1 / 324))


def test_sizes_that_nothing_has_count_nothing() -> None:
    """Columns without any run leave every feature as it is."""
    wide = np.zeros((1, 4, 6), np.int64)
    wide[0, :, [0, 1, 4]] = COUNTED.T
    np.testing.assert_allclose(size_features(wide, GRAY, np.arange(1, 7)), size_features(COUNTED[None], GRAY, SIZES),
                               rtol=1e-12)


def neighbourhood_by_hand(n: NDArray, s: NDArray, gray: NDArray) -> dict[str, float]:
    """The five NGTDM features of IBSI 3.10 from counts, sums of differences and grey levels."""
    total, levels = float(n.sum()), range(len(gray))
    p, g = (n / total).tolist(), gray.astype(float).tolist()
    both = [(a, b) for a in levels for b in levels]
    weighted = sum(p[a] * s[a] for a in levels)
    return {
        "Busyness": weighted / sum(abs(g[a] * p[a] - g[b] * p[b]) for a, b in both),
        "Coarseness": 1 / weighted,
        "Complexity": sum(abs(g[a] - g[b]) * (p[a] * s[a] + p[b] * s[b]) / (p[a] + p[b]) for a, b in both) / total,
        "Contrast": (sum(p[a] * p[b] * (g[a] - g[b])**2 for a, b in both) / (len(g) * (len(g) - 1))
                     * float(s.sum()) / total),
        "Strength": sum((p[a] + p[b]) * (g[a] - g[b])**2 for a, b in both) / float(s.sum()),
    }


def test_neighbourhood_differences() -> None:
    """Each NGTDM feature is its equation."""
    n, s = np.array([3, 9, 1, 5]), np.array([2.5, 7.0, 0.75, 11.0])
    assert ngtdm_features(n, s, GRAY) == pytest.approx(neighbourhood_by_hand(n, s, GRAY), rel=1e-12)


def test_the_worked_example_of_pyradiomics() -> None:
    """The picture on PyRadiomics' page has 6, 2, 4, 4 voxels of levels 1, 2, 3, 5 and s = 13.35, 2, 2.63, 10.075."""
    found = ngtdm_features(np.array([6, 2, 4, 4]), np.array([13.35, 2.0, 2.63, 10.075]), np.array([1, 2, 3, 5]))
    assert found["Coarseness"] == pytest.approx(1 / 8.4325)
    # sum of p_i p_j (i - j)^2 is 2 (.046875 + .375 + 1.5 + .03125 + .28125 + .25) = 4.96875, that of s 28.055
    assert found["Contrast"] == pytest.approx(4.96875 / (4 * 3) * 28.055 / 16)


def test_a_region_without_differences() -> None:
    """Nothing differs from its neighbours: Coarseness 1e6, the others 0, with one level and with two."""
    for n, gray in ((np.array([8]), np.array([1])), (np.array([4, 4]), np.array([1, 2]))):
        found = ngtdm_features(n, np.zeros(len(n)), gray)
        assert found == {"Busyness": 0.0, "Coarseness": 1e6, "Complexity": 0.0, "Contrast": 0.0, "Strength": 0.0}


VALUES = np.array([-3.0, 0.5, 0.5, 2.0, 4.5, 7.0, 7.5, 8.0, 11.0, 30.0, 41.0])
COUNTS = np.array([1, 3, 2, 5])


def statistics_by_hand(values: list[float], counts: NDArray, voxel: float, shift: float) -> dict[str, float]:
    """The 19 first-order features of IBSI 3.3 and PyRadiomics."""
    n, x = len(values), sorted(values)
    mean = sum(x) / n
    moment = [sum((v - mean)**k for v in x) / n for k in range(5)]

    def percentile(q: float) -> float:
        rank = q / 100 * (n - 1)
        low = int(rank)
        return x[low] + (rank - low) * (x[min(low + 1, n - 1)] - x[low])

    inner = [v for v in x if percentile(10) <= v <= percentile(90)]
    inner_mean, energy = sum(inner) / len(inner), sum((v + shift)**2 for v in x)
    shares = (counts / counts.sum()).tolist()
    return {
        "10Percentile": percentile(10), "90Percentile": percentile(90), "Energy": energy,
        "Entropy": _entropy(shares), "InterquartileRange": percentile(75) - percentile(25),
        "Kurtosis": moment[4] / moment[2]**2, "Maximum": x[-1],
        "MeanAbsoluteDeviation": sum(abs(v - mean) for v in x) / n, "Mean": mean, "Median": percentile(50),
        "Minimum": x[0], "Range": x[-1] - x[0],
        "RobustMeanAbsoluteDeviation": sum(abs(v - inner_mean) for v in inner) / len(inner),
        "RootMeanSquared": sqrt(energy / n), "Skewness": moment[3] / moment[2]**1.5,
        "StandardDeviation": sqrt(moment[2]), "TotalEnergy": energy * voxel,
        "Uniformity": sum(q * q for q in shares), "Variance": moment[2],
    }


@pytest.mark.parametrize("shift", [0.0, 20.0])
def test_first_order(shift: float) -> None:
    """Each first-order feature is its equation; a shift enters the energies and the root mean square alone."""
    found = firstorder(VALUES, COUNTS, voxel_mm3=4.0, shift=shift)
    assert found == pytest.approx(statistics_by_hand(VALUES.tolist(), COUNTS, 4.0, shift), rel=1e-9)
    plain = firstorder(VALUES, COUNTS, voxel_mm3=4.0)
    moved = {name for name in found if found[name] != plain[name]}
    assert moved == ({"Energy", "TotalEnergy", "RootMeanSquared"} if shift else set())


def test_first_order_under_another_unit() -> None:
    """Twice the intensity and three more: places move so, spreads double, forms stay."""
    before, after = (firstorder(a * VALUES + b, COUNTS, voxel_mm3=1.0) for a, b in ((1.0, 0.0), (2.0, 3.0)))
    for name in ("10Percentile", "90Percentile", "Maximum", "Mean", "Median", "Minimum"):
        assert after[name] == pytest.approx(2 * before[name] + 3), name
    for name in ("InterquartileRange", "MeanAbsoluteDeviation", "Range", "RobustMeanAbsoluteDeviation",
                 "StandardDeviation"):
        assert after[name] == pytest.approx(2 * before[name]), name
    for name in ("Kurtosis", "Skewness", "Entropy", "Uniformity"):
        assert after[name] == pytest.approx(before[name]), name
    assert after["Variance"] == pytest.approx(4 * before["Variance"])


def test_mirrored_intensities_have_the_opposite_skewness() -> None:
    """Minus the intensities: skewness changes its sign, kurtosis and deviations do not."""
    found, mirrored = (firstorder(sign * VALUES, COUNTS, voxel_mm3=1.0) for sign in (1.0, -1.0))
    assert mirrored["Skewness"] == pytest.approx(-found["Skewness"]) and found["Skewness"] > 0.5
    for name in ("Kurtosis", "MeanAbsoluteDeviation", "RobustMeanAbsoluteDeviation", "Variance"):
        assert mirrored[name] == pytest.approx(found[name]), name
    assert mirrored["10Percentile"] == pytest.approx(-found["90Percentile"])


def test_two_values_have_no_robust_deviation() -> None:
    """Of two values none lies between the 10th and the 90th percentile: nan, as documented; of one, 0."""
    two = firstorder(np.array([1.0, 3.0]), np.array([1, 1]), voxel_mm3=1.0)
    assert np.isnan(two["RobustMeanAbsoluteDeviation"]) and two["Kurtosis"] == 1.0
    one = firstorder(np.array([3.0]), np.array([1]), voxel_mm3=1.0)
    assert (one["RobustMeanAbsoluteDeviation"], one["Kurtosis"], one["Skewness"], one["Median"]) == (0.0, 0.0, 0.0, 3.0)
