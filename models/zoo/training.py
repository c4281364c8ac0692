"""Training in seconds with fixed seeds: plainly, or against the IBP bound (Gowal et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from provenn.models.zoo.digits import Digits
from provenn.models.zoo.networks import interval

BATCH = 128


def train(module: nn.Module, data: Digits, epochs: int, radius: float = 0.0, seed: int = 0) -> None:
    """Adam on the cross entropy; with radius > 0 half of the loss is that of the worst case under IBP.

    The radius grows linearly from 0 over the first 60 % of the epochs. Deterministic for one thread count.
    """
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.as_tensor(data.images), torch.as_tensor(data.labels)
    optimiser = torch.optim.Adam(module.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    module.train()
    for epoch in range(epochs):
        now = radius * min(1.0, epoch / (0.6 * epochs))
        for index in torch.split(torch.randperm(len(labels), generator=generator), BATCH):
            optimiser.zero_grad()
            torch.autograd.backward(_loss(module, images[index], labels[index], now))
            optimiser.step()
        schedule.step()
    module.eval()


def _loss(module: nn.Module, x: Tensor, label: Tensor, radius: float) -> Tensor:
    plain = nn.functional.cross_entropy(module(x), label)
    if radius == 0:
        return plain
    lower, upper = interval(module, (x - radius).clamp(min=0), (x + radius).clamp(max=1))
    own = nn.functional.one_hot(label, lower.shape[1]).bool()
    return (plain + nn.functional.cross_entropy(torch.where(own, lower, upper), label)) / 2
