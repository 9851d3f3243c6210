"""Scenes: a picture, the caption its embeddings are to say, and questions with their answers."""

import math
from dataclasses import dataclass

import numpy as np

from canvas import FONT_NAMES, Canvas
from words import COLOURS, COUNTS, FILLER, NAMES, SHAPES, SLOTS

ALL_COLOURS = list(COLOURS)
PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES}


@dataclass
class Scene:
    kind: str
    canvas: Canvas
    caption: list[str]
    # (task, question, answer)
    questions: list[tuple[str, str, str]]
    description: str

    def __post_init__(self):
        self.caption += [FILLER] * (SLOTS - len(self.caption))
        asked = one(self.canvas.rng, "What is in the picture?", "What do you see?", "Describe the picture.", "What is this?")
        self.questions.append(("description", asked, self.description))


def some(rng, items, count):
    return [items[i] for i in rng.permutation(len(items))[:count]]


def one(rng, *items):
    return items[rng.integers(len(items))]


def described(groups: list[tuple[int, str, str]]) -> str:
    return " and ".join(f"{COUNTS[n]} {colour} {shape if n == 1 else PLURALS[shape]}" for n, colour, shape in groups)


def colour_word(rng):
    return "color" if rng.random() < 0.7 else "colour"


def placed(rng, canvas: Canvas, count: int, radii: list[float]) -> list[tuple[float, float]]:
    """Centres at which nothing overlaps, however long it takes: the radii shrink when it does not work out."""
    while True:
        centres: list[tuple[float, float]] = []
        for radius in radii[:count]:
            for _ in range(30):
                centre = (rng.uniform(radius, canvas.width - radius), rng.uniform(radius, canvas.height - radius))
                if all(math.dist(centre, c) > 1.08 * (radius + r) for c, r in zip(centres, radii, strict=False)):
                    centres.append(centre)
                    break
        if len(centres) == count:
            return centres
        radii[:] = [radius * 0.9 for radius in radii]


def style(rng, radius):
    """(hollow, edge) of one scene's shapes."""
    draw = rng.random()
    return (max(3, int(radius * 0.28)), False) if draw < 0.15 else (0, draw < 0.35)


def single(rng) -> Scene:
    shape, colour = one(rng, *SHAPES), one(rng, *ALL_COLOURS)
    canvas = Canvas(rng, [colour])
    side = min(canvas.width, canvas.height)
    radius = side * rng.uniform(0.12, 0.26)
    place = one(rng, "left", "right", "top", "bottom", "middle")
    near, far, centre = rng.uniform(0.16, 0.27), rng.uniform(0.73, 0.84), lambda: rng.uniform(0.42, 0.58)
    x = {"left": near, "right": far}.get(place) or centre()
    y = {"top": near, "bottom": far}.get(place) or centre()
    at = (np.clip(x * canvas.width, radius, canvas.width - radius), np.clip(y * canvas.height, radius, canvas.height - radius))
    hollow, edge = style(rng, radius)
    canvas.shape(shape, colour, at, radius, hollow, edge)
    word = colour_word(rng)
    return Scene("single", canvas, ["shapes", "one", colour, shape, place, *[FILLER] * 8, "one"], [
        ("colour", one(rng, f"What {word} is the {shape}?", f"What {word} is it?", f"What is the {word} of the {shape}?"), colour),
        ("shape", one(rng, "What shape is this?", "Which shape is in the picture?", f"What shape is {colour}?"), shape),
        ("position", one(rng, f"Where is the {shape}?", f"In which part of the picture is the {shape}?"), place),
    ], described([(1, colour, shape)]))  # fmt: skip


