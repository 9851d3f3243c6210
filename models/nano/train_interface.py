"""Stage 1: the vectors that stand for facts are learned through the frozen language model, from scenes without their pixels."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import parallel
from checkpoints import load_latest, log_row, save
from conversation import Asker
from interface import Interface, facts_of
from language import LanguageModel
from scenes import bar, draw_scene, number, pair, pie, several, single, table, word

MIXTURE = {single: 0.06, pair: 0.24, several: 0.24, number: 0.03, word: 0.03, pie: 0.16, bar: 0.16, table: 0.08}
# Questions asked of one scene: the frozen model is most of the work, and its answers to easy questions teach nothing.
QUESTIONS = 4
LEAST_INTEREST = 0.05


class Interest:
    """How often each task is answered wrongly of late: what is asked follows it."""

    def __init__(self):
        self.wrong: dict[str, float] = {}

    def note(self, task: str, is_right: bool):
        self.wrong[task] = 0.95 * self.wrong.get(task, 1.0) + 0.05 * (not is_right)

    def choose(self, rng: np.random.Generator, questions):
        if len(questions) <= QUESTIONS:
            return questions
        weights = np.array([self.wrong.get(task, 1.0) + LEAST_INTEREST for task, _, _ in questions])
        chosen = rng.choice(len(questions), QUESTIONS, replace=False, p=weights / weights.sum())
        return [questions[i] for i in chosen]


def run(rank: int, arguments):
    parallel.join(rank, arguments)
    device = parallel.device()
    language = LanguageModel(arguments.language_model, device)
    asker = Asker(language)
    interface = Interface(language.hidden_size).to(device)
    interface.start_from(lambda word: language.embedding[language.ids(" " + word)[0]])
    optimizer = torch.optim.Adam(interface.parameters(), lr=arguments.rate, betas=(0.9, 0.95))
    first = load_latest(arguments.output, "interface", interface, [optimizer])
    share = arguments.batch // arguments.processes
    saved = time.time()
    interest = Interest()
    right: dict[str, list[float]] = {}
    recent: list[float] = []
    bar_ = tqdm(range(first, arguments.steps), initial=first, total=arguments.steps, disable=rank > 0, mininterval=10)
    for step in bar_:
        left = (arguments.steps - step) / (arguments.steps * arguments.decay)
        optimizer.param_groups[0]["lr"] = arguments.rate * min(1, (step + 1) / arguments.warmup, left)
        rng = np.random.default_rng((arguments.seed, 2, step, rank))
        scenes = [draw_scene(rng, MIXTURE) for _ in range(share)]
        facts = torch.tensor([facts_of(scene.caption) for scene in scenes], device=device)
        asked = [interest.choose(rng, scene.questions) for scene in scenes]
        states, wanted, owners = asker.pack(interface(facts), [[pair[1:] for pair in one] for one in asked])
        logits = language.logits(states)
        loss = F.cross_entropy(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        parallel.average_gradients(list(interface.parameters()))
        optimizer.step()
        recent.append(loss.item())
        whole: dict[tuple[int, int], bool] = {}
        for owner, ok in zip(owners, (logits.argmax(-1) == wanted).tolist(), strict=True):
            whole[owner] = whole.get(owner, True) and ok
        for (picture, question), ok in whole.items():
            task = asked[picture][question][0]
            interest.note(task, ok)
            right.setdefault(task, []).append(ok)
        if rank == 0 and (step + 1) % arguments.report == 0:
            row = {"step": step + 1, "scenes": (step + 1) * arguments.batch, "loss": round(float(np.mean(recent)), 4)}
            log_row(arguments.output / "interface.jsonl", row | {t: round(float(np.mean(v)), 3) for t, v in sorted(right.items())})
            bar_.set_postfix(loss=row["loss"])
            right, recent = {}, []
        if rank == 0 and (time.time() - saved > arguments.save_every or step + 1 == arguments.steps):
            save(arguments.output, "interface", interface, [optimizer], step + 1)
            saved = time.time()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--language-model", type=Path, required=True, help="the GGUF file of the demo")
    parallel.add_arguments(parser, steps=400, batch=8, rate=1.5e-2)
    parallel.start(run, parser.parse_args())
