"""The frame of the phantom's abdomen: outline, fat, muscles, bones, lungs and heart.

Canonical space: RAS millimeters, x grows to the patient's right, y to anterior, z to superior; the origin lies in
front of vertebra L1. Sizes are those of an adult; the warp and the draws below make them vary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difftumor.phantom.canvas import Box, Canvas
from difftumor.phantom.material import Material
from difftumor.phantom.texture import smooth_field

# Vertebrae from below: canonical height of the center, TotalSegmentator v2 number.
VERTEBRAE = (
    (-139, 27),
    (-104, 28),
    (-69, 29),
    (-35, 30),
    (-2, 31),
    (29, 32),
    (58, 33),
    (86, 34),
    (112, 35),
    (137, 36),
)


@dataclass(frozen=True)
class Habitus:
    """Build of one patient, canonical mm."""

    half_width: float
    half_depth_anterior: float
    half_depth_posterior: float
    fat_mm: float
    wall_mm: float
    spine_shift: float
    dome_right: float
    dome_left: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Habitus:
        """Draw a build; fat is thin in many and thick in few."""
        return cls(
            half_width=rng.uniform(129, 139),
            half_depth_anterior=rng.uniform(92, 102),
            half_depth_posterior=rng.uniform(93, 98),
            fat_mm=4 + 13 * rng.beta(1.4, 2.0),
            wall_mm=rng.uniform(11, 17),
            spine_shift=rng.uniform(-13, 13),
            dome_right=rng.uniform(66, 90),
            dome_left=rng.uniform(58, 80),
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """What organs need to know of the frame: the cavity they must stay in."""

    depth: (
        np.ndarray
    )  # float32 (I, J, K), mm below the outer face of the muscle wall along the ray to the axis
    wall: np.ndarray  # float32 (I, J, K), thickness of that wall
    diaphragm: (
        np.ndarray
    )  # float32 (I, J, K), height of the diaphragm above the voxel, negative in the lung
    habitus: Habitus

    def cavity(self, box: Box, margin_mm: float = 0.0) -> np.ndarray:
        """Voxels of the peritoneal cavity: inside the wall and under the diaphragm."""
        inside = self.depth[box] > self.wall[box] + margin_mm
        return inside & (self.diaphragm[box] > margin_mm)


def paint_frame(canvas: Canvas, rng: np.random.Generator) -> Frame:
    """Paint everything around the organs and return the cavity for them."""
    habitus = Habitus.sample(rng)
    frame = _paint_trunk(canvas, habitus, rng)
    _paint_ribs(canvas, frame, rng)
    _paint_chest(canvas, frame)
    _paint_back_muscles(canvas, rng)
    for height, number in VERTEBRAE:
        _paint_vertebra(canvas, height + habitus.spine_shift, number)
    return frame


def spine_depth(z: np.ndarray | float) -> np.ndarray | float:
    """Canonical y of the vertebral body centers at height z: lumbar lordosis, thoracic kyphosis."""
    return -33.0 - 0.0007 * (z + 45.0) ** 2


def _paint_trunk(canvas: Canvas, h: Habitus, rng: np.random.Generator) -> Frame:
    """Air, skin, fat, muscle wall, visceral fat; slab by slab, which keeps the temporary arrays small."""
    depth, wall, diaphragm = (np.empty(canvas.shape, np.float32) for _ in range(3))
    patches = smooth_field(rng, canvas.axes, 28.0)
    waves = smooth_field(rng, canvas.axes, 40.0)
    for start in range(0, canvas.shape[0], 16):
        slab = slice(start, start + 16)
        warped = canvas.warped[:, slab]
        material = canvas.material[slab]
        depth[slab], wall[slab] = _trunk_wall(warped, h, material, patches[slab])
        diaphragm[slab] = _diaphragm(warped, h) + 2.5 * waves[slab]
    return Frame(depth, wall, diaphragm, h)


def _trunk_wall(
    warped: np.ndarray, h: Habitus, material: np.ndarray, patches: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Paint the shells of the trunk in a slab; return depth below the wall's outer face and its thickness, mm."""
    x, y, z = warped
    beside = np.abs(x)
    u = beside / h.half_width
    v = np.abs(y) / np.where(
        y > 0, np.float32(h.half_depth_anterior), np.float32(h.half_depth_posterior)
    )
    r = (u * u * np.sqrt(u) + v * v * np.sqrt(v)) ** np.float32(0.4)  # superellipse, exponent 2.5
    ray = np.hypot(x, y) + np.float32(1e-3)
    anterior = y / ray  # cosine of the angle from the front: 1 front, -1 back
    depth = ray / np.maximum(r, np.float32(1e-3)) - ray
    depth -= 5 * np.exp(-((x / 16) ** 2)) * (anterior < -0.5)  # furrow over the spinous processes

    thoracic = 1 / (1 + np.exp(-(z - 22) / 9))  # 0 below the costal arch, 1 above
    wall = h.wall_mm * (1 - 0.45 * anterior**2 * (anterior > 0))
    wall -= 4 * np.exp(-((x / 5) ** 2)) * (y > 0)  # linea alba between the recti
    wall -= 5 * np.exp(-(((beside - 66) / 7) ** 2)) * (y > 20)  # semilunar line
    wall = np.maximum(wall * (1 - thoracic) + 13 * thoracic, 3)

    fat = 1 + 0.25 * anterior + 0.35 * anterior**4 * (anterior < 0)
    fat *= h.fat_mm * (1.15 - 0.4 * thoracic)
    material[depth > -fat] = Material.SKIN
    material[depth > -fat + 1.9] = Material.SUBCUTANEOUS_FAT
    material[depth > 0] = Material.MUSCLE
    # Oblique and transverse muscles are parted by thin fat, seen only where the planes are thick enough: in patches.
    layer = depth / wall
    plane = (np.abs(layer - 0.42) < 0.045) | (np.abs(layer - 0.72) < 0.045)
    plane &= (patches > -0.1) & (beside > 72) & (anterior > -0.65) & (thoracic < 0.5)
    material[plane] = Material.VISCERAL_FAT
    # Chest wall: fat between the outer muscles and the ribs.
    outer = (thoracic > 0.5) & (np.abs(depth - 4.2) < 0.8) & (beside > 40) & (patches > 0.2)
    material[outer] = Material.SUBCUTANEOUS_FAT
    material[depth > wall] = Material.VISCERAL_FAT
    return depth, wall


