"""Drawn garments: a top laid flat, with or without sleeves, collar, stripes and print.

The four traits are bold, so that they survive a small picture and a network that was never
trained; everything else (cut, colours, pose, light, background, size) is drawn at random, and a few
tops carry what looks like a trait and is none: a chest pocket, a hem band, a button placket.

Shapes are given in garment units about the middle of the chest: x to the right, y downward, the top
about 0.9 high.
"""

import cv2
import numpy as np

from mlc_jax.data.canvas import Place, Points, cover, lay_over, outline, paint, shadow

SIZES = ((96, 80), (112, 96), (128, 100), (128, 112), (150, 120), (160, 128), (200, 160))

CLOTH = np.array(
    [
        (178, 34, 42), (226, 94, 62), (240, 178, 48), (246, 222, 150), (96, 140, 62),
        (28, 92, 74), (52, 150, 158), (120, 176, 220), (38, 84, 164), (26, 36, 78),
        (110, 66, 140), (222, 130, 164), (244, 240, 230), (150, 150, 154), (44, 44, 48),
        (134, 90, 58),
    ],
    np.float32,
)  # fmt: skip
WALLS = np.array(
    [
        (244, 242, 238), (226, 222, 214), (206, 214, 222), (232, 216, 200), (196, 206, 190),
        (168, 172, 178), (214, 196, 214), (150, 132, 112), (104, 116, 126), (72, 70, 74),
    ],
    np.float32,
)  # fmt: skip


