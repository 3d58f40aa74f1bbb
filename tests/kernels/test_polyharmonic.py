"""The polyharmonic kernel."""

import math

import pytest
import torch
from scipy.interpolate import RBFInterpolator

from tangrams.kernels import PolyharmonicKernel
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.kernel import KernelSuite


def by_loops(x, y):
    def entry(a, b):
        r = math.dist(a, b)
        return (r * r * (math.log(r) - 5) if r else 0.0) + 400

    return torch.tensor([[entry(a, b) for b in y.tolist()] for a in x.tolist()], dtype=torch.float64)


TestPolyharmonicKernel = conformance(KernelSuite, Case(PolyharmonicKernel, inputs=normal(4), reference=by_loops))


def test_its_entries_are_the_thin_plate_splines_and_a_shift():
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    r2 = (x[:, None] - x[None]).square().sum(-1)
    thin_plate = torch.special.xlogy(r2, r2) / 2
    assert (PolyharmonicKernel().gram(x) - (thin_plate - 5 * r2 + 400)).abs().max() < 1e-10


def test_with_a_linear_tail_it_interpolates_as_scipys_thin_plate_spline():
    """On weights orthogonal to linear functions the shift −b r² + c is a constant, which the tail takes up."""
    g = torch.Generator().manual_seed(1)
    x, new = torch.randn(25, 2, generator=g, dtype=torch.float64), torch.randn(8, 2, generator=g, dtype=torch.float64)
    y = (3 * x[:, 0]).sin() + x[:, 1] ** 2
    K = PolyharmonicKernel().double()
    tail, new_tail = (torch.cat([torch.ones(len(p), 1, dtype=p.dtype), p], 1) for p in (x, new))
    system = torch.cat([torch.cat([K.gram(x), tail], 1), torch.cat([tail.mT, torch.zeros(3, 3, dtype=x.dtype)], 1)])
    weights = torch.linalg.lstsq(system, torch.cat([y, y.new_zeros(3)])[:, None]).solution
    ours = torch.cat([K.gram(new, x), new_tail], 1) @ weights
    theirs = RBFInterpolator(x.numpy(), y.numpy(), kernel="thin_plate_spline")(new.numpy())
    torch.testing.assert_close(ours[:, 0], torch.from_numpy(theirs), rtol=1e-6, atol=1e-6)


def test_samples_too_far_apart_for_a_covariance_are_refused():
    kernel = PolyharmonicKernel()
    with pytest.raises(ValueError, match="normalise"):
        kernel.gram(torch.tensor([[0.0], [30.0]]))
    kernel.gram(torch.tensor([[0.0], [10.0]]))


@pytest.mark.parametrize(("b", "c"), [(0.5, 400.0), (5.0, 0.0), (5.0, math.inf), (math.nan, 400.0)])
def test_impossible_arguments_are_refused(b, c):
    with pytest.raises(ValueError, match="PolyharmonicKernel"):
        PolyharmonicKernel(b, c)
