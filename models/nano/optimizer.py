"""Muon (Jordan et al., 2024) for the matrices of the encoder, AdamW for all else."""

import torch
import torch.distributed as dist

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """The nearest matrix whose singular values are all about one."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-7)
    is_tall = x.shape[0] > x.shape[1]
    if is_tall:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


class Muon(torch.optim.Optimizer):
    """Updates of one spectral norm; the work is split between the processes."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for group in self.param_groups:
            updates = []
            for i, parameter in enumerate(group["params"]):
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.mul_(group["momentum"]).add_(parameter.grad)
                direction = parameter.grad.add(momentum, alpha=group["momentum"])
                # Fused projections are matrices on top of each other.
                blocks = direction.view(-1, min(direction.shape), direction.shape[1]) if direction.shape[0] == 3 * direction.shape[1] else direction[None]
                own = i % world == rank
                updates.append(torch.cat([orthogonalise(block) for block in blocks]) if own else torch.zeros_like(parameter))
            if world > 1:
                flat = torch.cat([update.flatten() for update in updates])
                dist.all_reduce(flat)
                updates = [part.view_as(update) for part, update in zip(flat.split([u.numel() for u in updates]), updates, strict=True)]
            for parameter, update in zip(group["params"], updates, strict=True):
                scale = 0.5 * max(parameter.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)