def pair(rng) -> Scene:
    shapes, colours = some(rng, SHAPES, 2), some(rng, ALL_COLOURS, 2)
    canvas = Canvas(rng, colours)
    across = rng.random() < 0.5
    first, second = rng.uniform(0.2, 0.32), rng.uniform(0.68, 0.8)
    length, breadth = (canvas.width, canvas.height) if across else (canvas.height, canvas.width)
    radius = min(length * 0.2, breadth * 0.3) * rng.uniform(0.6, 1)
    middle = rng.uniform(0.38, 0.62)
    hollow, edge = style(rng, radius)
    for along, shape, colour in zip((first, second), shapes, colours, strict=True):
        a, b = along * length, np.clip((middle + rng.uniform(-0.08, 0.08)) * breadth, radius, breadth - radius)
        canvas.shape(shape, colour, (a, b) if across else (b, a), radius, hollow, edge)
    places = ("left", "right") if across else ("top", "bottom")
    order = sorted(range(2), key=lambda i: SHAPES.index(shapes[i]))
    groups = [word for i in order for word in ("one", colours[i], shapes[i], places[i])]
    i, j, word = int(rng.integers(2)), int(rng.integers(2)), colour_word(rng)
    where = f"on the {places[j]}" if across else f"at the {places[j]}"
    relation = (("left of", "right of") if across else ("above", "below"))
    k = int(rng.integers(2))
    is_so = k == 0
    return Scene("pair", canvas, ["shapes", *groups, *[FILLER] * 4, "two"], [
        ("colour", one(rng, f"What {word} is the {shapes[i]}?", f"What is the {word} of the {shapes[i]}?"), colours[i]),
        ("shape", one(rng, f"Which shape is {colours[j]}?", f"What shape is {colours[j]}?"), shapes[j]),
        ("position", one(rng, f"Which shape is {where}?", f"What is {where}?"), shapes[j]),
        ("position", f"Is the {shapes[0]} {relation[k]} the {shapes[1]}?", "yes" if is_so else "no"),
        ("position", f"Where is the {shapes[i]}?", places[i]),
        ("colour", f"What {word} is the shape {where}?", colours[j]),
    ], described([(1, colours[n], shapes[n]) for n in order]))  # fmt: skip


def several(rng) -> Scene:
    total = int(rng.integers(1, 6))
    kinds = min(total, int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])))
    shapes = sorted(some(rng, SHAPES, kinds), key=SHAPES.index)
    colours = some(rng, ALL_COLOURS, kinds)
    cuts = sorted(some(rng, list(range(1, total)), kinds - 1))
    counts = [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]
    canvas = Canvas(rng, colours)
    side = min(canvas.width, canvas.height)
    base = side * rng.uniform(0.1, 0.19)
    radii = [base * rng.uniform(0.8, 1.15) for _ in range(total)]
    centres = iter(placed(rng, canvas, total, radii))
    sizes = iter(radii)
    hollow, edge = style(rng, base)
    for shape, colour, count in zip(shapes, colours, counts, strict=True):
        for _ in range(count):
            canvas.shape(shape, colour, next(centres), next(sizes), hollow, edge)
    groups = [word for s, c, n in zip(shapes, colours, counts, strict=True) for word in (COUNTS[n], c, s, FILLER)]
    i, word = int(rng.integers(kinds)), colour_word(rng)
    named = shapes[i] if counts[i] == 1 else PLURALS[shapes[i]]
    return Scene("several", canvas, ["shapes", *groups, *[FILLER] * (12 - len(groups)), COUNTS[total]], [
        ("count", one(rng, f"How many {PLURALS[shapes[i]]} are there?", f"How many {PLURALS[shapes[i]]} do you see?"), COUNTS[counts[i]]),
        ("count", one(rng, "How many shapes are there?", "How many shapes do you see?", "Count the shapes."), COUNTS[total]),
        ("count", f"How many {colours[i]} shapes are there?", COUNTS[counts[i]]),
        ("colour", f"What {word} {'is' if counts[i] == 1 else 'are'} the {named}?", colours[i]),
        ("shape", f"Which shape is {colours[i]}?", shapes[i]),
    ], described(list(zip(counts, colours, shapes, strict=True))))  # fmt: skip


def number(rng) -> Scene:
    digits = [str(d) for d in rng.integers(0, 10, int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2])))]
    colour = one(rng, *ALL_COLOURS)
    canvas = Canvas(rng, [colour])
    write_large(rng, canvas, "".join(digits), colour)
    return Scene("number", canvas, ["number", *digits, *[FILLER] * (3 - len(digits)), colour], [
        ("number", one(rng, "What number is this?", "Which number is written here?", "Read the number."), "".join(digits)),
        ("colour", f"What {colour_word(rng)} is the number?", colour),
    ], "the number " + "".join(digits))  # fmt: skip


