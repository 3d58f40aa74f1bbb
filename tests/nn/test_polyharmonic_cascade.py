"""Spline packages and their cascades."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call, jacrev

from tangrams.features import TangentFeatures
from tangrams.learners import CascadeSolver
from tangrams.nn import PolyharmonicCascade, SplinePackage
from tangrams.nn.polyharmonic import identity_, zeros_
from tangrams.operators import constellation_nodes
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def package_by_kernel_rows(module, x):
    nodes = constellation_nodes(module.in_features, x.dtype)

    def rows(a):
        r = (a[:, None] - nodes[None]).norm(dim=-1)
        return torch.where(r > 0, r.square() * (r.clamp_min(1e-300).log() - module.b), 0.0) + module.c

    return rows(x) @ torch.linalg.inv(rows(nodes)) @ module.values


def filled(cascade):
    """A cascade whose last package is not zero, as it is after training."""
    with torch.no_grad():
        for package in cascade.packages:
            package.values += 0.3 * torch.randn(package.values.shape, generator=generator(7), dtype=torch.float64).to(
                package.values
            )
    return cascade


def cascade(widths, models=1):
    return filled(PolyharmonicCascade(widths, models, generator=generator(), dtype=torch.float64))


TestPackages = conformance(
    ModuleSuite,
    Case(lambda: SplinePackage(5, 3, generator=generator()), inputs=normal(5), reference=package_by_kernel_rows),
    Case(lambda: SplinePackage(4, 4, init=identity_), inputs=normal(4), name="SplinePackage-identity"),
    Case(lambda: cascade([4, 3, 3, 2]), inputs=normal(4)),
    Case(lambda: cascade([4, 3, 1], models=3), inputs=normal(4), name="PolyharmonicCascade-three"),
)


def test_a_package_interpolates_its_values_at_the_nodes():
    package = SplinePackage(6, 4, generator=generator(), dtype=torch.float64)
    assert (package(constellation_nodes(6, torch.float64)) - package.values).abs().max() < 1e-12


def test_an_identity_package_maps_the_nodes_to_themselves_and_the_ball_nearly_so():
    package = SplinePackage(6, 6, init=identity_, dtype=torch.float64)
    nodes = constellation_nodes(6, torch.float64)
    assert (package(nodes) - nodes).abs().max() < 1e-12
    x = torch.nn.functional.normalize(normals(50, 6)) * 0.5
    assert (package(x) - x).norm(dim=1).max() < 0.2


def test_zero_values_give_zero():
    assert torch.equal(SplinePackage(3, 2, init=zeros_)(torch.randn(5, 3)), torch.zeros(5, 2))
    assert torch.equal(PolyharmonicCascade([3, 3, 2])(torch.randn(5, 3)), torch.zeros(5, 2))


def test_closed_form_gradients_are_those_of_autograd():
    package = SplinePackage(5, 3, generator=generator(), dtype=torch.float64)
    x, g = normals(8, 5).requires_grad_(), normals(8, 3, seed=1)
    expected = torch.autograd.grad((package(x) * g).sum(), [x, package.values])
    assert (package.pullback(x.detach(), g) - expected[0]).abs().max() < 1e-12
    assert (package.features(x.detach()).mT @ g - expected[1]).abs().max() < 1e-12


def test_batched_packages_are_separate_ones():
    batched = SplinePackage(3, 2, batch_shape=(4,), generator=generator(), dtype=torch.float64)
    x = normals(4, 6, 3)
    for i in range(4):
        alone = SplinePackage(3, 2, dtype=torch.float64)
        alone.load_state_dict({"values": batched.values[i]})
        assert (batched(x)[i] - alone(x[i])).abs().max() < 1e-14


def test_models_of_a_cascade_do_not_share_anything():
    three = cascade([4, 3, 2], models=3)
    x = normals(5, 4)
    out = three(x).reshape(5, 3, 2)
    one = cascade([4, 3, 2])
    one.load_state_dict({name: value[1:2] for name, value in three.state_dict().items()})
    assert (out[:, 1] - one(x)).abs().max() < 1e-14


def test_least_squares_values_recover_a_package():
    truth = SplinePackage(3, 2, generator=generator(), dtype=torch.float64)
    x = normals(60, 3)
    package = SplinePackage(3, 2, init=zeros_, dtype=torch.float64).fit_values(x, truth(x).detach(), 1e-10)
    assert (package.values - truth.values).abs().max() < 1e-6
    shrunk = SplinePackage(3, 2, init=zeros_, dtype=torch.float64).fit_values(x, truth(x).detach(), 1e3)
    assert shrunk.values.norm() < package.values.norm()


@pytest.mark.parametrize(("widths", "models"), [([4, 3, 3, 1], 1), ([4, 3, 2], 1), ([3, 3, 2], 2)])
def test_a_step_is_damped_gauss_newton_on_the_jacobian(widths, models):
    net = cascade(widths, models)
    x, y, alpha = normals(6, widths[0]), normals(6, models * widths[-1], seed=3), 0.7
    before = {name: value.clone() for name, value in net.state_dict().items()}
    e = (y - net(x)).detach().flatten()
    jacobians = jacrev(lambda p: functional_call(net, p, (x,)))(dict(net.named_parameters()))
    J = torch.cat([j.reshape(len(e), -1) for j in jacobians.values()], 1).detach()
    step = J.mT @ torch.linalg.inv(J @ J.mT + alpha * torch.eye(len(e), dtype=J.dtype)) @ e
    result = CascadeSolver(net).step(x, y, alpha)
    moved = torch.cat([(value - before[name]).flatten() for name, value in net.state_dict().items()])
    assert (moved - step).abs().max() < 1e-10
    assert result.loss == pytest.approx(float(e.square().mean()))
    assert result.alpha == alpha


def test_the_solvers_gram_is_the_tangent_kernel():
    from tangrams.learners.cascade_solver import _tangent_gram

    net = cascade([4, 3, 3, 2])
    x = normals(5, 4)
    solver = CascadeSolver(net)
    inputs, features, outputs = solver._forward(x)
    G = [g[:, 0].movedim(0, 1) for g in solver._gradients(inputs, outputs)]
    H = [h if h.ndim == 2 else h[0] for h in features]
    assert (_tangent_gram(H[0] @ H[0].mT, H, G) - TangentFeatures(net, "all").gram(x)).abs().max() < 1e-10


def test_without_damping_the_linearised_residual_vanishes():
    net = cascade([4, 3, 3, 1])
    x, y = normals(6, 4), normals(6, 1, seed=3)
    parameters = {name: value.detach().clone() for name, value in net.named_parameters()}
    e = (y - net(x)).detach()
    CascadeSolver(net).step(x, y, 1e-9)
    moved = {name: value.detach() - parameters[name] for name, value in net.named_parameters()}
    change = torch.func.jvp(lambda p: functional_call(net, p, (x,)), (parameters,), (moved,))[1]
    assert (e - change).abs().max() < 1e-6


def test_outputs_values_and_steps_equal_the_authors_code():
    frozen = np.load(Path(__file__).with_name("polyharmonic_cascade.npz"))
    net = PolyharmonicCascade([5, 4, 4, 1], 3, dtype=torch.float64)
    net.load_state_dict({f"packages.{i}.values": torch.from_numpy(frozen[f"values_{i}"]) for i in range(3)})
    x, y = torch.from_numpy(frozen["x"]), torch.from_numpy(frozen["y"])
    # Their first features pass through float32.
    assert (net(x) - torch.from_numpy(frozen["outputs"])).abs().max() < 1e-6
    CascadeSolver(net).step(x, y, 2.0)
    for i, package in enumerate(net.packages):
        assert (package.values - torch.from_numpy(frozen[f"stepped_{i}"])).abs().max() < 1e-6


def test_rounding_that_breaks_the_factorisation_raises_the_damping():
    from tangrams.learners.cascade_solver import _damped_solve

    T = -torch.eye(3, dtype=torch.float64) * 5e-3
    q, alpha = _damped_solve(T, torch.ones(3, 1, dtype=torch.float64), 1e-4)
    assert alpha == pytest.approx(1e-2)
    assert torch.allclose(q, torch.full_like(q, 1 / 5e-3))


def test_a_refused_step_changes_nothing():
    net = cascade([3, 2, 1], models=2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    solver = CascadeSolver(net)
    x = normals(4, 3)
    with pytest.raises(ValueError, match="alpha"):
        solver.step(x, normals(4, 2), 0.0)
    with pytest.raises(ValueError, match="shape"):
        solver.step(x, normals(4, 1), 1.0)
    with pytest.raises(FloatingPointError, match="normalise"):
        solver.step(x * 1e200, normals(4, 2), 1.0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: SplinePackage(0, 2), "sizes"),
        (lambda: SplinePackage(2, 0), "sizes"),
        (lambda: SplinePackage(2, 2, c=1.0), "positive definite"),
        (lambda: SplinePackage(2, 3, init=identity_), "uniform_"),
        (lambda: PolyharmonicCascade([3]), "widths|width"),
        (lambda: PolyharmonicCascade([3, 2], 0), "num_models"),
        (lambda: SplinePackage(3, 2)(torch.ones(4, 2)), "features"),
        (lambda: SplinePackage(3, 2).fit_values(torch.ones(4, 3), torch.ones(4, 2), 0.0), "ridge"),
        (lambda: SplinePackage(3, 2).fit_values(torch.ones(4, 3), torch.ones(4, 1)), "shape"),
    ],
)
def test_bad_input_is_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()
