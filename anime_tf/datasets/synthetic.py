"""A small cast of invented characters, drawn: data for whoever has none yet.

The drawings are simple, but the task is not trivial: characters share hair colours,
and pose, expression, light and background change from picture to picture.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from anime_tf import files
from anime_tf.errors import UserError

_NAMES = (
    "Akari",
    "ミドリ",
    "小雪",
    "Captain Rose",
    "Sora_(winter)",
    "Émile",
    "하늘",
    "Tsubasa & Kuro",
    "青葉",
    "Вера",
    "Momo [chibi]",
    "Luna",
)
_HAIR = ("#f2c14e", "#5b3a29", "#2b2b3a", "#e86a92", "#5aa9e6", "#6cc29a", "#c8553d")
_HAIR += ("#b8a1e3", "#d9d9e3")
_EYES = ("#2f6fb7", "#4f9d4f", "#a0522d", "#8c3fa8", "#c23b3b", "#d19a2a", "#2d8f8f")
_SKIN = ("#ffe6d5", "#fbd5bd", "#e8b996", "#c98f6b")
_OUTFITS = ("#34496b", "#b33951", "#3f7d58", "#e8e4da", "#6a4c93", "#22223b", "#e09f3e")
_STYLES = ("long", "bob", "twintails", "spiky", "ponytail", "buns")
_ACCESSORIES = ("ribbon", "cat ears", "headphones", "witch hat", "glasses", "none")
_ACCESSORIES += ("crown", "horns", "flower")
_ACCENTS = ("#d7263d", "#1b998b", "#f46036", "#2e294e", "#e3d26f")
_FORMATS = (".png", ".jpg", ".webp")
_LINE = "#3a2a2a"

Points = np.ndarray  # [n, 2], in head radii around the head's centre, y downwards


@dataclass(frozen=True)
class Character:
    """What stays the same in all pictures of a character. Colours are `#rrggbb`."""

    name: str
    hair: str
    style: str
    bangs: int
    eyes: str
    skin: str
    accessory: str
    accent: str
    outfit: str


def build_cast(num_characters: int, seed: int = 0) -> list[Character]:
    """Invents characters, no two of which share both hair and accessory.

    Args:
        num_characters: At most 500.
        seed: Same seed, same cast; a larger cast begins with the smaller one.
    """
    cast, seen = [], set()
    for index in range(num_characters):
        rng = np.random.default_rng([seed, index])
        while True:
            hair, style, accessory = map(rng.choice, (_HAIR, _STYLES, _ACCESSORIES))
            # 486 combinations: beyond them only the other traits tell apart.
            if (hair, style, accessory) not in seen or len(seen) > 400:
                break
        seen.add((hair, style, accessory))
        name = _NAMES[index] if index < len(_NAMES) else f"Character {index + 1:03d}"
        cast.append(
            Character(
                name,
                hair=str(hair),
                style=str(style),
                bangs=int(rng.integers(3)),
                eyes=str(rng.choice(_EYES)),
                skin=str(rng.choice(_SKIN)),
                accessory=str(accessory),
                accent=str(rng.choice(_ACCENTS)),
                outfit=str(rng.choice(_OUTFITS)),
            )
        )
    return cast


def draw_picture(
    character: Character, rng: np.random.Generator, size: int = 160
) -> Image.Image:
    """Draws one picture of a character: RGB, `size` x `size` pixels."""
    canvas = _background(rng, 2 * size)
    pen = _Pen(canvas, rng)
    _draw_back_hair(pen, character)
    _draw_body(pen, character)
    _draw_face(pen, character, rng)
    _draw_bangs(pen, character)
    _ACCESSORY_DRAWERS[character.accessory](pen, character)
    small = canvas.resize((size, size), Image.Resampling.BOX)
    return _light(small, rng)


def write_cast(
    folder: Path | str,
    num_characters: int = 6,
    pictures_per_character: int = 40,
    size: int = 160,
    seed: int = 0,
    on_picture: Callable[[], None] | None = None,
) -> list[Path]:
    """Draws `folder/NAME/0001.png` and so on, in PNG, JPEG and WebP by turns.

    Each picture depends on the seed, the character and its number alone, so a larger
    collection contains the smaller one.

    Args:
        folder: Where to draw; must be new or empty.
        num_characters, pictures_per_character: How many.
        size: Side of the pictures in pixels.
        seed: Same seed, same pictures.
        on_picture: Called after each picture.

    Returns:
        The files, sorted by character and number.

    Raises:
        UserError: If the folder holds anything already.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} is not empty, and drawing never mixes with your pictures; "
            "choose a new folder with --out"
        )
    cast = build_cast(num_characters, seed)
    jobs = [
        (c, n) for c in range(num_characters) for n in range(pictures_per_character)
    ]

    def draw(job: tuple[int, int]) -> Path:
        character, number = job
        rng = np.random.default_rng([seed, character, number])
        suffix = _FORMATS[number % len(_FORMATS)]
        path = folder / cast[character].name / f"{number + 1:04d}{suffix}"
        picture = draw_picture(cast[character], rng, size)
        with files.replacing(path) as temporary:
            picture.save(temporary, quality=92)
        return path

    paths = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path in pool.map(draw, jobs):
            paths.append(path)
            if on_picture:
                on_picture()
    return paths


