"""The pictures of a scan: left is left, up is up, contours lie on what they outline, and a scale bar is 5 cm."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mtdlr.report.figures import attribution_figure, quality_figure, scan_figure
from mtdlr.report.figures.page import BLUE, VERMILLION
from mtdlr.volume import Volume

SPACING = (4.0, 3.0, 3.0)
ORIGIN = (-45.0, -60.0, -20.0)
# Left, posterior and superior of the middle of the scan, in LPS mm.
PLACE = np.array([20.0, 20.0, 60.0])


def scan(array: np.ndarray) -> Volume:
    """A volume of 120 x 120 x 90 mm with its own origin."""
    return Volume.on_grid(array, SPACING, ORIGIN)


def ball(radius: float = 10.0) -> np.ndarray:
    """Where a ball lies that is off the middle in all three directions."""
    empty = scan(np.zeros((30, 40, 30), dtype=np.float32))
    points = empty.points_mm(np.stack(np.indices(empty.shape), axis=-1))
    return np.asarray(np.linalg.norm(points - PLACE, axis=-1) < radius)


PET = scan(np.where(ball(), 12.0, 1.0).astype(np.float32))
CT = scan(np.full((30, 40, 30), 40.0, dtype=np.float32))
MASK = scan(ball().astype(np.float32))
NOTHING = scan(np.zeros((30, 40, 30), dtype=np.float32))


@cache
def drawn() -> Figure:
    return scan_figure(PET, CT, {"manual": MASK, "predicted": NOTHING})


def titled(figure: Figure, title: str) -> Axes:
    """The picture whose title begins so."""
    (found,) = [axes for axes in figure.axes if axes.get_title().startswith(title)]
    return found


def hot(axes: Axes) -> tuple[float, float]:
    """Where in the picture the uptake lies, as shares from its left and from its top."""
    picture = np.asarray(axes.images[-1].get_array(), dtype=float)
    row, column = np.argwhere(picture > 6.0).mean(axis=0)
    return float(column / picture.shape[1]), float(row / picture.shape[0])


def letters(axes: Axes) -> dict[str, tuple[float, float]]:
    """The letters of the sides and where they stand, in pixels from the lower left of the page."""
    return {text.get_text(): tuple(text.get_transform().transform(text.get_position())) for text in axes.texts
            if len(text.get_text()) == 1}


@pytest.mark.parametrize(("plane", "across", "up"), [
    ("Axial", "RL", "PA"), ("Coronal", "RL", "IS"), ("Sagittal", "AP", "IS"), ("PET", "RL", "IS")])
def test_sides_are_named(plane: str, across: str, up: str) -> None:
    """Each plane names its four sides: the patient's right is at the left of the picture, the head at the top."""
    found = letters(titled(drawn(), plane))
    assert set(found) == set(across + up)
    assert found[across[0]][0] < found[across[1]][0] and found[up[0]][1] < found[up[1]][1]


@pytest.mark.parametrize(("plane", "right", "down"), [
    ("Axial", True, True), ("Coronal", True, False), ("Sagittal", True, False), ("PET", True, False)])
def test_the_tumour_lies_on_its_side(plane: str, right: bool, down: bool) -> None:
    """A tumour on the patient's left, behind and above the middle lies there in every plane."""
    across, from_top = hot(titled(drawn(), plane))
    assert (across > 0.5) == right and (from_top > 0.5) == down


@pytest.mark.parametrize("plane", ["Axial", "Coronal", "Sagittal", "PET"])
def test_the_scale_bar_is_five_centimetres(plane: str) -> None:
    """The bar spans 50 mm of the patient: its share of the picture is 50 mm of the picture's edge."""
    axes = titled(drawn(), plane)
    (bar,) = [line for line in axes.lines if len(line.get_xdata()) == 2]
    step = 3.0 if plane == "PET" else 1.5
    assert np.ptp(np.asarray(bar.get_xdata())) * step == pytest.approx(50.0)
    assert any(text.get_text() == "5 cm" for text in axes.texts)


