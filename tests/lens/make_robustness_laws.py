"""Freeze what the authors' script computes: ``python make_robustness_laws.py path/to/utils.py``.

The file is utils.py of github.com/simone-bombari/beyond-universal-robustness; the lines of its main.py that compute the
sensitivity S are followed here, at weights of ours. Its second derivative of tanh is wrong, so that tanh is used for
random features alone.
"""

import importlib.util
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from tangrams.features import RandomFeatures, ShallowTangentFeatures

for missing in ("torchvision", "pandas"):
    sys.modules[missing] = mock.MagicMock()
spec = importlib.util.spec_from_file_location("utils", sys.argv[1])
assert spec is not None
assert spec.loader is not None
utils = importlib.util.module_from_spec(spec)
spec.loader.exec_module(utils)

n, d, k_random, k_tangent = 12, 10, 40, 6
rng = np.random.default_rng(0)
X, Y, z = rng.standard_normal((n, d)), rng.standard_normal(n), rng.standard_normal(d)
like = torch.empty(0, dtype=torch.float64)
frozen = {"X": X, "Y": Y, "z": z}
for name in ("tanh", "cos", "square", "softplus"):
    phi, dev, dev2 = (getattr(utils, prefix + name) for prefix in ("", "dev_", "dev2_"))
    W = RandomFeatures(d, k_random, seed=0).weights(0, k_random, like)[0].mT.numpy()
    jacobian = W @ np.diag(dev(W.T @ z))
    frozen[f"random_{name}"] = np.sqrt(d) * np.linalg.norm(jacobian @ np.linalg.pinv(phi(X @ W)) @ Y)
    if name == "tanh":
        continue
    W = ShallowTangentFeatures(d, k_tangent, torch.cos, seed=0).weights(0, k_tangent, like).mT.numpy()
    jacobian = utils.rwt(np.identity(d), np.outer(np.ones(d), dev(W.T @ z)))
    jacobian = jacobian + utils.rwt(np.outer(np.ones(d), z), W @ np.diag(dev2(W.T @ z)))
    S = np.sqrt(d) * np.linalg.norm(jacobian @ np.linalg.pinv(utils.rwt(X, dev(X @ W))) @ Y)
    frozen[f"tangent_{name}"] = S
np.savez(Path(__file__).with_name("robustness_laws.npz"), **frozen)
