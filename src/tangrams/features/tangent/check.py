r"""Verifies products against plain autograd.

For random weights w over samples and functions, every parameter l must satisfy

.. math:: w^\top K_l w = \lVert \nabla_l \textstyle\sum_{ic} w_{ic} f_c(x_i) \rVert^2 .

One backward pass gives the right side for all parameters. A wrong symmetric :math:`K_l` fails for almost every w: a
missed use, a wrong sample axis, coupled samples and errors of the contraction all show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from tangrams.features.errors import TangentError
from tangrams.features.inputs import Inputs, module_of
from tangrams.features.outputs import require_graph
from tangrams.features.tangent import generic, guards
from tangrams.features.tangent.groups import Factors, Group, Materialised
from tangrams.features.tangent.recipe import Recipe, without_structure
from tangrams.features.tangent.spec import TangentSpec
from tangrams.features.tangent.tile import inner

SAMPLES = 16
"""Most samples verified by ``check="sample"``."""

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Allowed error relative to the size of what is summed, by the network's dtype."""

NOISE, MOST_NOISE = 1e3, 0.1
"""Units of rounding, relative to all parameters' gradients together, that one parameter's may be off by, and the most
that they may come to: a gradient that is zero in exact arithmetic, such as that of a bias before a normalisation, is
rounding through and through."""

_FEW_FUNCTIONS = 16


