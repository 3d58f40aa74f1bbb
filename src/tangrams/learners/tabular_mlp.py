"""The network of the active-learning benchmark: a small one for tables, trained without tuning."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from tangrams.learners.base import as_features, as_targets
from tangrams.nn import NTKLinear
from tangrams.operators import FeatureMatrix

_CLIP = 5.0


class TabularMLPRegressor(RegressorMixin, BaseEstimator):
    r"""A fully connected network in NTK parametrisation, with the settings that the benchmark tuned once [007].

    Inputs are standardised and softly clipped, :math:`5 \tanh(x / 5)`; targets are standardised. Weights start normal,
    biases at zero. Adam on the mean squared error, its rate falling linearly to zero; the weights of the epoch with
    the smallest validation error are kept.

    Args:
        hidden: widths of the hidden layers.
        activation: makes the module between the layers. For ``nn.SiLU`` the paper has other values:
            ``W_std=0.5, b_std=1.0, learning_rate=0.15``.
        W_std: σ_w of every layer.
        b_std: σ_b of every layer.
        learning_rate: at the start.
        epochs: passes over the training samples.
        batch_size: samples per step; a last incomplete batch of an epoch is left out.
        validation_fraction: of the samples in :meth:`fit`, where no validation samples are given; 0 for none.
        random_state: fixes the weights, the split and the order of the samples.

    Attributes:
        network_: the network, in eval mode; it takes what :meth:`network_inputs` gives, float32.

    Shape:
        ``X (n, d)``, ``y (n,)`` → predictions ``(n,)``.

    Raises:
        ValueError: from ``fit``, if a number is out of its range.
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        hidden: Sequence[int] = (512, 512),
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        W_std: float = 0.2,
        b_std: float = 0.2,
        learning_rate: float = 0.375,
        epochs: int = 256,
        batch_size: int = 256,
        validation_fraction: float = 0.1,
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.W_std = W_std
        self.b_std = b_std
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any, *, unlabelled: Any = None, validation: tuple[Any, Any] | None = None) -> Any:
        """Train a fresh network.

        Args:
            X: training inputs.
            y: training targets.
            unlabelled: further inputs that count in the standardisation, such as the pool.
            validation: inputs and targets that choose the epoch; without them a part of the training samples does.
        """
        self._check_options()
        rows = self._rows(X, reset=True)
        targets = torch.from_numpy(as_targets(self, rows, y).astype(np.float64)).to(rows.device)
        seen = rows if unlabelled is None else torch.cat([rows, self._rows(unlabelled, reset=False)])
        self._centre, self._spread = seen.mean(0), _spread(seen)
        self._target_centre, self._target_spread = targets.mean(), _spread(targets)
        inputs, targets = self._clipped(rows), self._standardised(targets)
        generator = torch.Generator().manual_seed(self.random_state)
        if validation is None:
            order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
            held_out, rest = order.tensor_split([int(self.validation_fraction * len(inputs))])
            judge = inputs[held_out], targets[held_out]
            inputs, targets = inputs[rest], targets[rest]
        else:
            values = torch.from_numpy(as_targets(self, None, validation[1]).astype(np.float64)).to(inputs.device)
            judge = self._clipped(self._rows(validation[0], reset=False)), self._standardised(values)
        self.network_ = self._trained(inputs, targets, judge, generator)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The network's values, in the units of the targets."""
        inputs = self.network_inputs(X)
        with torch.no_grad():
            values = self.network_(inputs)[:, 0].to(torch.float64)
        return (values * self._target_spread + self._target_centre).cpu().numpy()

    def network_inputs(self, X: Any) -> Float[Tensor, "n d"]:
        """What the network is called with for samples: standardised and softly clipped."""
        check_is_fitted(self, "network_")
        return self._clipped(self._rows(X, reset=False))

    def _check_options(self) -> None:
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"TabularMLPRegressor expects 0 ≤ validation_fraction < 1, got {self.validation_fraction}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"TabularMLPRegressor expects {name} ≥ 1, got {getattr(self, name)}")

    def _rows(self, X: Any, *, reset: bool) -> Tensor:
        X = as_features(self, X, reset=reset)
        return (X.to_dense() if isinstance(X, FeatureMatrix) else X).to(torch.float64)

    def _clipped(self, rows: Tensor) -> Tensor:
        return (_CLIP * torch.tanh((rows - self._centre) / self._spread / _CLIP)).to(torch.float32)

    def _standardised(self, targets: Tensor) -> Tensor:
        return ((targets - self._target_centre) / self._target_spread).to(torch.float32)

    def _network(self, in_features: int, generator: torch.Generator) -> nn.Sequential:
        modules: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise([in_features, *self.hidden, 1]):
            layer = NTKLinear(fan_in, fan_out, self.W_std, self.b_std, generator=generator, dtype=torch.float32)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            modules += [layer, self.activation()]
        return nn.Sequential(*modules[:-1])

    def _trained(
        self, inputs: Tensor, targets: Tensor, judge: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> nn.Sequential:
        n, size = len(inputs), min(self.batch_size, len(inputs))
        network = self._network(inputs.shape[1], generator).to(inputs)
        parameters = list(network.parameters())
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)
        steps = n // size
        total, step = self.epochs * steps, 0
        best, kept = float("inf"), [p.detach().clone() for p in parameters]
        for _ in range(self.epochs):
            order = torch.randperm(n, generator=generator).to(inputs.device)
            for batch in order[: steps * size].split(size):
                loss = (network(inputs[batch])[:, 0] - targets[batch]).square().mean()
                gradients = torch.autograd.grad(loss, parameters)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate * (1 - step / total)
                optimizer.step()
                step += 1
            if len(judge[0]):
                with torch.no_grad():
                    error = float((network(judge[0])[:, 0] - judge[1]).square().mean())
                if error < best:
                    best, kept = error, [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                if best < float("inf"):
                    parameter.copy_(value)
                parameter.grad = None
        return network.eval()


def _spread(values: Tensor) -> Tensor:
    spread = values.std(0, correction=0)
    return torch.where(spread > 0, spread, 1.0)
