"""The projected NTK beside two independent projections of the same gradients: traker's and dattri's [072]."""

import warnings

import pytest
import torch
from torch import nn

from tangrams.features import TangentFeatures
from tangrams.kernels import EmpiricalNTK, ProjectedNTK
from tangrams.operators import GaussianSketch, RademacherSketch

SIZE, SEEDS = 64, 120


def setting():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3))
    x = torch.randn(4, 6)
    return net, x, TangentFeatures(net, "all")(x).detach()


def statistics(grams, exact):
    """Mean, and the largest z-score of it against the exact Gram."""
    draws = torch.stack(grams)
    z = (draws.mean(0) - exact) / (draws.std(0) / len(draws) ** 0.5)
    return float(z.abs().max()), draws.var(0)


def agree(theirs, sketch):
    """Both are unbiased, and of the same variance to within 4 standard errors of a log-variance, √(2/seeds)."""
    net, x, _ = setting()
    exact = EmpiricalNTK(net, "trace").gram(x)
    ours = [ProjectedNTK(net, sketch(SIZE, seed=seed)).gram(x) for seed in range(SEEDS)]
    z_ours, var_ours = statistics(ours, exact)
    z_theirs, var_theirs = statistics(theirs, exact)
    assert z_ours < 4.5
    assert z_theirs < 4.5
    assert float((var_ours / var_theirs).log().abs().mean()) < 4 * (2 * 2 / SEEDS) ** 0.5


@pytest.mark.peers
@pytest.mark.parametrize(("kind", "sketch"), [("rademacher", RademacherSketch), ("normal", GaussianSketch)])
def test_the_projected_kernel_agrees_with_trakers_projector_in_mean_and_variance(kind, sketch):
    projectors = pytest.importorskip("trak.projectors")
    _, _, rows = setting()
    grams = []
    for seed in range(SEEDS):
        projector = projectors.BasicProjector(
            rows.shape[1], SIZE, seed, projectors.ProjectionType(kind), torch.device("cpu"), block_size=SIZE
        )
        projected = (projector.project(rows, model_id=0) / SIZE**0.5).reshape(4, -1)
        grams.append(projected @ projected.mT / 3)
    agree(grams, sketch)


@pytest.mark.peers
@pytest.mark.parametrize(("kind", "sketch"), [("rademacher", RademacherSketch), ("normal", GaussianSketch)])
def test_the_projected_kernel_agrees_with_dattris_projection_in_mean_and_variance(kind, sketch):
    projection = pytest.importorskip("dattri.func.projection")
    _, _, rows = setting()
    grams = []
    for seed in range(SEEDS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            project = projection.random_project(rows, len(rows), SIZE, 8, proj_seed=seed, proj_type=kind)
        projected = project(rows).reshape(4, -1)
        grams.append(projected @ projected.mT / 3)
    scale = float(
        torch.stack(grams).mean(0).diagonal().sum() / EmpiricalNTK(*setting()[:1], "trace").diag(setting()[1]).sum()
    )
    assert min(abs(scale - 1), abs(scale / SIZE - 1)) < 0.2  # their convention: with or without 1/√k
    agree([g / (SIZE if scale > 2 else 1) for g in grams], sketch)
