"""What is drawn into the made-up patients: layouts and their parts of the risk, painted shapes, grown lesions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from mtdlr.synthetic import truth as truths
from mtdlr.synthetic.canvas import (
    Canvas,
    Capsule,
    Ellipsoid,
    Grid,
    Pose,
    Tissue,
    blur,
    depth,
    smooth_noise,
)
from mtdlr.synthetic.clinic import TABLE_1, apportion, clinical_table
from mtdlr.synthetic.layout import (
    BREAKOUTS,
    COLUMNS,
    DANGER,
    LEVELS,
    PATTERNS,
    SPREAD,
    Layout,
    draw_layouts,
    layout_of,
    nodes_of,
    raw_parts,
)
from mtdlr.synthetic.truth import TRUTHS, Disease, disease_of, simulate_cohort
from mtdlr.synthetic.tumour import Lesions, grow

UPRIGHT = Pose(np.eye(3), np.zeros(3))
GRID = Grid.around(np.array([0.0, 0.0, -30.0]), (170.0, 130.0, 130.0), (3.0, 3.0, 3.0))
PLAIN = Layout(1, 0.0, 0, 1, 0, *[0.0] * 8)
BALL = Ellipsoid(Tissue(50.0, 3.0), (0.0, 0.0, -30.0), (20.0, 20.0, 20.0))


def test_every_pattern_shares_out_the_whole_volume() -> None:
    """The shares of each pattern add up to 1 over known levels, and any number of patterns divides PATTERNS."""
    for stage, patterns in SPREAD.items():
        assert PATTERNS % len(patterns) == 0
        for nodes in patterns:
            assert sum(share for _, _, share in nodes) == pytest.approx(1.0 if stage != "N0" else 0.0)
            assert {level for level, _, _ in nodes} <= set(LEVELS) and {side for _, side, _ in nodes} <= {1, -1}


def test_stages_spread_as_their_definition_says() -> None:
    """N1 keeps to the primary's side, N2 and N3 cross, and N3 alone goes down to level IV."""
    sides = {stage: [{side for _, side, _ in nodes} for nodes in patterns] for stage, patterns in SPREAD.items()}
    assert all(found == {1} for found in sides["N1"])
    assert all(found == {1, -1} for stage in ("N2", "N3") for found in sides[stage])
    low = {stage: any(level == "IV" for nodes in patterns for level, _, _ in nodes)
           for stage, patterns in SPREAD.items()}
    assert low == {"N0": False, "N1": False, "N2": False, "N3": True}


def test_a_pattern_is_taken_modulo_those_of_the_stage() -> None:
    """Patterns 0, 3 and 6 of a stage with three are one."""
    assert nodes_of("N1", 0) == nodes_of("N1", 3) == nodes_of("N1", 6) != nodes_of("N1", 1)
    assert nodes_of("N0", 5) == ()


def test_the_danger_of_a_way_out() -> None:
    """The way backwards and up is the worst, the nose the least dangerous, and the dangers have mean 0."""
    assert int(np.argmax(DANGER)) == 0 and BREAKOUTS[0][1] > 0 and BREAKOUTS[0][2] > 0.5
    assert int(np.argmin(DANGER)) == len(DANGER) - 1 and BREAKOUTS[-1][1] < -0.5
    assert len(DANGER) == len(BREAKOUTS) and sum(DANGER) == 0.0


def test_raw_parts_by_hand() -> None:
    """Crossing is the share across, level the depth of the lowest node in mm, direction the danger of the way out."""
    layouts = pd.DataFrame([vars(replace(PLAIN, side=s, height_mm=h, breakout=b, pattern=p, slope=0.7))
                            for s, h, b, p in ((1, 5.0, 0, 0), (-1, -10.0, 4, 1), (1, 0.0, 2, 0))])
    found = raw_parts(layouts, pd.Series(["N2", "N3", "N0"]))
    assert found["crossing"].tolist() == pytest.approx([0.4, 0.4, 0.0])
    assert found["level"].tolist() == [44.0, 86.0, 0.0]
    assert found["direction"].tolist() == [1.5, -1.5, 0.5] and found["side"].tolist() == [1.0, -1.0, 1.0]
    assert found["height"].tolist() == [1.0, -2.0, 0.0] and found["slope"].tolist() == [0.7] * 3


def test_drawn_layouts() -> None:
    """Sides, ways out and patterns are even, the others standard normal cut at 2.2 SD, heights at 10 mm."""
    drawn = draw_layouts(4000, np.random.default_rng(0))
    assert list(drawn) == list(COLUMNS) and abs(drawn["side"].mean()) < 0.05
    assert sorted(drawn["breakout"].unique()) == list(range(5)) and sorted(drawn["pattern"].unique()) == list(range(6))
    assert drawn["height_mm"].abs().max() == 10.0
    for name in COLUMNS[5:]:
        assert drawn[name].abs().max() <= 2.2 and drawn[name].std() == pytest.approx(1.0, abs=0.06)