class _Pen:
    """Draws shapes given in head coordinates, turned, moved, scaled and mirrored."""

    def __init__(self, canvas: Image.Image, rng: np.random.Generator):
        self._draw = ImageDraw.Draw(canvas)
        side = canvas.width
        angle, scale = rng.normal(0, 0.16), side * rng.uniform(0.22, 0.34)
        mirror = rng.choice([-1.0, 1.0])
        turn = np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        self._matrix = scale * turn * [mirror, 1.0]
        self._offset = side * np.array([rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.56)])
        self._line = max(1, round(scale * rng.uniform(0.02, 0.05)))

    def shape(self, points: Points, fill: str, outline: bool = True) -> None:
        corners = self._map(points)
        self._draw.polygon(corners, fill=fill)
        if outline:
            self._draw.line([*corners, corners[0]], fill=_LINE, width=self._line)

    def stroke(self, points: Points, colour: str = _LINE, width: float = 1.0) -> None:
        thickness = max(1, round(self._line * width))
        self._draw.line(self._map(points), fill=colour, width=thickness, joint="curve")

    def _map(self, points: Points) -> list[tuple[float, float]]:
        mapped = np.asarray(points, float) @ self._matrix.T + self._offset
        return list(map(tuple, mapped.tolist()))


def _ellipse(x: float, y: float, width: float, height: float, n: int = 28) -> Points:
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


def _arc(
    x: float, y: float, width: float, height: float, start: float, end: float
) -> Points:
    angles = np.radians(np.linspace(start, end, 16))
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


def _mirrored(points: Points) -> Points:
    return np.asarray(points, float) * [-1.0, 1.0]


