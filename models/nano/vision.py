"""InternViT, pixel shuffle v2 and the projector `mlp1`, small, under the tensor names of an NVLM_D checkpoint."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

MEAN = torch.tensor([0.485, 0.456, 0.406])
DEVIATION = torch.tensor([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class VisionConfig:
    image_size: int = 128
    patch_size: int = 16
    hidden_size: int = 192
    num_attention_heads: int = 6
    num_hidden_layers: int = 6
    intermediate_size: int = 768
    layer_norm_eps: float = 1e-6
    # Of the language model: SmolLM2-135M.
    projector_inner_size: int = 1536
    projector_output_size: int = 576

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size


class RmsNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = RmsNorm(width, config.layer_norm_eps)
        self.k_norm = RmsNorm(width, config.layer_norm_eps)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(x).chunk(3, -1)
        heads = lambda y: y.view(batch, length, self.heads, -1).transpose(1, 2)
        y = F.scaled_dot_product_attention(heads(self.q_norm(q)), heads(self.k_norm(k)), heads(v))
        return self.proj(y.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        width = config.hidden_size
        self.norm1 = RmsNorm(width, config.layer_norm_eps)
        self.attn = Attention(config)
        self.ls1 = nn.Parameter(torch.full((width,), 0.5))
        self.norm2 = RmsNorm(width, config.layer_norm_eps)
        self.mlp = Mlp(config)
        self.ls2 = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x):
        x = x + self.ls1 * self.attn(self.norm1(x))
        return x + self.ls2 * self.mlp(self.norm2(x))


class Embeddings(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        width, grid = config.hidden_size, config.grid
        self.class_embedding = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.patch_embedding = nn.Conv2d(3, width, config.patch_size, config.patch_size)
        self.position_embedding = nn.Parameter(torch.cat((torch.zeros(1, 1, width), sines(grid, width)), 1))
        with torch.no_grad():
            self.patch_embedding.weight.copy_(cosines(width, config.patch_size))
            self.patch_embedding.bias.zero_()

    def forward(self, pixels):
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = torch.cat((self.class_embedding.expand(len(pixels), -1, -1), patches), 1)
        return x + self.position_embedding


class Encoder(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class VisionModel(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(self, pixels):
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        return x


class Seeing(nn.Module):
    """Pixels (B, 3, S, S), normalised -> embeddings for the language model (B, (grid / 2)^2, hidden)."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        width = 4 * config.hidden_size
        self.vision_model = VisionModel(config)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.projector_inner_size, bias=False),
            nn.GELU(),
            nn.Linear(config.projector_inner_size, config.projector_output_size, bias=False),
        )
        nn.init.normal_(self.mlp1[3].weight, std=0.15 / math.sqrt(config.projector_inner_size))

    def forward(self, pixels):
        return self.mlp1(pixel_shuffle(self.patches(pixels), self.config.grid))

    def patches(self, pixels):
        """The encoder's rows of patches, (B, grid^2, W)."""
        return self.vision_model(pixels)[:, 1:]


def pixel_shuffle(patches: torch.Tensor, grid: int) -> torch.Tensor:
    """Squares of two by two patches side by side in reading order, rows of squares from the top (version 2)."""
    batch, _, width = patches.shape
    squares = patches.view(batch, grid // 2, 2, grid // 2, 2, width).transpose(2, 3)
    return squares.reshape(batch, (grid // 2) ** 2, 4 * width)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """(B, S, S, 3) bytes -> (B, 3, S, S)"""
    return ((pixels.float() / 255 - MEAN.to(pixels.device)) / DEVIATION.to(pixels.device)).permute(0, 3, 1, 2).contiguous()


def sines(grid: int, width: int) -> torch.Tensor:
    """Position embeddings to start from: sines and cosines of row and column, (1, grid^2, width)."""
    quarter = width // 4
    frequencies = (math.pi / 2) * (grid * 2.0) ** (-torch.arange(quarter) / quarter)
    angles = torch.arange(grid)[:, None] * frequencies * 2
    axis = torch.cat((angles.sin(), angles.cos()), 1)
    both = torch.cat((axis[:, None].expand(-1, grid, -1), axis[None].expand(grid, -1, -1)), -1)
    return both.reshape(1, grid * grid, width) * 0.3


def cosines(width: int, size: int) -> torch.Tensor:
    """Patch filters to start from: the low frequencies of brightness and of two colour differences, (width, 3, size, size)."""
    steps = torch.arange(size) + 0.5
    basis = torch.stack([torch.cos(math.pi * steps * f / size) for f in range(size)])
    basis = basis / basis.norm(dim=1, keepdim=True)
    order = sorted(((v, u) for v in range(size) for u in range(size)), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
    colours = torch.tensor([[1, 1, 1], [1, -1, 0], [0.5, 0.5, -1]])
    colours = colours / colours.norm(dim=1, keepdim=True)
    luminance = width * 3 // 5
    chrominance = (width - luminance) // 2
    counts = [width - 2 * chrominance, chrominance, chrominance]
    filters = [
        colour[:, None, None] * torch.outer(basis[v], basis[u]) * (1 + math.hypot(v, u)) / size
        for colour, count in zip(colours, counts, strict=True)
        for v, u in order[:count]
    ]
    return torch.stack(filters)
