"""One patient's PET/CT: the PET's projections, fused planes through the tumour and maps of the risk, with contours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, cast

import numpy as np
from contourpy import ContourGenerator, contour_generator
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from mtdlr.report.figures.page import (
    BLUE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    WIDTH_MM,
    YELLOW,
    Width,
    drawn,
    number,
    page,
    panel,
)
from mtdlr.volume import Volume

_MM = 1.5  # sampling of the planes
_MIP_MM = 3.0
_VIEW_MM = 220.0  # edge of the planes at most
_WINDOW_HU = (-160.0, 240.0)
_BODY_SUV = 0.3
_BLUR_VOXELS = 0.7
_RAISES, _LOWERS = VERMILLION, BLUE
_EDGES = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.985), (0.5, 0.015))  # where the letters of the sides stand
_HA, _VA = ("left", "right", "center", "center"), ("center", "center", "top", "bottom")
_GAP = np.full((1, 2), np.nan)
_DARK = "#b8860b"  # stands for yellow on white
_LINES: dict[str, tuple[str, Any]] = {"manual": (YELLOW, "-"), "predicted": (SKY, (0, (2.5, 1.2)))}
_OTHER: tuple[str, Any] = (PURPLE, (0, (1, 1)))
# LPS axes that run to the right and down the picture, and what stands at its left, right, top and bottom.
_PLANES = {
    "Axial": (0, 1, "RLAP"), "Coronal": (0, 2, "RLSI"), "Sagittal": (1, 2, "APSI"),
}


@drawn
def scan_figure(pet: Volume, ct: Volume, contours: Mapping[str, Volume], *, width: Width = "double") -> Figure:
    """PET projection and fused axial, coronal and sagittal planes through the middle of the tumour, with contours.

    Args:
        pet: SUV; any grid.
        ct: HU; any grid.
        contours: masks by label ("manual", "predicted"), on any grid; empty ones are named in the key as absent.
        width: "single" (two panels a row) or "double" (four).
    """
    across = 4 if width == "double" else 2
    pitch = WIDTH_MM[width] / across
    side = pitch - 1.2
    rows = 4 // across
    figure = page(width, rows * (side + 4.5) + 5.0)
    top = max(_peak(pet), 1e-6)
    center = _center(pet, contours)
    names = ("PET", *_PLANES)
    for i, name in enumerate(names):
        axes = panel(figure, i % across * pitch + 0.6, (rows - 1 - i // across) * (side + 4.5) + 5.0, side, side)
        axes.set_axis_off()
        title = f"PET projection, SUV 0\N{EN DASH}{number(top, 3)}" if name == "PET" else name
        axes.set_title(title, fontsize=SMALL, y=1.0, pad=2.0)
        if name == "PET":
            _draw_projection(axes, pet, contours, top)
        else:
            _draw_plane(axes, name, (pet, ct), contours, center, top)
    _key(figure, contours)
    return figure


@drawn
def quality_figure(
    pet: Volume, ct: Volume, projections: Sequence[Volume], contours: Mapping[str, Volume], region: Volume
) -> Figure:
    """The whole PET in two projections with the region, CT alone, and three fused planes through the tumour.

    Args:
        pet: SUV around the region, on any grid.
        ct: HU around the region, on any grid.
        projections: of the whole PET, coronal (z, 1, x) and sagittal (z, y, 1).
        contours: masks by label, as `scan_figure`.
        region: the network grid.
    """
    pitch = WIDTH_MM["double"] / 3
    side = pitch - 1.2
    figure = page("double", 2 * (side + 4.5) + 5.0)
    top, center = max(_peak(pet), 1e-6), _center(pet, contours)
    titles = (f"PET, coronal projection, SUV 0\N{EN DASH}{number(top, 3)}", "PET, sagittal projection", "CT, axial",
              *(f"{name}, fused" for name in _PLANES))
    for i, title in enumerate(titles):
        axes = panel(figure, i % 3 * pitch + 0.6, (1 - i // 3) * (side + 4.5) + 5.0, side, side)
        axes.set_axis_off()
        axes.set_title(title, fontsize=SMALL, y=1.0, pad=2.0)
        if i < 2:
            _draw_whole(axes, projections[i], i, contours, region, top)
        else:
            name = "Axial" if i == 2 else tuple(_PLANES)[i - 3]
            _draw_plane(axes, name, (pet, ct), contours, center, 0.0 if i == 2 else top)
    _key(figure, contours)
    return figure


@drawn
def attribution_figure(pet: Volume, ct: Volume, maps: Sequence[Volume], contours: Mapping[str, Volume]) -> Figure:
    """What raises (red) and lowers (blue) a risk, over PET and CT, axial and coronal through the tumour.

    The maps are smoothed over a voxel or so, and all four planes share the colours, whose full strength is what one
    voxel in a thousand exceeds.

    Args:
        pet: SUV, on any grid.
        ct: HU, on any grid.
        maps: what each voxel of PET and of CT adds to the risk.
        contours: masks by label, as `scan_figure`.
    """
    pitch = WIDTH_MM["double"] / 4
    side = pitch - 1.2
    figure = page("double", side + 9.5)
    top, center = max(_peak(pet), 1e-6), _center(pet, contours)
    smooth = {name: volume.with_array(gaussian_filter(volume.array, _BLUR_VOXELS))
              for name, volume in zip(("PET", "CT"), maps, strict=True)}
    full = max(float(np.quantile(np.abs([volume.array for volume in smooth.values()]), 0.999)), 1e-12)
    grounds = {"PET": (pet, "gray_r", (0.0, top), "black"), "CT": (ct, "gray", _WINDOW_HU, "white")}
    for i, (name, plane) in enumerate(product(grounds, ("Axial", "Coronal"))):
        scan, colors, window, ink = grounds[name]
        axes = panel(figure, i * pitch + 0.6, 5.0, side, side)
        axes.set_axis_off()
        axes.set_title(f"{name}, {plane.lower()}", fontsize=SMALL, y=1.0, pad=2.0)
        points = _plane(pet, plane, center)
        axes.imshow(_sample(scan, points, order=1, outside=window[0]), cmap=colors, vmin=window[0], vmax=window[1],
                    interpolation="bilinear")
        _draw_risk(axes, _sample(smooth[name], points, order=1, outside=0.0) / full)
        _finish(axes, plane, points, contours, ink)
    _key(figure, contours, (Patch(color=_RAISES, label="raises the risk"), Patch(color=_LOWERS, label="lowers it")))
    return figure


def _peak(pet: Volume) -> float:
    """The SUV that is black: the 99.9th percentile of what is not air, at least 5."""
    uptake = np.asarray(pet.array, dtype=np.float64)
    warm = uptake[uptake > 0.5]
    return max(5.0, float(np.quantile(warm, 0.999))) if warm.size else 5.0


def _center(pet: Volume, contours: Mapping[str, Volume]) -> NDArray[np.float64]:
    """LPS mm of the middle of the manual mask, else of the first that is not empty, else of the hottest voxel."""
    for _, mask in sorted(contours.items(), key=lambda item: item[0] != "manual"):
        found = np.argwhere(np.asarray(mask.array) > 0)
        if len(found):
            return mask.points_mm(found.mean(axis=0))
    return pet.points_mm(np.unravel_index(int(np.argmax(pet.array)), pet.shape))


def _extent(volume: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """LPS mm of the smallest and largest corner of a volume."""
    corners = np.array([[k, j, i] for k in (0, 1) for j in (0, 1) for i in (0, 1)]) * (np.array(volume.shape) - 1)
    points = volume.points_mm(corners)
    return points.min(axis=0), points.max(axis=0)


def _sample(volume: Volume, points: NDArray[np.float64], *, order: int, outside: float) -> NDArray[np.float64]:
    """Values of a volume at LPS points (..., 3)."""
    indices = np.moveaxis(volume.indices(points), -1, 0)
    array = np.asarray(volume.array, dtype=np.float32)
    return np.asarray(map_coordinates(array, indices, order=order, cval=outside), dtype=np.float64)


def _grid(pet: Volume, edge: float, step: float, right: int, down: int, center: NDArray[np.float64]
          ) -> NDArray[np.float64]:
    """LPS points (rows, columns, 3) of a square of `edge` mm around the tumour, moved to stay inside the scan; pictures
    have anterior and superior at the top."""
    low, high = _extent(pet)
    steps = np.arange(int(edge / step)) * step - edge / 2.0
    inside = np.where(high - low <= edge, (low + high) / 2.0, np.clip(center, low + edge / 2.0, high - edge / 2.0))
    x, y = inside[right] + steps, inside[down] + (steps[::-1] if down == 2 else steps)
    points = np.broadcast_to(center, (y.size, x.size, 3)).copy()
    points[..., right] = x[None, :]
    points[..., down] = y[:, None]
    return points


def _draw_plane(axes: Axes, name: str, images: tuple[Volume, Volume], contours: Mapping[str, Volume],
                center: NDArray[np.float64], top: float) -> None:
    """CT in grey, PET over it unless `top` is 0, contours on top."""
    pet, ct = images
    points = _plane(pet, name, center)
    anatomy = _sample(ct, points, order=1, outside=-1000.0)
    axes.imshow(anatomy, cmap="gray", vmin=_WINDOW_HU[0], vmax=_WINDOW_HU[1], interpolation="bilinear")
    if top > 0.0:
        uptake = _sample(pet, points, order=1, outside=0.0)
        strength = np.clip((uptake - 0.12 * top) / (0.4 * top), 0.0, 0.62)
        axes.imshow(uptake, cmap="inferno", vmin=0.0, vmax=top, alpha=strength, interpolation="bilinear")
    _finish(axes, name, points, contours, "white")


def _plane(pet: Volume, name: str, center: NDArray[np.float64]) -> NDArray[np.float64]:
    """LPS points of a plane through the tumour."""
    right, down, _ = _PLANES[name]
    low, high = _extent(pet)
    return _grid(pet, min(_VIEW_MM, float((high - low).max())), _MM, right, down, center)


def _draw_risk(axes: Axes, share: NDArray[np.float64]) -> None:
    """What raises and lowers the risk, the more the less transparent; 1 is full strength."""
    colors = LinearSegmentedColormap.from_list("risk", [_LOWERS, "white", _RAISES])
    axes.imshow(share, cmap=colors, vmin=-0.25, vmax=0.25, alpha=np.clip(1.2 * np.abs(share), 0.0, 0.85),
                interpolation="bilinear")


def _finish(axes: Axes, name: str, points: NDArray[np.float64], contours: Mapping[str, Volume], ink: str) -> None:
    """Contours, the letters of the sides and the scale bar of a plane, on a dark ground or a white one."""
    for label, mask in contours.items():
        line = _LINES.get(label, _OTHER) if ink == "white" else _on_white(label)
        _outline(axes, _sample(mask, points, order=1, outside=0.0), *line)
    _letters(axes, _PLANES[name][2], points.shape[:2], ink)
    _scale_bar(axes, points.shape[:2], _MM, ink)


def _draw_projection(axes: Axes, pet: Volume, contours: Mapping[str, Volume], top: float) -> None:
    """The coronal maximum-intensity projection, hot is black."""
    low, high = _extent(pet)
    plane = _grid(pet, float((high - low).max()), _MIP_MM, 0, 2, low)
    depth = np.arange(low[1], high[1] + _MIP_MM, _MIP_MM)

    def projected(volume: Volume) -> NDArray[np.float64]:
        best = np.zeros(plane.shape[:2])
        for y in depth:
            slab = plane.copy()
            slab[..., 1] = y
            np.maximum(best, _sample(volume, slab, order=1, outside=0.0), out=best)
        return best

    picture = projected(pet)
    axes.imshow(picture, cmap="gray_r", vmin=0.0, vmax=top, interpolation="bilinear")
    for label, mask in contours.items():
        _outline(axes, projected(mask), *_on_white(label))
    _letters(axes, "RLSI", picture.shape, "black")
    _scale_bar(axes, picture.shape, _MIP_MM, "black")


def _draw_whole(axes: Axes, flat: Volume, across: int, contours: Mapping[str, Volume], region: Volume, top: float
                ) -> None:
    """A projection of the whole PET in mm, cut to the body's width, with the region's outline and the contours."""
    picture = np.asarray(flat.array, dtype=np.float64).max(axis=1 + across)
    low, _ = _extent(flat)
    step = [abs(float(flat.affine[row, column])) for row, column in ((across, 2 - across), (2, 0))]
    x = np.arange(picture.shape[1]) * step[0] + low[across]
    z = np.arange(picture.shape[0]) * step[1] + low[2]
    axes.imshow(picture, cmap="gray_r", vmin=0.0, vmax=top, origin="lower", interpolation="bilinear",
                extent=(x[0] - step[0] / 2, x[-1] + step[0] / 2, z[0] - step[1] / 2, z[-1] + step[1] / 2))
    for label, mask in contours.items():
        points = mask.points_mm(np.argwhere(np.asarray(mask.array) > 0.5))
        if len(points):
            color, dash = _on_white(label)
            inside, *_ = np.histogram2d(points[:, 2], points[:, across], bins=(_edges(z), _edges(x)))
            _line_around(axes, contour_generator(x, z, inside > 0), color, dash)
    corner, opposite = _extent(region)
    axes.plot([corner[across], opposite[across], opposite[across], corner[across], corner[across]],
              [corner[2], corner[2], opposite[2], opposite[2], corner[2]], color=VERMILLION, lw=0.8)
    body = x[(picture > _BODY_SUV).any(axis=0)]
    left, right = (body[0], body[-1]) if body.size else (x[0], x[-1])
    axes.set_xlim(max(left - 20.0, x[0] - step[0] / 2), min(right + 20.0, x[-1] + step[0] / 2))
    axes.set_ylim(z[0] - step[1] / 2, z[-1] + step[1] / 2)
    for letter, place, ha, va in zip("APSI" if across else "RLSI", _EDGES, _HA, _VA, strict=True):
        axes.text(*place, letter, transform=axes.transAxes, fontsize=SMALL - 0.5, ha=ha, va=va,
                  path_effects=_halo("black"))


def _edges(middles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The borders between evenly spaced middles."""
    step = middles[1] - middles[0] if middles.size > 1 else 1.0
    return np.append(middles - step / 2.0, middles[-1] + step / 2.0)