def test_a_layout_passes_through_its_table() -> None:
    """A row of the table is the layout again, whole numbers whole; a truth without layouts has none."""
    drawn = draw_layouts(3, np.random.default_rng(1))
    for _, row in drawn.iterrows():
        found = layout_of(row)
        assert found is not None and vars(found) == pytest.approx(row.to_dict()) and isinstance(found.pattern, int)
    assert layout_of({"volume_ml": 3.0}) is None


@pytest.mark.parametrize("name", TRUTHS)
def test_a_higher_hazard_has_its_event_earlier(name: str) -> None:
    """In every truth a higher log-hazard is worse: Kendall's tau with the time of those with an event is negative, and
    who has the event has the higher mean."""
    clinical, hidden = simulate_cohort("training", 400, np.random.default_rng(7), name)
    event = clinical["event"] == 1
    assert hidden.loc[event, "log_hazard"].mean() > hidden.loc[~event, "log_hazard"].mean() + 0.5
    assert clinical.loc[event, "time_months"].corr(hidden.loc[event, "log_hazard"], method="kendall") < 0
    assert (clinical.loc[event, "time_months"] >= truths.FIRST_EVENT_MONTHS).all()


def test_more_disease_is_worse() -> None:
    """In `burden` each part rises with what it is made of: IVa, a larger volume, texture, extension and nodes."""
    clinical, hidden = simulate_cohort("training", 300, np.random.default_rng(1))
    made_of = {"volume": "volume_ml", "heterogeneity": "heterogeneity_latent", "invasion": "invasion_ml",
               "nodes": "node_ml"}
    for part, column in made_of.items():
        assert hidden[part].corr(hidden[column], method="spearman") == pytest.approx(1.0), part
    late = clinical["tnm_stage"] == "IVa"
    assert hidden.loc[late, "stage"].min() > hidden.loc[~late, "stage"].max()
    assert all(weight > 0 for truth in TRUTHS.values() for weight in truth.values())


def test_uptake_is_no_part_of_the_risk() -> None:
    """The SUV that is drawn belongs to no part: nothing of it correlates with the log-hazard."""
    _, hidden = simulate_cohort("training", 3000, np.random.default_rng(2))
    assert abs(hidden["uptake_suv"].corr(hidden["log_hazard"])) < 0.06
    low, high = hidden["uptake_suv"].min(), hidden["uptake_suv"].max()
    assert (low, high) == pytest.approx((7 * np.exp(-1.3 * 0.28), 7 * np.exp(2.2 * 0.28)), rel=1e-6)


def test_sizes_stay_within_their_limits() -> None:
    """Volumes lie in 3 to 200 ml, N0 has no node, and later T and N stages have more."""
    clinical, hidden = simulate_cohort("training", 2000, np.random.default_rng(3))
    assert hidden["volume_ml"].between(3.0, 200.0).all()
    assert hidden.loc[clinical["n_stage"] == "N0", "node_ml"].eq(0).all()
    for column, stages in (("volume_ml", "t_stage"), ("node_ml", "n_stage")):
        medians = hidden[column].groupby(clinical[stages].to_numpy()).median()
        assert medians.is_monotonic_increasing and medians.is_unique


def test_a_row_is_its_disease() -> None:
    """`disease_of` takes each field from its column, the latent heterogeneity under its own name."""
    _, hidden = simulate_cohort("internal", 4, np.random.default_rng(0), "mixed")
    row = hidden.iloc[2]
    found = disease_of(row)
    assert (found.volume_ml, found.heterogeneity) == (row["volume_ml"], row["heterogeneity_latent"])
    assert (found.invasion_ml, found.node_ml, found.uptake_suv) == (row["invasion_ml"], row["node_ml"],
                                                                   row["uptake_suv"])
    assert found.n_stage == row["n_stage"] and found.layout == layout_of(row)


def test_table_1_is_met_exactly_at_its_size() -> None:
    """At the paper's size every level of T, N, stage and treatment has the printed count."""
    for split, margins in TABLE_1.items():
        table = clinical_table(split, margins.n, np.random.default_rng(0))
        assert tuple((table["t_stage"] == f"T{k}").sum() for k in (1, 2, 3, 4))[3] == margins.t_stage[3]
        assert (table["n_stage"] == "N3").sum() == margins.n_stage[3]
        assert (table["tnm_stage"] == "IVa").sum() == margins.stage_iva
        for name, count in zip(("ic", "ccrt", "ac", "targeted"), margins.treatments, strict=True):
            assert table[name].sum() == count, name


