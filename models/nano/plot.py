"""Draws the logs of a run as one SVG: losses above, accuracies below, one column for each stage."""

import argparse
import json
from pathlib import Path

WIDTH, HEIGHT, GAP = 430, 210, 60
INK = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22"]


def curve(rows: list[dict], x: str, key: str, top: float, left: int, upper: int, colour: str) -> str:
    last = rows[-1][x]
    points = [(left + WIDTH * row[x] / last, upper + HEIGHT * (1 - min(row[key], top) / top)) for row in rows if key in row]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def panel(rows: list[dict], x: str, keys: list[str], title: str, left: int, upper: int) -> str:
    top = 1.0 if title.startswith("accuracy") else max(row[key] for row in rows for key in keys if key in row)
    parts = [
        f'<rect x="{left}" y="{upper}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>',
        f'<text x="{left}" y="{upper - 8}" font-weight="bold">{title}</text>',
        f'<text x="{left - 6}" y="{upper + 10}" text-anchor="end">{top:.2g}</text>',
        f'<text x="{left - 6}" y="{upper + HEIGHT}" text-anchor="end">0</text>',
        f'<text x="{left + WIDTH}" y="{upper + HEIGHT + 15}" text-anchor="end">{rows[-1][x]:,} {x}</text>',
    ]
    for i, key in enumerate(keys):
        colour = INK[i % len(INK)]
        parts.append(curve(rows, x, key, top, left, upper, colour))
        parts.append(f'<text x="{left + WIDTH + 8}" y="{upper + 12 + 15 * i}" fill="{colour}">{key.replace("_", " ")}</text>')
    return "\n".join(parts)


def stage(path: Path, x: str, title: str, left: int) -> str:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    keys = sorted({key for row in rows for key in row} - {"step", "scenes", "pictures"})
    losses = [key for key in keys if "loss" in key]
    others = [key for key in keys if key not in losses]
    return panel(rows, x, losses, f"loss: {title}", left, 40) + panel(
        rows, x, others, f"accuracy: {title}", left, 40 + HEIGHT + GAP
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the directory with interface.jsonl and vision.jsonl")
    parser.add_argument("svg", type=Path)
    given = parser.parse_args()
    column = WIDTH + 190
    drawn = stage(given.run / "interface.jsonl", "scenes", "questions, read from facts", 40) + stage(
        given.run / "vision.jsonl", "pictures", "captions, read from pictures", 40 + column
    )
    size = f'width="{2 * column + 20}" height="{2 * HEIGHT + GAP + 80}"'
    given.svg.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n'
        "<title>Loss and accuracy of both stages of training</title>\n"
        f'<rect width="100%" height="100%" fill="white"/>\n{drawn}\n</svg>\n'
    )
