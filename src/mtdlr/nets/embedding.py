"""Where the disease lies and what it looks like, as one vector a patient: pooled maps that keep position.

A grid average cannot say where disease lies. Here the predicted tumour and the uptake in and around it are pooled with
coordinates about the tumour's middle and the head's: moments, shells, octants and heights. Left and right are folded
into mean, difference, size of the difference, and difference towards the tumour's side. No outcome enters, so a ridge
Cox model of it has nothing to overfit but its own weights.

The predicted tumour is first drawn in by its uptake (`drawn_in`), as a reader's isocontour would be: predicted
probabilities are rounder than tumours. Everything is smooth in image and probability. Lengths count in `reach`, the
voxels of about 8 mm. Uptake counts from air and in units of the tumour's mean, or of quiet soft tissue, so a scanner's
scale moves few of the numbers. Tissue is told apart by CT as scaled from -1024 to 1024 HU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtdlr.nets.regions import ACTIVE, ACTIVE_WIDTH, dilated, n_region_statistics, region_statistics
from mtdlr.nets.surroundings import NODES, TISSUE, Around, mean_around, node_numbers, tissue_numbers

AXES = "zyx"
SHELLS = ((0.0, 0.35), (0.35, 0.55), (0.55, 0.75), (0.75, 0.95), (0.95, 1.01))
DEPTHS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)  # reaches below the tumour
FOLDS = ("mean", "left-right", "towards tumour", "asymmetry")
READING = 3
"""How a risk reads an embedding. 1, of models made before 2026-11-29: numbers cut at four SD, and without a mask all
uptake above half of the highest. 2, of that day alone: numbers bent towards two SD, and a reader's isocontour. 3: the
same, bent towards three. A model keeps its own."""
LIMIT_SD = {1: 4.0, 2: 2.0, 3: 3.0}
_READER = (0.41, 0.05)  # share of the highest uptake near the middle, how sharply
ISOCONTOUR = {1: (ACTIVE, ACTIVE_WIDTH), 2: _READER, 3: _READER}
PRIOR_REACHES = 3.0
SMALL, TINY = 1e-3, 1e-9
CONTOUR, CONTOUR_WIDTH = 0.45, 0.05  # of the tumour's highest uptake: where `drawn_in` puts its edge, and how sharply


def _names() -> tuple[str, ...]:
    """The name of each number, `block: what`."""
    pairs = [a + b for i, a in enumerate(AXES) for b in AXES[i:]]
    mixed = [pair for pair in pairs if pair[0] != pair[1]]
    place = ["z", "y", "x", "side", "off midline"]
    shape = (["size", *(f"extent {a}" for a in AXES), *(f"tilt {p}" for p in mixed),
              "tilt zx towards side", "tilt yx towards side", *(f"skew {a}" for a in AXES),
              *(f"tails {a}" for a in AXES), "skew x towards side", "surface", "lobulation", "anisotropy",
              "compactness"])
    uptake = (["mean", "SD", "skewness", *(f"slope {a}" for a in AXES), "slope x towards side",
               *(f"curvature {p}" for p in pairs), *(f"shell {k + 1}" for k in range(len(SHELLS))),
               "fine texture", "coarse texture", "CT mean", "CT SD"])
    sectors = [f"{r} {h} {d} {f}" for r in ("near", "far") for h in ("above", "below") for d in ("behind", "before")
               for f in FOLDS]
    spread = (["uptake far", "uptake near", "volume far", *(f"middle {a}" for a in AXES), "middle x towards side",
               *(f"below {d:g}" for d in DEPTHS)])
    measures = [f"measure {k + 1}" for k in range(n_region_statistics(2))]
    blocks = {"place": place, "shape": shape, "uptake": uptake, "sectors": sectors, "spread": spread,
              "tissue": list(TISSUE), "nodes": list(NODES), "measures": measures}
    return tuple(f"{block}: {name}" for block, names in blocks.items() for name in names)


NAMES = _names()
"""What each number of `spatial_embedding` is; the last block, `measures`, are the ten of `region_statistics`."""


class LinearHead(nn.Module):
    """The log-hazard of an embedding: standardised, held in limits, times solved weights.

    `plain` are the weights of the same fit without the block `measures`.

    Args:
        n: how many numbers an embedding has.
        reading: how they are limited.
    """

    center: Tensor
    scale: Tensor
    plain: Tensor

    def __init__(self, n: int, reading: int = READING) -> None:
        super().__init__()
        self.reading = reading
        self.weight = nn.Parameter(torch.zeros(n))
        for name, value in (("center", torch.zeros(n)), ("scale", torch.ones(n)), ("plain", torch.zeros(n))):
            self.register_buffer(name, value)

    def standardised(self, vectors: Tensor) -> Tensor:
        """(b, n) in SD of the training cohort, limited."""
        return limited((vectors - self.center) / self.scale, self.reading)

    def forward(self, vectors: Tensor) -> Tensor:
        """(b,) log-hazards of vectors (b, n)."""
        return (self.standardised(vectors) * self.weight).sum(1)

    def without_measures(self, vectors: Tensor) -> Tensor:
        """(b,) log-hazards of vectors (b, n) by the fit without the block `measures`."""
        return (self.standardised(vectors) * self.plain).sum(1)

    def l2(self) -> Tensor:
        """Sum of squares of the weights."""
        return self.weight.square().sum()


def limited(z: Tensor, reading: int = READING) -> Tensor:
    """Numbers in SD, held in limits: one patient with an odd number must not carry the fit.

    Args:
        z: of any shape.
        reading: 1 cuts at four SD; later ones bend smoothly towards two (2) or three (3), so that each number moves
            the risk a little, however far out it is.

    >>> [round(value, 2) for value in limited(torch.tensor([0.1, -1.0, 9.0])).tolist()]
    [0.1, -0.96, 2.99]
    """
    limit = LIMIT_SD[reading]
    return z.clamp(-limit, limit) if reading == 1 else limit * torch.tanh(z / limit)


def spatial_embedding(image: Tensor, probability: Tensor, reach: int) -> Tensor:
    """(b, len(NAMES)) of images (b, 2, z, y, x), PET first, and tumour probabilities (b, z, y, x).

    Args:
        image: z runs towards the head, y backwards, x to the patient's left.
        probability: of tumour; without any, the numbers are those of a speck in the grid's middle.
        reach: voxels that make about 8 mm.
    """
    seen = _Seen(image, drawn_in(image, probability, max(1, reach // 2)), reach)
    around = seen.around()
    parts = [seen.place(), seen.shape(), seen.uptake(), seen.sectors(), seen.spread(),
             tissue_numbers(image, around), node_numbers(around), region_statistics(image, probability, reach)]
    return torch.cat(parts, 1)


def drawn_in(image: Tensor, probability: Tensor, voxels: int) -> Tensor:
    """(b, z, y, x): the tumour within `voxels` of the predicted one, where uptake is near or above 45 % of its highest.

    Args:
        image: (b, 2, z, y, x), PET first.
        probability: (b, z, y, x) of tumour.
        voxels: how far the prediction may be wrong at its edge.
    """
    uptake = image[:, :1] - image[:, :1].amin((2, 3, 4), keepdim=True)
    tumour = probability[:, None]
    high = ((uptake**6 * tumour).sum((2, 3, 4), keepdim=True) + TINY) / (
        (uptake**5 * tumour).sum((2, 3, 4), keepdim=True) + TINY)
    share = uptake / high.clamp_min(SMALL)
    return (dilated(tumour, voxels) * torch.sigmoid((share - CONTOUR) / CONTOUR_WIDTH))[:, 0]


class _Seen:
    """One batch with the maps that every part of the embedding pools."""

    def __init__(self, image: Tensor, probability: Tensor, reach: int) -> None:
        self.reach, self.ct = float(reach), image[:, 1:2]
        self.tumour = probability[:, None]
        self.volume = self.tumour.sum((2, 3, 4)) + SMALL
        above_air = image[:, :1] - image[:, :1].amin((2, 3, 4), keepdim=True)
        self.mean = (above_air * self.tumour).sum((2, 3, 4)) / self.volume
        self.relative = above_air / self.mean[:, :, None, None, None].clamp_min(SMALL)
        # A smooth step that ends: the tail of a sigmoid over all quiet tissue would outweigh a small node.
        rise = ((self.relative - ACTIVE) / (4.0 * ACTIVE_WIDTH) + 0.5).clamp(0.0, 1.0)
        self.active = rise.square() * (3.0 - 2.0 * rise) * (1.0 - self.tumour)
        near = dilated(self.tumour, reach) - self.tumour
        self.zones = (near, (1.0 - near - self.tumour).clamp_min(0.0))
        self.lines = [torch.arange(n, dtype=image.dtype, device=image.device).reshape(
            [-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(image.shape[2:])]
        self.middle = [(n - 1) / 2.0 for n in image.shape[2:]]
        count = self.tumour.sum((2, 3, 4)) + SMALL  # a speck in the middle keeps an empty prediction finite
        self.off = [((self.tumour * (line - m)).sum((2, 3, 4)) / count) for line, m in
                    zip(self.lines, self.middle, strict=True)]
        self.side = torch.tanh(self.off[2] / (0.75 * self.reach))
        self.away = [line - m - off[:, :, None, None, None] for line, m, off in
                     zip(self.lines, self.middle, self.off, strict=True)]
        self.extent = [self._inside(d * d).clamp_min(0.025 * self.reach**2).sqrt() for d in self.away]
        # 64 mm3 whatever the voxels, so that log(1 + volume) means the same on every grid
        self.unit = (2.0 / self.reach) ** 3

    def place(self) -> Tensor:
        """Where the tumour's middle is in the head."""
        return torch.cat([*(off / self.reach for off in self.off), self.side, self.off[2].abs() / self.reach], 1)

    def shape(self) -> Tensor:
        """Its volume, and what its moments add to the volume."""
        size = torch.log(self.volume * self.unit)
        own = torch.log(self.volume) / 3.0
        tilt = {pair: self._tilt(*pair) for pair in ((0, 1), (0, 2), (1, 2))}
        third, fourth = ([self._inside(d**k) / s**k for d, s in zip(self.away, self.extent, strict=True)]
                         for k in (3, 4))
        surface = torch.cat([self.tumour.diff(dim=a).abs().sum((2, 3, 4)) for a in (2, 3, 4)], 1).sum(1, keepdim=True)
        radius = self._radius()
        covariance = self._covariance()
        spread = torch.logdet(covariance)[:, None] / 3.0
        anisotropy = torch.log(covariance.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)) - spread
        return torch.cat([size, *(torch.log(s) - own for s in self.extent), *tilt.values(), tilt[0, 2] * self.side,
                          tilt[1, 2] * self.side, *third, *fourth, third[2] * self.side,
                          torch.log(surface + 1.0) - 2.0 * own, torch.log(self._inside(radius.square()) + SMALL),
                          anisotropy, spread / 2.0 - own], 1)

    def uptake(self) -> Tensor:
        """Uptake in the tumour over its mean: spread, slopes, shells from its surface inwards, texture; CT."""
        off = self.relative - 1.0
        sd = self._inside(off.square()).clamp_min(1e-4).sqrt()
        slope = [self._inside(off * d) / s for d, s in zip(self.away, self.extent, strict=True)]
        curve = [self._inside(off * self.away[i] * self.away[j]) / (self.extent[i] * self.extent[j])
                 for i in range(3) for j in range(i, 3)]
        fine, coarse = self._texture()
        level = self._inside(self.ct)
        width = self._inside((self.ct - level[:, :, None, None, None]).square()).clamp_min(1e-6).sqrt()
        return torch.cat([torch.log(self.mean + SMALL), torch.log(sd), self._inside(off**3) / sd**3, *slope,
                          slope[2] * self.side, *curve, *self._shells(), fine, coarse, level, torch.log(width)], 1)

    def sectors(self) -> Tensor:
        """Log volume of active tissue outside the tumour by octant, near and far, left and right folded."""
        up, back = (torch.sigmoid(d / (0.5 * self.reach)) for d in self.away[:2])
        left = torch.sigmoid((self.lines[2] - self.middle[2]) / (0.5 * self.reach))
        found: list[Tensor] = []
        for zone in self.zones:
            for height in (up, 1.0 - up):
                for depth in (back, 1.0 - back):
                    there = self.active * zone * height * depth
                    found += self._folded(*(torch.log1p((there * half).sum((2, 3, 4)) * self.unit)
                                            for half in (left, 1.0 - left)))
        return torch.cat(found, 1)

    def spread(self) -> Tensor:
        """Uptake of active tissue, its volume, its middle about the tumour's, and how much lies how far below."""
        near, far = (self.active * zone for zone in self.zones)
        total = self.active.sum((2, 3, 4)) + 5.0 / self.unit
        middle = [(self.active * d).sum((2, 3, 4)) / total / self.reach for d in self.away]
        below = [torch.log1p((far * torch.sigmoid((-self.away[0] - depth * self.reach) / (0.5 * self.reach))).sum(
            (2, 3, 4)) * self.unit) for depth in DEPTHS]
        hot = [(self.relative * zone).sum((2, 3, 4)) / (zone.sum((2, 3, 4)) + 1.0) for zone in (far, near)]
        return torch.cat([*hot, torch.log1p(far.sum((2, 3, 4)) * self.unit), *middle, middle[2] * self.side, *below], 1)

    def around(self) -> Around:
        """What the numbers of the surroundings are made from."""
        left = torch.sigmoid((self.lines[2] - self.middle[2]) / (0.5 * self.reach))
        side = self.side[:, :, None, None, None]
        return Around(self.reach, self.unit, self.tumour, self.mean, self.relative, self.active,
                      self.active * self.zones[0], self.away,
                      self.lines[0] - self.middle[0], (left * (1.0 + side) + (1.0 - left) * (1.0 - side)) / 2.0)

    def _inside(self, values: Tensor) -> Tensor:
        """(b, 1): the mean in the tumour."""
        return (values * self.tumour).sum((2, 3, 4)) / self.volume

    def _tilt(self, i: int, j: int) -> Tensor:
        """The correlation of two coordinates in the tumour."""
        return self._inside(self.away[i] * self.away[j]) / (self.extent[i] * self.extent[j])

    def _covariance(self) -> Tensor:
        """(b, 3, 3) of the coordinates in the tumour, never singular."""
        rows = [torch.cat([self._inside(a * b) for b in self.away], 1) for a in self.away]
        own = 0.025 * self.reach**2 * torch.eye(3, dtype=rows[0].dtype, device=rows[0].device)
        return torch.stack(rows, 1) + own

    def _radius(self) -> Tensor:
        """Squared distance from the middle in units of the extent."""
        total = torch.zeros_like(self.tumour)
        for d, s in zip(self.away, self.extent, strict=True):
            total = total + (d / s[:, :, None, None, None]).square()
        return total

    def _shells(self) -> list[Tensor]:
        """Mean relative uptake by depth below the tumour's surface, outermost first."""
        depth = mean_around(self.tumour, int(self.reach))
        weights = [self.tumour * torch.sigmoid((depth - low) / 0.03) * torch.sigmoid((high - depth) / 0.03)
                   for low, high in SHELLS]
        return [((self.relative - 1.0) * w).sum((2, 3, 4)) / (w.sum((2, 3, 4)) + 1.0) for w in weights]

    def _texture(self) -> tuple[Tensor, Tensor]:
        """Log variance of uptake within a small neighbourhood, and between neighbourhoods."""
        k = max(1, int(self.reach) // 2)
        local = mean_around(self.relative * self.tumour, k) / (mean_around(self.tumour, k) + SMALL)
        return (torch.log(self._inside((self.relative - local).square()) + 1e-4),
                torch.log(self._inside((local - 1.0).square()) + 1e-4))

    def _folded(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Mean, difference, difference towards the tumour's side, size of the difference."""
        half = (left - right) / 2.0
        return [(left + right) / 2.0, half, half * self.side, half.abs()]


def central_uptake(image: Tensor, reach: int, reading: int = READING) -> Tensor:
    """(b, z, y, x) in [0, 1]: the hottest uptake near the grid's middle, where nobody drew or predicts a tumour.

    Args:
        image: (b, 2, z, y, x), PET first.
        reach: voxels that make about 8 mm; uptake counts within three of them, less and less outwards.
        reading: which isocontour.

    Reference: Boellaard et al., EJNMMI 2015 (41 % of the highest uptake).
    """
    above_air = image[:, :1] - image[:, :1].amin((2, 3, 4), keepdim=True)
    square = torch.zeros_like(above_air[:1])
    for axis, n in enumerate(image.shape[2:]):
        line = torch.arange(n, dtype=image.dtype, device=image.device) - (n - 1) / 2.0
        square = square + line.square().reshape([-1 if a == axis else 1 for a in range(3)])
    likely = above_air * torch.exp(-square / (2.0 * (PRIOR_REACHES * reach) ** 2))
    share = likely / likely.amax((2, 3, 4), keepdim=True).clamp_min(SMALL)
    level, width = ISOCONTOUR[reading]
    return torch.sigmoid((share - level) / width)[:, 0]
