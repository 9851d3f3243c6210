"""Training that can be stopped at any time: the last state on disk, and a log of one JSON object per line."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file


def save(directory: Path, name: str, model, optimizers, step: int):
    """Replaces the former state at once, so that a killed process leaves a whole one."""
    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step}
    partial = directory / f"{name}.pt.partial"
    torch.save(state, partial)
    partial.replace(directory / f"{name}.pt")


def load_latest(directory: Path, name: str, model, optimizers) -> int:
    """Restores the last state; returns the steps done, 0 where there is none."""
    path = directory / f"{name}.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"]


def load_exported(directory: Path, teacher: Path) -> tuple[dict, dict]:
    """States of `Supervised` and `Interface` from what export.py wrote: a run that begins where another ended."""
    seeing = {f"seeing.{name}": t.float() for name, t in load_file(directory / "model.safetensors").items()}
    rest = load_file(teacher)
    interface = {name.removeprefix("interface."): t for name, t in rest.items() if name.startswith("interface.")}
    heads = {name: t for name, t in rest.items() if not name.startswith("interface.")}
    return seeing | heads, interface


def log_row(path: Path, row: dict):
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