def _on_white(label: str) -> tuple[str, Any]:
    """Colour and dashes of a contour on a white ground."""
    color, dash = _LINES.get(label, _OTHER)
    return _DARK if color == YELLOW else color, dash


def _outline(axes: Axes, mask: NDArray[np.float64], color: str, dash: object) -> None:
    if mask.min() < 0.5 <= mask.max():
        _line_around(axes, contour_generator(z=mask), color, dash)


def _line_around(axes: Axes, levels: ContourGenerator, color: str, dash: object) -> None:
    """The line at half of a mask, its pieces apart; `axes.contour` takes five times as long."""
    lines = cast(list[NDArray[np.float64]], levels.lines(0.5))
    pieces = [piece for line in lines for piece in (line, _GAP)]
    if pieces:
        x, y = np.concatenate(pieces).T
        axes.plot(x, y, color=color, lw=0.8, ls=dash, scalex=False, scaley=False)


def _letters(axes: Axes, sides: str, shape: tuple[int, ...], color: str) -> None:
    """R L A P S I at the edges of the picture."""
    for letter, (x, y), ha, va in zip(sides, _EDGES, _HA, _VA, strict=True):
        axes.text(x * shape[1] - 0.5, (1.0 - y) * shape[0] - 0.5, letter, color=color, fontsize=SMALL - 0.5, ha=ha,
                  va=va, path_effects=_halo(color))