def word(rng) -> Scene:
    name, colour = one(rng, *NAMES), one(rng, *ALL_COLOURS)
    canvas = Canvas(rng, [colour])
    write_large(rng, canvas, name.upper() if rng.random() < 0.35 else name, colour)
    return Scene("word", canvas, ["word", name, colour], [
        ("word", one(rng, "What word is this?", "Which word is written here?", "What does the text say?"), name),
        ("colour", f"What {colour_word(rng)} is the word?", colour),
    ], f"the word {name}")  # fmt: skip


def write_large(rng, canvas: Canvas, text: str, colour: str):
    size = int(min(canvas.height * 0.55, canvas.width * 1.35 / max(len(text), 2)) * rng.uniform(0.65, 1))
    at = (canvas.width * rng.uniform(0.45, 0.55), canvas.height * rng.uniform(0.38, 0.62))
    canvas.text(text, at, size, one(rng, *FONT_NAMES), colour)


def shares(rng, parts: int, total: int) -> list[int]:
    """Different multiples of ten, the greatest and the least one of a kind."""
    while True:
        values = rng.multinomial(total - parts, np.ones(parts) / parts) + 1
        if len(set(values)) == parts:
            return [int(v) * 10 for v in values]


def chart_questions(rng, kind: str, colours: list[str], values: list[int], asked: str):
    word = colour_word(rng)
    largest, smallest = colours[int(np.argmax(values))], colours[int(np.argmin(values))]
    most, least = ("tallest", "shortest") if kind == "bar" else ("largest", "smallest")
    thing = "bar" if kind == "bar" else one(rng, "slice", "part")
    return largest, smallest, [
        *(("chart number", asked.format(colours[i]), str(values[i])) for i in rng.permutation(len(colours))),
        ("chart comparison", f"Which {word} is the {most} {thing}?", largest),
        ("chart comparison", f"Which {word} is the {least} {thing}?", smallest),
        ("chart count", f"How many {thing}s are there?", COUNTS[len(colours)]),
    ]  # fmt: skip


def chart_caption(kind, colours, values, largest, smallest):
    """Colour, tens and ones of each part, in the order of the colours' list."""
    order = sorted(range(len(colours)), key=lambda i: ALL_COLOURS.index(colours[i]))
    parts = [word for i in order for word in (colours[i], *f"{values[i]:02d}")]
    return [kind, *parts, *[FILLER] * (12 - len(parts)), largest, smallest, COUNTS[len(colours)]]


def pie(rng) -> Scene:
    parts = int(rng.integers(2, 5))
    colours = some(rng, [c for c in ALL_COLOURS if c not in ("white", "black")], parts)
    values = shares(rng, parts, 10)
    canvas = Canvas(rng, colours, light=True)
    radius = min(canvas.width, canvas.height) * rng.uniform(0.34, 0.46)
    cx, cy = (size / 2 + rng.uniform(-1, 1) * (size / 2 - radius) * 0.7 for size in (canvas.width, canvas.height))
    start = rng.uniform(0, 2 * math.pi) if rng.random() < 0.5 else 0.0
    edge = rng.random() < 0.5
    labelled = rng.random() < 0.4
    for colour, value in zip(colours, values, strict=True):
        end = start + 2 * math.pi * value / 100
        turns = np.linspace(start, end, max(3, value))
        arc = [(cx + radius * math.sin(t), cy - radius * math.cos(t)) for t in turns]
        canvas.polygon([(cx, cy), *arc], "slice", colour, edge=edge)
        start = end
    if labelled:
        ends = start - 2 * math.pi
        for value in values:
            t = ends + math.pi * value / 100
            canvas.ink = (20, 20, 20)
            at = (cx + radius * 0.65 * math.sin(t), cy - radius * 0.65 * math.cos(t))
            canvas.text(f"{value}%", at, int(radius * 0.26), "DejaVuSans-Bold")
            ends += 2 * math.pi * value / 100
    asked = one(rng, "What percentage is {}?", "What share is {}?", "How many percent is {}?")
    largest, smallest, questions = chart_questions(rng, "pie", colours, values, asked)
    return Scene("pie", canvas, chart_caption("pie", colours, values, largest, smallest), questions, "a pie chart")