def test_apportioning_gives_the_largest_remainder_the_rest() -> None:
    """Of 10 in the proportions 1 : 1 : 1 the first gets 4; of 7 in 3 : 2 : 2 exactly that."""
    assert apportion([1, 1, 1], 10).tolist() == [4, 3, 3] and apportion([3, 2, 2], 7).tolist() == [3, 2, 2]
    assert apportion([5, 0], 3).tolist() == [3, 0] and apportion([1, 2], 0).tolist() == [0, 0]


# --- painting ---------------------------------------------------------------------------------------------------------


def test_a_grid_lies_about_its_centre() -> None:
    """Spacing and shape are as asked, and the middle of the voxel centres is the given point."""
    volume = GRID.volume(np.zeros(GRID.shape))
    assert volume.center_mm == pytest.approx((0.0, 0.0, -30.0)) and volume.spacing_mm == (3.0, 3.0, 3.0)
    assert GRID.voxel_ml == pytest.approx(0.027) and GRID.shape == (57, 43, 43)
    part = GRID.part((slice(2, 5), slice(0, 3), slice(4, 5)))
    assert part.shape == (3, 3, 1)
    np.testing.assert_allclose(part.points_mm(np.zeros(3)), GRID.points_mm(np.array([2, 0, 4])))


def test_the_depth_of_a_ball_and_of_a_capsule() -> None:
    """Depth is radius less the distance from the centre or the segment, in mm; it is positive inside alone."""
    tube = Capsule(Tissue(0.0, 0.0), (0.0, 0.0, -60.0), (0.0, 0.0, 0.0), 9.0)
    for shape, low, high, radius in ((BALL, -30.0, -30.0, 20.0), (tube, -60.0, 0.0, 9.0)):
        window, found = depth(shape, UPRIGHT, GRID)
        dx, dy, dz = GRID.offsets(window, np.zeros(3))
        beyond = np.maximum(np.maximum(low - dz, dz - high), 0.0)
        np.testing.assert_allclose(found, radius - np.sqrt(dx**2 + dy**2 + beyond**2), atol=1e-3)


def test_painting_covers_what_was_there() -> None:
    """Inside a shape voxels hold its tissue, far outside what was there; the edge mixes both about half-way."""
    canvas = Canvas.of_air(GRID)
    canvas.paint([BALL, replace(BALL, tissue=Tissue(-100.0, 1.0), radii_mm=(8.0, 8.0, 8.0))], UPRIGHT)
    z, y, x = (n // 2 for n in GRID.shape)
    assert canvas.hu[z, y, x] == -100.0 and canvas.suv[z, y, x] == 1.0
    assert canvas.hu[z, y, x + 5] == 50.0 and canvas.hu[0, 0, 0] == -1000.0
    volume_ml = float(((canvas.hu + 1000) / 1050).clip(0, 1).sum()) * GRID.voxel_ml
    assert volume_ml == pytest.approx(4 / 3 * np.pi * 2.0**3, rel=0.05)


def test_a_pose_scales_and_moves() -> None:
    """A head 10 % larger at another place has shapes 1.331 times the volume about the moved centre."""
    pose = Pose(np.eye(3) * 1.1, np.array([5.0, -4.0, 3.0]))
    assert pose.scale == pytest.approx(1.1) and pose((0.0, 0.0, -30.0)).tolist() == pytest.approx([5.0, -4.0, -30.0])
    masks = []
    for one in (UPRIGHT, pose):
        mask = np.zeros(GRID.shape, bool)
        window, found = depth(BALL, one, GRID)
        mask[window] = found > 0
        masks.append(mask)
    assert masks[1].sum() / masks[0].sum() == pytest.approx(1.331, rel=0.03)
    middle = GRID.points_mm(np.argwhere(masks[1]).mean(axis=0))
    np.testing.assert_allclose(middle, [5.0, -4.0, -30.0], atol=0.3)


def test_noise_has_variance_one_and_its_width() -> None:
    """Away from the border smoothed noise has variance 1, and its correlation 8 mm on is that of the Gaussian."""
    field = smooth_noise((52, 52, 52), (2.0, 2.0, 2.0), 8.0, np.random.default_rng(0))[6:-6, 6:-6, 6:-6]
    assert field.var() == pytest.approx(1.0, abs=0.15) and abs(field.mean()) < 0.2
    sigma = 8.0 / 2.3548 / 2.0
    expected = np.exp(-16 / (4 * sigma**2))
    found = [np.corrcoef(field.swapaxes(0, a)[4:].ravel(), field.swapaxes(0, a)[:-4].ravel())[0, 1] for a in range(3)]
    assert np.mean(found) == pytest.approx(expected, abs=0.05)


def test_blurring_is_scipys_and_leaves_sharp_axes_alone() -> None:
    """A Gaussian cut at three SD with the edge going on; axes of 0.2 voxels or less are untouched."""
    array = np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)
    expected = ndimage.gaussian_filter(array, (1.0, 0.0, 2.0), mode="nearest", truncate=3.0)
    np.testing.assert_allclose(blur(array, (1.0, 0.2, 2.0)), expected, atol=1e-5)