def sample_size(n: int) -> int:
    """How many of n samples are verified: a twelfth, at least 4 and at most 16, so that the check stays cheap."""
    return min(n, max(4, min(SAMPLES, n // 12)))


class CheckFailed(Exception):
    """Some parameters' products are not what plain autograd says.

    Attributes:
        names: the parameters.
        reason: what was seen.
    """

    def __init__(self, names: Sequence[str], reason: str) -> None:
        super().__init__(reason)
        self.names, self.reason = tuple(names), reason


class Probe:
    """Random weights on the first samples of one side, and the gradient of the weighted sum.

    Args:
        spec: the network, outputs and parameters.
        model: the network, in a session.
        inputs: the samples.
        r: functions per sample.
        seed: of the weights.
        whole: whether all of the samples are meant, whatever the spec says.
        norms_only: whether nothing but norms of the gradient is asked for, so that no more than one parameter's need
            be held at a time.
    """

    def __init__(
        self,
        spec: TangentSpec,
        model: nn.Module,
        inputs: Inputs,
        r: int,
        seed: int,
        *,
        whole: bool = False,
        norms_only: bool = False,
    ) -> None:
        self.spec, self.model = spec, model
        self._norms_only = norms_only and all(block.is_plain for block in spec.parameters.blocks)
        self.k = inputs.n if whole or spec.check == "full" else sample_size(inputs.n)
        self.inputs = inputs.slice(0, self.k)
        self._visited: dict[str, Tensor] = {}
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(r, self.k, generator=generator, dtype=torch.float32).to(spec.ref.device, spec.dtype)

    @cached_property
    def _run(self) -> tuple[Tensor, dict[str, Tensor]]:
        values = generic.outputs(self.model, self.spec.output, self.inputs)
        cotangent = self.weights.mT.to(values.dtype)
        if not self._norms_only:
            return values.detach(), self.gradients(values, cotangent)
        require_graph(values, type(self.model).__name__)
        parameters = self.spec.weights()

        def square(name: str, gradient: Tensor) -> None:
            flat = gradient.reshape(-1).to(self.spec.dtype)
            self._visited[name] = inner(flat, flat)

        zero = torch.zeros((), dtype=torch.float64, device=self.spec.ref.device)
        self._visited = dict.fromkeys(parameters, zero)
        if generic.visit_gradients(values, cotangent, parameters, square):
            return values.detach(), {}
        self._visited = {}
        return values.detach(), self.gradients(values, cotangent)

    @property
    def values(self) -> Tensor:
        """The functions at the samples."""
        return self._run[0]

    @cached_property
    def squares(self) -> dict[str, float]:
        """Block → the squared norm of its gradient."""
        gradients = self.gradient  # or else what was visited on the way
        squares = self._visited or {name: inner(gradient, gradient) for name, gradient in gradients.items()}
        return dict(zip(squares, torch.stack(list(squares.values())).tolist(), strict=True)) if squares else {}

    @property
    def gradient(self) -> dict[str, Tensor]:
        """Block → the flat gradient of the weighted sum."""
        return self._run[1]

    def gradients(self, values: Tensor, cotangent: Tensor) -> dict[str, Tensor]:
        """Block → the flat gradient of ``Σ cotangent · values`` by plain autograd."""
        require_graph(values, type(self.model).__name__)
        parameters = self.spec.weights()
        total = (values * cotangent).sum()
        found = generic.gradients(total, list(parameters.values()), self.model)
        by_name = dict(zip(parameters, found, strict=True))
        return {
            block.name: block.assemble([by_name[name].reshape(-1) for name in block.members]).to(self.spec.dtype)
            for block in self.spec.parameters.blocks
        }


class Verifier:
    """Holds one attempt at a Gram matrix to plain autograd.

    Args:
        spec: the network, outputs and parameters.
        model: the network, in a session.
        sides: the samples of the rows, and of the columns if they are others.
        recipe: of the first.
    """

    def __init__(self, spec: TangentSpec, model: nn.Module, sides: Sequence[Inputs], recipe: Recipe) -> None:
        self.spec, self.recipe, r = spec, recipe, recipe.r
        self.r = r
        self.probes = [
            Probe(spec, model, inputs, r, seed, norms_only=len(sides) == 1 and not recipe.reentrant)
            for seed, inputs in enumerate(sides)
        ]
        self.tolerance, self.noise = tolerances(spec, recipe)
        self._scales = [0.0 for _ in sides]
        self._partial: dict[tuple[int, str], tuple[float, float]] = {}
        self._seen: list[tuple[int, list[str], float, float, float]] = []

    def values(self, side: int, values: Tensor) -> None:
        """The batch's outputs must be those of the first samples by themselves."""
        probe = self.probes[side]
        k = min(probe.k, len(values))
        if not guards.agree(values[:k].detach(), probe.values[:k], self.recipe.precision, self.recipe.scale):
            raise TangentError(
                f"the samples of {type(self.spec.ref.model).__name__} are coupled: the first {k} samples have other "
                "outputs in a larger batch, so per-sample gradients are not defined"
            )

    def groups(self, side: int, groups: Sequence[Group], factors: Sequence[Factors]) -> None:
        """Each group's quadratic form against the gradient of its parameters."""
        probe = self.probes[side]
        for group, held in zip(groups, factors, strict=True):
            quadratic, size = (value.item() for value in held.quadratic(probe.weights))
            self._scales[side] += size if math.isfinite(size) else 0.0
            names = [block.name for block in group.blocks]
            if isinstance(group, Materialised) and any(part.channels for part in group.parts):
                before = self._partial.get((side, names[0]), (0.0, 0.0))
                self._partial[side, names[0]] = before[0] + quadratic, before[1] + size
                continue
            self._seen.append((side, names, quadratic, math.fsum(probe.squares[name] for name in names), size))

    def settle(self) -> None:
        """Judge the groups seen so far."""
        for side, names, found, exact, size in self._seen:
            noise = self.noise * math.sqrt(self._scales[side])
            self._compare(names, found, exact, size, noise, (side, side))
        self._seen.clear()

    def total(self, result: Tensor) -> None:
        """The finished matrix against the gradients of all parameters together."""
        for (side, name), (quadratic, size) in self._partial.items():
            self._seen.append((side, [name], quadratic, self.probes[side].squares[name], size))
        self._partial.clear()
        self.settle()
        left, right = self.probes[0], self.probes[-1]
        if self.spec.output.folds:
            self._total_of_folded(result, left, right)
            return
        corner = result[: self.r * left.k, : self.r * right.k]
        found = (left.weights.mT.reshape(-1) @ corner @ right.weights.mT.reshape(-1)).item()
        names = [block.name for block in self.spec.parameters.blocks]
        if left is right:
            exact = math.fsum(left.squares[name] for name in names)
        else:
            exact = torch.stack([inner(left.gradient[name], right.gradient[name]) for name in names]).sum().item()
        self._compare(names, found, exact, self._joint_scale(), 0.0, (0, -1))

    def _total_of_folded(self, result: Tensor, left: Probe, right: Probe) -> None:
        """``wᵀ K w = (1/r) Σ_c ‖∇ Σ_i w_i f_c(x_i)‖²``: a backward pass per function, where they are few."""
        if self.r > _FEW_FUNCTIONS:
            return
        found = (left.weights[0] @ result[: left.k, : right.k] @ right.weights[0]).item()
        exact = 0.0
        sums = [list(self._by_function(probe)) for probe in self.probes]
        for mine, theirs in zip(sums[0], sums[-1], strict=True):
            exact += float(sum(inner(g, theirs[name]) for name, g in mine.items()))
        names = [block.name for block in self.spec.parameters.blocks]
        self._compare(names, found, exact / self.r, self._joint_scale(), 0.0, (0, -1))

    def _by_function(self, probe: Probe) -> Sequence[dict[str, Tensor]]:
        found = []
        for c in range(self.r):
            values = generic.outputs(probe.model, self.spec.output, probe.inputs)
            cotangent = torch.zeros_like(values)
            cotangent[:, c] = probe.weights[0].to(values)
            found.append(probe.gradients(values, cotangent))
        return found

    def _joint_scale(self) -> float:
        return (self._scales[0] * self._scales[-1]) ** 0.5

    def _compare(
        self, names: Sequence[str], found: float, exact: float, size: float, noise: float, sides: tuple[int, int]
    ) -> None:
        """Two products of gradients, whose norms multiply to ``size`` at most and that are off by ``noise`` each."""
        error = abs(found - exact)
        if not math.isfinite(error):
            return  # not finite: refused by name when the result is complete
        if error <= self.tolerance * size + 2 * math.sqrt(size) * noise + noise**2:
            return
        if self.recipe.loops.issuperset(names):  # plain autograd sample by sample: may be nothing but rounding
            a, b = (vanishing(self.spec, self.recipe, self.probes[side].weights) for side in sides)
            if error <= self.tolerance * size + math.sqrt(size) * (a + b + 2 * noise) + (a + noise) * (b + noise):
                return
        raise CheckFailed(names, f"off by {error / max(size, 1e-300):.1e} of its size")


def tolerances(spec: TangentSpec, recipe: Recipe) -> tuple[float, float]:
    """Allowed error relative to a parameter's own size, and to that of all of them."""
    narrow = min((spec.ref.dtype, recipe.precision), key=lambda dtype: dtype.itemsize)
    return TOLERANCE[narrow], min(NOISE * torch.finfo(narrow).eps, MOST_NOISE)


def vanishing(spec: TangentSpec, recipe: Recipe, weights: Tensor) -> float:
    """The norm below which the gradient of ``Σ w_ic f_c(x_i)`` may be nothing but rounding.

    Outputs that are constant, such as the sum of probabilities, have gradients whose size says nothing about their
    rounding. What cancels in them is of the size of the layers' outputs over the weights'.

    Args:
        spec: the network, outputs and parameters.
        recipe: knows the size of the layers' outputs.
        weights: w.
    """
    norm = math.sqrt(sum(float(p.detach().double().square().sum()) for p in spec.weights().values()))
    return tolerances(spec, recipe)[1] * float(weights.abs().sum()) * recipe.inside / max(norm, 1e-300)


def reroute(spec: TangentSpec, sides: Sequence[Inputs], failure: CheckFailed) -> None:
    """Send the parameters that failed to the generic route, or from ``vmap`` there to the loop.

    Args:
        spec: the network, outputs and parameters.
        sides: the samples of rows and columns.
        failure: what failed.

    Raises:
        TangentError: if they failed on the loop, which is plain autograd sample by sample.
    """
    moved = False
    for inputs in {inputs.signature(): inputs for inputs in sides}.values():
        recipe = spec.recipes[inputs.signature()]
        names = [name for name in failure.names if name not in recipe.loops]
        structured = [name for name in names if recipe.uses[name] is not None]
        if names:
            moved = True
            without_structure(spec, inputs, structured or names, f"failed the check ({failure.reason})")
    if not moved:
        model = spec.ref.model
        places = ", ".join(f"{name!r} of {module_of(model, name)}" for name in failure.names[:4])
        raise TangentError(
            f"the gradients of {type(model).__name__}'s samples do not add up to that of the batch for {places} "
            f"({failure.reason}): are its samples coupled or its gradients random?"
        )


def refuse_not_finite(spec: TangentSpec, inputs: Inputs, samples: Tensor) -> None:
    """Name the parameters and samples whose gradient is not finite, if any.

    Args:
        spec: the network, outputs and parameters.
        inputs: the samples.
        samples: which of them to look at.

    Raises:
        TangentError: if a gradient is not finite.
    """
    bad: dict[str, list[int]] = {}
    with spec.ref.session() as model:
        for i in samples.tolist()[:8]:
            rows = generic.rows(model, spec, spec.parameters.blocks, inputs.slice(i, i + 1), by_loop=True)[0]
            for block in spec.parameters.blocks:
                if not bool(torch.isfinite(rows[:, block.start : block.stop]).all()):
                    bad.setdefault(block.name, []).append(i)
    if not bad:
        return
    model = spec.ref.model
    name, where = next(iter(bad.items()))
    others = f" and {len(bad) - 1} more parameters" if len(bad) > 1 else ""
    more = " and more" if len(samples) > len(where) and len(where) == 8 else ""
    raise TangentError(
        f"the gradients of {type(model).__name__} are not finite: {name!r} of {module_of(model, name)}{others}, at "
        f"samples {where}{more}. Look for NaN or infinite inputs or weights, or a derivative that does not exist there"
    )
