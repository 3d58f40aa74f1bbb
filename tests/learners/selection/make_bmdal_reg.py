"""Freezes what bmdal-reg 3.0.2 computes, beside this file; run where it is installed."""

from pathlib import Path

import numpy as np
import torch
from bmdal_reg_peer import gradients, kernels, selections

generator = torch.Generator().manual_seed(0)
decay = torch.linspace(2, 0.1, 12)
pool = (torch.randn(700, 12, generator=generator) * decay).double()
train = (torch.randn(40, 12, generator=generator) * decay).double()
weights = [
    (torch.randn(12, 9, generator=generator).double(), torch.randn(9, generator=generator).double()),
    (torch.randn(9, 1, generator=generator).double(), torch.randn(1, generator=generator).double()),
]
found = {f"select_{name}": index.astype(np.int16) for name, index in selections(pool, train, 60).items()}
found |= {f"kernel_{name}": value[:30] for name, value in kernels(pool, train).items() if "theta" not in name}
found |= {f"kernel_{name}": value for name, value in kernels(pool, train).items() if "theta" in name}
found |= {f"kernel_{name}": value for name, value in gradients(weights, pool[:30], train).items()}
arrays = {f"weight_{i}_{j}": value.numpy() for i, pair in enumerate(weights) for j, value in enumerate(pair)}
np.savez_compressed(
    Path(__file__).with_name("bmdal_reg.npz"),
    pool=pool.numpy().astype(np.float32),
    train=train.numpy().astype(np.float32),
    **arrays,
    **found,
)