# --- lesions ----------------------------------------------------------------------------------------------------------


def lesions(layout: Layout, seed: int = 0, **disease: float) -> tuple[Lesions, Canvas]:
    canvas = Canvas.of_air(GRID)
    given = {"volume_ml": 20.0, "invasion_ml": 5.0, "node_ml": 10.0, "uptake_suv": 8.0, **disease}
    found = grow(canvas, Disease(n_stage="N2", layout=layout, **given), UPRIGHT, np.random.default_rng(seed))
    return found, canvas


def middle(mask: np.ndarray) -> np.ndarray:
    """(x, y, z) of a mask's middle, mm."""
    return np.asarray(GRID.points_mm(np.argwhere(mask).mean(axis=0)))


def test_lesions_have_their_volumes_and_uptake() -> None:
    """Each lesion has the asked volume to the voxel, the primary its mean SUV, and none shares a voxel with another."""
    found, canvas = lesions(PLAIN)
    for mask, ml in ((found.primary, 20.0), (found.invasion, 5.0), (found.nodes, 10.0)):
        assert mask.sum() * GRID.voxel_ml == pytest.approx(ml, abs=2 * GRID.voxel_ml)
    assert not (found.primary & (found.invasion | found.nodes)).any() and not (found.invasion & found.nodes).any()
    assert canvas.suv[found.primary].mean() == pytest.approx(8.0, rel=0.15)
    assert 0.5 < canvas.suv[found.nodes].mean() / 8.0 < 0.9


@pytest.mark.parametrize("side", [1, -1])
def test_side_height_and_way_out_of_the_layout(side: int) -> None:
    """The primary and most of the nodes lie on the asked side, a height moves the primary up by as much, and the
    extension leaves on its own side."""
    plain, _ = lesions(replace(PLAIN, side=side, breakout=1, breakout_side=-side))
    higher, _ = lesions(replace(PLAIN, side=side, breakout=1, breakout_side=-side, height_mm=9.0))
    assert np.sign(middle(plain.primary)[0]) == np.sign(middle(plain.nodes)[0]) == side
    assert middle(higher.primary)[2] - middle(plain.primary)[2] == pytest.approx(9.0, abs=0.5)
    assert (middle(plain.invasion)[0] - middle(plain.primary)[0]) * -side > 5.0


def test_a_stretched_primary() -> None:
    """Elongation makes the primary longer along the body and keeps its volume; flatness makes it wider."""
    def extents(layout: Layout) -> np.ndarray:
        return np.argwhere(lesions(layout)[0].primary).std(axis=0)

    plain, long, wide = (extents(replace(PLAIN, **change)) for change in ({}, {"elongation": 2.0}, {"flatness": 2.0}))
    assert long[0] / plain[0] > 1.2 and long[2] < plain[2] and wide[2] / plain[2] > 1.2
    assert lesions(replace(PLAIN, elongation=2.0))[0].primary.sum() == lesions(PLAIN)[0].primary.sum()


def test_the_pattern_of_uptake() -> None:
    """A slope raises uptake towards the head, a rim the shell over the middle; neither moves the mean."""
    def uptake(layout: Layout) -> tuple[float, float, float]:
        found, canvas = lesions(layout, heterogeneity=-3.0)
        z = np.indices(GRID.shape)[0]
        values, inside = canvas.suv, found.primary
        core = ndimage.binary_erosion(inside, iterations=3)
        shell = ndimage.binary_erosion(inside) & ~ndimage.binary_erosion(inside, iterations=2)
        rise = np.polyfit(z[inside], values[inside], 1)[0]
        return float(rise), float(values[shell].mean() / values[core].mean()), float(values[inside].mean())

    plain, sloped, rimmed = (uptake(replace(PLAIN, **change)) for change in ({}, {"slope": 2.0}, {"rim": 2.0}))
    assert sloped[0] > plain[0] + 0.2 and rimmed[1] > plain[1] + 0.2
    assert sloped[2] == pytest.approx(plain[2], rel=0.1) and rimmed[2] == pytest.approx(plain[2], rel=0.15)


def test_node_uptake_of_the_layout() -> None:
    """One more SD of node uptake multiplies the nodes' SUV by exp(0.3) and leaves the primary."""
    (plain, before), (_, after) = (lesions(replace(PLAIN, node_uptake=v)) for v in (0.0, 1.0))
    inner = ndimage.binary_erosion(plain.nodes)
    assert after.suv[inner].mean() / before.suv[inner].mean() == pytest.approx(np.exp(0.3), rel=0.02)
    np.testing.assert_array_equal(after.suv[plain.primary], before.suv[plain.primary])
