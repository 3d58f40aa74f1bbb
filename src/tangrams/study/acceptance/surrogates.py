"""Do the surrogates follow the network, and do explanations add up without nonsense?"""

from __future__ import annotations

from tangrams.study.acceptance.base import Bench, Criterion, at_least, at_most, told
from tangrams.study.sections import glance, predictions


def measure_fidelity(bench: Bench) -> list[Criterion]:
    """Mimic and clean-up against the network."""
    group = "surrogates"
    found = [glance.surrogates(material) for material in bench.materials()]

    def values(model: str, figure: str) -> list[float]:
        return [row[model][figure]["value"] for row in found]

    return [
        at_least(group, "mimic: agreement", values("mimic", "agreement"), 0.985),
        at_least(group, "mimic: Kendall τ", values("mimic", "kendall"), 0.8),
        at_least(group, "clean-up, ridge at δ = 1: agreement", values("cleanup", "agreement"), 0.96),
        at_least(group, "clean-up, logistic loss: agreement", values("cleanup_logistic", "agreement"), 0.96),
        at_least(group, "clean-up, logistic loss: Kendall τ", values("cleanup_logistic", "kendall"), 0.6),
        told(
            group,
            "clean-up, ridge at δ = 1: Kendall τ",
            values("cleanup", "kendall"),
            "squared loss does not follow the confidence of a network that has memorised",
        ),
        told(group, "clean-up, ridge by leave-one-out: accuracy", values("tuned_cleanup", "accuracy")),
    ]


def measure_explanations(bench: Bench) -> list[Criterion]:
    """Explanations add up and are of the right samples."""
    group = "explanations"
    found = [predictions.measure(material)["quality"] for material in bench.materials()]

    def values(figure: str) -> list[float]:
        return [row[figure]["value"] for row in found]

    return [
        at_most(group, "largest gap to the model", [row["largest_gap"] for row in found], 1e-6),
        at_least(group, "top 8 of the predicted class", values("same_class"), 0.95),
        at_most(group, "planted among the top 8", values("planted_in_top"), 0.05),
        at_most(group, "busiest sample's share of grids", values("busiest"), 0.05),
        at_most(group, "median Σ|a| / |Σa|", values("cancellation"), 3),
    ]
