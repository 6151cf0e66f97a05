"""The healthy body as a list of painted shapes, in mm about the middle of the nasopharynx (x left, y back, z up).

Sizes follow an average adult; CT numbers and FDG uptake are textbook values. Shapes are painted in order, so a
hollow organ is its wall first and its content after.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mtdlr.synthetic.canvas import Capsule, Ellipsoid, Point, Pose, Shape, Tissue

AIR = Tissue(-1000, 0.0)
FAT = Tissue(-100, 0.3)
MUSCLE = Tissue(50, 0.75)
BONE = Tissue(900, 0.9)
SPONGY_BONE = Tissue(320, 1.3)
TEETH = Tissue(1700, 0.6)
CORTEX = Tissue(38, 8.5)
WHITE_MATTER = Tissue(30, 4.2)
BASAL_GANGLIA = Tissue(38, 9.0)
CEREBELLUM = Tissue(38, 6.8)
FLUID = Tissue(8, 1.2)
CORD = Tissue(35, 1.9)
EYE = Tissue(12, 0.7)
EYE_MUSCLE = Tissue(45, 2.2)
MUCOSA = Tissue(45, 1.6)
TONGUE = Tissue(55, 1.5)
PAROTID = Tissue(5, 1.8)
SUBMANDIBULAR = Tissue(45, 2.1)
TONSIL = Tissue(55, 2.7)
THYROID = Tissue(110, 1.5)
VESSEL = Tissue(60, 1.5)
MASTOID = Tissue(-350, 0.6)


def shoulders() -> tuple[Shape, ...]:
    """What the neck stands on, in every scan."""
    return (
        Capsule(FAT, (-125, 50, -182), (125, 50, -182), 60), Capsule(MUSCLE, (-122, 50, -184), (122, 50, -184), 48),
        *_pair(Capsule(BONE, (25, 15, -150), (135, 45, -148), 6)),
    )


def head_and_neck(marrow: float = 1.0) -> tuple[Shape, ...]:
    """Skin to brain, airway to the root of the neck; `marrow` is a factor on the uptake of the neck's vertebrae."""
    return (*_outline(), *_cranium(), *_face(), *_neck(Tissue(SPONGY_BONE.hu, marrow * SPONGY_BONE.suv)), *_airway())


def trunk() -> tuple[Shape, ...]:
    """Chest to thighs with arms down: heart, liver, kidneys and bladder take up tracer as a locator's decoys."""
    return (*_trunk_outline(), *_chest(), *_abdomen())


def draw_pose(rng: np.random.Generator) -> Pose:
    """A head size, a tilt of a few degrees about each axis and a place in the scanner."""
    angles = np.radians(np.clip(rng.normal(0.0, (4.0, 2.5, 4.0)), -9, 9))
    size = np.diag(1.0 + np.clip(rng.normal(0.0, 0.04, 3), -0.08, 0.08))
    return Pose(_rotation(angles) @ size, rng.uniform(-8.0, 8.0, 3))


