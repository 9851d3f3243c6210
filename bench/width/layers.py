"""The layers of `npm run bench -- width` in PyTorch: what the engine is timed against, and the oracle of its results.

Reads one JSON request a line from standard input and answers with one JSON line. Requests name a work ("vision", "prefill",
"decode 1", "decode 16") and a dtype:
  {"op": "time", "work": W, "dtype": "bfloat16" | "float32"}   -> {"seconds": s}
  {"op": "error", "work": W, "dtype": ...}                     -> {"max": m, "rms": r} against the oracle
  {"op": "oracle", "work": W, "output": PATH}                  -> writes the float64 result, rounded to float32
  {"op": "probe"}                                              -> {"bfloat16": s, "float32": s} of one linear
  {"op": "describe"}                                           -> {"version": v, "capability": c, "threads": n}
"""

import ctypes
import json
import math
import os
import sys
import time
import warnings

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

import torch
import torch.nn.functional as F

STORED = {"BF16": (torch.bfloat16, 2), "F32": (torch.float32, 4)}


def read_safetensors(path):
    """Tensors of a file by name, memory-mapped."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    begin = 8 + length
    content = torch.from_file(path, shared=False, size=os.path.getsize(path), dtype=torch.uint8)
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        dtype, _ = STORED[entry["dtype"]]
        tensors[name] = content[begin + first : begin + last].view(dtype).reshape(entry["shape"])
    return tensors


def read_floats(path, *shape):
    return torch.from_file(path, shared=False, size=math.prod(shape), dtype=torch.float32).reshape(shape)


def linear(x, weight, bias=None):
    """float64 goes through the weight in strips: a whole copy of it would not fit."""
    if x.dtype != torch.float64:
        return F.linear(x, weight, bias)
    strips = [x @ strip.double().T for strip in weight.split(2048)]
    y = torch.cat(strips, dim=-1)
    return y if bias is None else y + bias.double()


def rms_norm(x, weight, eps):
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)


class Vision:
    """Patch embedding and one InternViT layer, without the dummy heads: they are zero, and the engine leaves them out too."""

    def __init__(self, directory, shape):
        self.shape = shape
        stored = read_safetensors(f"{directory}/vision.safetensors")
        width, size = shape["hidden"], shape["heads"] * shape["headSize"]
        at, layer = "vision_model.embeddings.", "vision_model.encoder.layers.0."
        self.weights = {name[len(layer) :]: tensor for name, tensor in stored.items() if name.startswith(layer)}
        qkv = self.weights["attn.qkv.weight"]
        self.weights["attn.qkv.weight"] = torch.cat([third[:size] for third in qkv.split(qkv.shape[0] // 3)])
        self.weights["attn.proj.weight"] = self.weights["attn.proj.weight"][:, :size].contiguous()
        for name in ("attn.q_norm.weight", "attn.k_norm.weight"):
            self.weights[name] = self.weights[name][:size]
        self.weights["patch"] = stored[f"{at}patch_embedding.weight"].reshape(width, -1)
        self.weights["patch.bias"] = stored[f"{at}patch_embedding.bias"]
        self.weights["class"] = stored[f"{at}class_embedding"]
        self.weights["positions"] = stored[f"{at}position_embedding"]
        self.patches = read_floats(f"{directory}/patches.f32", shape["tiles"], shape["grid"] ** 2, shape["patchWidth"])
        self.cast = {}

    def weights_as(self, dtype):
        if dtype == torch.float64:
            return self.weights
        if dtype not in self.cast:
            self.cast = {dtype: {name: tensor.to(dtype) for name, tensor in self.weights.items()}}
        return self.cast[dtype]

    @torch.inference_mode()
    def run(self, dtype):
        w, shape = self.weights_as(dtype), self.shape
        eps, heads, size = shape["eps"], shape["heads"], shape["headSize"]
        if dtype == torch.float64:
            return torch.cat([self.layers(w, tile[None].double(), eps, heads, size) for tile in self.patches])
        return self.layers(w, self.patches.to(dtype), eps, heads, size)

    def layers(self, w, patches, eps, heads, size):
        tiles = patches.shape[0]
        x = linear(patches, w["patch"], w["patch.bias"])
        x = torch.cat([w["class"].to(x.dtype).expand(tiles, 1, -1), x], dim=1) + w["positions"].to(x.dtype)
        normed = rms_norm(x, w["norm1.weight"], eps)
        q, k, v = linear(normed, w["attn.qkv.weight"]).chunk(3, dim=-1)
        q = rms_norm(q, w["attn.q_norm.weight"], eps)
        k = rms_norm(k, w["attn.k_norm.weight"], eps)
        q, k, v = (part.reshape(tiles, -1, heads, size).transpose(1, 2) for part in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tiles, -1, heads * size)
        x = x + linear(attended, w["attn.proj.weight"], w["attn.proj.bias"]) * w["ls1"].to(x.dtype)
        normed = rms_norm(x, w["norm2.weight"], eps)
        inner = F.gelu(linear(normed, w["mlp.fc1.weight"], w["mlp.fc1.bias"]))
        return x + linear(inner, w["mlp.fc2.weight"], w["mlp.fc2.bias"]) * w["ls2"].to(x.dtype)


class Language:
    """Embedding and two Qwen2 layers over a cache of one shared prefix."""

    def __init__(self, directory, shape):
        self.shape = shape
        stored = read_safetensors(f"{directory}/language.safetensors")
        self.embedding = stored["model.embed_tokens.weight"]
        self.layers = []
        for layer in range(shape["layers"]):
            at = f"model.layers.{layer}."
            w = {name[len(at) :]: tensor for name, tensor in stored.items() if name.startswith(at)}
            self.layers.append(w)
        self.cache = {}
        self.float_layer = None

    def weights_of(self, layer, dtype, timed):
        """float32 copies of both layers would not fit beside the rest: timing runs the first one's twice, which reads as much."""
        if dtype != torch.float32:
            return self.layers[layer]
        if timed and self.float_layer is not None:
            return self.float_layer
        self.float_layer = None
        copy = {name: tensor.to(dtype) for name, tensor in self.layers[0 if timed else layer].items()}
        if timed:
            self.float_layer = copy
        return copy

    def rotate(self, x, positions):
        half = self.shape["headSize"] // 2
        frequencies = self.shape["theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = positions[:, None].double() * frequencies.float().double()
        cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)

    @torch.inference_mode()
    def run(self, ids, positions, past, dtype, timed):
        """ids (sequences, tokens); past: per layer keys and values (sequences, kvHeads, prefix + tokens, D), the last to be written."""
        s = self.shape
        sequences, tokens = ids.shape
        x = self.embedding[ids].to(dtype)
        for layer in range(s["layers"]):
            w = self.weights_of(layer, dtype, timed)
            normed = rms_norm(x, w["input_layernorm.weight"], s["eps"])
            split = lambda y, heads: y.reshape(sequences, tokens, heads, s["headSize"]).transpose(1, 2)
            part = lambda name: linear(normed, w[f"self_attn.{name}.weight"], w[f"self_attn.{name}.bias"])
            q = self.rotate(split(part("q_proj"), s["heads"]), positions)
            k = self.rotate(split(part("k_proj"), s["kvHeads"]), positions)
            v = split(part("v_proj"), s["kvHeads"])
            keys, values = past[layer]
            keys[:, :, -tokens:] = k
            values[:, :, -tokens:] = v
            attended = F.scaled_dot_product_attention(q, keys, values, is_causal=tokens > 1, enable_gqa=True)
            attended = attended.transpose(1, 2).reshape(sequences, tokens, -1)
            x = x + linear(attended, w["self_attn.o_proj.weight"])
            normed = rms_norm(x, w["post_attention_layernorm.weight"], s["eps"])
            gated = F.silu(linear(normed, w["mlp.gate_proj.weight"])) * linear(normed, w["mlp.up_proj.weight"])
            x = x + linear(gated, w["mlp.down_proj.weight"])
        return x

    def empty_cache(self, sequences, length, dtype):
        size = (sequences, self.shape["kvHeads"], length, self.shape["headSize"])
        return [(torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=dtype)) for _ in range(self.shape["layers"])]

    def prefill(self, dtype, timed):
        past = self.empty_cache(1, self.shape["prompt"], dtype)
        ids = torch.tensor([self.shape["promptIds"]])
        self.cache = {(dtype, timed): past}
        return self.run(ids, torch.arange(self.shape["prompt"]), past, dtype, timed)

    def prefix(self, sequences, dtype, timed):
        """Caches of so many sequences, each its own copy, with room for one more token; bf16 ones are made of float32."""
        source = torch.float32 if dtype == torch.bfloat16 else dtype
        if (source, timed) not in self.cache:
            self.prefill(source, timed)
        longer = lambda t: F.pad(t.to(dtype), (0, 0, 0, 1)).expand(sequences, -1, -1, -1).contiguous()
        return [(longer(k), longer(v)) for k, v in self.cache[(source, timed)]]

    def decode(self, sequences, past, dtype, timed):
        ids = torch.tensor(self.shape["nextIds"][:sequences])[:, None]
        return self.run(ids, torch.tensor([self.shape["prompt"]]), past, dtype, timed)[:, 0]


