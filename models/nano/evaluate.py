"""Asks a running engine about pictures that training never saw, and counts the right answers per task."""

import argparse
import base64
import io
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scenes import MIXTURE, draw_scene

# Training draws from seeds of more than one number.
HELD_OUT_SEED = 7


def ask(url: str, picture: bytes, question: str) -> str:
    data = base64.b64encode(picture).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "text", "text": question},
    ]
    body = {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 16}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def same(answer: str, wanted: str) -> bool:
    return answer.strip().lower().rstrip(".") == wanted


def examples(count: int):
    """Every kind of scene equally often, with all questions: (kind, PNG, task, question, answer)"""
    rng = np.random.default_rng(HELD_OUT_SEED)
    kinds = list(MIXTURE)
    for i in range(count):
        scene = draw_scene(rng, {kinds[i % len(kinds)]: 1.0})
        data = io.BytesIO()
        scene.canvas.picture().save(data, "PNG")
        for task, question, answer in scene.questions:
            yield scene.kind, data.getvalue(), task, question, answer


def keep(directory: Path, asked, is_right: list[bool], of_each: int = 2):
    """PNGs, and examples.json with the questions that were answered rightly."""
    directory.mkdir(parents=True, exist_ok=True)
    by_picture: dict[bytes, list] = {}
    for example, right in zip(asked, is_right, strict=True):
        by_picture.setdefault(example[1], []).append((example, right))
    kept: dict[str, int] = {}
    examples = []
    for picture, group in by_picture.items():
        kind = group[0][0][0]
        right = [(question, wanted) for (_, _, _, question, wanted), is_so in group if is_so]
        if kept.get(kind, 0) == of_each or len(right) < 3:
            continue
        kept[kind] = kept.get(kind, 0) + 1
        name = f"{kind}-{kept[kind]}.png"
        (directory / name).write_bytes(picture)
        questions = [{"question": question, "answer": wanted} for question, wanted in right]
        examples.append({"file": name, "questions": questions})
    (directory / "examples.json").write_text(json.dumps(examples, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--pictures", type=int, default=800)
    parser.add_argument("--wrong", type=int, default=0, help="show this many wrong answers")
    parser.add_argument("--output", help="a JSON file for the counts")
    parser.add_argument("--keep", type=Path, help="a directory for pictures, two of each kind at most, with at least three questions that were answered rightly")
    parser.add_argument("--also", help="for --keep: an engine in another arithmetic, which has to answer the same")
    given = parser.parse_args()
    asked = list(examples(given.pictures))

    def answers_of(url: str) -> list[str]:
        with ThreadPoolExecutor(8) as pool:
            return list(tqdm(pool.map(lambda example: ask(url, example[1], example[3]), asked), total=len(asked), mininterval=10))

    answers = answers_of(given.url)
    counts: dict[str, list[int]] = {}
    for (kind, _, task, question, wanted), answer in zip(asked, answers, strict=True):
        right = same(answer, wanted)
        for key in (task, f"{task} / {kind}"):
            counts.setdefault(key, [0, 0])
            counts[key][0] += right
            counts[key][1] += 1
        if not right and given.wrong > 0:
            given.wrong -= 1
            print(f"  {kind}: {question} expected {wanted!r}, got {answer!r}")
    for key, (right, total) in sorted(counts.items()):
        print(f"{key:32} {right:5} of {total:5}  {100 * right / total:5.1f} %")
    if given.keep:
        others = answers_of(given.also) if given.also else answers
        keep(given.keep, asked, [a == b == example[4] for a, b, example in zip(answers, others, asked, strict=True)])
    if given.output:
        with open(given.output, "w") as file:
            json.dump({key: {"right": r, "asked": n} for key, (r, n) in sorted(counts.items())}, file, indent=1)
            file.write("\n")
