"""Our analytic kernels against the values of neural-tangents, frozen by make_neural_tangents.py."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tangrams.kernels import AnalyticNNGP, AnalyticNTK
from tangrams.kernels.ntk import (
    GELU,
    RBF,
    ABReLU,
    Abs,
    AvgPool,
    Conv,
    Cos,
    Dense,
    Erf,
    Exp,
    Flatten,
    Gaussian,
    GlobalAvgPool,
    Heaviside,
    Identity,
    LayerNorm,
    LeakyReLU,
    ParallelProduct,
    ParallelSum,
    Polynomial,
    QuadratureDual,
    ReLU,
    Serial,
    Sign,
    Sin,
)

FROZEN = Path(__file__).with_name("neural_tangents.npz")


def conv(padding, size=3, stride=1, W_std=1.4, b_std=0.1):
    return Conv(size, W_std, b_std, stride=stride, padding=padding)


def plain_conv():
    return Conv(3, 1.0, 0.0)


ACTIVATIONS = {
    "relu": ReLU(),
    "leaky": LeakyReLU(0.2),
    "abrelu": ABReLU(-0.5, 1.5),
    "abs": Abs(),
    "sign": Sign(),
    "heaviside": Heaviside(),
    "erf": Erf(),
    "erf_scaled": Erf(1.5, 0.7),
    "sin": Sin(1.2, 0.8, 0.3),
    "cos": Cos(1.2, 0.8, 0.3),
    "rbf": RBF(0.6),
    "exp": Exp(0.8, 0.5),
    "gaussian": Gaussian(1.2, 0.7),
    "gelu": GELU(),
    "polynomial": Polynomial([0.1, 0.4, -0.3, 0.2]),
    "monomial": Polynomial([0.0, 0.0, 0.0, 1.0]),
    "quadrature_tanh": QuadratureDual(torch.tanh, 60, odd=True),
}
NETS = {f"{name}_1": Serial(Dense(1.3, 0.2), layer, Dense(1.1, 0.4)) for name, layer in ACTIVATIONS.items()}
NETS |= {
    f"{name}_2": Serial(Dense(1.3, 0.2), layer, Dense(0.9, 0.1), layer, Dense())
    for name, layer in ACTIVATIONS.items()
    if name != "heaviside"
}
NETS |= {
    "linear": Serial(*[Dense(1.2, 0.3)] * 3),
    "deep_relu": Serial(*[Dense(2**0.5, 0.1), ReLU()] * 9, Dense()),
    "layer_norm": Serial(Dense(1.3, 0.5), LayerNorm(), ReLU(), Dense(1.1, 0.2)),
    "residual": Serial(
        Dense(1.3, 0.2),
        ParallelSum(Serial(ReLU(), Dense(1.2, 0.1)), Identity()),
        ParallelSum(Serial(ReLU(), Dense(), ReLU(), Dense(0.8)), Identity()),
        ReLU(),
        Dense(),
    ),
    "product": Serial(
        ParallelProduct(
            Serial(Dense(1.3, 0.2), ReLU()),
            Serial(Dense(0.7, 0.5), Erf(), Dense()),
            Dense(1.1, 0.9),
        ),
        Dense(1.2),
    ),
    "sum_of_branches": Serial(ParallelSum(Serial(Dense(1.3, 0.2), ReLU(), Dense()), Dense(1.1, 0.9)), ReLU(), Dense()),
    "myrtle": Serial(
        plain_conv(),
        ReLU(),
        plain_conv(),
        ReLU(),
        AvgPool(2),
        plain_conv(),
        ReLU(),
        AvgPool(2),
        AvgPool(2),
        Flatten(),
        Dense(),
    ),
    "pool_same": Serial(conv("same"), ReLU(), AvgPool((3, 2), 2, "same"), conv("same"), GELU(), Flatten(), Dense()),
    "wide_residual": Serial(
        conv("same"),
        ParallelSum(Serial(ReLU(), conv("same"), ReLU(), conv("same")), Identity()),
        ParallelSum(Serial(ReLU(), conv("same", stride=2), ReLU(), conv("same")), conv("same", stride=2)),
        GlobalAvgPool(),
        Dense(),
    ),
    "channel_dense_norm": Serial(conv("same"), LayerNorm(), ReLU(), Dense(1.2, 0.3), ReLU(), GlobalAvgPool(), Dense()),
    "flatten_first": Serial(Flatten(), Dense(), ReLU(), Dense()),
}
for padding in ("same", "valid", "circular"):
    body = [conv(padding), ReLU(), conv(padding), ReLU()]
    NETS[f"conv_{padding}_flatten"] = Serial(*body, Flatten(), Dense())
    NETS[f"conv_{padding}_pool"] = Serial(*body, GlobalAvgPool(), Dense())
    NETS[f"conv_{padding}_strided"] = Serial(
        conv(padding, (3, 2), (2, 1)), Erf(), conv(padding, (2, 3), (1, 2)), GlobalAvgPool(), Dense()
    )
    NETS[f"conv_{padding}_sequence"] = Serial(conv(padding, 4, 2), ReLU(), AvgPool(2, 1, "valid"), Flatten(), Dense())


@cache
def frozen():
    with np.load(FROZEN) as data:
        return {name: data[name] for name in data.files}


def inputs(case, which):
    """Our axes: channels before positions, not after."""
    x = torch.from_numpy(frozen()[f"{frozen()[f'{case}/inputs']}/{which}"])
    if case == "flatten_first":
        return x.flatten(1)
    return x.movedim(-1, 1)


def test_every_frozen_case_is_compared():
    assert {name.split("/")[0] for name in frozen() if name.endswith("/ntk")} == set(NETS)
    assert str(frozen()["version"]) == "0.6.5"


@pytest.mark.parametrize("case", sorted(NETS))
@pytest.mark.parametrize("kind", ["nngp", "ntk"])
def test_kernels_equal_those_of_neural_tangents(case, kind):
    kernel = (AnalyticNTK if kind == "ntk" else AnalyticNNGP)(NETS[case])
    x1, x2 = inputs(case, "x1"), inputs(case, "x2")
    expected, own = (torch.from_numpy(frozen()[f"{case}/{kind}{suffix}"]) for suffix in ("", "_own"))
    if case.startswith("heaviside"):  # the other side gives NaN where a sample meets itself
        x2, expected = x2[1:], expected[:, 1:]
        own = torch.where(torch.eye(len(own), dtype=torch.bool), kernel.gram(x1), own)
    assert torch.isfinite(expected).all()
    scale = own.abs().max()
    # Nearly all agree to 1e-12; the other side loses digits where a sample meets itself (7e-10 in three cases).
    torch.testing.assert_close(kernel.gram(x1, x2) / scale, expected / scale, atol=2e-9, rtol=2e-9)
    torch.testing.assert_close(kernel.gram(x1) / scale, own / scale, atol=2e-9, rtol=2e-9)
    torch.testing.assert_close(kernel.diag(x1) / scale, own.diagonal() / scale, atol=2e-9, rtol=2e-9)
