"""Inner problems and the gradients through them: sheet 092's identities, each against autograd or a dense matrix."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn
from torch.func import functional_call, jacrev

from tangrams.learners.distillation import (
    ConjugateGradients,
    InnerProblem,
    LinearizedRidge,
    NonlinearRidge,
    PlainNetwork,
    adam_quadratic_solve,
    implicit_gradient,
    linearized_ridge,
    outer_loss,
    ridge_head,
    split_head,
    with_mirror,
)
from tangrams.nn import ConvNet

C = 3


def seeded(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ConvNet(1, C, 4, width=2, depth=1, activation=nn.Softplus(beta=2), **options).double().eval()
        nn.init.normal_(network.head.bias)
        return network


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def psi(n=5):
    return {"images": draw(n, 1, 4, 4, seed=1), "labels": draw(n, C, seed=2)}


def direction(problem, seed=3):
    return {name: 0.3 * draw(*value.shape, seed=seed + i) for i, (name, value) in enumerate(problem.zeros().items())}


def dense(network, x):
    """Features ``(n, m)``, and the outputs' Jacobian in the body's weights and the head's bias, ``(n, C, p)``."""
    base = dict(network.named_parameters())
    J = jacrev(lambda p: functional_call(network, p, (x,)))(base)
    blocks = [J[name].flatten(2) for name in base if name != "head.weight"]
    return network.body(x).detach(), torch.cat(blocks, 2).detach()


def flat(omega):
    return torch.cat([value.flatten() for value in omega.values()])


@pytest.mark.parametrize("lam", [0.01, 2.0])
def test_the_ridge_head_is_the_minimiser(lam):
    H, Y = draw(6, 9), draw(6, C, seed=1)
    expected = Ridge(alpha=lam, fit_intercept=False).fit(H.numpy(), Y.numpy()).coef_.T
    torch.testing.assert_close(ridge_head(H, Y, lam), torch.from_numpy(expected), rtol=1e-8, atol=1e-9)


