"""A canvas that remembers, beside its pixels, what each of its regions shows."""

import io
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from words import COLOUR_INDEX, COLOURS, THING_INDEX

LABEL_SIDE = 32
FONT_NAMES = ["DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono-Bold", "DejaVuSansCondensed"]
FONT_DIRECTORIES = [Path("/usr/share/fonts/truetype/dejavu"), Path("/usr/share/fonts/TTF"), Path("/Library/Fonts")]


@lru_cache(maxsize=512)
def font(name: str, size: int):
    """One of the DejaVu fonts (Debian: fonts-dejavu), or Pillow's own where they are not installed."""
    for directory in FONT_DIRECTORIES:
        if (directory / f"{name}.ttf").exists():
            return ImageFont.truetype(str(directory / f"{name}.ttf"), size)
    return ImageFont.load_default(size)


def varied(rng: np.random.Generator, colour: str) -> tuple[int, int, int]:
    """A shade that still has the colour's name."""
    jitter = rng.normal(0, 9, 3)
    return tuple(int(np.clip(c + d, 0, 255)) for c, d in zip(COLOURS[colour], jitter, strict=True))


def outline(shape: str) -> list[tuple[float, float]]:
    """Corners around (0, 0), within a radius of 1."""
    circle = lambda n, start=0.0, r=1.0: [
        (r * math.sin(start + 2 * math.pi * i / n), -r * math.cos(start + 2 * math.pi * i / n)) for i in range(n)
    ]
    if shape == "circle":
        return circle(40, r=0.9)
    if shape == "square":
        return circle(4, math.pi / 4, 1.12)
    if shape == "triangle":
        return circle(3)
    if shape == "star":
        return [p for far, near in zip(circle(5), circle(5, math.pi / 5, 0.42), strict=True) for p in (far, near)]
    if shape == "cross":
        a, b = 0.32, 0.95
        return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    turns = [2 * math.pi * i / 36 for i in range(36)]
    return [
        (0.98 * math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
        for t in turns
    ]


class Canvas:
    """Draws in pixels of (width, height); labels lie on a grid of LABEL_SIDE squared."""

    def __init__(self, rng: np.random.Generator, colours: list[str], light: bool = False):
        self.rng = rng
        self.width = int(rng.integers(150, 300))
        self.height = int(np.clip(self.width * rng.uniform(0.8, 1.25), 150, 300))
        self.background = self._background(colours, light)
        self.image = Image.new("RGB", (self.width, self.height), self.background)
        self.pen = ImageDraw.Draw(self.image)
        self.things = Image.new("L", (LABEL_SIDE, LABEL_SIDE))
        self.colours = Image.new("L", (LABEL_SIDE, LABEL_SIDE))
        self.label_pens = (ImageDraw.Draw(self.things), ImageDraw.Draw(self.colours))
        self.ink = (20, 20, 20) if sum(self.background) > 380 else (245, 245, 245)

    def _background(self, colours: list[str], light: bool) -> tuple[int, int, int]:
        """White mostly, else any colour that everything drawn stands out from."""
        rng = self.rng
        for attempt in range(60):
            draw = rng.random()
            if draw < 0.45 and attempt == 0:
                candidate = (255, 255, 255)
            elif draw < 0.75 or light:
                candidate = tuple(int(v) for v in rng.integers(205, 256, 3))
            elif draw < 0.9:
                candidate = tuple(int(v) for v in rng.integers(0, 70, 3))
            else:
                candidate = (int(rng.integers(90, 190)),) * 3
            if all(math.dist(candidate, COLOURS[c]) > 95 for c in colours):
                return candidate
        return (128, 128, 128)

    def _label(self, points, thing: str, colour: str | None):
        scaled = [(x * LABEL_SIDE / self.width, y * LABEL_SIDE / self.height) for x, y in points]
        self.label_pens[0].polygon(scaled, fill=THING_INDEX[thing])
        if colour is not None:
            self.label_pens[1].polygon(scaled, fill=COLOUR_INDEX[colour])

    def polygon(self, points, thing: str, colour: str, hollow: int = 0, edge: bool = False):
        shade = varied(self.rng, colour)
        if hollow:
            self.pen.polygon(points, outline=shade, width=hollow)
        else:
            self.pen.polygon(points, fill=shade, outline=self.ink if edge else None, width=2)
        self._label(points, thing, colour)

    def shape(self, shape: str, colour: str, centre: tuple[float, float], radius: float, hollow: int, edge: bool):
        spread = {"circle": 0.0, "square": 0.25, "cross": 0.25, "heart": 0.35, "triangle": 0.4, "star": 0.6}[shape]
        angle = self.rng.uniform(-spread, spread) if self.rng.random() < 0.6 else 0.0
        cos, sin = math.cos(angle), math.sin(angle)
        points = [
            (centre[0] + radius * (x * cos - y * sin), centre[1] + radius * (x * sin + y * cos)) for x, y in outline(shape)
        ]
        self.polygon(points, shape, colour, hollow, edge)

    def text(self, text: str, at: tuple[float, float], size: int, face: str, colour=None, anchor: str = "mm"):
        """Writes around `at`; every character is labelled where it stands."""
        used = font(face, size)
        fill = self.ink if colour is None else varied(self.rng, colour)
        left, top, right, bottom = self.pen.textbbox(at, text, font=used, anchor=anchor)
        self.pen.text(at, text, font=used, fill=fill, anchor=anchor)
        advance = [used.getlength(text[:i]) for i in range(len(text) + 1)]
        for i, character in enumerate(text.lower()):
            if character in THING_INDEX:
                x0, x1 = left + advance[i], left + advance[i + 1]
                self._label([(x0, top), (x1, top), (x1, bottom), (x0, bottom)], character, colour)

    def picture(self) -> Image.Image:
        """What was drawn, sometimes with JPEG's traces or noise. Once for each canvas: it draws random numbers."""
        rng = self.rng
        if rng.random() < 0.12:
            data = io.BytesIO()
            self.image.save(data, "JPEG", quality=int(rng.integers(50, 95)))
            self.image = Image.open(data).convert("RGB")
        if rng.random() < 0.12:
            noise = rng.standard_normal((self.height, self.width, 3), np.float32) * rng.uniform(3, 14)
            self.image = Image.fromarray(np.clip(self.image + noise, 0, 255).astype(np.uint8))
        return self.image

    def tile(self, side: int) -> np.ndarray:
        """The picture as the engine's one tile sees it: (side, side, 3) bytes."""
        return np.asarray(self.picture().resize((side, side), Image.BICUBIC))

    def patch_labels(self, grid: int) -> tuple[np.ndarray, np.ndarray]:
        """What most of each patch's inner part shows: (grid^2) thing and colour indices."""
        step = LABEL_SIDE // grid
        inner = slice(step // 4, step - step // 4)
        reduce = lambda image: np.asarray(image).reshape(grid, step, grid, step)[:, inner, :, inner].max((1, 3)).reshape(-1)
        return reduce(self.things), reduce(self.colours)