def bar(rng) -> Scene:
    parts = int(rng.integers(2, 5))
    colours = some(rng, [c for c in ALL_COLOURS if c != "white"], parts)
    values = [int(v) * 10 for v in some(rng, list(range(1, 10)), parts)]
    canvas = Canvas(rng, colours, light=True)
    left, base = canvas.width * rng.uniform(0.14, 0.2), canvas.height * rng.uniform(0.86, 0.93)
    top, right = canvas.height * rng.uniform(0.06, 0.12), canvas.width * 0.96
    thin = (170, 170, 170) if sum(canvas.background) > 380 else (90, 90, 90)
    for tick in range(0, 101, 20 if rng.random() < 0.5 else 50):
        y = base - (base - top) * tick / 100
        canvas.pen.line([(left, y), (right, y)], fill=thin, width=1)
        canvas.text(str(tick), (left - 3, y), max(9, int(canvas.height * 0.065)), "DejaVuSans", anchor="rm")
    canvas.pen.line([(left, top), (left, base), (right, base)], fill=canvas.ink, width=2)
    slot = (right - left) / parts
    labelled = rng.random() < 0.4
    width = slot * rng.uniform(0.45, 0.8)
    for i, (colour, value) in enumerate(zip(colours, values, strict=True)):
        x, y = left + slot * (i + 0.5) - width / 2, base - (base - top) * value / 100
        canvas.polygon([(x, y), (x + width, y), (x + width, base), (x, base)], "bar", colour)
        if labelled:
            canvas.text(str(value), (x + width / 2, y - canvas.height * 0.045), int(canvas.height * 0.085), "DejaVuSans-Bold")
    asked = one(rng, "What is the value of the {} bar?", "How tall is the {} bar?", "What number does the {} bar show?")
    largest, smallest, questions = chart_questions(rng, "bar", colours, values, asked)
    return Scene("bar", canvas, chart_caption("bar", colours, values, largest, smallest), questions, "a bar chart")


def table(rng) -> Scene:
    rows = int(rng.integers(2, 4))
    names = some(rng, NAMES, rows)
    values = [int(v) for v in some(rng, list(range(10, 100)), rows)]
    canvas = Canvas(rng, ["black"], light=True)
    face = one(rng, *FONT_NAMES[:3])
    x0, x1, y0 = canvas.width * 0.05, canvas.width * 0.95, canvas.height * rng.uniform(0.05, 0.12)
    height, split = canvas.height * 0.82 / 3, canvas.width * rng.uniform(0.58, 0.64)
    size = int(min(height * 0.55, canvas.width * 0.13))
    lines = rng.random() < 0.7
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        y = y0 + height * (i + 0.5)
        canvas.text(name, (x0 + canvas.width * 0.04, y), size, face, anchor="lm")
        canvas.text(str(value), (split + canvas.width * 0.05, y), size, face, anchor="lm")
        if lines:
            canvas.pen.rectangle([x0, y0 + height * i, x1, y0 + height * (i + 1)], outline=canvas.ink, width=1)
    canvas.pen.line([(split, y0), (split, y0 + height * rows)], fill=canvas.ink, width=1)
    i = int(rng.integers(rows))
    caption = [word for name, value in zip(names, values, strict=True) for word in (name, *str(value))]
    return Scene("table", canvas, ["table", *caption, *[FILLER] * (9 - len(caption)), COUNTS[rows]], [
        ("table", one(rng, f"What is the value of {names[i]}?", f"What number belongs to {names[i]}?"), str(values[i])),
        ("table", "How many rows does the table have?", COUNTS[rows]),
    ], "a table")  # fmt: skip


# How often each is drawn in training; colours, shapes and counts come first.
MIXTURE = {single: 0.18, pair: 0.25, several: 0.36, number: 0.04, word: 0.02, pie: 0.07, bar: 0.07, table: 0.01}


def draw_scene(rng: np.random.Generator, mixture=MIXTURE) -> Scene:
    return list(mixture)[rng.choice(len(mixture), p=np.array(list(mixture.values())) / sum(mixture.values()))](rng)
