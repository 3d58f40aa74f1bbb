"""Kernels made of others: what they hold in memory, and what follows them to another dtype or device."""

import weakref

import pytest
import torch

from tangrams.data import Labelled
from tangrams.kernels import Kernel, LaplaceKernel, PosteriorKernel, ProductKernel, ScaledKernel, SumKernel


class Watched(Kernel):
    """x yᵀ + shift; counts the blocks of its kind that are alive when it is asked for another."""

    def __init__(self, shift, blocks, most):
        super().__init__()
        self.shift, self.blocks, self.most = shift, blocks, most

    def _gram(self, x, y):
        self.most.append(sum(made() is not None for made in self.blocks))
        block = x @ y.mT + self.shift
        self.blocks.append(weakref.ref(block))
        return block

    def _diag(self, x):
        return self._gram(x, x).diagonal()


class TwoRows(LaplaceKernel):
    outputs_per_input = 2

    def _gram(self, x, y):
        return torch.kron(super()._gram(x, y), torch.eye(2))


def rows(n=6, seed=0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("make", [SumKernel, ProductKernel])
def test_blocks_of_the_parts_are_not_all_in_memory(make):
    blocks, most = [], []
    x = rows()
    parts = [x @ x.mT + shift for shift in range(6)]
    expected = torch.stack(parts).sum(0) if make is SumKernel else torch.stack(parts).prod(0)
    torch.testing.assert_close(make(*(Watched(shift, blocks, most) for shift in range(6))).gram(x), expected)
    assert max(most) <= 2
    blocks.clear()
    torch.testing.assert_close(make(*(Watched(shift, blocks, most) for shift in range(6))).diag(x), expected.diagonal())


@pytest.mark.parametrize("make", [SumKernel, ProductKernel])
def test_gradients_reach_every_part(make):
    kernel = make(LaplaceKernel(), ScaledKernel(LaplaceKernel(0.5), 2.0), LaplaceKernel(2.0)).double()
    x = rows().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: kernel.gram(x, rows(4, seed=1)), x)
    grads = torch.autograd.grad(kernel.gram(x, rows(4, seed=1)).sum(), list(kernel.parameters()))
    assert len(grads) == 3
    assert all(float(grad.abs().max()) > 0 for grad in grads)


@pytest.mark.parametrize("make", [SumKernel, ProductKernel])
def test_parts_with_other_outputs_per_sample_are_refused_for_one_sample_too(make):
    with pytest.raises(ValueError, match="as many outputs"):
        make(LaplaceKernel(), TwoRows()).gram(torch.zeros(1, 3))


def test_the_labelled_samples_of_a_posterior_follow_it_to_another_dtype_and_device():
    posterior = PosteriorKernel(LaplaceKernel(), rows(5, seed=1).float(), 0.3)
    posterior.gram(rows().float())  # a factor in float32 is there
    posterior = posterior.double()
    expected = PosteriorKernel(LaplaceKernel().double(), rows(5, seed=1).float().double(), 0.3).gram(rows())
    torch.testing.assert_close(posterior.gram(rows()), expected, rtol=0, atol=1e-12)
    assert posterior.to("meta").labelled.device.type == "meta"


def test_labelled_samples_of_any_structure_follow():
    class First(LaplaceKernel):
        vector_inputs = False
        takes_targets = True

    x = Labelled({"a": rows(5), "ids": torch.arange(5)}, torch.ones(5, dtype=torch.float64))
    moved = PosteriorKernel(First(), x).float().labelled
    assert isinstance(moved, Labelled)
    assert (moved.inputs["a"].dtype, moved.inputs["ids"].dtype, moved.targets.dtype) == (
        torch.float32,
        torch.int64,
        torch.float32,
    )
    assert x.inputs["a"].dtype == torch.float64
