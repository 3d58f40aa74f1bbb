"""How far a sample is from another answer: first-order distance to the decision boundary, and an attack that checks it.

The first-order distance ranks samples like the attack's radius does, at the cost of one backward pass per competing
class. It does not find errors better than confidence does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tangrams.features.inputs import Inputs, as_inputs
from tangrams.features.model_ref import ModelRef
from tangrams.features.outputs import logits_of


@dataclass(frozen=True)
class BoundaryDistances:
    """Distances to the decision boundary, to first order.

    Attributes:
        distance: length of the smallest input change that reaches the boundary; infinite where no gradient leads there.
        margin: logit of the predicted class less that of ``toward``.
        predicted: the network's class.
        toward: the class across the nearest boundary.
        sensitivity: ``‖x‖ ‖∇margin‖`` [001].
    """

    distance: Float[Tensor, "n"]
    margin: Float[Tensor, "n"]
    predicted: Int[Tensor, "n"]
    toward: Int[Tensor, "n"]
    sensitivity: Float[Tensor, "n"]

    def closest(self, k: int = 10) -> Int[Tensor, "k"]:
        """Positions of the k samples nearest to a boundary, nearest first."""
        return self.distance.argsort(stable=True)[:k]


@dataclass(frozen=True)
class BoundaryAttack:
    """Changes of the input that cross the decision boundary.

    Attributes:
        radius: length of the change found; NaN where the boundary was not crossed.
        crossed: whether the network's class changes under it.
        predicted: the class before.
        toward: the class after; the one before where it was not crossed.
        perturbations: the change of each floating-point input tensor, in the order in which the network takes them.
    """

    radius: Float[Tensor, "k"]
    crossed: Bool[Tensor, "k"]
    predicted: Int[Tensor, "k"]
    toward: Int[Tensor, "k"]
    perturbations: tuple[Float[Tensor, "k ..."], ...]

    @property
    def perturbation(self) -> Tensor:
        """The change of the first floating-point input."""
        return self.perturbations[0]


def boundary_distances(
    model: nn.Module,
    x: Any,
    *,
    competitors: int = 9,
    threshold: float | None = None,
    batch_size: int = 256,
) -> BoundaryDistances:
    r"""First-order distance of each sample to the decision boundary.

    .. math:: d(x) = \min_{j \ne c} \frac{f_c(x) - f_j(x)}{\lVert \nabla_x (f_c - f_j)(x) \rVert}

    with c the predicted class and the Euclidean norm over all floating-point inputs together.

    Args:
        model: a classifier in whatever mode; it is read in eval mode and left as it was.
        x: what it is called with: a tensor, a tuple or dict of tensors, ``Labelled`` or a DataLoader without shuffling.
        competitors: how many of the other classes are tried, those with the largest logits first.
        threshold: for a network with one output: where its two classes meet.
        batch_size: samples per pass.

    Shape:
        n samples → five vectors of length n.

    No samples, a network without two classes, without floating-point inputs or with an output that is not finite are
    refused with a ``ValueError``.
    """
    reader = _Reader(model, competitors, threshold)
    inputs = as_inputs(x, "boundary_distances").detached()
    with reader.ref.session():
        parts = [_first_order(reader, batch) for batch in _batches(inputs, batch_size)]
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    return BoundaryDistances(*columns)


def boundary_attack(
    model: nn.Module,
    x: Any,
    *,
    competitors: int = 9,
    threshold: float | None = None,
    steps: int = 50,
    overshoot: float = 0.02,
    batch_size: int = 256,
) -> BoundaryAttack:
    """Cross the nearest decision boundary by repeated first-order steps, then walk back to where it is crossed.

    The steps are DeepFool's (Moosavi-Dezfooli et al., 2016): to the nearest linearised boundary, with a small
    overshoot, until the class changes. The straight way back is then bisected, so the radius carries no overshoot.

    Args:
        model: a classifier in whatever mode; it is read in eval mode and left as it was.
        x: the samples to attack; what :func:`boundary_distances` takes.
        competitors: how many of the other classes are tried at each step.
        threshold: for a network with one output: where its two classes meet.
        steps: the most steps before a sample is given up.
        overshoot: how far beyond the linearised boundary a step goes.
        batch_size: samples per pass.

    Shape:
        k samples → radii ``(k,)`` and perturbations shaped like the inputs.

    No samples, a network without two classes, without floating-point inputs or with an output that is not finite are
    refused with a ``ValueError``.
    """
    reader = _Reader(model, competitors, threshold)
    inputs = as_inputs(x, "boundary_attack").detached()
    with reader.ref.session():
        parts = [_deepfool(reader, batch, steps, overshoot) for batch in _batches(inputs, batch_size)]
    moves = tuple(torch.cat(column) for column in zip(*(part[1] for part in parts), strict=True))
    radius, crossed, predicted, toward = (torch.cat(c) for c in zip(*(part[0] for part in parts), strict=True))
    return BoundaryAttack(radius, crossed, predicted, toward, moves)


class _Reader:
    """Logits of a classifier and the gradients of its margins, sample by sample."""

    def __init__(self, model: nn.Module, competitors: int, threshold: float | None) -> None:
        if competitors < 1:
            raise ValueError(f"competitors must be at least 1, got {competitors}")
        self.ref, self.competitors, self.threshold = ModelRef(model), competitors, threshold

    def logits(self, inputs: Inputs, start: int = 0) -> Tensor:
        """``(n, C)`` with C ≥ 2; ``start`` is the position of the first sample, for errors."""
        values = logits_of(inputs.call(self.ref.model))
        if values.ndim > 2 or values.ndim == 0 or values.shape[0] != inputs.n:
            raise ValueError(
                f"a decision boundary needs one row of logits per sample, the network returned {tuple(values.shape)} "
                f"for {inputs.n} samples"
            )
        values = values.reshape(inputs.n, -1)
        if values.shape[1] == 1:
            if self.threshold is None:
                raise ValueError(
                    "the network has one output: a regression has no decision boundary; for a binary classifier say "
                    "where its classes meet with threshold=0.0"
                )
            values = torch.cat([torch.zeros_like(values), values - self.threshold], 1)
        finite = values.isfinite().all(1)
        if not bool(finite.all()):
            raise ValueError(f"the network's output at sample {start + int((~finite).nonzero()[0])} is not finite")
        return values

    def nearest(self, inputs: Inputs, start: int, own: Tensor | None) -> _Nearest:
        """The nearest linearised boundary around class ``own`` (the predicted one when None)."""
        inputs = inputs.map(lambda t: t.detach().requires_grad_() if t.is_floating_point() else t)
        leaves = _floating(inputs)
        if not leaves:
            raise ValueError("the network has no floating-point input: distances need an input that can be changed")
        with torch.enable_grad():
            logits = self.logits(inputs, start)
            predicted = logits.detach().argmax(1)
            own = predicted if own is None else own
            others = logits.detach().scatter(1, own[:, None], -torch.inf)
            ranked = others.topk(min(self.competitors, logits.shape[1] - 1)).indices
            last = ranked.shape[1] - 1

            def towards(k: int) -> _Nearest:
                margin = (logits.gather(1, own[:, None]) - logits.gather(1, ranked[:, k : k + 1]))[:, 0]
                gradients = _gradients(margin, leaves, last=k == last)
                norm = _norm(gradients)
                distance = torch.where(norm > 0, margin.detach() / norm, torch.inf)
                return _Nearest(distance, margin.detach(), norm, predicted, ranked[:, k], gradients)

            best = towards(0)
            for k in range(1, last + 1):
                found = towards(k)
                best = best.replaced_where(found.distance < best.distance, found)
        return best


@dataclass(frozen=True)
class _Nearest:
    distance: Tensor
    margin: Tensor
    norm: Tensor
    predicted: Tensor
    toward: Tensor
    gradients: list[Tensor]

    def replaced_where(self, mask: Tensor, other: _Nearest) -> _Nearest:
        def pick(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(mask.reshape(-1, *[1] * (a.ndim - 1)), b, a)

        return _Nearest(
            pick(self.distance, other.distance),
            pick(self.margin, other.margin),
            pick(self.norm, other.norm),
            self.predicted,
            pick(self.toward, other.toward),
            [pick(a, b) for a, b in zip(self.gradients, other.gradients, strict=True)],
        )


def _gradients(margin: Tensor, leaves: list[Tensor], *, last: bool) -> list[Tensor]:
    """Gradient of each sample's margin with respect to its own inputs: samples do not see each other in eval mode."""
    if not margin.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(margin.sum(), leaves, retain_graph=not last, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


def _first_order(reader: _Reader, batch: tuple[int, Inputs]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    start, inputs = batch
    found = reader.nearest(inputs, start, None)
    sensitivity = _norm(_floating(inputs)) * found.norm
    return found.distance, found.margin, found.predicted, found.toward, sensitivity


def _deepfool(
    reader: _Reader, batch: tuple[int, Inputs], steps: int, overshoot: float
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], list[Tensor]]:
    start, inputs = batch
    with torch.no_grad():
        own = reader.logits(inputs, start).argmax(1)
    moves = [torch.zeros_like(t) for t in _floating(inputs)]
    active = torch.arange(inputs.n, device=own.device)
    for _ in range(steps):
        changed = _moved(inputs, moves).take(active)
        found = reader.nearest(changed, start, own[active])
        going = (found.predicted == own[active]) & found.distance.isfinite()
        if not bool(going.any()):
            break
        length = (found.distance[going].clamp_min(0) * (1 + overshoot)) + 1e-6 * _norm(moves)[active[going]] + 1e-9
        for move, gradient in zip(moves, found.gradients, strict=True):
            scale = (length / found.norm[going]).reshape(-1, *[1] * (gradient.ndim - 1))
            move[active[going]] -= scale * gradient[going]
        active = active[going]
    crossed, moves = _walk_back(reader, inputs, start, own, moves)
    with torch.no_grad():
        toward = reader.logits(_moved(inputs, moves), start).argmax(1)
    radius = torch.where(crossed, _norm(moves), torch.nan)
    return (radius, crossed, own, torch.where(crossed, toward, own)), moves


@torch.no_grad()
def _walk_back(
    reader: _Reader, inputs: Inputs, start: int, own: Tensor, moves: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Shorten each move to where it first crosses, to a thousandth of its length; zero where it does not cross."""

    def across(scale: Tensor) -> Tensor:
        return reader.logits(_moved(inputs, _scaled(moves, scale)), start).argmax(1) != own

    low, high = torch.zeros_like(_norm(moves)), torch.ones_like(_norm(moves))
    crossed = across(high)
    for _ in range(10):
        middle = (low + high) / 2
        beyond = across(middle)
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return crossed, _scaled(moves, torch.where(crossed, high, 0))


def _batches(inputs: Inputs, batch_size: int) -> list[tuple[int, Inputs]]:
    """Batches with the position of their first sample."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if inputs.n == 0:
        raise ValueError("no samples were given: a distance to the boundary needs at least one")
    return [(start, inputs.slice(start, start + batch_size)) for start in range(0, inputs.n, batch_size)]


def _floating(inputs: Inputs) -> list[Tensor]:
    count = len(inputs.tensors()) - (inputs.targets is not None)
    return [t for t in inputs.tensors()[:count] if t.is_floating_point()]


def _moved(inputs: Inputs, moves: list[Tensor]) -> Inputs:
    """The inputs with each floating-point tensor moved; targets stay away."""
    left = iter(moves)
    bare = Inputs(inputs.args, inputs.kwargs, None, inputs.n)
    return bare.map(lambda t: t + next(left) if t.is_floating_point() else t)


def _scaled(moves: list[Tensor], scale: Tensor) -> list[Tensor]:
    return [move * scale.reshape(-1, *[1] * (move.ndim - 1)) for move in moves]


def _norm(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of each sample over all tensors together."""
    squares = [t.detach().flatten(1).square().sum(1) if t.ndim > 1 else t.detach().square() for t in tensors]
    return torch.stack(squares).sum(0).sqrt()
