"""What the verdicts of claims ask for, on numbers that are made up."""

import numpy as np
import pytest
import torch

from tangrams.claims import (
    c001_robustness_laws,
    c008_shortcut_learning,
    c052_batchnorm_only,
    c090_point_approximate_matmul,
    c092_convexified_implicit_gradients,
    c097_polyharmonic_packages,
)


def memory_saving(never_trained):
    """Losses of two seeds with PAMM equal to the exact gradient and its rivals far behind."""
    names = ("exact", "PAMM 1/16", "PAMM 1/64", "uniform rows", "random projection")
    losses = {name: [2.0, 2.0] if "row" not in name and "random" not in name else [2.5, 2.5] for name in names}
    losses["never trained"] = [never_trained] * 2
    held = {name: {"whole_step": 9, "projection_inputs": 1 + (name == "exact")} for name in losses}
    error = {"PAMM": [0.1, 0.2], "uniform rows": [1.0, 2.0], "random projection": [1.0, 2.0]}
    errors = {"at the start": error, "after training": error}
    curves = {name: [[2.0] * 40] * 2 for name in losses}
    return c090_point_approximate_matmul._conclude(losses, curves, held, errors, (1 / 16, 1 / 64), 1 / 64, 40).verdict


def test_saved_memory_counts_for_nothing_where_projections_need_no_training():
    assert memory_saving(never_trained=2.4) == "holds"
    assert memory_saving(never_trained=2.0) == "holds in part"


def distilled(per_class, ahead_of_random, ahead_of_part):
    accuracies = {"random real images": 0.7 - ahead_of_random, "kernel herding": 0.5, "RCIG": 0.7}
    accuracies["direct gradient alone"] = 0.7 - ahead_of_part
    found = {m: {"accuracy": [[a, a], [a + 0.01, a + 0.01]], "cpu_seconds": 0.0} for m, a in accuracies.items()}
    name = f"digits, {per_class} per class"
    pictures = {name: torch.rand(10, 1, 4, 4, generator=torch.Generator().manual_seed(0))}
    return c092_convexified_implicit_gradients._judged({name: found}, [name] if per_class == 1 else [], pictures)


def test_distilled_images_must_beat_random_ones_by_ten_points_where_a_class_has_one():
    assert distilled(1, 0.15, 0.02).verdict == "holds"
    assert distilled(1, 0.05, 0.02).verdict == "holds in part"
    assert distilled(10, 0.05, 0.02).verdict == "holds"


def test_distilled_images_must_not_be_worse_than_those_learned_without_a_part():
    evidence = distilled(1, 0.15, -0.02)
    assert evidence.verdict == "holds in part"
    gain = evidence.numbers["gains"]["digits, 1 per class"]["direct gradient alone"]
    assert gain["mean"] == pytest.approx(-0.02)
    assert gain["standard_error"] == pytest.approx(0, abs=1e-12)  # seeds are paired


def test_a_cascade_is_held_against_the_better_baseline():
    found = {"cascade": 0.98, "logistic regression": 0.97, "RBF-SVM": 0.99, "one global spline": 1.0}
    assert c097_polyharmonic_packages._rival(found) == 0.99


@pytest.mark.parametrize(("switched_off", "verdict"), [(0.3, "holds"), (0.0, "holds in part")])
def test_channels_are_switched_off_where_scales_are_below_a_hundredth(switched_off, verdict):
    accuracy = {"all": [0.9], "BatchNorm only": [0.8], "random entries": [0.5], "output only": [0.4]}
    accuracy |= {"BatchNorm and output": [0.8], "all but BatchNorm": [0.9]}
    lost = {f"accuracy lost by zeroing below {t}": 0.0 for t in (0.01, 0.05)}
    few = {"gamma below 0.01": 0.01, "gamma below 0.05": 0.02, **lost}
    many = {"gamma below 0.01": switched_off, "gamma below 0.05": 0.5, **lost}
    evidence = c052_batchnorm_only._conclude(
        accuracy,
        dict.fromkeys(accuracy, 10),
        {"BatchNorm only": [many], "all": [few]},
        {"all": [1, 2]},
        {"deeper": {"accuracy": [0.9]}, "wider": {"accuracy": [0.8]}},
        (14, 8),
    )
    assert evidence.verdict == verdict


def test_on_images_even_activations_must_fall_faster_than_all_else():
    slopes = dict.fromkeys(c001_robustness_laws.FEATURES, -0.15)
    for even, expected in ((-0.2, True), (-0.1, False)):
        assert c001_robustness_laws._ordered({**slopes, **dict.fromkeys(c001_robustness_laws.EVEN, even)}) is expected


def test_networks_must_lean_more_than_linear_models_and_more_with_depth():
    names = ("linear, SGD", "linear, converged", "one ReLU layer", "one tanh layer", "two ReLU layers")
    rises = dict(zip(names, ((0.01, 0), (0.02, 0), (0.05, 0), (0.05, 0), (0.08, 0)), strict=True))
    biases = {name: np.array([[0.0], [rise]]) for name, (rise, _) in rises.items()}
    ordered = c008_shortcut_learning._ordered
    assert ordered(rises, biases, 1)
    assert not ordered({**rises, "linear, converged": (0.06, 0)}, biases, 1)
    assert not ordered(rises, {**biases, "two ReLU layers": np.array([[0.0], [0.04]])}, 1)
