"""What every optimiser promises: its formula, a resume to the bit, and no step where there is no gradient."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from tangrams.testing.conformance import Case, Suite

_STEPS = 4


class OptimizerSuite(Suite):
    """Checks of a ``torch.optim.Optimizer``.

    A case's ``make()`` builds the optimiser over parameters of its own, the same values each time and without weight
    decay; ``reference(initial, gradients)`` takes their values and a list of gradients per step, and returns the values
    that a slow loop of the formula ends at.
    """

    role = Optimizer

    @staticmethod
    def check_first_steps_equal_the_formula(case: Case) -> None:
        """After some steps the parameters are where the reference ends."""
        if case.reference is None:
            raise ValueError("a case of OptimizerSuite needs reference=: (initial, gradients) → final values")
        optimizer = case.make()
        initial = _values(optimizer)
        gradients = [_gradients(optimizer, step) for step in range(_STEPS)]
        for gradient in gradients:
            _step(optimizer, gradient)
        for value, expected, start in zip(_values(optimizer), case.reference(initial, gradients), initial, strict=True):
            tolerance = 1e-10 if value.dtype == torch.float64 else 1e-5
            torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)
            assert not torch.equal(value, start), "a parameter with gradients did not move"

    @staticmethod
    def check_state_dict_resumes_to_the_bit(case: Case) -> None:
        """Saved, loaded into another instance and run on, it ends at the same bits as one that was not interrupted."""
        optimizer, other = case.make(), case.make()
        for step in range(_STEPS):
            _step(optimizer, _gradients(optimizer, step))
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        with torch.no_grad():
            for target, source in zip(_parameters(other), _parameters(optimizer), strict=True):
                target.copy_(source)
        other.load_state_dict(torch.load(file, weights_only=True))
        for step in range(_STEPS, 2 * _STEPS):
            _step(optimizer, _gradients(optimizer, step))
            _step(other, _gradients(other, step))
        for ours, theirs in zip(_values(optimizer), _values(other), strict=True):
            assert torch.equal(ours, theirs), "a resumed run ends elsewhere"

    @staticmethod
    def check_a_deep_copy_runs_on_alone(case: Case) -> None:
        """A deep copy takes the same steps on parameters of its own."""
        optimizer = case.make()
        _step(optimizer, _gradients(optimizer, 0))
        twin = copy.deepcopy(optimizer)
        before = _values(optimizer)
        _step(twin, _gradients(twin, 1))
        assert all(torch.equal(a, b) for a, b in zip(before, _values(optimizer), strict=True))
        _step(optimizer, _gradients(optimizer, 1))
        assert all(torch.equal(a, b) for a, b in zip(_values(twin), _values(optimizer), strict=True))

    @staticmethod
    def check_foreach_equals_the_loop(case: Case) -> None:
        """Where there is a fast path over lists, it takes the steps of the loop."""
        if "foreach" not in case.make().defaults:
            pytest.skip("the optimiser has no foreach")
        ends = []
        for foreach in (False, True):
            optimizer = case.make()
            for group in optimizer.param_groups:
                group["foreach"] = foreach
            for step in range(_STEPS):
                _step(optimizer, _gradients(optimizer, step))
            ends.append(_values(optimizer))
        for loop, fast in zip(*ends, strict=True):
            torch.testing.assert_close(loop, fast, rtol=1e-6, atol=1e-7)

    @staticmethod
    def check_a_zero_gradient_moves_nothing(case: Case) -> None:
        """From the start, gradients of zero leave every parameter as it is, to the bit."""
        optimizer = case.make()
        before = _values(optimizer)
        for _ in range(2):
            _step(optimizer, [torch.zeros_like(p) for p in before])
        assert all(torch.equal(a, b) for a, b in zip(before, _values(optimizer), strict=True))

    @staticmethod
    def check_a_missing_gradient_is_skipped(case: Case) -> None:
        """A parameter without a gradient stays, and the others step as if it were not there."""
        optimizer, other = case.make(), case.make()
        gradients = _gradients(optimizer, 0)
        before = _values(optimizer)
        _step(optimizer, [None, *gradients[1:]])
        _step(other, gradients)
        assert torch.equal(_values(optimizer)[0], before[0])
        for ours, theirs in zip(_values(optimizer)[1:], _values(other)[1:], strict=True):
            assert torch.equal(ours, theirs)

    @staticmethod
    def check_a_sparse_gradient_is_right_or_refused(case: Case) -> None:
        """It steps as the dense one would, or is refused with nothing moved."""
        optimizer, other = case.make(), case.make()
        gradients = _gradients(optimizer, 0)
        index = next((i for i, g in enumerate(gradients) if g.ndim == 2), None)
        if index is None:
            pytest.skip("the case has no matrix")
        sparse: list[Any] = list(gradients)
        sparse[index] = gradients[index].to_sparse(1)
        before = _values(optimizer)
        refusal = _refusal(optimizer, sparse)
        if refusal is not None:
            assert "sparse" in refusal.lower(), f"the refusal does not say sparse: {refusal}"
            assert all(torch.equal(a, b) for a, b in zip(before, _values(optimizer), strict=True)), "something moved"
            return
        _step(other, gradients)
        for ours, theirs in zip(_values(optimizer), _values(other), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)

    @staticmethod
    def check_maximize_climbs(case: Case) -> None:
        """Where there is such a flag, climbing is descending on the negative."""
        if "maximize" not in case.make().defaults:
            pytest.skip("the optimiser has no maximize")
        up, down = case.make(), case.make()
        for group in up.param_groups:
            group["maximize"] = True
        for step in range(_STEPS):
            gradients = _gradients(up, step)
            _step(up, gradients)
            _step(down, [-gradient for gradient in gradients])
        assert all(torch.equal(a, b) for a, b in zip(_values(up), _values(down), strict=True))

    @staticmethod
    def check_a_closure_is_called_with_gradients_on(case: Case) -> None:
        """``step(closure)`` returns the loss and uses the gradients that the closure leaves."""
        optimizer = case.make()
        before = _values(optimizer)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = sum(((p - 1) ** 2).sum() for p in _parameters(optimizer))
            assert isinstance(loss, Tensor)
            loss.backward()
            return loss

        with torch.no_grad():
            loss: Any = optimizer.step(closure)
        assert float(loss.detach()) == pytest.approx(float(sum(((p - 1) ** 2).sum() for p in before)))
        assert any(not torch.equal(a, b) for a, b in zip(before, _values(optimizer), strict=True))

    @staticmethod
    def check_each_group_has_its_rate(case: Case) -> None:
        """A group of rate zero stays where it is; gradients are read, never written."""
        optimizer = case.make()
        optimizer.param_groups[0]["lr"] = 0.0
        frozen = len(optimizer.param_groups[0]["params"])
        before, gradients = _values(optimizer), _gradients(optimizer, 0)
        kept = [gradient.clone() for gradient in gradients]
        _step(optimizer, gradients)
        assert all(torch.equal(a, b) for a, b in zip(before[:frozen], _values(optimizer)[:frozen], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(kept, gradients, strict=True)), "a gradient was written to"


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _values(optimizer: Optimizer) -> list[Tensor]:
    return [p.detach().clone() for p in _parameters(optimizer)]


def _gradients(optimizer: Optimizer, step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for p in _parameters(optimizer)]


def _step(optimizer: Optimizer, gradients: Sequence[Tensor | None]) -> None:
    for p, gradient in zip(_parameters(optimizer), gradients, strict=True):
        p.grad = gradient
    optimizer.step()


def _refusal(optimizer: Optimizer, gradients: Sequence[Tensor | None]) -> str | None:
    try:
        _step(optimizer, gradients)
    except (RuntimeError, ValueError) as error:
        return str(error)
    return None
