"""Stage 2: encoder and projector learn to say what a picture shows, in the vectors of stage 1. No language model runs."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

import parallel
from checkpoints import load_exported, load_latest, log_row, save
from interface import Interface, facts_of
from optimizer import Muon
from scenes import draw_scene
from vision import Seeing, VisionConfig, normalise, pixel_shuffle
from words import COLOURS, FILLER, THINGS, VOCABULARY, WORD_INDEX

FILLER_WEIGHT = 0.15


class Supervised(nn.Module):
    """The model and the heads that only training has: things and colours of patches, words of the caption."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.seeing = Seeing(config)
        self.things = nn.Linear(config.hidden_size, len(THINGS))
        self.colours = nn.Linear(config.hidden_size, len(COLOURS) + 1)
        self.captions = nn.Linear(4 * config.hidden_size, len(VOCABULARY))

    def forward(self, pixels):
        """The errors of the projector's vectors stay out of the encoder: words and patches are clearer teachers."""
        patches = self.seeing.patches(pixels)
        squares = pixel_shuffle(patches, self.seeing.config.grid)
        features = self.seeing.mlp1(squares.detach())
        words = self.captions(F.layer_norm(squares, squares.shape[-1:]))
        return features, words, self.things(patches), self.colours(patches)


def draw_batch(seed: tuple[int, ...], size: int, config: VisionConfig):
    """Pixels, word indices of captions, their facts, thing and colour indices of patches, the scenes."""
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng) for _ in range(size)]
    pixels = torch.from_numpy(np.stack([scene.canvas.tile(config.image_size) for scene in scenes]))
    captions = torch.tensor([[WORD_INDEX[word] for word in scene.caption] for scene in scenes])
    facts = torch.tensor([facts_of(scene.caption) for scene in scenes])
    labels = [scene.canvas.patch_labels(config.grid) for scene in scenes]
    things, colours = (torch.from_numpy(np.stack(part).astype(np.int64)) for part in zip(*labels, strict=True))
    return [part.to(parallel.device()) for part in (normalise(pixels), captions, facts, things, colours)], scenes


class Targets:
    """The vectors of stage 1, and how much each embedding's vary: an error of 1 is no better than the mean."""

    def __init__(self, arguments, config: VisionConfig):
        self.interface = Interface(config.projector_output_size)
        if arguments.go_on:
            self.interface.load_state_dict(load_exported(*arguments.go_on)[1])
        else:
            state = torch.load(arguments.output / "interface.pt", weights_only=True, map_location="cpu")
            self.interface.load_state_dict(state["model"])
        self.interface.to(parallel.device())
        with torch.no_grad():
            rng = np.random.default_rng((arguments.seed, 3))
            wanted = self.of(torch.tensor([facts_of(draw_scene(rng).caption) for _ in range(400)], device=parallel.device()))
            self.variance = wanted.var(0).mean(-1)[:, None].clamp(min=1e-3)

    @torch.no_grad()
    def of(self, facts: torch.Tensor) -> torch.Tensor:
        return self.interface(facts)


def losses(model: Supervised, batch, targets: Targets):
    pixels, captions, facts, things, colours = batch
    features, logits, thing_logits, colour_logits = model(pixels)
    weight = torch.where(captions == WORD_INDEX[FILLER], FILLER_WEIGHT, 1.0)
    entropy = F.cross_entropy(logits.flatten(0, 1), captions.flatten(), reduction="none")
    caption = (entropy * weight.flatten()).sum() / weight.sum()
    vectors = ((features - targets.of(facts)).square() / targets.variance).mean(-1)
    vector = (vectors * weight).sum() / weight.sum()
    patch = F.cross_entropy(thing_logits.flatten(0, 1), things.flatten()) + F.cross_entropy(
        colour_logits.flatten(0, 1), colours.flatten()
    )
    return caption + vector + patch, torch.stack((caption, vector, patch)).detach(), logits


@torch.no_grad()
def held_out(model: Supervised, batches, targets: Targets) -> dict[str, float]:
    """Share of captions' words (not filler) that are right, by kind of scene."""
    right: dict[str, list[float]] = {}
    for batch, scenes in batches:
        said = losses(model, batch, targets)[2].argmax(-1)
        for scene, ids, wanted in zip(scenes, said, batch[1], strict=True):
            counts = wanted != WORD_INDEX[FILLER]
            right.setdefault(scene.kind, []).append((ids == wanted)[counts].float().mean().item())
    return {kind: round(float(np.mean(values)), 3) for kind, values in sorted(right.items())}


def run(rank: int, arguments):
    parallel.join(rank, arguments)
    config = VisionConfig()
    targets = Targets(arguments, config)
    model = Supervised(config).to(parallel.device())
    matrices = [p for p in model.seeing.vision_model.encoder.parameters() if p.dim() == 2]
    chosen = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in chosen]
    optimizers = [
        Muon(matrices, lr=arguments.rate),
        torch.optim.AdamW(rest, lr=arguments.rate / 2, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    if arguments.go_on:
        model.load_state_dict(load_exported(*arguments.go_on)[0])
    first = load_latest(arguments.output, "vision", model, optimizers)
    tests = [draw_batch((arguments.seed, 1, i), 32, config) for i in range(4)] if rank == 0 else []
    share = arguments.batch // arguments.processes
    saved = time.time()
    recent = []
    bar = tqdm(range(first, arguments.steps), initial=first, total=arguments.steps, disable=rank > 0, mininterval=10)
    for step in bar:
        left = (arguments.steps - step) / (arguments.steps * arguments.decay)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * min(1, (step + 1) / arguments.warmup, left)
        batch, _ = draw_batch((arguments.seed, 0, step, rank), share, config)
        loss, parts, _ = losses(model, batch, targets)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        parallel.average_gradients(list(model.parameters()))
        nn.utils.clip_grad_norm_(rest, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        recent.append(parts.cpu().numpy())
        if rank == 0 and (step + 1) % arguments.report == 0:
            caption, vector, patch = (round(float(value), 4) for value in np.mean(recent, 0))
            recent = []
            row = {"step": step + 1, "pictures": (step + 1) * arguments.batch, "caption_loss": caption, "vector_loss": vector, "patch_loss": patch}
            log_row(arguments.output / "vision.jsonl", row | held_out(model, tests, targets))
            bar.set_postfix(caption=caption, vector=vector, patch=patch)
        if rank == 0 and (time.time() - saved > arguments.save_every or step + 1 == arguments.steps):
            save(arguments.output, "vision", model, optimizers, step + 1)
            saved = time.time()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--go-on", type=Path, nargs=2, metavar=("DIR", "TEACHER"), help="begin with exported weights: smollm2 teacher.safetensors"
    )
    parallel.add_arguments(parser, steps=4000, batch=32, rate=2e-3)
    parallel.start(run, parser.parse_args())
