"""Makes performer_attention.npz: what performer-pytorch 1.1.4 answers, without its ε.

Run apart from the library's environment, with performer-pytorch, einops, local-attention, hyper-connections and
axial-positional-embedding installed by ``pip install --no-deps``.
"""

from pathlib import Path

import numpy as np
import torch
from performer_pytorch.performer_pytorch import linear_attention, softmax_kernel

generator = torch.Generator().manual_seed(0)
query, key, value = (torch.randn(1, 1, 6, 8, generator=generator, dtype=torch.float64) for _ in range(3))
directions = torch.randn(12, 8, generator=generator, dtype=torch.float64)
features = [
    softmax_kernel(data, projection_matrix=directions, is_query=data is query, eps=0.0) for data in (query, key)
]
np.savez(
    Path(__file__).with_name("performer_attention.npz"),
    query=query[0, 0],
    key=key[0, 0],
    value=value[0, 0],
    directions=directions,
    attention=linear_attention(*features, value)[0, 0],
)