def test_the_loss_is_the_sheets_at_its_best_head():
    """[½‖Y − g − K W‖² + ½λ (tr Wᵀ K W + ‖ω‖²)] / (n C), with W = (K + λI)⁻¹ (Y − g)."""
    network, hyper = seeded(), psi()
    problem = LinearizedRidge(network, 0.4)
    omega = direction(problem)
    h, J = dense(network, hyper["images"])
    g, K = J @ flat(omega), h @ h.mT
    r = hyper["labels"] - g
    W = torch.linalg.inv(K + 0.4 * torch.eye(5).double()) @ r
    expected = (r - K @ W).square().sum() + 0.4 * ((W * (K @ W)).sum() + flat(omega).square().sum())
    torch.testing.assert_close(problem.loss(omega, hyper), expected / (2 * 5 * C), rtol=1e-10, atol=1e-12)
    # The envelope: the gradient in ω is the one with W held at its best.
    leaf = flat(omega).requires_grad_()
    held = hyper["labels"] - J @ leaf - K @ W
    value = (held.square().sum() + 0.4 * leaf.square().sum()) / (2 * 5 * C)
    expected = torch.autograd.grad(value, leaf)[0]
    found = problem.freeze(hyper).value_and_gradient(omega)[1]
    torch.testing.assert_close(flat(found), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("entries", [True, False], ids=["entries-of-J", "through-the-network"])
def test_the_frozen_quadratic_is_what_autograd_says_and_its_hessian_is_constant_and_positive(monkeypatch, entries):
    monkeypatch.setattr(linearized_ridge, "_JACOBIAN_BYTES", 1 << 30 if entries else 0)
    problem, hyper = LinearizedRidge(seeded(), 0.4), psi()
    frozen, reference = problem.freeze(hyper), super(LinearizedRidge, problem).freeze(hyper)
    omega, other, v = direction(problem), direction(problem, 50), direction(problem, 90)
    for ours, theirs in zip(frozen.value_and_gradient(omega), reference.value_and_gradient(omega), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    product = frozen.hessian_product(omega, v)
    torch.testing.assert_close(product, reference.hessian_product(omega, v), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(product, frozen.hessian_product(other, v), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(product, reference.hessian_product(other, v), rtol=1e-9, atol=1e-12)
    assert float(flat(product) @ flat(v)) > 0
    h, J = dense(seeded(), hyper["images"])
    A = torch.kron(torch.linalg.inv(h @ h.mT + 0.4 * torch.eye(5).double()).contiguous(), torch.eye(C).double())
    Jf = J.flatten(0, 1)
    H = 0.4 / (5 * C) * (Jf.mT @ A @ Jf + torch.eye(Jf.shape[1]).double())
    torch.testing.assert_close(flat(product), H @ flat(v), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [LinearizedRidge, NonlinearRidge, PlainNetwork])
def test_slopes_are_directional_derivatives_with_their_own_gradient_in_the_set(kind):
    problem = kind(seeded(), 0.4)
    omega, v = direction(problem), direction(problem, 90)
    hyper = {name: value.requires_grad_() for name, value in psi().items()}
    ours = problem.slope(omega, v, hyper)
    theirs = super(kind, problem).slope(omega, v, hyper)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    step = 1e-5
    ahead, behind = (problem.loss({n: w + s * v[n] for n, w in omega.items()}, hyper) for s in (step, -step))
    torch.testing.assert_close(ours, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-9)
    for a, b in zip(
        torch.autograd.grad(ours, list(hyper.values())), torch.autograd.grad(theirs, list(hyper.values())), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)


def test_predictions_are_affine_in_omega_and_kernel_regression_at_zero():
    network, hyper, x = seeded(), psi(), draw(7, 1, 4, 4, seed=9)
    problem = LinearizedRidge(network, 0.4)
    omega, other = direction(problem), direction(problem, 50)
    half = {name: 0.25 * omega[name] + 0.75 * other[name] for name in omega}
    a, b, mixed = (problem.outputs(w, hyper, x) for w in (omega, other, half))
    torch.testing.assert_close(mixed, 0.25 * a + 0.75 * b, rtol=1e-10, atol=1e-12)
    h, h_x = network.body(hyper["images"]), network.body(x)
    krr = h_x @ h.mT @ torch.linalg.inv(h @ h.mT + 0.4 * torch.eye(5).double()) @ hyper["labels"]
    torch.testing.assert_close(problem.outputs(problem.zeros(), hyper, x), krr.detach(), rtol=1e-9, atol=1e-11)


def test_gradients_of_predictions_are_those_of_the_dense_formula():
    network, x = seeded(), draw(7, 1, 4, 4, seed=9)
    problem, weight = LinearizedRidge(network, 0.4), draw(7, C, seed=11)
    omega = {name: value.requires_grad_() for name, value in direction(problem).items()}
    hyper = {name: value.requires_grad_() for name, value in psi().items()}
    leaves = [*omega.values(), *hyper.values()]
    found = torch.autograd.grad((problem.outputs(omega, hyper, x) * weight).sum(), leaves)
    base = dict(network.named_parameters())

    def expand(images):
        J = jacrev(lambda p: functional_call(network, p, (images,)))(base)
        g = sum(J[f"body.{n}"].flatten(2) @ w.flatten() for n, w in omega.items() if n != "head.bias")
        return network.body(images), g + omega["head.bias"]

    (h, g), (h_x, g_x) = expand(hyper["images"]), expand(x)
    f = g_x + h_x @ h.mT @ torch.linalg.inv(h @ h.mT + 0.4 * torch.eye(5).double()) @ (hyper["labels"] - g)
    torch.testing.assert_close(problem.outputs(omega, hyper, x), f, rtol=1e-9, atol=1e-11)
    for ours, theirs in zip(found, torch.autograd.grad((f * weight).sum(), leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_a_mirrored_set_has_the_same_loss_for_mirrored_images():
    problem, hyper = LinearizedRidge(seeded(), 0.4, with_mirror), psi()
    omega = direction(problem)
    turned = {**hyper, "images": hyper["images"].flip(-1)}
    torch.testing.assert_close(problem.loss(omega, hyper), problem.loss(omega, turned), rtol=1e-10, atol=1e-12)
    images, labels = problem.set_of(hyper)
    assert len(images) == len(labels) == 10
    assert torch.equal(labels[5:], hyper["labels"])


def test_the_other_problems_are_the_network_itself():
    network, hyper, x = seeded(), psi(), draw(7, 1, 4, 4, seed=9)
    plain = PlainNetwork(network, 0.4)
    torch.testing.assert_close(plain.outputs(plain.zeros(), hyper, x), network(x).detach())
    loss = (hyper["labels"] - network(hyper["images"])).square().sum() / (2 * 5 * C)
    torch.testing.assert_close(plain.loss(plain.zeros(), hyper), loss.detach())
    bent, straight = NonlinearRidge(network, 0.4), LinearizedRidge(network, 0.4)
    torch.testing.assert_close(
        bent.outputs(bent.zeros(), hyper, x), straight.outputs(straight.zeros(), hyper, x), rtol=1e-9, atol=1e-11
    )
    torch.testing.assert_close(bent.loss(bent.zeros(), hyper), straight.loss(straight.zeros(), hyper))
    omega = direction(bent)
    one, two = (bent.outputs({n: s * w for n, w in omega.items()}, hyper, x) for s in (1.0, 2.0))
    assert float((two - 2 * one + bent.outputs(bent.zeros(), hyper, x)).abs().max()) > 1e-3


def test_running_statistics_are_read_and_left_alone():
    network = seeded(batch_norm=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    problem, hyper = LinearizedRidge(network, 0.4), psi()
    problem.outputs(direction(problem), hyper, draw(7, 1, 4, 4))
    problem.freeze(hyper).value_and_gradient(problem.zeros())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_heads_are_found_or_asked_for():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Tanh(), nn.Linear(4, 2))
    body, head = split_head(network)
    assert head is network[-1]
    assert len(body) == 3
    for wrong in (nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU())):
        with pytest.raises(ValueError, match="body and a linear head"):
            split_head(wrong)


def test_ridges_that_do_not_help_are_refused():
    with pytest.raises(ValueError, match="ridge λ > 0"):
        LinearizedRidge(seeded(), 0.0)
    with pytest.raises(ValueError, match="not positive definite"):
        ridge_head(torch.full((3, 2), 1e9), torch.zeros(3, 1), 1e-9)


def exact(frozen_hvp, g):
    """H⁻¹ g by the dense Hessian."""
    names, sizes = list(g), [value.numel() for value in g.values()]
    columns = []
    for i in range(sum(sizes)):
        unit = torch.zeros(sum(sizes)).double()
        unit[i] = 1
        parts = dict(zip(names, unit.split(sizes), strict=True))
        columns.append(flat(frozen_hvp({n: part.reshape(g[n].shape) for n, part in parts.items()})))
    v = torch.linalg.inv(torch.stack(columns, 1)) @ flat(g)
    return {n: part.reshape(g[n].shape) for n, part in zip(names, v.split(sizes), strict=True)}, []


def minimiser(problem, hyper):
    """ω* as a differentiable function of the set: ω = Jᵀ (A + J Jᵀ)⁻¹ Y on a network without a body to linearise."""
    frozen = problem.freeze(hyper)
    _, gradient = frozen.value_and_gradient(problem.zeros())
    v, _ = exact(lambda u: frozen.hessian_product(problem.zeros(), u), gradient)
    return {name: -value for name, value in v.items()}


def outer(problem, x, y):
    def loss(omega, hyper):
        temperature = hyper.get("temperature", torch.zeros(()).double())
        return outer_loss(problem.outputs(omega, hyper, x), y, hyper["labels"], temperature)

    return loss


def test_with_an_exact_solve_it_is_the_derivative_through_the_minimiser():
    """Central differences of the outer loss at the exactly re-solved inner minimum, along random directions of ψ."""
    problem, x, y = LinearizedRidge(seeded(), 0.4), draw(9, 1, 4, 4, seed=5), torch.arange(9) % 3
    hyper = {**psi(), "temperature": torch.tensor(0.3).double()}
    found = implicit_gradient(problem, outer(problem, x, y), minimiser(problem, hyper), hyper, exact)
    for name, value in hyper.items():
        along, step = draw(*value.shape, seed=20), 1e-5
        values = []
        for sign in (1, -1):
            moved = {**hyper, name: value + sign * step * along}
            values.append(float(outer(problem, x, y)(minimiser(problem, moved), moved)))
        slope = (values[0] - values[1]) / (2 * step)
        total = found.direct[name] + found.implicit[name]
        assert float((total * along).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-9)
    assert float(found.implicit["images"].norm()) > 1e-3 * float(found.direct["images"].norm())
    assert float(found.implicit["temperature"].abs()) == 0


def in_numpy(network, ridge):
    """The outer loss at (ω, ψ) and the exact ω*(ψ), on a body of one convolution, written in NumPy alone.

    ψ may be complex: the imaginary part of a function at ψ + i s e is s times its derivative along e, to all digits.
    """
    W, b, head, _ = (p.detach().numpy() for p in network.parameters())
    beta = 2.0

    def expand(x):
        """Features ``(n, m)`` and the Jacobian ``(n, C, p)`` of ``head · features + bias`` in W, b and the bias."""
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))  # n c i j a b
        z = np.einsum("ncijab,ocab->noij", windows, W) + b[:, None, None]
        pool = lambda t: t.reshape(*t.shape[:-2], 2, 2, 2, 2).mean((-3, -1))  # noqa: E731
        features = pool(np.log(1 + np.exp(beta * z)) / beta).reshape(len(x), -1)
        slope = 1 / (1 + np.exp(-beta * z))  # of softplus
        weight = np.moveaxis(head.reshape(C, len(W), 2, 2), 0, -1)  # o i j C
        entries = np.moveaxis(windows, (1, 4, 5), (1, 2, 3))  # n c a b i j
        by_W = np.einsum("ncaboij,oijC->nCocab", pool(slope[:, None, None, None] * entries[:, :, :, :, None]), weight)
        by_b = np.einsum("noij,oijC->nCo", pool(slope), weight)
        bias = np.broadcast_to(np.eye(C), (len(x), C, C))
        return features, np.concatenate([by_W.reshape(len(x), C, -1), by_b, bias], 2)

    def support(images, labels):
        return *expand(np.concatenate([images, images[..., ::-1]])), np.concatenate([labels, labels])

    def best(images, labels):
        h, J, Y = support(images, labels)
        A = np.kron(np.linalg.inv(h @ h.T + ridge * np.eye(len(h))), np.eye(C))
        J = J.reshape(len(h) * C, -1)
        return np.linalg.solve(J.T @ A @ J + np.eye(J.shape[1]), J.T @ A @ Y.reshape(-1))

    def loss(omega, images, labels, temperature, x, y):
        h, J, Y = support(images, labels)
        h_x, J_x = expand(x)
        f = J_x @ omega + h_x @ h.T @ np.linalg.solve(h @ h.T + ridge * np.eye(len(h)), Y - J @ omega)
        logits = np.exp(temperature) * f
        likelihood = logits[np.arange(len(y)), y] - np.log(np.exp(logits).sum(1))
        order = np.argsort(labels.real, 1)
        top, second = (np.take_along_axis(labels, order[:, -i, None], 1)[:, 0] for i in (1, 2))
        gap = top - second
        return -likelihood.mean() - np.where(gap.real < 0.5 / C, gap, 0.5 / C).mean()

    return best, loss


def test_a_meta_gradient_is_that_of_a_second_derivation_in_numpy():
    """Direct and implicit parts, by complex steps through the exact minimiser: no autograd, no torch."""
    network, ridge = seeded(), 0.4
    x, y = draw(9, 1, 4, 4, seed=5), torch.arange(9) % 3
    hyper = {**psi(), "temperature": torch.tensor(0.3).double()}
    hyper["labels"] = 0.2 * hyper["labels"]  # so that some margins count and some are cut
    problem = LinearizedRidge(network, ridge, with_mirror)
    omega = minimiser(problem, hyper)
    found = implicit_gradient(problem, outer(problem, x, y), omega, hyper, exact)

    best, loss = in_numpy(network, ridge)
    given = {name: value.numpy() for name, value in hyper.items()}
    held = best(given["images"], given["labels"])
    np.testing.assert_allclose(flat(omega).numpy(), held, rtol=1e-8, atol=1e-10)
    assert found.value == pytest.approx(loss(held, **given, x=x.numpy(), y=y.numpy()), rel=1e-10)
    for name, value in given.items():
        total, direct = np.empty((2, value.size))
        for i, unit in enumerate(np.eye(value.size)):
            moved = {**given, name: value + 1e-30j * unit.reshape(value.shape)}
            for kept, w in ((total, best(moved["images"], moved["labels"])), (direct, held)):
                kept[i] = loss(w, **moved, x=x.numpy(), y=y.numpy()).imag / 1e-30
        ours = [part[name].numpy().reshape(-1) for part in (found.direct, found.implicit)]
        np.testing.assert_allclose(ours[0], direct, rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(ours[1], total - direct, rtol=1e-7, atol=1e-10)


def test_a_linear_toy_agrees_with_autograd_through_the_closed_form():
    """L_s = ½‖ω − Bψ‖² + ½ μ ‖ω‖², so ω* = Bψ / (1 + μ): a problem of a user's own."""
    B, target, mu = draw(4, 6), draw(4, seed=1), 0.7

    class Toy(InnerProblem):
        def __init__(self):
            pass

        def zeros(self):
            return {"w": torch.zeros(4).double()}

        def loss(self, omega, hyper):
            return 0.5 * (omega["w"] - B @ hyper["images"]).square().sum() + 0.5 * mu * omega["w"].square().sum()

        def outputs(self, omega, hyper, x):
            raise NotImplementedError

    def loss(omega, hyper):
        return (omega["w"] - target).square().sum() + hyper["images"].sum()

    hyper = {"images": draw(6, seed=2)}
    omega = {"w": B @ hyper["images"] / (1 + mu)}
    for solver in (exact, lambda hvp, g: ConjugateGradients().invert(hvp, g, 10)):
        found = implicit_gradient(Toy(), loss, omega, hyper, solver)
        leaf = hyper["images"].clone().requires_grad_()
        expected = torch.autograd.grad(loss({"w": B @ leaf / (1 + mu)}, {"images": leaf}), leaf)[0]
        torch.testing.assert_close(found.direct["images"] + found.implicit["images"], expected, rtol=1e-6, atol=1e-9)


def test_no_steps_leave_the_direct_gradient():
    problem, x, y = LinearizedRidge(seeded(), 0.4), draw(9, 1, 4, 4, seed=5), torch.arange(9) % 3
    for solve in (ConjugateGradients().invert, lambda h, g, s: adam_quadratic_solve(h, g, s)):
        found = implicit_gradient(
            problem, outer(problem, x, y), direction(problem), psi(), lambda h, g, s=solve: s(h, g, 0)
        )
        assert all(float(value.abs().max()) == 0 for value in found.implicit.values())
        assert found.clipped()["images"].equal(found.direct["images"])
