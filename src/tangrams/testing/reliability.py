"""Measures the promise "right or refused, never silently wrong", and writes it down.

``python -m tangrams.testing.reliability docs/reliability.json`` runs the table of nasty models and every parametrised
module of torch through ``TangentFeatures(model).gram`` and through the recipe of torch's documentation
(``vmap(jacrev(functional_call))``), compares both with the dense reference, and writes what happened, model by model,
with the totals. Nothing in that file is written by hand.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.utils._pytree import tree_map

from tangrams.features import TangentError, TangentFeatures
from tangrams.features._reference import main_output
from tangrams.testing.models import NASTY_MODELS, NastyModel
from tangrams.testing.module_db import networks, parametrised
from tangrams.testing.reference import reference_rows

Gram = Callable[[nn.Module, Any, Any], Tensor]
Verdict = Literal["right", "refused", "crashed", "wrong"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From the best to the worst."""


@dataclass(frozen=True)
class Outcome:
    """What a method did with a model.

    Attributes:
        verdict: ``"right"``: equal to the dense reference. ``"refused"``: a typed error that names who and where.
            ``"crashed"``: another error. ``"wrong"``: a value that is not the reference, without an error.
        error: relative maximum error of the value, where there is one and it is finite.
        message: the first line of the error, where there is one.
    """

    verdict: Verdict
    error: float | None = None
    message: str | None = None


def ours(model: nn.Module, x: Any, output: Any) -> Tensor:
    """The Gram matrix of :class:`TangentFeatures`."""
    return TangentFeatures(model, output).gram(x)


def tutorial(model: nn.Module, x: Any, output: str | Callable[..., Tensor]) -> Tensor:
    """The Gram matrix by ``vmap`` of ``jacrev`` of ``functional_call``, as torch documents it, in eval mode.

    The recipe is given what it leaves to its user: eval mode, the parameters that require a gradient, and the tensor
    that is meant in a container.
    """
    model = model.eval()
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    args, kwargs = ((), dict(x)) if hasattr(x, "keys") else (tuple(x) if isinstance(x, tuple | list) else (x,), {})

    def function(weights: dict[str, Tensor], args: Any, kwargs: Any) -> Tensor:
        batch = tree_map(lambda t: t.unsqueeze(0), (args, kwargs))
        returned = functional_call(model, weights, *batch)
        return (main_output(returned) if isinstance(output, str) else output(returned)).reshape(-1)

    jacobian = vmap(jacrev(function), (None, 0, 0))(weights, args, kwargs)
    rows = [block.flatten(2).flatten(0, 1) for block in jacobian.values()]
    J = torch.cat(rows, 1)
    return J @ J.mT


def outcome(gram: Gram, nasty: NastyModel) -> Outcome:
    """What a method does with an entry of the table.

    A value is judged by the dense reference, also where the table expects a refusal: what equals the gradients of each
    sample alone is not called wrong.

    Args:
        gram: the method.
        nasty: the entry.
    """
    try:
        got = gram(nasty.make(), nasty.inputs(), nasty.output)
    except Exception as error:  # a method may raise anything
        return _failure(error, nasty.names if nasty.expect == "refused" else ())
    try:
        J = nasty.reference()
    except Exception:  # there is no reference where the network itself cannot be run: a value is made up
        return Outcome("wrong")
    return _judged(got, J @ J.mT, nasty.tolerance)


def module_outcome(gram: Gram, info: Any) -> Outcome:
    """What a method does with a module of torch: the worst over its sample inputs.

    Args:
        gram: the method.
        info: an entry of torch's ``module_db``.
    """
    worst = Outcome("right", 0.0)
    for network, x in networks(info):
        J = reference_rows(network, x)
        try:
            found = _judged(gram(network, x, "all"), J @ J.mT, 1e-10)
        except Exception as error:  # a method may raise anything
            found = _failure(error, ())
        worst = max(worst, found, key=lambda o: (VERDICTS.index(o.verdict), o.error or 0.0))
    return worst


def _judged(got: Tensor, expected: Tensor, tolerance: float) -> Outcome:
    if got.shape != expected.shape:
        return Outcome("wrong")
    if not got.numel():
        return Outcome("right", 0.0)
    got, expected = got.detach().double(), expected.double()
    scale = max(float(expected.nan_to_num(0.0, 0.0, 0.0).abs().max()), 1e-30)
    if not bool((torch.isfinite(got) == torch.isfinite(expected)).all()):
        return Outcome("wrong")
    error = float((got - expected).nan_to_num(0.0, 0.0, 0.0).abs().max()) / scale
    return Outcome("right" if error < tolerance else "wrong", error)


def _failure(error: Exception, names: tuple[str, ...]) -> Outcome:
    typed = isinstance(error, TangentError | ValueError | TypeError)
    named = all(re.search(name, str(error)) for name in names)
    message = (str(error).strip().splitlines() or [""])[0][:160]
    return Outcome("refused" if typed and named else "crashed", None, f"{type(error).__name__}: {message}")


RULE = (
    "A Gram matrix is right if it equals J J^T of the dense reference, each sample alone and each element of memory "
    "counted once, to a relative maximum error of 1e-10 in float64, 1e-4 in float32, 5e-2 in half precision, by the "
    "narrowest dtype the network computes in; where the table expects a refusal, such a value is not called wrong. "
    "refused: a typed error that names who and where; crashed: any other error; wrong: another value, without an error."
)
"""How outcomes are judged; part of the report."""

METHODS: dict[str, Gram] = {"tangrams": ours, "vmap(jacrev)": tutorial}
"""What is compared."""


def measure() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Run everything.

    Yields:
        The list (``"models"`` or ``"modules"``), the name, and what each method did.
    """
    for nasty in NASTY_MODELS:
        if nasty.available:
            found = {method: asdict(outcome(gram, nasty)) for method, gram in METHODS.items()}
            yield "models", nasty.name, {"why": nasty.why, "expect": nasty.expect, **found}
    for name, info in sorted(parametrised().items()):
        yield "modules", name, {method: asdict(module_outcome(gram, info)) for method, gram in METHODS.items()}


def report() -> dict[str, Any]:
    """Everything measured, with totals, as JSON data."""
    entries: dict[str, dict[str, Any]] = {"models": {}, "modules": {}}
    for kind, name, entry in measure():
        entries[kind][name] = entry
    totals = {
        kind: {
            method: dict.fromkeys(VERDICTS, 0) | Counter(entry[method]["verdict"] for entry in found.values())
            for method in METHODS
        }
        | {"entries": len(found)}
        for kind, found in entries.items()
    }
    versions = {"torch": str(torch.__version__), "python": platform.python_version()}
    return {"rule": RULE, "totals": totals, "versions": versions, **entries}


def main() -> None:
    """Write the report to the file named on the command line."""
    parser = argparse.ArgumentParser(description="measure which networks have right tangent features")
    parser.add_argument("path", type=Path, nargs="?", default=Path("docs/reliability.json"))
    path = parser.parse_args().path
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = report()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    for kind, totals in found["totals"].items():
        for method in METHODS:
            print(
                f"{kind:8} {method:13} of {totals['entries']}: "
                + ", ".join(f"{n} {v}" for v, n in totals[method].items())
            )


if __name__ == "__main__":
    main()