def main():
    directory, shape = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(shape["threads"])
    vision, language = None, None

    def result(work, dtype, timed, clock):
        nonlocal vision, language
        if work == "vision":
            language = None
            vision = vision or Vision(directory, shape["vision"])
            vision.weights_as(dtype)
            return clock(lambda: vision.run(dtype)).flatten(0, 1)
        vision = None
        language = language or Language(directory, shape["language"])
        if timed:
            language.weights_of(0, dtype, timed)
        if work == "prefill":
            return clock(lambda: language.prefill(dtype, timed))[0]
        sequences = int(work.split()[1])
        past = language.prefix(sequences, dtype, timed)
        return clock(lambda: language.decode(sequences, past, dtype, timed))

    def clocked(work, dtype, timed):
        seconds = 0.0

        def clock(call):
            nonlocal seconds
            started = time.perf_counter()
            value = call()
            seconds = time.perf_counter() - started
            return value

        value = result(work, dtype, timed, clock)
        return value, seconds

    def timed(work, dtype):
        return {"seconds": clocked(work, dtype, True)[1]}

    def probe():
        def seconds(dtype):
            x, weight = torch.ones(512, 8192, dtype=dtype), torch.ones(8192, 8192, dtype=dtype)
            started = time.perf_counter()
            F.linear(x, weight)
            return time.perf_counter() - started

        return {name: min(seconds(getattr(torch, name)) for _ in range(2)) for name in ("bfloat16", "float32")}

    def error(work, dtype):
        value, _ = clocked(work, dtype, False)
        expected = read_floats(f"{directory}/oracle-{work.replace(' ', '-')}.f32", *value.shape)
        difference = (value.double() - expected.double()).abs()
        return {"max": difference.max().item(), "rms": difference.square().mean().sqrt().item()}

    def oracle(work, output):
        value = result(work, torch.float64, False, lambda call: call()).float().contiguous()
        with open(output, "wb") as file:
            file.write(bytes_of(value))
        return {}

    def describe():
        return {
            "version": torch.__version__,
            "capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        }

    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        if "dtype" in request:
            request["dtype"] = getattr(torch, request["dtype"])
        try:
            answer = {"time": timed, "error": error, "oracle": oracle, "probe": probe, "describe": describe}[op](**request)
        except Exception as problem:  # The bench shows it.
            answer = {"failed": f"{type(problem).__name__}: {problem}"}
        print(json.dumps(answer), flush=True)


def bytes_of(tensor):
    """The bytes of a contiguous tensor, without numpy."""
    return (ctypes.c_char * (tensor.numel() * tensor.element_size())).from_address(tensor.data_ptr())


main()