def outline(axes: Axes) -> Line2D:
    """The contour of a picture: the line whose pieces are apart."""
    (found,) = [line for line in axes.lines if np.isnan(np.asarray(line.get_xdata(), dtype=float)).any()]
    return found


@pytest.mark.parametrize("plane", ["Axial", "Coronal", "Sagittal"])
def test_the_contour_has_the_radius_of_the_mask(plane: str) -> None:
    """A ball of 10 mm has a contour of 10 mm around the middle of its uptake, within a voxel."""
    axes = titled(drawn(), plane)
    points = np.array(outline(axes).get_data(), dtype=float).T * 1.5
    points = points[~np.isnan(points).any(axis=1)]
    picture = np.asarray(axes.images[-1].get_array(), dtype=float)
    middle = np.argwhere(picture > 6.0).mean(axis=0)[::-1] * 1.5
    distances = np.linalg.norm(points - middle, axis=1)
    assert distances.mean() == pytest.approx(10.0, abs=1.5) and np.ptp(distances) < 5.0


def test_the_key_names_every_mask() -> None:
    """Each mask has its line in the key, in the colour of its contour on white; one without a voxel is called empty."""
    (key,) = drawn().legends
    assert [text.get_text() for text in key.get_texts()] == ["manual", "predicted (empty)"]
    projection = titled(drawn(), "PET")
    assert to_hex(outline(projection).get_color()) == to_hex(key.get_lines()[0].get_color())  # type: ignore[arg-type]


@pytest.mark.parametrize(("uptake", "text"), [(12.0, "SUV 0–12"), (1.5, "SUV 0–5")])
def test_black_is_the_hottest_but_at_least_five(uptake: float, text: str) -> None:
    """The projection's window ends at the hottest uptake, and at an SUV of 5 where nothing is hot."""
    pet = scan(np.where(ball(20.0), uptake, 1.0).astype(np.float32))
    axes = titled(scan_figure(pet, CT, {}), "PET")
    assert axes.get_title() == f"PET projection, {text}"
    assert axes.images[0].get_clim() == (0.0, pytest.approx(max(uptake, 5.0)))


def test_without_a_mask_the_planes_run_through_the_hottest_voxel() -> None:
    """The tumour is in every plane although nothing outlines it."""
    figure = scan_figure(PET, CT, {})
    for plane in ("Axial", "Coronal", "Sagittal"):
        assert np.asarray(titled(figure, plane).images[-1].get_array()).max() == pytest.approx(12.0, abs=0.1)
    assert not figure.legends


def test_the_manual_mask_places_the_planes() -> None:
    """With two masks at different places the planes run through the manual one, in whatever order they come."""
    far = np.zeros((30, 40, 30), dtype=np.float32)
    far[2:5, 2:5, 2:5] = 1.0
    figure = scan_figure(PET, CT, {"predicted": scan(far), "manual": MASK})
    assert np.asarray(titled(figure, "Axial").images[-1].get_array()).max() > 10.0
    other = scan_figure(PET, CT, {"predicted": scan(far), "manual": NOTHING})
    assert np.asarray(titled(other, "Axial").images[-1].get_array()).max() < 2.0


def test_ct_is_shown_in_a_soft_tissue_window() -> None:
    """Grey runs from -160 to 240 HU beneath the PET, and beyond the CT there is air."""
    ground = titled(drawn(), "Axial").images[0]
    assert ground.get_clim() == (-160.0, 240.0)
    assert np.asarray(ground.get_array()).max() == pytest.approx(40.0)
    assert np.asarray(ground.get_array()).min() >= -1000.0


def test_faint_uptake_is_transparent() -> None:
    """Uptake below an eighth of the window hides nothing of the CT; the tumour is seen through, never opaque."""
    (_, uptake) = titled(drawn(), "Axial").images
    shown, strength = np.asarray(uptake.get_array(), dtype=float), np.asarray(uptake.get_alpha(), dtype=float)
    assert (strength[shown < 1.2] == 0.0).all() and 0.5 < strength.max() < 0.7