def _rotation(angles_rad: np.ndarray) -> np.ndarray:
    """Rotation about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_rad), np.sin(angles_rad)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _pair(shape: Ellipsoid | Capsule) -> tuple[Shape, Shape]:
    """The shape and its mirror image."""
    if isinstance(shape, Ellipsoid):
        mirrored: Shape = Ellipsoid(shape.tissue, _mirror(shape.center_mm), shape.radii_mm, shape.boxy)
    else:
        mirrored = Capsule(shape.tissue, _mirror(shape.start_mm), _mirror(shape.end_mm), shape.radius_mm)
    return shape, mirrored


def _mirror(point: Point) -> Point:
    return -point[0], point[1], point[2]


def _chain(tissue: Tissue, radius_mm: float, *points: Point) -> tuple[Shape, ...]:
    """Tubes from point to point."""
    return tuple(Capsule(tissue, a, b, radius_mm) for a, b in pairwise(points))


def _outline() -> tuple[Shape, ...]:
    """Skin and fat, then muscle inside it."""
    skull, face, nose = (0, 16, 72), (0, -40, -8), (0, -92, 8)
    return (
        Ellipsoid(FAT, skull, (77, 98, 60)), Ellipsoid(FAT, face, (63, 54, 66)),
        Ellipsoid(FAT, (0, 45, 5), (62, 55, 55)),
        Capsule(FAT, (0, 26, -30), (0, 36, -150), 60), Ellipsoid(FAT, nose, (13, 14, 20)),
        *_pair(Ellipsoid(FAT, (69, 20, 10), (7, 15, 26))),
        Capsule(MUSCLE, (0, 30, -30), (0, 40, -150), 53), Ellipsoid(MUSCLE, face, (56, 48, 59)),
        Ellipsoid(MUSCLE, skull, (74, 95, 57)), Ellipsoid(MUSCLE, (0, 45, 5), (55, 48, 50)),
    )


def _cranium() -> tuple[Shape, ...]:
    """Skull, brain with grey and white matter, ventricles, cerebellum, eyes."""
    return (
        Ellipsoid(BONE, (0, 18, 72), (71, 91, 54)), Ellipsoid(BONE, (0, 57, 22), (55, 41, 34)),
        Ellipsoid(CORTEX, (0, 18, 73), (65, 85, 48)), Ellipsoid(CEREBELLUM, (0, 58, 24), (49, 35, 28)),
        *_pair(Ellipsoid(WHITE_MATTER, (31, 16, 77), (22, 62, 29))),
        Ellipsoid(WHITE_MATTER, (0, 30, 32), (13, 12, 26)),
        *_pair(Ellipsoid(BASAL_GANGLIA, (20, 6, 68), (9, 18, 12))),
        *_pair(Ellipsoid(FLUID, (9, 18, 80), (5, 30, 10))),
        *_pair(Ellipsoid(FAT, (32, -58, 27), (18, 26, 16))),
        *_pair(Capsule(EYE_MUSCLE, (34, -62, 27), (22, -36, 28), 4)),
        *_pair(Ellipsoid(EYE, (33, -71, 27), (12, 12, 12))),
        *_pair(Ellipsoid(BONE, (52, 34, 5), (15, 17, 18))), *_pair(Ellipsoid(MASTOID, (52, 36, 3), (10, 12, 13))),
        *_pair(Capsule(BONE, (20, 10, 16), (52, 22, 18), 8)),
        Capsule(SPONGY_BONE, (0, 14, 22), (0, 27, 2), 9),
    )


def _face() -> tuple[Shape, ...]:
    """Jaws, teeth, palate, tongue, salivary glands, tonsils."""
    return (
        Ellipsoid(BONE, (0, -52, 2), (38, 34, 22)), Ellipsoid(MUCOSA, (0, -50, 4), (17, 36, 20)),
        Ellipsoid(BONE, (0, -52, -18), (26, 30, 4)),
        *_chain(TEETH, 4.5, (-26, -42, -25), (-23, -62, -25), (-10, -78, -25), (10, -78, -25), (23, -62, -25),
                (26, -42, -25)),
        *_pair(Ellipsoid(FAT, (29, -10, -18), (6, 15, 18))), *_pair(Ellipsoid(FAT, (42, -52, -28), (9, 16, 16))),
        *_pair(Capsule(BONE, (19, -20, 6), (21, -14, -18), 2.5)),
        *_chain(BONE, 6.5, (-50, -8, 4), (-48, -14, -42), (-33, -58, -56), (-12, -82, -58), (12, -82, -58),
                (33, -58, -56), (48, -14, -42), (50, -8, 4)),
        *_chain(TEETH, 4.0, (-27, -46, -42), (-22, -64, -41), (-9, -79, -40), (9, -79, -40), (22, -64, -41),
                (27, -46, -42)),
        Ellipsoid(TONGUE, (0, -42, -40), (21, 30, 17)),
        *_pair(Capsule(BONE, (42, -58, 12), (62, -22, 10), 3.5)),
        *_pair(Ellipsoid(PAROTID, (57, 6, -22), (10, 17, 22))),
        *_pair(Ellipsoid(SUBMANDIBULAR, (31, -30, -66), (9, 14, 9))),
        *_pair(Ellipsoid(TONSIL, (17, -6, -38), (5, 7, 10))),
    )


def _neck(vertebra: Tissue) -> tuple[Shape, ...]:
    """Spine with cord, strap muscles between fat planes, vessels, thyroid."""
    return (
        *_pair(Capsule(FAT, (40, 12, -40), (34, 20, -150), 13)),
        *_pair(Capsule(MUSCLE, (54, 32, -20), (18, -8, -150), 9)),
        *_pair(Capsule(VESSEL, (25, 14, -5), (24, 12, -180), 5)),
        Capsule(BONE, (0, 50, -6), (0, 62, -190), 13),
        *(Capsule(vertebra, (0, 31 + 0.07 * depth, -8 - depth), (0, 31.5 + 0.07 * depth, -19 - depth), 11)
          for depth in range(0, 180, 17)),
        Capsule(CORD, (0, 47, 0), (0, 58, -190), 7),
        *_pair(Ellipsoid(THYROID, (15, 2, -122), (8, 9, 20))),
    )


def _airway() -> tuple[Shape, ...]:
    """Nasal passages, sinuses, pharynx, larynx and trachea."""
    return (
        *_pair(Ellipsoid(AIR, (7, -52, 4), (3.5, 38, 17))),
        *_pair(Ellipsoid(AIR, (28, -50, 2), (12.5, 17, 16))),
        *_pair(Ellipsoid(AIR, (7, -58, 30), (5, 16, 9))),
        Ellipsoid(BONE, (0, -14, 23), (18, 15, 13)), Ellipsoid(AIR, (0, -14, 23), (14, 11, 9.5)),
        Ellipsoid(AIR, (0, -86, 46), (14, 5, 9)),
        Ellipsoid(MUCOSA, (0, -4, -4), (21, 17, 19)), Ellipsoid(AIR, (0, -8, -4), (14, 9, 14)),
        *_chain(MUCOSA, 12, (0, -1, -18), (0, 4, -62)), *_chain(AIR, 8, (0, -3, -14), (0, 1, -66)),
        Ellipsoid(Tissue(180, 1.4), (0, -6, -92), (18, 16, 20)),
        *_chain(AIR, 7, (0, 1, -66), (0, -4, -92), (0, 8, -140), (0, 20, -200)),
    )


def _trunk_outline() -> tuple[Shape, ...]:
    """Chest, belly, pelvis, thighs and arms: fat first, muscle inside."""
    return (
        *_pair(Capsule(FAT, (192, 60, -200), (196, 60, -640), 40)),
        *_pair(Capsule(MUSCLE, (192, 60, -200), (196, 60, -640), 32)),
        *_pair(Capsule(BONE, (192, 60, -200), (196, 60, -640), 11)),
        Ellipsoid(FAT, (0, 48, -420), (152, 112, 265), boxy=True),
        Ellipsoid(FAT, (0, 52, -610), (165, 112, 110), boxy=True),
        *_pair(Capsule(FAT, (80, 55, -640), (76, 55, -900), 80)),
        Ellipsoid(MUSCLE, (0, 50, -420), (136, 95, 255), boxy=True),
        Ellipsoid(MUSCLE, (0, 55, -610), (146, 92, 104), boxy=True),
        *_pair(Capsule(MUSCLE, (80, 55, -640), (76, 55, -900), 66)),
        *_pair(Capsule(BONE, (85, 55, -650), (76, 55, -900), 14)),
    )


def _chest() -> tuple[Shape, ...]:
    """Lungs, heart, aorta, ribs-and-spine."""
    lung, heart, blood = Tissue(-820, 0.4), Tissue(50, 5.5), Tissue(45, 1.7)
    return (
        Ellipsoid(SPONGY_BONE, (0, 48, -285), (132, 92, 140)), Ellipsoid(MUSCLE, (0, 48, -285), (127, 87, 135)),
        *_pair(Ellipsoid(lung, (66, 45, -280), (54, 76, 118))),
        Ellipsoid(heart, (28, 10, -315), (42, 38, 46)), Ellipsoid(blood, (30, 8, -315), (26, 22, 30)),
        Capsule(blood, (12, 75, -220), (10, 80, -560), 12),
        *(Capsule(SPONGY_BONE, (0, 98, z), (0, 98, z - 18), 18) for z in range(-190, -580, -25)),
        Capsule(CORD, (0, 124, -190), (0, 122, -480), 8),
    )


def _abdomen() -> tuple[Shape, ...]:
    """Liver, spleen, kidneys, bowel, bladder, pelvis."""
    return (
        Ellipsoid(Tissue(60, 2.3), (-62, 35, -420), (82, 72, 66)),
        Ellipsoid(Tissue(50, 1.9), (92, 75, -400), (30, 40, 48)),
        *_pair(Ellipsoid(Tissue(35, 6.0), (62, 95, -470), (24, 22, 50))),
        *_chain(Tissue(30, 2.2), 20, (-60, 0, -500), (-20, -15, -540), (30, -10, -510), (60, 5, -550)),
        *_pair(Capsule(BONE, (85, 75, -570), (70, 75, -660), 16)),
        Ellipsoid(Tissue(10, 28.0), (0, 30, -665), (36, 30, 32)),
    )
