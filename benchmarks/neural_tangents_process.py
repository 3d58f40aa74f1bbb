"""Times neural-tangents' structured empirical NTK; run by the interpreter of an environment that has it."""

from __future__ import annotations

import json
import statistics
import sys
import time


def main(n: int) -> None:
    """Print ``{case: {"neural-tangents": seconds}}``."""
    import jax
    import neural_tangents as nt
    from neural_tangents import stax

    key = jax.random.PRNGKey(0)
    mlp = stax.serial(stax.Dense(512), stax.Relu(), stax.Dense(512), stax.Relu(), stax.Dense(10))
    conv = stax.serial(
        stax.Conv(32, (3, 3), padding="SAME"),
        stax.Relu(),
        stax.AvgPool((2, 2), (2, 2)),
        stax.Conv(64, (3, 3), padding="SAME"),
        stax.Relu(),
        stax.AvgPool((2, 2), (2, 2)),
        stax.Flatten(),
        stax.Dense(128),
        stax.Relu(),
        stax.Dense(10),
    )
    found = {}
    for name, (init, apply, _), shape in (("MLP", mlp, (n, 784)), ("CNN, average pool", conv, (n, 28, 28, 1))):
        x = jax.random.normal(key, shape)
        _, params = init(key, shape)
        for label, axes, function in (
            ("all outputs", (), apply),
            ("sum", (), lambda p, z, apply=apply: apply(p, z).sum(-1, keepdims=True)),
        ):
            kernel = jax.jit(
                nt.empirical_ntk_fn(
                    function,
                    trace_axes=axes,
                    vmap_axes=0,
                    implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
                )
            )
            kernel(x, None, params).block_until_ready()
            times = []
            for _ in range(7):
                start = time.process_time()
                kernel(x, None, params).block_until_ready()
                times.append(time.process_time() - start)
            found[f"{name}, {label}"] = {"neural-tangents": statistics.median(times)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
