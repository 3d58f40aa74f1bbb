"""Freeze what the authors' cascade computes: ``python make_polyharmonic_cascade.py path/to/collective.py``.

The file is collective.py of github.com/xolod7/polyharmonic-cascade at commit 36946cc.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch

spec = importlib.util.spec_from_file_location("collective", sys.argv[1])
assert spec is not None
assert spec.loader is not None
collective = importlib.util.module_from_spec(spec)
spec.loader.exec_module(collective)

torch.manual_seed(0)
g = torch.Generator().manual_seed(1)
x = 0.5 * torch.randn(12, 5, generator=g, dtype=torch.float64)
y = torch.randn(3, 12, 1, generator=g, dtype=torch.float64)
cascade = collective.Collective([5, 4, 4, 3], "double", "cpu", "r")  # three models, each 5 → 4 → 4 → 1
arrays = {"x": x, "y": y[:, :, 0].T}
with torch.no_grad():
    for level in cascade.lev:
        level.rez += 0.3 * torch.randn(level.rez.shape, generator=g, dtype=torch.float64)
        level.Turbine()
    first = cascade.lev[0].PreparationPars(x).double()
    arrays |= {f"values_{i}": level.rez.clone() for i, level in enumerate(cascade.lev)}
    arrays["outputs"] = cascade.CalcPure(first)[:, :, 0].T
    cascade.Obuchenie(first, y, 2.0)
    arrays |= {f"stepped_{i}": level.rez for i, level in enumerate(cascade.lev)}
np.savez_compressed(
    Path(__file__).with_name("polyharmonic_cascade.npz"), **{k: np.asarray(v) for k, v in arrays.items()}
)