def _shade(colour: str, factor: float) -> str:
    """Darkens (factor < 1) or lightens (factor > 1) a colour."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)
    rgb = rgb * factor if factor < 1 else 255 - (255 - rgb) / factor
    return "#" + "".join(f"{int(value):02x}" for value in rgb)


def _background(rng: np.random.Generator, side: int) -> Image.Image:
    """A soft random landscape of colours with stripes, dots or discs over it."""
    cells = tuple(rng.integers(2, 6, size=2))
    soft = rng.integers(90, 256, size=(*cells, 3), dtype=np.uint8)
    canvas = Image.fromarray(soft).resize((side, side), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    colours = [
        f"#{rng.integers(80, 256, 3, np.uint8).tobytes().hex()}" for _ in range(3)
    ]
    kind = rng.integers(4)
    if kind == 0:
        slope, gap = rng.uniform(-1, 1) * side, int(side / rng.integers(4, 9))
        for x in range(-side, 2 * side, gap):
            line = [(x, 0), (x + slope, side)]
            draw.line(line, fill=colours[0], width=gap // 3)
    elif kind == 1:
        gap = side // int(rng.integers(5, 10))
        for x in range(0, side, gap):
            for y in range(0, side, gap):
                draw.ellipse([x, y, x + gap // 2, y + gap // 2], fill=colours[0])
    elif kind == 2:
        for colour in colours:
            x, y = rng.uniform(0, side, 2)
            radius = rng.uniform(0.1, 0.35) * side
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
    return canvas


def _light(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Changes the light: a tint, a contrast, a soft side light, a little noise."""
    pixels = np.asarray(picture, np.float32)
    side = pixels.shape[0]
    ramp = np.linspace(-1, 1, side, dtype=np.float32) * rng.uniform(-40, 40)
    ramp = ramp[:, None, None] if rng.random() < 0.5 else ramp[None, :, None]
    tint = rng.uniform(0.85, 1.12, 3).astype(np.float32)
    noise = rng.standard_normal((side, side, 1), dtype=np.float32)
    pixels = (pixels - 128) * rng.uniform(0.75, 1.15) + 128 + ramp
    pixels = pixels * tint + noise * rng.uniform(0, 5)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _draw_back_hair(pen: _Pen, character: Character) -> None:
    dark = _shade(character.hair, 0.8)
    style = character.style
    if style == "long":
        wave = [(1.15, 0.9), (1.25, 1.7), (0.9, 1.9), (0.5, 1.75)]
        side = [(0.0, -1.12), (0.75, -0.85), (1.08, -0.1), *wave]
        pen.shape(np.concatenate([side, _mirrored(side)[::-1]]), dark)
    if style == "twintails":
        tail = [
            (0.8, -0.6),
            (1.5, -0.7),
            (1.85, 0.2),
            (1.7, 1.4),
            (1.5, 0.7),
            (1.0, 0.1),
        ]
        pen.shape(tail, dark)
        pen.shape(_mirrored(tail), dark)
    if style == "ponytail":
        tail = [
            (0.3, -1.0),
            (1.2, -1.5),
            (1.9, -0.8),
            (1.7, 0.6),
            (1.45, -0.3),
            (0.8, -0.6),
        ]
        pen.shape(tail, dark)
    if style == "buns":
        pen.shape(_ellipse(0.78, -0.92, 0.42, 0.42), dark)
        pen.shape(_ellipse(-0.78, -0.92, 0.42, 0.42), dark)
    if style == "spiky":
        angles = np.radians(np.arange(150, 391, 15))
        radii = np.where(np.arange(len(angles)) % 2, 1.5, 1.05)
        star = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
        pen.shape(star, dark)
    else:
        pen.shape(_ellipse(0, -0.08, 1.06, 1.04), dark)
    if style == "bob":
        pen.shape([(-1.06, -0.1), (-1.1, 0.85), (1.1, 0.85), (1.06, -0.1)], dark)


def _draw_body(pen: _Pen, character: Character) -> None:
    shoulders = [(0.25, 1.05), (1.15, 1.4), (1.45, 3.2)]
    pen.shape(np.concatenate([shoulders, _mirrored(shoulders)[::-1]]), character.outfit)
    neck = [(0.22, 0.6), (0.24, 1.2), (0.0, 1.45), (-0.24, 1.2), (-0.22, 0.6)]
    pen.shape(neck, _shade(character.skin, 0.9))
    collar = [(0.24, 1.1), (0.7, 1.35), (0.2, 1.75), (0.0, 1.45)]
    pen.shape(collar, _shade(character.outfit, 1.8))
    pen.shape(_mirrored(collar), _shade(character.outfit, 1.8))
    tie = [(0.0, 1.5), (0.16, 1.75), (0.0, 2.3), (-0.16, 1.75)]
    pen.shape(tie, character.accent)


