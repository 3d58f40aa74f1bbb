"""Some columns of a bound sketch, as a sketch of their own."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from tangrams.operators.sketches.base import Column, Sketch


class SketchPart(Sketch):
    """``S[:, start:stop]`` of a bound sketch: what the columns of one part of a feature map add to ``Φ Sᵀ``.

    Args:
        sketch: a bound sketch.
        start: first column of the part.
        stop: one past its last column.

    Raises:
        ValueError: if the columns are not all columns of the sketch.
    """

    def __init__(self, sketch: Sketch, start: int, stop: int) -> None:
        super().__init__(sketch.num_features, seed=sketch.seed)
        if not 0 <= start <= stop <= sketch.in_features:
            raise ValueError(f"columns {start}:{stop} are not all among the {sketch.in_features} of {sketch!r}")
        self.sketch = sketch
        self.takes_outer = sketch.takes_outer
        self.start = start
        self.columns = (Column("part", (stop - start,), 0, stop - start),)

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add the share of these columns to ``out``."""
        self.sketch.accumulate(block, self.start + start, out)

    def accumulate_outer(
        self, left: Float[Tensor, "n t o"], right: Float[Tensor, "n t i"], start: int, out: Float[Tensor, "n k"]
    ) -> None:
        """Add the share of the outer products to ``out``, as the whole sketch does it."""
        self.sketch.accumulate_outer(left, right, self.start + start, out)

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``, columns counted within the part."""
        return self.sketch.lift_block(u, self.start + start, self.start + stop)

    def variance(self, rho: float = 0.0) -> float:
        """That of the whole sketch, of which the part's features are features with zeros elsewhere."""
        return self.sketch.variance(rho)
