"""scikit-learn's model selection works on samples, Gram matrices and lazy feature matrices alike."""

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn

from tangrams.features import TangentFeatures
from tangrams.kernels import CosineKernel, EmpiricalNTK
from tangrams.learners import KernelLogisticRegression


def setting():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    y = torch.arange(45) % 3
    x = torch.randn(45, 2, 3)
    x[torch.arange(45), 0, y] += 3
    return net, x, y.numpy()


def test_cross_validation_slices_samples_grams_and_feature_matrices():
    net, x, y = setting()
    kernel = EmpiricalNTK(net, "sum")
    by_kernel = cross_val_score(KernelLogisticRegression(kernel), x.numpy(), y, cv=3)
    by_gram = cross_val_score(KernelLogisticRegression("precomputed"), kernel.gram(x).numpy(), y, cv=3)
    by_rows = cross_val_score(KernelLogisticRegression(), TangentFeatures(net, "sum").matrix(x), y, cv=3)
    np.testing.assert_array_equal(by_kernel, by_gram)
    np.testing.assert_array_equal(by_rows, by_gram)
    assert by_gram.mean() > 0.8


def test_a_grid_search_shares_the_network():
    net, x, y = setting()
    model = KernelLogisticRegression(CosineKernel(EmpiricalNTK(net, "trace")))
    found = GridSearchCV(model, {"C": [0.1, 10.0]}, cv=3).fit(x.numpy(), y)
    assert found.best_estimator_.kernel.base_kernel.model is net