def _draw_face(pen: _Pen, character: Character, rng: np.random.Generator) -> None:
    face = _ellipse(0, 0, 0.82, 0.92, n=40)
    below = np.maximum(face[:, 1], 0) / 0.92
    face[:, 0] *= 1 - 0.42 * below**2.2
    for ear in (_ellipse(0.82, 0.1, 0.13, 0.2), _ellipse(-0.82, 0.1, 0.13, 0.2)):
        pen.shape(ear, character.skin)
    pen.shape(face, character.skin)
    look = rng.uniform(-0.05, 0.05, 2)
    mood = rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])
    for side, closed in ((-1, mood in (1, 2)), (1, mood in (1, 3))):
        _draw_eye(pen, character, 0.37 * side, look, closed)
    brow = rng.uniform(-0.06, 0.06)
    for side in (-1, 1):
        ends = [(0.2 * side, -0.2 + brow), (0.54 * side, -0.22 - brow)]
        pen.stroke(ends, _shade(character.hair, 0.6))
    for side in (-1, 1):
        pen.shape(
            _ellipse(0.5 * side, 0.46, 0.13, 0.06), _shade(character.skin, 0.93), False
        )
    pen.stroke([(0.0, 0.38), (0.03, 0.44)], width=0.8)
    _draw_mouth(pen, int(rng.integers(4)))


def _draw_eye(
    pen: _Pen, character: Character, x: float, look: np.ndarray, closed: bool
) -> None:
    if closed:
        pen.stroke(_arc(x, 0.16, 0.2, 0.14, 10, 170), width=1.6)
        return
    pen.shape(_ellipse(x, 0.14, 0.21, 0.27), "#ffffff", outline=False)
    iris_x, iris_y = x + look[0], 0.15 + look[1]
    pen.shape(_ellipse(iris_x, iris_y, 0.16, 0.23), character.eyes)
    lower = _ellipse(iris_x, iris_y + 0.1, 0.11, 0.11, 14)
    pen.shape(lower, _shade(character.eyes, 1.7), outline=False)
    pen.shape(_ellipse(iris_x, iris_y, 0.07, 0.12, 14), "#1a1420", outline=False)
    pen.shape(_ellipse(iris_x - 0.06, iris_y - 0.1, 0.06, 0.07, 12), "#ffffff", False)
    pen.stroke(_arc(x, 0.14, 0.22, 0.28, 195, 345), width=2.2)


def _draw_mouth(pen: _Pen, kind: int) -> None:
    if kind == 0:
        pen.stroke(_arc(0, 0.58, 0.12, 0.08, 10, 170))
    elif kind == 1:
        pen.shape(_arc(0, 0.58, 0.15, 0.17, 0, 180), "#b5414b")
    elif kind == 2:
        left, right = (
            _arc(-0.07, 0.6, 0.07, 0.06, 180, 0),
            _arc(0.07, 0.6, 0.07, 0.06, 180, 0),
        )
        pen.stroke(np.concatenate([left, right]))
    else:
        pen.stroke([(-0.07, 0.64), (0.07, 0.63)])


_FRINGES = (  # ends of the strands, from right to left
    ((0.78, 0.1), (0.6, -0.22), (0.36, 0.0), (0.1, -0.26))
    + ((-0.16, 0.02), (-0.4, -0.24), (-0.64, 0.04), (-0.8, -0.1)),
    ((0.82, 0.3), (0.7, -0.2), (0.3, -0.5), (0.05, -0.72))
    + ((-0.3, -0.48), (-0.7, -0.2), (-0.84, 0.3)),
    ((0.8, 0.4), (0.74, -0.3), (0.3, -0.46), (-0.3, -0.16))
    + ((-0.62, 0.12), (-0.72, -0.1), (-0.86, 0.2)),
)


