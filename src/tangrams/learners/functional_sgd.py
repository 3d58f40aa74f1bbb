"""Stochastic gradient descent on a function, for kernels: the wide limits that learn no features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tangrams.learners.base import HasGram


class FunctionalSGD:
    r"""A function that gradient descent moves along the kernel, one batch after the other [017].

    .. math:: f(x) = \sum_j k(x, x_j) C_j, \qquad C_j = -η \frac{∂ L}{∂ f(x_j)}

    Every sample of every step is kept with its coefficient. With a network's NNGP kernel this is the limit of training
    its readout alone, with its tangent kernel that of training all layers lazily, from the function zero.

    Args:
        kernel: an object with ``gram``.
        out_features: c.
        dtype: of the coefficients.

    Raises:
        ValueError: if ``out_features < 1``.
    """

    def __init__(self, kernel: HasGram, out_features: int, *, dtype: torch.dtype = torch.float32) -> None:
        if out_features < 1:
            raise ValueError(f"FunctionalSGD needs out_features ≥ 1, got {out_features}")
        self.kernel, self.out_features, self.dtype = kernel, out_features, dtype
        self._samples: Tensor | None = None
        self._coefficients = torch.zeros(0, out_features, dtype=dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def samples(self) -> Tensor:
        """Every sample seen, ``(m, …)``.

        Raises:
            ValueError: before the first step.
        """
        if self._samples is None:
            raise ValueError("FunctionalSGD has not taken a step yet")
        return self._samples[: self._count]

    @property
    def coefficients(self) -> Tensor:
        """C, ``(m, c)``."""
        return self._coefficients[: self._count]

    def __call__(self, x: Tensor) -> Tensor:
        """The function: n samples → ``(n, c)``."""
        if self._samples is None:
            return torch.zeros(len(x), self.out_features, dtype=self.dtype, device=x.device)
        return self.kernel.gram(x, self.samples).to(self.dtype) @ self.coefficients

    def step(
        self, x: Tensor, gradient: Tensor, lr: float, *, weight_decay: float = 0.0, max_norm: float = math.inf
    ) -> None:
        """Move along the gradient of a loss with respect to the outputs.

        Args:
            x: n samples.
            gradient: ``∂L/∂f(x)``, ``(n, c)``.
            lr: η.
            weight_decay: λ; everything before is multiplied by 1 − ηλ.
            max_norm: the gradient is shortened to this norm in the kernel's space, ``tr(gᵀ K g)^{1/2}``, the limit of
                the norm of all weights' gradient.

        Raises:
            ValueError: if the gradient has another shape or is not finite, or the samples are of another kind.
        """
        if gradient.shape != (len(x), self.out_features):
            raise ValueError(
                f"FunctionalSGD of {self.out_features} outputs got {len(x)} samples and a gradient of shape "
                f"{tuple(gradient.shape)}"
            )
        if not bool(gradient.isfinite().all()):
            raise ValueError("FunctionalSGD got a gradient that is not finite: lower the rate")
        if self._samples is not None and x.shape[1:] != self._samples.shape[1:]:
            raise ValueError(
                f"FunctionalSGD holds samples of shape {tuple(self._samples.shape[1:])}, got {x.shape[1:]}"
            )
        x, gradient = x.detach(), gradient.detach().to(self.dtype)
        if math.isfinite(max_norm):
            norm = float((gradient * (self.kernel.gram(x).to(self.dtype) @ gradient)).sum().clamp_min(0).sqrt())
            gradient = gradient * min(1.0, max_norm / norm) if norm > 0 else gradient
        self.coefficients.mul_(1 - lr * weight_decay)
        self._append(x, -lr * gradient)

    def _append(self, x: Tensor, coefficients: Tensor) -> None:
        count = self._count + len(x)
        if self._samples is None or count > len(self._samples):
            grown = x.new_empty(max(2 * self._count, count), *x.shape[1:])
            enlarged = coefficients.new_empty(len(grown), self.out_features)
            if self._samples is not None:
                grown[: self._count], enlarged[: self._count] = self.samples, self.coefficients
            self._samples, self._coefficients = grown, enlarged
        self._samples[self._count : count] = x
        self._coefficients[self._count : count] = coefficients
        self._count = count

    def state_dict(self) -> dict[str, Tensor]:
        """Samples and coefficients."""
        samples = torch.zeros(0) if self._samples is None else self.samples.clone()
        return {"samples": samples, "coefficients": self.coefficients.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replace all by what :meth:`state_dict` returned.

        Raises:
            ValueError: if the coefficients are for another number of outputs.
        """
        samples, coefficients = state["samples"], state["coefficients"]
        if coefficients.shape[1:] != (self.out_features,) or len(samples) != len(coefficients):
            raise ValueError(
                f"FunctionalSGD of {self.out_features} outputs got {len(samples)} samples and coefficients of shape "
                f"{tuple(coefficients.shape)}"
            )
        self._count = len(samples)
        self._samples = samples.clone() if len(samples) else None
        self._coefficients = coefficients.to(self.dtype).clone()
