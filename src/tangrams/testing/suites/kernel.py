"""What every kernel must do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gpytorch
import pytest
import torch
from gpytorch.kernels import ScaleKernel
from torch import Tensor

from tangrams.kernels.base import Kernel
from tangrams.testing.conformance import Case, Suite

_SAMPLES = 7


def _inputs(case: Case, n: int = _SAMPLES, seed: int = 0) -> Any:
    if case.inputs is None:
        raise ValueError("KernelSuite needs a case with inputs")
    return case.inputs(n, torch.Generator().manual_seed(seed))


def _map(x: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """``fn`` on every tensor of a tensor, tuple, named tuple or dict."""
    if isinstance(x, Tensor):
        return fn(x)
    if isinstance(x, dict):
        return {name: _map(part, fn) for name, part in x.items()}
    parts = [_map(part, fn) for part in x]
    return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)


def _floating(x: Any) -> list[Tensor]:
    leaves: list[Tensor] = []
    _map(x, lambda leaf: leaves.append(leaf) or leaf)
    return [leaf for leaf in leaves if leaf.is_floating_point()]


def _close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    scale = max(float(expected.detach().abs().max()), 1e-300)
    torch.testing.assert_close(actual.detach() / scale, expected.detach() / scale, rtol=0, atol=tolerance)


def _flat(x: Any) -> Tensor:
    """As GPyTorch hands it over."""
    if not isinstance(x, Tensor):
        raise TypeError("GPyTorch models pass one tensor")
    return x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)


class _Model(gpytorch.models.ExactGP):
    def __init__(self, x: Tensor, targets: Tensor, kernel: Kernel) -> None:
        super().__init__(x, targets, gpytorch.likelihoods.GaussianLikelihood())
        self.covar_module = ScaleKernel(kernel)

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        covariance = self.covar_module(x)
        mean = x.new_zeros(covariance.shape[:-1])
        return gpytorch.distributions.MultivariateNormal(mean, covariance)


class KernelSuite(Suite):
    """Checks of a :class:`~tangrams.kernels.base.Kernel`; ``case.reference(x, y)`` is a slow dense Gram matrix.

    Inputs should be float64, where the kernel takes floating inputs.
    """

    role = Kernel

    @staticmethod
    def check_is_symmetric(case: Case) -> None:
        """``gram(x)`` equals its transpose."""
        gram = case.make().gram(_inputs(case))
        _close(gram, gram.mT, 1e-12)

    @staticmethod
    def check_is_positive_semidefinite(case: Case) -> None:
        """No eigenvalue lies below zero beyond rounding."""
        values = torch.linalg.eigvalsh(case.make().gram(_inputs(case, 12)).detach().double())
        assert values[0] >= -1e-10 * values[-1], f"eigenvalue {float(values[0])} of {float(values[-1])}"

    @staticmethod
    def check_shape_follows_samples(case: Case) -> None:
        """``(n·r, m·r)`` and ``(n·r,)``, with no samples too."""
        kernel, x = case.make(), _inputs(case)
        gram = kernel.gram(x, _map(x, lambda leaf: leaf[:3]))
        rows = kernel.outputs_per_input
        assert gram.shape == (_SAMPLES * rows, 3 * rows), f"gram has shape {tuple(gram.shape)}"
        assert kernel.diag(x).shape == (_SAMPLES * rows,), f"diag has shape {tuple(kernel.diag(x).shape)}"
        nothing = kernel.gram(_map(x, lambda leaf: leaf[:0]), x)
        assert nothing.shape == (0, _SAMPLES * rows), f"gram of no samples has shape {tuple(nothing.shape)}"

    @staticmethod
    def check_diag_is_the_diagonal(case: Case) -> None:
        """``diag(x)`` equals the diagonal of ``gram(x)``."""
        kernel, x = case.make(), _inputs(case)
        _close(kernel.diag(x), kernel.gram(x).diagonal())

    @staticmethod
    def check_cross_gram_is_a_block(case: Case) -> None:
        """``gram(x[:4], x[2:])`` is that block of ``gram(x)``, the shared samples included."""
        kernel, x = case.make(), _inputs(case)
        r = kernel.outputs_per_input
        block = kernel.gram(_map(x, lambda leaf: leaf[:4]), _map(x, lambda leaf: leaf[2:]))
        _close(block, kernel.gram(x)[: 4 * r, 2 * r :], 1e-7)

    @staticmethod
    def check_equals_reference(case: Case) -> None:
        """The slow reference gives the same."""
        if case.reference is None:
            pytest.skip("the case has no reference")
        x, y = _inputs(case), _inputs(case, 5, seed=1)
        _close(case.make().gram(x, y), case.reference(x, y))

    @staticmethod
    def check_gradient_is_finite_with_duplicated_rows(case: Case) -> None:
        """The gradient in the inputs and the hyper-parameters is finite where two samples coincide."""
        kernel, x = case.make(), _inputs(case)
        if not _floating(x):
            pytest.skip("no floating inputs")
        x = _map(x, lambda leaf: torch.cat([leaf, leaf[:3]]))
        x = _map(x, lambda leaf: leaf.requires_grad_() if leaf.is_floating_point() else leaf)
        gram = kernel.gram(x)
        weights = torch.randn(gram.shape, generator=torch.Generator().manual_seed(1), dtype=gram.dtype)
        (gram * weights).sum().backward()
        for leaf in [*_floating(x), *kernel.parameters()]:
            assert leaf.grad is not None, "no gradient reached an input or hyper-parameter"
            assert torch.isfinite(leaf.grad).all(), "the gradient is not finite where samples coincide"

    @staticmethod
    def check_dtype_and_device_are_kept(case: Case) -> None:
        """float32 in, float32 out, close to float64; the device stays."""
        kernel, x = case.make(), _inputs(case)
        wide = kernel.gram(x)
        if not _floating(x):
            pytest.skip("no floating inputs")
        narrow_x = _map(x, lambda leaf: leaf.float() if leaf.is_floating_point() else leaf)
        narrow = kernel.gram(narrow_x)
        assert narrow.dtype == torch.float32, f"float32 inputs gave {narrow.dtype}"
        assert wide.dtype == _floating(x)[0].dtype, f"{_floating(x)[0].dtype} inputs gave {wide.dtype}"
        assert narrow.device == wide.device == _floating(x)[0].device, "the answer is on another device"
        assert kernel.diag(narrow_x).dtype == torch.float32, "diag has another dtype than gram"
        _close(narrow.double(), wide.double(), 1e-4)

    @staticmethod
    def check_trains_one_step_in_gpytorch(case: Case) -> None:
        """A step on the marginal likelihood moves every hyper-parameter and nothing else; predictions are finite."""
        x = _flat(_inputs(case))
        kernel = case.make().to(x.dtype) if x.is_floating_point() else case.make()
        rows = len(x) * kernel.outputs_per_input
        dtype = x.dtype if x.is_floating_point() else kernel.dtype
        targets = torch.randn(rows, generator=torch.Generator().manual_seed(1), dtype=dtype)
        model = _Model(x, targets, kernel).to(dtype)
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        likelihood: Any = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        loss = -likelihood(model(x), targets)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss), "the marginal likelihood is not finite"
        for name, value in model.named_parameters():
            assert torch.isfinite(value).all(), name
            assert not torch.equal(value, before[name]), f"{name} had no gradient"
        model.eval()
        with torch.no_grad():
            posterior: Any = model(_flat(_inputs(case, 3, seed=2)))
            assert torch.isfinite(posterior.mean).all(), "the posterior mean is not finite"
            assert torch.isfinite(posterior.variance).all(), "the posterior variance is not finite"

    @staticmethod
    def check_gpytorch_calls_give_the_gram(case: Case) -> None:
        """The lazy kernel is ``gram`` when dense, sliced, as a diagonal and as single entries."""
        x, y = _inputs(case), _inputs(case, 4, seed=1)
        flat, other = _flat(x), _flat(y)
        kernel = case.make().to(flat.dtype) if flat.is_floating_point() else case.make()
        gram = kernel.gram(x, y)
        _close(kernel(flat, other).to_dense(), gram)
        _close(kernel(flat, flat[:4] * 1, diag=False)[:2].to_dense(), kernel.gram(x, x[:4])[:2], 1e-7)
        _close(kernel(flat).diagonal(dim1=-1, dim2=-2), kernel.diag(x), 1e-7)
        _close(kernel(flat[:4], other, diag=True), kernel.gram(x[:4], y).diagonal())

    @staticmethod
    def check_gpytorch_batches_are_stacked(case: Case) -> None:
        """Batch dimensions in front, broadcast between the two, give the Gram matrix of each."""
        first, second, other = _inputs(case), _inputs(case, seed=1), _inputs(case, 4, seed=2)
        batch = torch.stack([_flat(first), _flat(second)])
        kernel = case.make().to(batch.dtype) if batch.is_floating_point() else case.make()
        dense = kernel(batch, _flat(other)).to_dense()
        _close(dense, torch.stack([kernel.gram(first, other), kernel.gram(second, other)]))
        _close(kernel(batch, diag=True), torch.stack([kernel.diag(first), kernel.diag(second)]))

    @staticmethod
    def check_parameters_are_hyperparameters(case: Case) -> None:
        """Nothing of a user's network is in ``parameters()`` or ``state_dict()``."""
        kernel = case.make()
        for name, _ in kernel.named_parameters():
            assert name.split(".")[-1].startswith("raw_"), f"{name} is no hyper-parameter"
        for name in kernel.state_dict():
            assert "raw_" in name or "prior" in name or name.endswith("active_dims"), f"{name} leaks into the state"

    @staticmethod
    def check_copies_are_equal(case: Case) -> None:
        """Pickle, deepcopy and a state dict give the same kernel again."""
        kernel, x = case.make(), _inputs(case)
        gram = kernel.gram(x)
        assert torch.equal(copy.deepcopy(kernel).gram(x), gram), "a deep copy gives another gram"
        assert torch.equal(pickle.loads(pickle.dumps(kernel)).gram(x), gram), "a pickled copy gives another gram"
        other = case.make()
        other.load_state_dict(kernel.state_dict())
        assert torch.equal(other.gram(x), gram), "another instance with the state dict gives another gram"

    @staticmethod
    def check_bad_inputs_are_refused(case: Case) -> None:
        """NaN inputs, missing sample axes and other kinds raise one clear error that names the kernel."""
        kernel, x = case.make(), _inputs(case)
        name = type(kernel).__name__
        if _floating(x):
            broken = _map(x, lambda leaf: leaf * torch.nan if leaf.is_floating_point() else leaf)
            with pytest.raises(ValueError, match=f"{name}.*NaN"):
                kernel.gram(broken)
            with pytest.raises(ValueError, match=f"{name}.*NaN"):
                kernel.gram(x, broken)
        if isinstance(x, Tensor):
            with pytest.raises(ValueError, match=f"{name}.*sample axis"):
                kernel.gram(x.new_zeros(()))
            if x.ndim > 1:
                with pytest.raises(ValueError, match=name):
                    kernel.gram(x, torch.cat([x, x], -1))
        with pytest.raises(TypeError, match=name):
            kernel.gram("samples")

    @staticmethod
    def check_global_state_is_untouched(case: Case) -> None:
        """The random stream and the modes are as they were."""
        kernel, x = case.make(), _inputs(case)
        torch.manual_seed(0)
        state = torch.get_rng_state()
        kernel.gram(x)
        kernel.diag(x)
        assert torch.equal(torch.get_rng_state(), state), "it drew from the global random stream"
        assert torch.is_grad_enabled(), "it left gradients off"
