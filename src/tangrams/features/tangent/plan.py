"""How a product will be computed, decided before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Routes and memory of a Gram matrix, known before it is computed.

    Attributes:
        samples: n, how many samples it is for.
        outputs: r, functions per sample.
        batch_size: samples per forward pass.
        passes: how often every sample is run through the network; more than one when what the layers hold exceeds
            the budget.
        panel: rows of the result, in samples, computed at a time.
        bytes: planned peak beyond the result.
        budget: what the user allowed.
        routes: parameter name → how its inner products are computed.
        bytes_of: parameter name → bytes held for it over all samples.
        reasons: parameter name → why it is not on a faster route, where it is not.
    """

    samples: int
    outputs: int
    batch_size: int
    passes: int
    panel: int
    bytes: int
    budget: int
    routes: Mapping[str, str]
    bytes_of: Mapping[str, int]
    reasons: Mapping[str, str]

    def __str__(self) -> str:
        head = (
            f"{self.samples} samples × {self.outputs} functions, {self.batch_size} samples per forward pass, "
            f"{self.passes} pass{'es' if self.passes > 1 else ''}, panels of {self.panel} samples, "
            f"{self.bytes / 2**20:.1f} MiB beyond the result (budget {self.budget / 2**20:.0f} MiB)"
        )
        width = max((len(name) for name in self.routes), default=0)
        lines = [
            f"  {name:<{width}}  {route:<12} {self.bytes_of.get(name, 0) / 2**20:9.2f} MiB"
            + (f"  ({self.reasons[name]})" if name in self.reasons else "")
            for name, route in self.routes.items()
        ]
        return "\n".join([head, *lines])