@cache
def risk_maps() -> Figure:
    """Uptake that raises the risk at the tumour, and density that lowers it there."""
    up = scan(np.where(ball(), 1.0, 0.0).astype(np.float32))
    down = scan(np.where(ball(), -0.5, 0.0).astype(np.float32))
    return attribution_figure(PET, CT, (up, down), {"predicted": MASK})


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_the_map_has_the_sign_of_what_it_adds(plane: str) -> None:
    """Over the tumour the PET's map is positive and the CT's negative and half as strong; elsewhere both are 0."""
    pet, ct = (np.asarray(titled(risk_maps(), f"{scan}, {plane}").images[-1].get_array(), dtype=float)
               for scan in ("PET", "CT"))
    assert pet.max() >= 1.0 and pet.min() == 0.0 == ct.max()
    np.testing.assert_allclose(ct, -0.5 * pet, atol=1e-4)
    assert (pet != 0.0).mean() < 0.2


def test_red_raises_and_blue_lowers() -> None:
    """The ends of the colours are those that the key names, and a voxel without effect is transparent."""
    picture = titled(risk_maps(), "PET, axial").images[-1]
    assert picture.get_cmap() is not None
    assert to_hex(picture.cmap(1.0)) == VERMILLION.lower() and to_hex(picture.cmap(0.0)) == BLUE.lower()
    (key,) = risk_maps().legends
    named = {text.get_text(): to_hex(patch.get_facecolor())  # type: ignore[attr-defined]
             for text, patch in zip(key.get_texts(), key.get_patches(), strict=False)}
    colours = set(named.values()) | {to_hex(patch.get_facecolor()) for patch in key.get_patches()}
    assert {VERMILLION.lower(), BLUE.lower()} <= colours
    assert np.asarray(picture.get_alpha(), dtype=float)[0, 0] == 0.0


@cache
def quality() -> Figure:
    """The whole PET in two projections, the region a box around the tumour."""
    uptake = np.asarray(PET.array)
    coronal = Volume(uptake.max(axis=1, keepdims=True), PET.affine)
    sagittal = Volume(uptake.max(axis=2, keepdims=True), PET.affine)
    region = Volume.on_grid(np.zeros((11, 11, 11), dtype=np.float32), (5.0, 5.0, 5.0), (-5.0, -5.0, 35.0))
    return quality_figure(PET, CT, (coronal, sagittal), {"manual": MASK}, region)


@pytest.mark.parametrize(("title", "low", "high"), [("PET, coronal", -5.0, 45.0), ("PET, sagittal", -5.0, 45.0)])
def test_the_region_is_outlined_in_millimetres(title: str, low: float, high: float) -> None:
    """The box of the network's grid is drawn from its first to its last voxel, around the tumour."""
    axes = titled(quality(), title)
    (box,) = [line for line in axes.lines if len(line.get_xdata()) == 5]
    x, z = (np.asarray(values, dtype=float) for values in box.get_data())
    assert (x.min(), x.max()) == (low, high) and (z.min(), z.max()) == (35.0, 85.0)
    assert x.min() < PLACE[0] < x.max() and z.min() < PLACE[2] < z.max()


@pytest.mark.parametrize("title", ["PET, coronal", "PET, sagittal"])
def test_the_whole_body_stands_upright(title: str) -> None:
    """The head is at the top: the tumour's height in the picture is its height in the patient."""
    axes = titled(quality(), title)
    picture, (_, _, bottom, top) = axes.images[0], axes.images[0].get_extent()
    assert picture.origin == "lower"
    row = np.argwhere(np.asarray(picture.get_array(), dtype=float) > 6.0).mean(axis=0)[0]
    rows = np.asarray(picture.get_array()).shape[0]
    assert bottom + (row + 0.5) * (top - bottom) / rows == pytest.approx(PLACE[2], abs=4.0)


def test_the_ct_of_a_quality_page_is_alone() -> None:
    """One plane shows CT without PET, the other three both."""
    assert [len(axes.images) for axes in quality().axes] == [1, 1, 1, 2, 2, 2]
