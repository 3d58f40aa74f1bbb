"""What a parametrization decided for one model, and the parameter groups that an optimiser is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from tangrams.nn.parametrizations.fans import Fans


@dataclass(frozen=True)
class Scaling:
    """How a weight ``W = c w`` starts and learns.

    Attributes:
        std: σ, of the entries of w.
        multiplier: c.
        sgd: factor of the learning rate of plain SGD on w.
        adam: that of Adam and of every rule whose steps do not depend on the gradient's size; None: not defined.
    """

    std: float
    multiplier: float = 1.0
    sgd: float = 1.0
    adam: float | None = 1.0

    def shift(self, theta: float) -> Scaling:
        r"""The same training written otherwise: :math:`(σ θ, c / θ, θ^2 η_{SGD}, θ η_{Adam})`."""
        adam = None if self.adam is None else self.adam * theta
        return Scaling(self.std * theta, self.multiplier / theta, self.sgd * theta**2, adam)

    def folded(self) -> Scaling:
        """The same training without a multiplier."""
        return self.shift(self.multiplier)


@dataclass(frozen=True)
class WidthRow:
    """One parameter in one layer.

    Attributes:
        name: its full name.
        module: the layer.
        attribute: its name there.
        parameter: the parameter.
        fans: what it is to the features.
        scaling: the law's answer.
        initial: what the initial value is multiplied by, or its standard deviation where it is drawn anew; None where
            the parameter is another row's too, which scales it.
    """

    name: str
    module: nn.Module
    attribute: str
    parameter: nn.Parameter
    fans: Fans
    scaling: Scaling
    initial: float | None

    def multiply(self) -> None:
        """Let the layer see ``c w``."""
        if self.scaling.multiplier != 1:
            parametrize.register_parametrization(
                self.module, self.attribute, Multiplied(self.scaling.multiplier), unsafe=True
            )


class Multiplied(nn.Module):
    """``w → c w``."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer uses."""
        return weight * self.factor

    def extra_repr(self) -> str:
        """The factor."""
        return f"{self.factor:g}"


@dataclass(frozen=True)
class WidthPlan:
    """A model's parameters with their scalings.

    Attributes:
        parametrization: the name of the rule.
        rows: a row per use of a parameter.
    """

    parametrization: str
    rows: tuple[WidthRow, ...]

    def __getitem__(self, name: str) -> WidthRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"the plan has no parameter {name!r}: it has {[row.name for row in self.rows]}")

    def sgd(self, lr: float, *, weight_decay: float = 0.0, params: Iterable[Any] | None = None) -> list[dict[str, Any]]:
        """Parameter groups for ``torch.optim.SGD``, with or without momentum.

        Each group has its own ``lr``, which schedulers multiply; ``lr * weight_decay`` is the same in all of them, so
        that decay does not depend on the width.

        Args:
            lr: the rate, that of the base where there is one.
            weight_decay: as the optimiser takes it.
            params: tensors, or groups with rates of their own, to divide further; all trainable ones by default.

        A rate that is not positive, or a tensor that the plan does not know, is a ``ValueError``.
        """
        return self._groups(lr, weight_decay, params, lambda row: row.scaling.sgd)

    def adam(
        self, lr: float, *, weight_decay: float = 0.0, params: Iterable[Any] | None = None
    ) -> list[dict[str, Any]]:
        """Parameter groups for ``torch.optim.Adam``, ``AdamW`` and other rules of normalised entries.

        Args:
            lr: as in :meth:`sgd`.
            weight_decay: as in :meth:`sgd`.
            params: as in :meth:`sgd`.

        A ``ValueError`` says that the parametrization is defined for SGD alone.
        """
        return self._groups(lr, weight_decay, params, self._adam_factor)

    def spectral(self, lr: float, *, params: Iterable[Any] | None = None) -> list[dict[str, Any]]:
        """Parameter groups for :class:`~tangrams.nn.optim.SpectralSGD`: one rate, and how each weight is a matrix.

        Args:
            lr: as in :meth:`sgd`.
            params: as in :meth:`sgd`.
        """
        groups = []
        for parameter, row, options in self._chosen(params):
            rate = float(options.pop("lr", lr))
            factor = row.fans.target_norm / abs(row.scaling.multiplier)
            groups.append({**options, "params": [parameter], "lr": rate, "view": row.fans.view, "target": factor})
        _check_rates(groups)
        return groups

    def _adam_factor(self, row: WidthRow) -> float:
        if row.scaling.adam is None:
            raise ValueError(f"{self.parametrization} is defined for SGD alone: use sgd()")
        return row.scaling.adam

    def _groups(self, lr: float, weight_decay: float, params: Any, factor: Any) -> list[dict[str, Any]]:
        groups: dict[Any, dict[str, Any]] = {}
        for parameter, row, options in self._chosen(params):
            scale = factor(row)
            rate, decay = options.pop("lr", lr), options.pop("weight_decay", weight_decay)
            key = (scale, rate, decay, tuple(sorted((name, repr(value)) for name, value in options.items())))
            scaled = {"params": [], "lr": rate * scale, "weight_decay": decay / scale, **options}
            groups.setdefault(key, scaled)["params"].append(parameter)
        _check_rates(groups.values())
        return list(groups.values())

    def _chosen(self, params: Iterable[Any] | None) -> Iterator[tuple[Tensor, WidthRow, dict[str, Any]]]:
        """Every trainable parameter asked for, with its row and what its group says.

        Yields:
            Parameter, row, a copy of the group's other options.
        """
        rows: dict[int, WidthRow] = {}
        for row in self.rows:
            rows.setdefault(id(row.parameter), row)
        if params is None:
            params = [row.parameter for row in rows.values() if row.parameter.requires_grad]
        for group in params:
            members = group["params"] if isinstance(group, dict) else [group]
            options = {k: v for k, v in group.items() if k != "params"} if isinstance(group, dict) else {}
            for member in [members] if isinstance(members, Tensor) else members:
                if id(member) not in rows:
                    raise ValueError(
                        f"the plan of {self.parametrization} does not know a parameter of shape {tuple(member.shape)}: "
                        "make the plan of the whole model"
                    )
                yield member, rows[id(member)], dict(options)


def _check_rates(groups: Iterable[dict[str, Any]]) -> None:
    for group in groups:
        if not group["lr"] > 0:
            raise ValueError(f"a learning rate must be positive, got {group['lr']}")
