"""Write ``mup.npz``: short trainings by microsoft's mup 1.0.0, which the tests compare with.

Run it where mup can be imported, which needs torch and yaml alone::

    pip install --no-deps mup==1.0.0 pyyaml
    python tests/nn/make_mup.py

Entries are ``initial/<parameter>`` before mup rescales anything, ``x``, ``y``, and ``<optimiser>`` with the outputs
before each of six steps.
"""

from pathlib import Path

import mup
import numpy as np
import torch
from torch import nn


def build(width):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, width),
        nn.LayerNorm(width),
        nn.Tanh(),
        nn.Linear(width, 2 * width),
        nn.Tanh(),
        mup.MuReadout(2 * width, 3),
    )


def main():
    entries = {}
    torch.set_default_dtype(torch.float64)
    x, y = torch.randn(7, 5), torch.randn(7, 3)
    entries |= {"x": x.numpy(), "y": y.numpy()}
    for name, make, lr, decay in (
        ("sgd", mup.MuSGD, 0.1, 0.05),
        ("adam", mup.MuAdam, 0.01, 0.05),
        ("adamw", mup.MuAdamW, 0.01, 0.05),
    ):
        model = build(32)
        entries |= {f"initial/{key}": value.detach().numpy().copy() for key, value in model.named_parameters()}
        mup.set_base_shapes(model, build(8), delta=build(12))
        optimiser = make(model.parameters(), lr=lr, weight_decay=decay)
        outputs = []
        for _ in range(6):
            optimiser.zero_grad()
            f = model(x)
            outputs.append(f.detach().numpy().copy())
            ((f - y) ** 2).mean().backward()
            optimiser.step()
        entries[name] = np.stack(outputs)
    np.savez_compressed(Path(__file__).with_name("mup.npz"), **entries)


if __name__ == "__main__":
    main()
