"""The frozen language model: the GGUF file of the demo, dequantised to float32, with its tokenizer and chat template.

The engine runs the same numbers, so what the projector learns here is what the engine sees.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL_TOKEN = 3
# What the model's own chat template writes around one question.
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
BEFORE_QUESTION = "<|im_start|>user\n"
AFTER_QUESTION = "<|im_end|>\n<|im_start|>assistant\n"
END = "<|im_end|>"


@dataclass
class Layer:
    """Weights of one block, (rows, columns) as a linear stores them."""

    attention_norm: torch.Tensor
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    o: torch.Tensor
    mlp_norm: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def to_half_order(weight: torch.Tensor, head_size: int) -> torch.Tensor:
    """GGUF stores the rotary pairs of a head side by side; rotate_half wants first and second halves."""
    rows, columns = weight.shape
    return weight.view(rows // head_size, head_size // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


class LanguageModel:
    """A llama, without gradients of its own; embeddings in, hidden states or logits out."""

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        reader = GGUFReader(str(path))
        fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
        self.hidden_size = fields["llama.embedding_length"]
        self.intermediate_size = fields["llama.feed_forward_length"]
        self.heads = fields["llama.attention.head_count"]
        self.kv_heads = fields["llama.attention.head_count_kv"]
        self.head_size = self.hidden_size // self.heads
        self.eps = fields["llama.attention.layer_norm_rms_epsilon"]
        self.theta = fields["llama.rope.freq_base"]
        self.tokenizer = read_tokenizer(reader)
        self.device = torch.device(device)
        tensors = {
            tensor.name: torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float().to(device)
            for tensor in reader.tensors
        }
        self.embedding = tensors["token_embd.weight"]
        self.norm = tensors["output_norm.weight"]
        self.layers = [self._layer(tensors, f"blk.{i}.") for i in range(fields["llama.block_count"])]

    def _layer(self, tensors: dict, at: str) -> Layer:
        take = lambda name: tensors[f"{at}{name}.weight"]
        rotated = lambda name: to_half_order(take(name), self.head_size).contiguous()
        return Layer(
            take("attn_norm"), rotated("attn_q"), rotated("attn_k"), take("attn_v"), take("attn_output"),
            take("ffn_norm"), take("ffn_gate"), take("ffn_up"), take("ffn_down"),
        )  # fmt: skip

    def rotary(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) -> cosines and sines, (B, 1, T, D)"""
        steps = torch.arange(0, self.head_size, 2, device=positions.device) / self.head_size
        angles = positions[:, None, :, None] * self.theta**-steps
        angles = torch.cat((angles, angles), -1)
        return angles.cos(), angles.sin()

    def forward(self, x, positions, mask, past=None, keep=False):
        """Runs the blocks.

        x: (B, T, H) embeddings; positions: (B, T); mask: bool (B or 1, 1, T, P + T), True where a row may look.
        past: per layer keys and values (1, kv_heads, P, D) of a prefix that all rows share.
        Returns the normed hidden states (B, T, H) and, with `keep`, the keys and values per layer.
        """
        cos, sin = self.rotary(positions)
        batch, length, _ = x.shape
        turn = lambda y: y * cos + torch.cat((-y[..., self.head_size // 2 :], y[..., : self.head_size // 2]), -1) * sin
        split = lambda y, heads: y.view(batch, length, heads, self.head_size).transpose(1, 2)
        kept = []
        for i, layer in enumerate(self.layers):
            normed = rms_norm(x, layer.attention_norm, self.eps)
            q = turn(split(normed @ layer.q.T, self.heads))
            k = turn(split(normed @ layer.k.T, self.kv_heads))
            v = split(normed @ layer.v.T, self.kv_heads)
            if past is not None:
                k = torch.cat((past[i][0].expand(batch, -1, -1, -1), k), 2)
                v = torch.cat((past[i][1].expand(batch, -1, -1, -1), v), 2)
            if keep:
                kept.append((k, v))
            groups = self.heads // self.kv_heads
            y = F.scaled_dot_product_attention(
                q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1), attn_mask=mask
            )
            x = x + y.transpose(1, 2).reshape(batch, length, -1) @ layer.o.T
            normed = rms_norm(x, layer.mlp_norm, self.eps)
            x = x + (F.silu(normed @ layer.gate.T) * (normed @ layer.up.T)) @ layer.down.T
        return rms_norm(x, self.norm, self.eps), kept

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.embedding.T

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def read_tokenizer(reader: GGUFReader) -> Tokenizer:
    """Byte-level BPE, each digit by itself, as the file's `tokenizer.ggml.pre` (smollm) says."""
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer
