"""Write ``neural_tangents.npz``: kernel values of neural-tangents 0.6.5 in float64, which the tests compare with.

Run it in an environment of its own, since its JAX does not live beside our numpy::

    python3.11 -m venv env
    env/bin/pip install "jax==0.4.20" "jaxlib==0.4.20" "numpy<2" "scipy<1.12" frozendict absl-py typing_extensions
    env/bin/pip install --no-deps neural-tangents==0.6.5
    env/bin/python tests/kernels/make_neural_tangents.py

Only its experimental part imports TensorFlow; a stand-in takes its place.
Entries are ``<case>/<nngp|ntk>`` for x1 against x2 and ``<case>/<nngp|ntk>_own`` for x1 with itself.
"""

import sys
from pathlib import Path
from unittest.mock import MagicMock

import jax
import numpy as np

sys.modules["neural_tangents.experimental"] = MagicMock()
jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import neural_tangents as nt  # noqa: E402
from neural_tangents import stax  # noqa: E402

VECTORS = ("vectors", (5, 7), (4, 7))
IMAGES = ("images", (3, 6, 6, 2), (2, 6, 6, 2))
OBLONG = ("oblong", (3, 7, 5, 2), (2, 7, 5, 2))
SEQUENCES = ("sequences", (3, 9, 2), (2, 9, 2))


def one_layer(activation):
    return stax.serial(stax.Dense(1, W_std=1.3, b_std=0.2), activation, stax.Dense(1, W_std=1.1, b_std=0.4))


def two_layers(activation):
    return stax.serial(
        stax.Dense(1, W_std=1.3, b_std=0.2), activation, stax.Dense(1, W_std=0.9, b_std=0.1), activation, stax.Dense(1)
    )


def conv(padding, size=(3, 3), strides=(1, 1), W_std=1.4, b_std=0.1):
    return stax.Conv(1, size, strides, padding, W_std=W_std, b_std=b_std)


def residual(*main):
    return stax.serial(stax.FanOut(2), stax.parallel(stax.serial(*main), stax.Identity()), stax.FanInSum())


ACTIVATIONS = {
    "relu": stax.Relu(),
    "leaky": stax.LeakyRelu(0.2),
    "abrelu": stax.ABRelu(-0.5, 1.5),
    "abs": stax.Abs(),
    "sign": stax.Sign(),
    "heaviside": stax.RectifiedMonomial(0),
    "erf": stax.Erf(),
    "erf_scaled": stax.Erf(1.5, 0.7, 0.0),
    "sin": stax.Sin(1.2, 0.8, 0.3),
    "cos": stax.Cos(1.2, 0.8, 0.3),
    "rbf": stax.Rbf(0.6),
    "exp": stax.Exp(0.8, 0.5),
    "gaussian": stax.Gaussian(1.2, -0.7),
    "gelu": stax.Gelu(),
    "polynomial": stax.Polynomial([0.1, 0.4, -0.3, 0.2]),
    "monomial": stax.Monomial(3),
    "quadrature_tanh": stax.ElementwiseNumerical(jnp.tanh, deg=60),
}

CASES = {f"{name}_1": (VECTORS, one_layer(layer)) for name, layer in ACTIVATIONS.items()}
CASES |= {
    f"{name}_2": (VECTORS, two_layers(layer))
    for name, layer in ACTIVATIONS.items()
    if name != "heaviside"  # NaN on the diagonal of the first layer, and so everywhere in the second
}
CASES |= {
    "linear": (VECTORS, stax.serial(*[stax.Dense(1, W_std=1.2, b_std=0.3)] * 3)),
    "deep_relu": (VECTORS, stax.serial(*[stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu()] * 9, stax.Dense(1))),
    "layer_norm": (
        VECTORS,
        stax.serial(stax.Dense(1, W_std=1.3, b_std=0.5), stax.LayerNorm(), stax.Relu(), stax.Dense(1, 1.1, 0.2)),
    ),
    "residual": (
        VECTORS,
        stax.serial(
            stax.Dense(1, W_std=1.3, b_std=0.2),
            residual(stax.Relu(), stax.Dense(1, W_std=1.2, b_std=0.1)),
            residual(stax.Relu(), stax.Dense(1), stax.Relu(), stax.Dense(1, W_std=0.8)),
            stax.Relu(),
            stax.Dense(1),
        ),
    ),
    "product": (
        VECTORS,
        stax.serial(
            stax.FanOut(3),
            stax.parallel(
                stax.serial(stax.Dense(1, W_std=1.3, b_std=0.2), stax.Relu()),
                stax.serial(stax.Dense(1, W_std=0.7, b_std=0.5), stax.Erf(), stax.Dense(1)),
                stax.Dense(1, W_std=1.1, b_std=0.9),
            ),
            stax.FanInProd(),
            stax.Dense(1, W_std=1.2),
        ),
    ),
    "sum_of_branches": (
        VECTORS,
        stax.serial(
            stax.FanOut(2),
            stax.parallel(
                stax.serial(stax.Dense(1, W_std=1.3, b_std=0.2), stax.Relu(), stax.Dense(1)),
                stax.Dense(1, W_std=1.1, b_std=0.9),
            ),
            stax.FanInSum(),
            stax.Relu(),
            stax.Dense(1),
        ),
    ),
}
for padding in ("SAME", "VALID", "CIRCULAR"):
    CASES[f"conv_{padding.lower()}_flatten"] = (
        IMAGES,
        stax.serial(conv(padding), stax.Relu(), conv(padding), stax.Relu(), stax.Flatten(), stax.Dense(1)),
    )
    CASES[f"conv_{padding.lower()}_pool"] = (
        IMAGES,
        stax.serial(conv(padding), stax.Relu(), conv(padding), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1)),
    )
    CASES[f"conv_{padding.lower()}_strided"] = (
        OBLONG,
        stax.serial(
            conv(padding, (3, 2), (2, 1)),
            stax.Erf(),
            conv(padding, (2, 3), (1, 2)),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
    )
    CASES[f"conv_{padding.lower()}_sequence"] = (
        SEQUENCES,
        stax.serial(
            conv(padding, (4,), (2,)),
            stax.Relu(),
            stax.AvgPool((2,), (1,), "VALID"),
            stax.Flatten(),
            stax.Dense(1),
        ),
    )
CASES |= {
    "myrtle": (
        ("eights", (2, 8, 8, 3), (2, 8, 8, 3)),
        stax.serial(
            conv("SAME", W_std=1.0, b_std=0.0),
            stax.Relu(),
            conv("SAME", W_std=1.0, b_std=0.0),
            stax.Relu(),
            stax.AvgPool((2, 2), (2, 2)),
            conv("SAME", W_std=1.0, b_std=0.0),
            stax.Relu(),
            stax.AvgPool((2, 2), (2, 2)),
            stax.AvgPool((2, 2), (2, 2)),
            stax.Flatten(),
            stax.Dense(1),
        ),
    ),
    "pool_same": (
        OBLONG,
        stax.serial(
            conv("SAME"),
            stax.Relu(),
            stax.AvgPool((3, 2), (2, 2), "SAME"),
            conv("SAME"),
            stax.Gelu(),
            stax.Flatten(),
            stax.Dense(1),
        ),
    ),
    "wide_residual": (
        IMAGES,
        stax.serial(
            conv("SAME"),
            residual(stax.Relu(), conv("SAME"), stax.Relu(), conv("SAME")),
            stax.FanOut(2),
            stax.parallel(
                stax.serial(stax.Relu(), conv("SAME", (3, 3), (2, 2)), stax.Relu(), conv("SAME")),
                conv("SAME", (3, 3), (2, 2)),
            ),
            stax.FanInSum(),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
    ),
    "channel_dense_norm": (
        IMAGES,
        stax.serial(
            conv("SAME"),
            stax.LayerNorm(axis=-1),
            stax.Relu(),
            stax.Dense(1, W_std=1.2, b_std=0.3),
            stax.Relu(),
            stax.GlobalAvgPool(),
            stax.Dense(1),
        ),
    ),
    "flatten_first": (IMAGES, stax.serial(stax.Flatten(), stax.Dense(1), stax.Relu(), stax.Dense(1))),
}


def add_flow(data: dict[str, np.ndarray]) -> None:
    """Laws of ensembles of a network trained for a while, and for ever; one output, so that losses agree."""
    x, new, y = data["vectors/x1"], data["vectors/x2"], np.random.default_rng(1).normal(size=(5, 1))
    kernel_fn = two_layers(stax.Relu())[2]
    law = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, y, learning_rate=0.7, diag_reg=0.0)
    data["flow/y"] = y
    for name, t in (("early", 3.0), ("late", None)):
        for kind in ("ntk", "nngp"):
            posterior = law(t=t, x_test=new, get=kind, compute_cov=True)
            data[f"flow/{name}_{kind}_mean"] = np.asarray(posterior.mean)
            data[f"flow/{name}_{kind}_covariance"] = np.asarray(posterior.covariance)


def main() -> None:
    random = np.random.default_rng(0)
    data: dict[str, np.ndarray] = {}
    for name, first, second in sorted({shape for shape, _ in CASES.values()}):
        x1, x2 = random.normal(size=first), random.normal(size=second)
        x2[0] = x1[1]  # one sample in both
        data[f"{name}/x1"], data[f"{name}/x2"] = x1, x2
    for case, ((inputs, _, _), (_, _, kernel_fn)) in CASES.items():
        x1, x2 = data[f"{inputs}/x1"], data[f"{inputs}/x2"]
        for suffix, other in (("", x2), ("_own", None)):
            kernels = kernel_fn(jnp.asarray(x1), None if other is None else jnp.asarray(other), ("nngp", "ntk"))
            data[f"{case}/nngp{suffix}"] = np.asarray(kernels.nngp, dtype=np.float64)
            data[f"{case}/ntk{suffix}"] = np.asarray(kernels.ntk, dtype=np.float64)
        data[f"{case}/inputs"] = np.asarray(inputs)
        print(case, data[f"{case}/ntk"].shape, flush=True)
    add_flow(data)
    path = Path(__file__).with_name("neural_tangents.npz")
    np.savez_compressed(path, version=np.asarray(nt.__version__), **data)
    print(path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