def _scale_bar(axes: Axes, shape: tuple[int, ...], step: float, color: str) -> None:
    """5 cm at the lower right."""
    length = 50.0 / step
    y, end = 0.955 * shape[0], 0.965 * shape[1]
    axes.plot([end - length, end], [y, y], color=color, lw=1.2, solid_capstyle="butt")
    axes.text(end - length / 2.0, y - 0.015 * shape[0], "5 cm", color=color, fontsize=SMALL - 0.5, ha="center",
              va="bottom", path_effects=_halo(color))


def _halo(color: str) -> list[withStroke]:
    """The outline that keeps a letter legible on any tissue."""
    return [withStroke(linewidth=1.2, foreground="black" if color == "white" else "white")]


def _key(figure: Figure, contours: Mapping[str, Volume], more: Sequence[Artist] = ()) -> None:
    """Which line, and which colour of `more`, is which, beneath the pictures."""
    handles = list(more)
    for label, mask in contours.items():
        color, dash = _on_white(label)
        name = label if np.any(np.asarray(mask.array) > 0) else f"{label} (empty)"
        handles.append(Line2D([], [], color=color, ls=dash, lw=1.2, label=name))
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=len(handles), bbox_to_anchor=(0.5, 0.0),
                      borderaxespad=0.3)
