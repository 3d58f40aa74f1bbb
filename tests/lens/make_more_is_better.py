"""Write more_is_better.npz: risks by the authors' own code, which needs JAX and cannot live beside torch here.

Run as ``python make_more_is_better.py FOLDER`` with jax and jaxopt installed and FOLDER holding ``theory.py`` of
github.com/dkarkada/more-is-better, its line ``import torch`` left out. Its solver bisects twice, 200 steps each.
"""

import sys
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
sys.path.insert(0, sys.argv[1])
import theory  # noqa: E402

TASKS = ((1.5, 1.5, 0.5), (1.2, 2.0, 0.0), (2.0, 1.3, 0.1))
M = 400
i = np.arange(1, M + 1)
rows, kernels = [], []
for alpha, beta, noise in TASKS:
    lam, v = jax.numpy.array(i**-alpha), jax.numpy.array(i ** (-beta / 2))
    for n in (20, 128, 300):
        for ridge in (1e-3, 0.1, 3.0):
            found = theory.krr_risk_theory(n, v, lam, ridge, noise)
            kernels.append(
                [alpha, beta, noise, n, ridge, *(float(found[x]) for x in ("kappa", "train_mse", "test_mse"))]
            )
            for k in (10, 128, 1000):
                test, kappa, gamma = (float(x) for x in theory.rf_krr_risk_theory(lam, v, n, k, ridge, noise))
                rows.append([alpha, beta, noise, n, k, ridge, test, kappa, gamma])
np.savez_compressed(Path(__file__).with_name("more_is_better.npz"), kernel=kernels, features=rows, size=M)