def _draw_bangs(pen: _Pen, character: Character) -> None:
    cap = _arc(0, -0.02, 0.98, 1.08, 172, 368)
    fringe = _FRINGES[character.bangs]
    pen.shape(np.concatenate([cap, fringe]), character.hair)
    shine = np.concatenate(
        [_arc(0, -0.1, 0.7, 0.62, 215, 300), _arc(0, -0.1, 0.7, 0.5, 300, 215)]
    )
    pen.shape(shine, _shade(character.hair, 1.6), outline=False)
    strand = [(0.98, -0.1), (0.9, 0.75), (0.76, 0.95), (0.78, 0.1)]
    if character.style in ("long", "twintails", "bob"):
        pen.shape(strand, character.hair)
        pen.shape(_mirrored(strand), character.hair)


def _ribbon(pen: _Pen, character: Character) -> None:
    for side in (-1, 1):
        wing = [(0.55, -0.95), (0.55 + 0.5 * side, -1.3), (0.55 + 0.45 * side, -0.65)]
        pen.shape(wing, character.accent)
    pen.shape(_ellipse(0.55, -0.95, 0.12, 0.12), _shade(character.accent, 0.8))


def _cat_ears(pen: _Pen, character: Character) -> None:
    ear = np.array([(0.28, -0.95), (0.72, -1.6), (0.95, -0.55)])
    inner = ear.mean(0) + 0.55 * (ear - ear.mean(0))
    for turn in (np.asarray, _mirrored):
        pen.shape(turn(ear), character.hair)
        pen.shape(turn(inner), "#f7b7c5", outline=False)


def _headphones(pen: _Pen, character: Character) -> None:
    pen.stroke(_arc(0, 0, 1.08, 1.16, 185, 355), character.accent, width=4.0)
    for side in (-1, 1):
        pen.shape(_ellipse(1.02 * side, 0.1, 0.2, 0.34), character.accent)


def _witch_hat(pen: _Pen, character: Character) -> None:
    dark = _shade(character.accent, 0.5)
    pen.shape([(-0.8, -0.75), (0.25, -2.1), (0.8, -0.75)], dark)
    pen.shape(_ellipse(0, -0.72, 1.4, 0.24), dark)
    pen.shape([(-0.76, -0.85), (-0.62, -1.05), (0.68, -1.05), (0.76, -0.85)], "#e3d26f")


def _glasses(pen: _Pen, character: Character) -> None:
    for side in (-1, 1):
        ring = _ellipse(0.37 * side, 0.16, 0.3, 0.27)
        pen.stroke(np.concatenate([ring, ring[:1]]), character.accent, width=1.8)
    pen.stroke([(-0.07, 0.14), (0.07, 0.14)], character.accent, width=1.8)


def _crown(pen: _Pen, character: Character) -> None:
    points = [(-0.5, -0.85), (-0.6, -1.45), (-0.28, -1.12), (0.0, -1.6), (0.28, -1.12)]
    pen.shape([*points, (0.6, -1.45), (0.5, -0.85)], "#f2c230")
    pen.shape(_ellipse(0, -1.08, 0.09, 0.1, 12), character.accent)


def _horns(pen: _Pen, character: Character) -> None:
    horn = np.array(
        [(0.4, -0.9), (0.85, -1.25), (0.8, -1.75), (1.12, -1.2), (0.75, -0.65)]
    )
    pen.shape(horn, _shade(character.accent, 0.7))
    pen.shape(_mirrored(horn), _shade(character.accent, 0.7))


def _flower(pen: _Pen, character: Character) -> None:
    for angle in np.radians(np.arange(0, 360, 72)):
        petal = _ellipse(
            -0.6 + 0.2 * np.cos(angle), -0.6 + 0.2 * np.sin(angle), 0.16, 0.16
        )
        pen.shape(petal, character.accent)
    pen.shape(_ellipse(-0.6, -0.6, 0.12, 0.12), "#f6e27f")


_ACCESSORY_DRAWERS: dict[str, Callable[[_Pen, Character], None]] = {
    "ribbon": _ribbon,
    "cat ears": _cat_ears,
    "headphones": _headphones,
    "witch hat": _witch_hat,
    "glasses": _glasses,
    "crown": _crown,
    "horns": _horns,
    "flower": _flower,
    "none": lambda pen, character: None,
}
