"""One process per core, each on its own part of a batch: two processes wait for each other less than two threads do."""

import os
import socket
from pathlib import Path

import torch
import torch.distributed as dist


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def start(run, arguments):
    """Calls run(rank, arguments) in `arguments.processes` processes."""
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.processes > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            os.environ.setdefault("MASTER_PORT", str(probe.getsockname()[1]))
        torch.multiprocessing.spawn(run, (arguments,), nprocs=arguments.processes)
    else:
        run(0, arguments)


def join(rank: int, arguments):
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    if arguments.processes > 1:
        dist.init_process_group("gloo", rank=rank, world_size=arguments.processes)


def average_gradients(parameters: list[torch.nn.Parameter]):
    if not dist.is_initialized():
        return
    flat = torch.cat([p.grad.flatten() for p in parameters]) / dist.get_world_size()
    dist.all_reduce(flat)
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad.copy_(part.view_as(p))


def add_arguments(parser, *, steps: int, batch: int, rate: float):
    parser.add_argument("--output", type=Path, required=True, help="checkpoints and logs; a run goes on from the last one")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--decay", type=float, default=0.4, help="share of the steps, the last ones, over which the rate falls to zero")
    parser.add_argument("--report", type=int, default=10)
    parser.add_argument("--save-every", type=float, default=120, help="seconds")
    parser.add_argument("--seed", type=int, default=20)
    processes = 1 if device().type == "cuda" else min(2, os.cpu_count() or 1)
    parser.add_argument("--processes", type=int, default=processes)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