def draw_garment(rng: np.random.Generator, traits: np.ndarray) -> np.ndarray:
    """Draws one top.

    Args:
      rng: the generator of this picture; all of its randomness.
      traits: bool [4]: sleeves, collar, stripes, print.

    Returns:
      uint8 [H, W, 3], RGB, with (H, W) from `SIZES`.
    """
    sleeves, collar, stripes, motif = (bool(trait) for trait in traits)
    size = SIZES[rng.integers(len(SIZES))]
    base = _tint(rng, CLOTH[rng.integers(len(CLOTH))])
    wall = _tint(rng, _contrasting(rng, WALLS, base, 110))
    place = _placement(rng, size)
    light = _light(rng, size)

    body, neck = _body(rng, sleeves)
    arms = _arms(rng) if sleeves else []
    torso_mask = cover(size, place, [body])
    arms_mask = cover(size, place, arms)

    picture = _background(rng, size, wall)
    silhouette = np.maximum(torso_mask, arms_mask)
    picture *= 1 - 0.4 * shadow(silhouette, rng.uniform(0.01, 0.03))

    plain = np.empty((*size, 3), np.float32)
    plain[:] = base
    front = plain.copy()
    second = _contrasting(rng, CLOTH, base, 190)
    if stripes:
        paint(front, second, place, _stripes(rng))
    elif rng.random() < 0.12:
        paint(front, second, place, [_box(0, 0.41, 0.8, 0.045)])
    # Some striped tops have plain arms, as a raglan has; the others are cut from one cloth.
    arms_cloth = plain if rng.random() < 0.35 else front
    if motif:
        _print(rng, front, place, base, second if stripes else None)
    elif rng.random() < 0.15:
        _pocket(front, place, base)

    # Back to front: the torso hides where the arms are sewn on.
    picture = lay_over(picture, arms_cloth * (light * 0.93)[..., None], arms_mask)
    outline(picture, base * 0.62, place, arms)
    picture = lay_over(picture, front * light[..., None], torso_mask)
    outline(picture, base * 0.62, place, [body])
    _finish_neck(rng, picture, place, base, neck, collar)
    grain = rng.standard_normal((*size, 1), np.float32)
    picture += np.float32(rng.uniform(1.5, 5)) * grain
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _tint(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    return np.clip(colour + rng.normal(0, 9, 3), 8, 250).astype(np.float32)


def _contrasting(
    rng: np.random.Generator, palette: np.ndarray, other: np.ndarray, distance: float
) -> np.ndarray:
    """A colour of the palette at least `distance` (Euclidean) from `other`, or the farthest."""
    far = np.linalg.norm(palette - other, axis=1)
    fit = np.flatnonzero(far >= min(distance, far.max()))
    return palette[fit[rng.integers(len(fit))]]


def _placement(rng: np.random.Generator, size: tuple[int, int]) -> Place:
    """The map from garment units to pixels: a small turn, a scale and a shift."""
    height, width = size
    scale = rng.uniform(0.82, 0.97) * min(height, width / 0.86)
    turn = np.deg2rad(rng.uniform(-5, 5))
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = scale * np.array([[cos, sin], [-sin, cos]])
    middle = np.array([width, height]) * (0.5 + rng.uniform(-0.03, 0.03, 2))
    return lambda points: points @ matrix + middle


def _curve(
    start: tuple[float, float], pull: tuple[float, float], end: tuple[float, float]
) -> Points:
    """A quadratic Bézier curve in eight points, without its end."""
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    return (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(pull) + t**2 * np.array(end)


def _mirrored(right: Points) -> Points:
    return right * [-1, 1]


def _box(x: float, y: float, width: float, height: float) -> Points:
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    return corners * [width, height] + [x, y]


def _body(rng: np.random.Generator, sleeves: bool) -> tuple[Points, Points]:
    """The outline of the torso, and of the opening of the neck within it."""
    girth, waist, flare = rng.uniform(0.225, 0.25), rng.uniform(0.9, 1.0), rng.uniform(0.98, 1.14)
    neck_x, hem_y = rng.uniform(0.085, 0.11), rng.uniform(0.40, 0.45)
    neck, hem = (neck_x, -0.43), (girth * flare, hem_y)
    armpit = (girth, -0.15)
    if sleeves:
        shoulder = (girth, -0.375)
        side = [_curve(shoulder, (girth * 0.9, -0.27), armpit)]
    else:
        shoulder = (girth * 0.80, -0.40)
        side = [_curve(shoulder, (girth * 0.52, -0.18), armpit)]
    side += [_curve(armpit, (girth * waist * 0.9, 0.12), hem)]
    right = np.concatenate([np.array([neck]), *side, np.array([hem])])
    bottom = _curve(hem, (0, hem_y + 0.05), (-hem[0], hem_y))[1:]
    body = np.concatenate([right, bottom, _mirrored(right)[::-1]])
    depth = rng.uniform(0.06, 0.15)
    pull = (0.0, -0.43 + (0.7 if rng.random() < 0.35 else 2.0) * depth)
    front = _curve((-neck_x, -0.43), pull, neck)
    back = _curve(neck, (0, -0.41), (-neck_x, -0.43))
    return body, np.concatenate([front, back])


def _arms(rng: np.random.Generator) -> list[Points]:
    """Two sleeves, mostly long, some to the elbow, hanging at an angle of their own."""
    reach = rng.uniform(0.85, 1.0) if rng.random() < 0.85 else rng.uniform(0.5, 0.65)
    spread, width = rng.uniform(0.10, 0.20), rng.uniform(0.085, 0.11)
    top, end = np.array((0.20, -0.385)), np.array((0.265 + spread, -0.36 + 0.66 * reach))
    along = (end - top) / np.linalg.norm(end - top)
    across = np.array((along[1], -along[0])) * width / 2
    outer, inner = end + across, end - across
    shoulder, pit = (0.20, -0.38), (0.20, -0.13)
    bend = (0.30 + spread * 0.45, -0.36)
    arm = np.concatenate(
        [_curve(shoulder, bend, (outer[0], outer[1])), outer[None], inner[None], np.array([pit])]
    )
    return [arm, _mirrored(arm)]


def _stripes(rng: np.random.Generator) -> list[Points]:
    share = rng.uniform(0.42, 0.56)
    if rng.random() < 0.65:
        period = rng.uniform(0.115, 0.16)
        at = np.arange(-0.45, 0.55, period) + rng.uniform(0, period)
        return [_box(0, y, 1.2, period * share) for y in at]
    period = rng.uniform(0.10, 0.135)
    at = np.arange(-0.55, 0.6, period) + rng.uniform(0, period)
    return [_box(x, 0.05, period * share, 1.2) for x in at]


def _motif(rng: np.random.Generator) -> Points:
    """A disc, a star, a heart or a lozenge of radius 1 about the origin."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    kind = rng.integers(4)
    if kind == 0:
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if kind == 1:
        spike = np.arange(10) * np.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 1.15, 0.55)
        return np.stack([radius * np.sin(spike), -radius * np.cos(spike)], axis=1)
    if kind == 2:
        x = 16 * np.sin(angle) ** 3
        y = 13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)
        return np.stack([x, -y - 2], axis=1) / 15
    return np.array([(0, -1.2), (0.95, 0), (0, 1.2), (-0.95, 0)])


def _print(
    rng: np.random.Generator,
    cloth: np.ndarray,
    place: Place,
    base: np.ndarray,
    second: np.ndarray | None,
) -> None:
    """A bold motif on the chest, with a rim that keeps it apart from the cloth's stripes."""
    middle = np.array((rng.uniform(-0.02, 0.02), rng.uniform(0.0, 0.07)))
    radius = rng.uniform(0.145, 0.175)
    ink = _contrasting(rng, CLOTH, base if second is None else (base + second) / 2, 150)
    shape = _motif(rng)
    if second is not None:
        paint(cloth, base, place, [shape * radius * 1.22 + middle])
    paint(cloth, ink, place, [shape * radius + middle])
    paint(cloth, _contrasting(rng, CLOTH, ink, 170), place, [shape * radius * 0.45 + middle])


def _pocket(cloth: np.ndarray, place: Place, base: np.ndarray) -> None:
    paint(cloth, base * 0.72, place, [_box(0.10, -0.08, 0.105, 0.115)])
    paint(cloth, base * 0.92, place, [_box(0.10, -0.072, 0.09, 0.09)])


def _finish_neck(
    rng: np.random.Generator,
    picture: np.ndarray,
    place: Place,
    base: np.ndarray,
    neck: Points,
    collar: bool,
) -> None:
    """The opening of the neck, and a collar of contrasting tone or a trim close to the cloth's."""
    trim = base * 0.75
    paint(picture, base * 0.45, place, [neck])
    if rng.random() < (0.8 if collar else 0.1):
        _placket(picture, place, base)
    if not collar:
        outline(picture, trim, place, [neck], 0.018)
        return
    tone = _contrasting(rng, np.array([(250, 248, 242), (30, 30, 36)], np.float32), base, 170)
    reach, drop = rng.uniform(0.15, 0.185), rng.uniform(-0.28, -0.23)
    wing = np.array([(0.0, -0.345), (0.085, -0.475), (0.125, -0.45), (reach, drop), (0.06, -0.215)])
    wings = [wing, _mirrored(wing)]
    paint(picture, tone * 0.8, place, [_box(0, -0.445, 0.19, 0.045)])
    paint(picture, tone, place, wings)
    outline(picture, tone * 0.6 + 30, place, wings)


def _placket(picture: np.ndarray, place: Place, base: np.ndarray) -> None:
    paint(picture, base * 0.85, place, [_box(0, -0.21, 0.04, 0.22)])
    dots = [_box(0, y, 0.016, 0.016) for y in (-0.25, -0.19, -0.13)]
    paint(picture, np.array((235, 232, 224), np.float32), place, dots)


def _background(rng: np.random.Generator, size: tuple[int, int], wall: np.ndarray) -> np.ndarray:
    """Plain, shaded from corner to corner, or out-of-focus shapes; float32 [H, W, 3]."""
    height, width = size
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = wall
    kind = rng.integers(3)
    if kind == 1:
        towards = _tint(rng, wall * rng.uniform(0.72, 0.9))
        angle = rng.uniform(0, 2 * np.pi)
        x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.cos(angle)
        y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * np.sin(angle)
        picture += (x + y + 0.5).astype(np.float32)[..., None] * (towards - wall)
    elif kind == 2:
        for _ in range(rng.integers(3, 7)):
            colour = _tint(rng, wall * rng.uniform(0.75, 1.12))
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            axes = tuple(int(a) for a in rng.uniform(0.08, 0.3, 2) * width)
            cv2.ellipse(picture, centre, axes, rng.uniform(0, 180), 0, 360, colour.tolist(), -1)
        cv2.blur(picture, (width // 12, width // 12), picture)
    return picture


def _light(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Folds and uneven light: factors about 1 that change slowly; float32 [H, W]."""
    coarse = rng.normal(1, 0.07, (5, 6)).astype(np.float32)
    return rng.uniform(0.92, 1.06) * cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
