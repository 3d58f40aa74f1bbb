"""The role of a parametrization: how initial size, multiplier and learning rate of a weight follow its shape."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from tangrams.features import ModelRef
from tangrams.nn.parametrizations.errors import AlreadyParametrizedError, BaseShapeError, FanError
from tangrams.nn.parametrizations.fans import FanRule, Fans, Place, Role, read_places
from tangrams.nn.parametrizations.plan import Scaling, WidthPlan, WidthRow

_MARK = "_width_parametrization"


class Parametrization(ABC):
    r"""A rule that says how the weights of wide networks start and how fast they learn.

    The weight of a layer is :math:`W = c\,w` with entries :math:`w \sim N(0, σ^2)`, trained at the rates
    :math:`η_{SGD}` or :math:`η_{Adam}`; a member says which (σ, c, η) each weight has: by :meth:`rows` of the whole
    network, or as a :class:`FanParametrization` by the weight's shape.

    **With a base model**, everything is relative to it: at its widths nothing changes, not by a bit, and what was
    tuned on it is tuned for every width. The model's own initial values are rescaled, on the understanding that they
    were drawn as torch draws them (their width-dependence is :attr:`Fans.reset_fan`). **Without**, the law is
    taken by its own constants: weights are drawn anew (but for the empty row of an embedding with a ``padding_idx``),
    biases start at zero, and gains stay where torch starts them, as it does those of norms and the slopes of PReLUs.

    The same function is trained by :math:`(σ, c, η_{SGD}, η_{Adam})` and by
    :math:`(σ θ, c / θ, θ^2 η_{SGD}, θ η_{Adam})`, so the conventions of different papers are one (see
    :meth:`Scaling.shift`).
    """

    @abstractmethod
    def rows(self, uses: Sequence[Sequence[Place]], bases: Mapping[str, Fans] | None) -> Iterator[WidthRow]:
        """Hook: the decision for each use of each parameter.

        Args:
            uses: for each parameter, the places that use it.
            bases: full name → fans in the base model, where there is one.

        Yields:
            A row per place.
        """

    def plan(
        self, model: nn.Module, base: nn.Module | None = None, *, fans: Mapping[str, FanRule] | None = None
    ) -> WidthPlan:
        """What :meth:`apply` would do, with nothing touched.

        A ``FanError`` names a parameter without a rule, or one shared by layers of different kinds; a
        ``BaseShapeError`` says that the base has other parameters, or is missing and needed.

        Args:
            model: the network.
            base: the same architecture at the widths where the rates were tuned; only shapes are read, so it may be
                on the meta device.
            fans: rules for parameters of layers that torch does not ship: full name → :func:`matrix_fans`,
                :func:`lookup_fans`, :func:`bias_fans`, :func:`gain_fans` or a function of the shape.

        Raises:
            AlreadyParametrizedError: if the model, or a part of it, was parametrized before.
        """
        model = ModelRef(model).model
        for path, module in model.named_modules():
            if hasattr(module, _MARK):
                raise AlreadyParametrizedError(
                    f"{path or 'the model'} ({type(module).__name__}) is in the parametrization "
                    f"{getattr(module, _MARK)} already: build the model anew, apply, and load its weights after that"
                )
        rules = dict(fans or {})
        bases = None if base is None else _base_fans(model, base, rules)
        uses: dict[int, list[Place]] = {}
        for place in read_places(model, rules):
            uses.setdefault(id(place.parameter), []).append(place)
        return WidthPlan(type(self).__name__, tuple(self.rows(list(uses.values()), bases)))

    def apply(
        self,
        model: nn.Module,
        base: nn.Module | None = None,
        *,
        fans: Mapping[str, FanRule] | None = None,
        generator: torch.Generator | None = None,
    ) -> WidthPlan:
        """Scale the initial weights of a model in place, and say at which rates it learns.

        Multipliers become ``torch.nn.utils.parametrize`` parametrizations of their layer, so that such a model is saved
        by its state dict and not pickled whole; :class:`Spectral` needs none. Loading a state dict never scales. What
        :meth:`plan` refuses is refused before anything is touched.

        Args:
            model: the network, freshly initialised.
            base: as in :meth:`plan`.
            fans: as in :meth:`plan`.
            generator: draws the weights where there is no base; a fixed seed by default.

        Returns:
            The plan, whose ``sgd``, ``adam`` and ``spectral`` are parameter groups for an optimiser.
        """
        plan = self.plan(model, base, fans=fans)
        generator = generator or torch.Generator().manual_seed(0)
        with torch.no_grad():
            for row in plan.rows:
                if row.initial is not None:
                    _initialise(row, row.initial, base is not None, generator)
        for row in plan.rows:
            row.multiply()
            setattr(row.module, _MARK, type(self).__name__)
        return plan


class FanParametrization(Parametrization):
    """A parametrization that decides by the fans of a weight alone; a member writes :meth:`law`."""

    @abstractmethod
    def law(self, fans: Fans, base: Fans | None) -> Scaling:
        """Hook: the scaling of a parameter of these fans; relative to those of the base where there is one."""

    def tied_multiplier(self, lookup: Fans, readout: Fans, base: tuple[Fans, Fans] | None) -> float:
        """The multiplier of a readout that shares its weight with an embedding, whose law the weight follows."""
        shared = self.law(lookup, base and base[0])
        own = self.law(readout, base and base[1])
        return own.std * own.multiplier / shared.std

    def rows(self, uses: Sequence[Sequence[Place]], bases: Mapping[str, Fans] | None) -> Iterator[WidthRow]:
        """The law for each parameter; like layers share it, and a tied readout gets a multiplier.

        Yields:
            A row per place.
        """
        for places in uses:
            yield from self._shared(places, bases)

    def _shared(self, places: Sequence[Place], bases: Mapping[str, Fans] | None) -> list[WidthRow]:
        first = places[0]
        if all(place.fans == first.fans for place in places):
            scaling = self.law(first.fans, None if bases is None else bases[first.name])
            owner = width_row(first, scaling, bases)
            # The same weight in another layer of the same kind: the multiplier meets it there too.
            return [owner, *(replace(width_row(p, scaling, bases), initial=None) for p in places[1:])]
        lookups = [place for place in places if place.fans.role is Role.LOOKUP]
        matrices = [place for place in places if place.fans.role is Role.MATRIX]
        if len(lookups) != 1 or len(matrices) != 1:
            names = " and ".join(repr(place.name) for place in places)
            raise FanError(f"{names} share a parameter in a way that has no rule: untie them, or share like layers")
        table, readout = lookups[0], matrices[0]
        pair = None if bases is None else (bases[table.name], bases[readout.name])
        law = self.law(table.fans, pair and pair[0])
        multiplier = self.tied_multiplier(table.fans, readout.fans, pair)
        # The table keeps its law, with its multiplier (if any) in its own layer; the readout has one of its own.
        readout_scaling = replace(law, multiplier=multiplier)
        return [
            width_row(table, law, bases),
            replace(width_row(readout, readout_scaling, bases), initial=None),
        ]


def width_row(place: Place, scaling: Scaling, bases: Mapping[str, Fans] | None) -> WidthRow:
    """A row whose initial value comes from the scaling, and from how torch drew it where there is a base."""
    if isinstance(place.module, nn.RNNBase):  # reads a list of its weights that a multiplier would not reach
        scaling = scaling.folded()
    initial = scaling.std
    if bases is not None:  # what torch's own draw would have been, relative to the base
        initial = scaling.std * math.sqrt(place.fans.reset_fan / bases[place.name].reset_fan)
    return WidthRow(place.name, place.module, place.attribute, place.parameter, place.fans, scaling, initial)


def _initialise(row: WidthRow, initial: float, relative: bool, generator: torch.Generator) -> None:
    value, role = row.parameter, row.fans.role
    if relative:
        if initial != 1:
            value.mul_(initial)
    elif role in (Role.MATRIX, Role.LOOKUP):
        dtype = torch.promote_types(value.dtype, torch.float32)
        value.copy_(initial * torch.randn(value.shape, generator=generator, dtype=dtype, device=generator.device))
        empty = getattr(row.module, "padding_idx", None)
        if role is Role.LOOKUP and empty is not None:
            value[empty] = 0.0
    elif role is Role.BIAS:
        value.zero_()


def _base_fans(model: nn.Module, base: nn.Module, rules: Mapping[str, FanRule]) -> dict[str, Fans]:
    found = {place.name: place.fans for place in read_places(base, rules)}
    names = {place.name for place in read_places(model, rules)}
    if found.keys() != names:
        odd = sorted(found.keys() ^ names)
        raise BaseShapeError(
            f"the base model and the model differ in parameters, {odd[:4]}: build both by one function of the width"
        )
    return found