def _diaphragm(warped: np.ndarray, h: Habitus) -> np.ndarray:
    """Height of the diaphragm above each voxel of a slab, mm: two domes and the saddle between them."""
    x, y, z = warped
    dome = h.dome_left + (h.dome_right - h.dome_left) / (1 + np.exp(-x / 11))
    beside = np.abs(x) - 62
    # The saddle carries the heart: shallower than the fall to the flanks.
    rho2 = (beside / np.where(beside < 0, np.float32(90), np.float32(66))) ** 2
    rho2 += ((y - 30) / 110) ** 2
    height: np.ndarray = dome - 54 * rho2 - z
    return height


def _paint_ribs(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Oblique ribs in the wall: higher behind than in front, the last two short, cartilage in front."""
    box = canvas.canonical_box((-150, -110, -60), (150, 110, 150))
    candidates = np.abs(frame.depth[box] - 8.5) < 4.4
    index = np.nonzero(candidates)
    x, y, z = (canvas.warped[c][box][index] for c in range(3))
    radial = frame.depth[box][index] - 8.5
    angle = np.arctan2(np.abs(x), -y)  # 0 behind, pi in front
    pitch, first = 27.0, 38.0 + frame.habitus.spine_shift + rng.uniform(-3, 3)
    drop = 75 * (1 - np.cos(angle))  # how far a rib has come down at this angle
    rank = (z + drop - first) / pitch  # 0 for rib 12, 1 for rib 11, ...
    number = np.rint(rank)
    vertical = (rank - number) * pitch
    # The plate is thin across and tall along the body axis; slope makes the axial cut an oblique oval.
    size = (radial / 4.0) ** 2 + (vertical / 6.2) ** 2
    last_angle = np.select([number <= 0, number == 1, number == 2], [1.05, 1.45, 2.05], 2.2)
    bone = (size < 1) & (number >= 0) & (angle < last_angle) & (angle > 0.25)
    cartilage = (size < 1) & (number >= 2) & (angle >= last_angle) & (angle < last_angle + 0.75)
    material = canvas.material[box]
    organs = canvas.organs[box]
    values, numbers = material[index], organs[index]
    values[cartilage] = Material.CARTILAGE
    values[bone] = Material.CORTICAL_BONE
    values[bone & (size < 0.42)] = Material.TRABECULAR_BONE
    # 103 and 115 are the twelfth ribs of the left and the right side.
    numbers[bone] = (np.where(x > 0, 115, 103) - np.clip(number, 0, 11))[bone].astype(np.uint8)
    material[index], organs[index] = values, numbers


def _paint_chest(canvas: Canvas, frame: Frame) -> None:
    """Lungs above the diaphragm, the diaphragm itself, heart and mediastinal fat."""
    box = canvas.canonical_box((-150, -110, -70), (150, 110, 200))
    x, y = canvas.warped[0][box], canvas.warped[1][box]
    inside = frame.depth[box] > np.maximum(frame.wall[box] - 0.5, 12.5)
    above = frame.diaphragm[box]
    canvas.paint(box, inside & (above < 2.4) & (above >= 0), Material.MUSCLE)
    mediastinum = (np.abs(x + 4) < 19 + 0.22 * np.maximum(y, 0)) & (y > -75)
    lung = inside & (above < 0) & ~mediastinum
    canvas.paint(box, lung & (x > 0), Material.LUNG, 14)
    canvas.paint(box, lung & (x <= 0), Material.LUNG, 11)
    lowest = frame.habitus.dome_left - 22
    heart, rho2 = canvas.ellipsoid((-20, 34, lowest + 42), (52, 42, 44), tilt_deg=(0, 18, 25))
    ok = (frame.depth[heart] > frame.wall[heart] + 2) & (frame.diaphragm[heart] < 0)
    canvas.paint(heart, (rho2 < 1.25) & ok, Material.VISCERAL_FAT)
    canvas.paint(heart, (rho2 < 1.0) & ok, Material.HEART, 51)


def _paint_back_muscles(canvas: Canvas, rng: np.random.Generator) -> None:
    """Erector spinae, psoas, quadratus lumborum: columns along the spine."""
    bulk = rng.uniform(0.9, 1.1)
    for side in (-1, 1):
        box = canvas.canonical_box((-80, -105, -220), (80, 10, 220))
        x, y, z = (canvas.warped[c][box] for c in range(3))
        yb = spine_depth(z)
        erector = ((x - side * 31) / (29 * bulk)) ** 2 + ((y - yb + 39) / 17) ** 2
        canvas.paint(box, erector < 1, Material.MUSCLE, 86 if side < 0 else 87)
        grown = np.clip((30 - z) / 110, 0, 1)  # psoas starts at T12 and grows downwards
        psoas = ((x - side * (29 + 6 * grown)) / (4 + 17 * grown * bulk)) ** 2
        psoas += ((y - yb + 1) / (6 + 17 * grown * bulk)) ** 2
        canvas.paint(box, (psoas < 1) & (grown > 0), Material.MUSCLE, 88 if side < 0 else 89)
        quadratus = ((x - side * 55) / 17) ** 2 + (
            (y - yb + 21 - (np.abs(x) - 55) * 0.25) / 6.5
        ) ** 2
        canvas.paint(box, (quadratus < 1) & (z < 12), Material.MUSCLE)
        # Crus of the diaphragm beside the aorta.
        crus = ((x - side * 15 + 5) / 4) ** 2 + ((y - yb - 15 + 0.03 * np.abs(z)) / 13) ** 2
        canvas.paint(box, (crus < 1) & (z > -40) & (z < 75), Material.MUSCLE)


def _paint_vertebra(canvas: Canvas, height: float, number: int) -> None:
    """One vertebra with the disc below it: body, pedicles, arch, processes, canal."""
    scale = 1.0 if height < 20 else 1.0 - 0.0022 * (height - 20)
    pitch = 35.0 if height < 20 else 28.5
    yb = float(spine_depth(height))
    box = canvas.canonical_box((-55, yb - 75, height - 30), (55, yb + 25, height + 25))
    x, y, z = (canvas.warped[c][box] for c in range(3))
    zl = z - height
    y = y - spine_depth(z)
    half = pitch / 2 - 3.6  # half height of the body; what remains is the disc
    waist = scale * (1 - 0.10 * (1 - np.minimum(zl / half, 1) ** 2))
    body = (np.abs(x) / (22.5 * waist)) ** 2.4 + (np.abs(y) / (16.5 * waist)) ** 2.4
    disc = (body < 1.0) & (zl > -pitch / 2 - 3.6) & (zl < half)
    canvas.paint(box, disc, Material.DISC)
    inside = (body < 1) & (np.abs(zl) < half)
    core = (body < 0.80) & (np.abs(zl) < half - 1.6)
    canvas.paint(box, inside, Material.CORTICAL_BONE, number)
    canvas.paint(box, core, Material.TRABECULAR_BONE, number)

    yc = y + 25 * scale  # relative to the canal center
    ring = (x / 11) ** 2 + (yc / 9) ** 2
    arch = (ring < 2.3) & (yc < 3 + 0.0 * x) & (zl < 0.30 * pitch) & (zl > -0.42 * pitch)
    pedicle = (
        (np.abs(np.abs(x) - 12.5) < 4.2) & (yc > -6) & (yc < 14) & (zl > -2) & (zl < 0.36 * pitch)
    )
    spinous = (
        (np.abs(x) < 3.4 - 0.03 * yc)
        & (yc < -8)
        & (yc > -37)
        & (np.abs(zl + 8 - 0.22 * (yc + 10)) < 9)
    )
    reach = 40 if height < 45 else 30
    transverse = (np.abs(x) > 9) & (np.abs(x) < reach)
    transverse &= (yc + 3 + 0.12 * np.abs(x)) ** 2 + (zl - 3) ** 2 < np.where(
        np.abs(x) < 16, 55, 18
    )
    facet = ((np.abs(x) - 16) / 7) ** 2 + ((yc + 10) / 7) ** 2 + (
        (np.abs(zl + 2) - 13) / 9
    ) ** 2 < 1
    posterior = (arch | pedicle | spinous | transverse | facet) & ~inside
    canvas.paint(box, posterior, Material.CORTICAL_BONE, number)
    # Marrow where the bone is thick: the same shapes, shrunk.
    marrow = (
        (np.abs(np.abs(x) - 12.5) < 2.4)
        & (yc > -4)
        & (yc < 14)
        & (np.abs(zl - 0.17 * pitch) < 0.13 * pitch)
    )
    marrow |= (np.abs(x) < 1.6) & (yc < -16) & (yc > -35) & (np.abs(zl + 8 - 0.22 * (yc + 10)) < 7)
    marrow |= ((np.abs(x) - 16) / 4.5) ** 2 + ((yc + 10) / 4.5) ** 2 + (
        (np.abs(zl + 2) - 13) / 6
    ) ** 2 < 1
    canvas.paint(box, marrow & posterior, Material.TRABECULAR_BONE, number)
    canal = (ring < 1) & (np.abs(zl) < pitch / 2 + 4)
    canvas.paint(box, canal, Material.VISCERAL_FAT)
    canvas.paint(box, (ring < 0.62) & canal, Material.SPINAL_CANAL)
