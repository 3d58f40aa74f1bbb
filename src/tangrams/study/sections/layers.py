"""Section 7: which layers look unhealthy? Each against a fresh layer of the same shape."""

from __future__ import annotations

from typing import Any

from tangrams.lens.layers import layer_health
from tangrams.study.estimates import absent
from tangrams.study.material import Material

MOST = 2000
"""Training samples on which silent units are looked for."""


def measure(material: Material) -> dict[str, Any]:
    """A row per layer."""
    inputs = material.problem.train.inputs
    inputs = inputs.slice(0, min(inputs.n, MOST))
    try:
        rows = layer_health(material.model, inputs, seed=material.seed)
    except ValueError as error:
        return absent(str(error))
    return {"state": "measured", "layers": [row.to_json() for row in rows], "samples": inputs.n}
