"""Random features of the Gaussian and the softmax kernel: no bias, and the variance of the formula."""

import math

import pytest
import torch
from sklearn.kernel_approximation import RBFSampler
from sklearn.metrics.pairwise import rbf_kernel

from tangrams.features.random import (
    HadamardRotation,
    IIDCoupling,
    OrthogonalCoupling,
    PositiveRandomFeatures,
    SimplexCoupling,
    SimplexPlusCoupling,
    SoftmaxRandomFeatures,
    TrigonometricRandomFeatures,
)
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.feature_map import FeatureMapSuite

COUPLINGS = [IIDCoupling, OrthogonalCoupling, SimplexCoupling, SimplexPlusCoupling]
MAPS = [PositiveRandomFeatures, SoftmaxRandomFeatures, TrigonometricRandomFeatures]


def gaussian_by_hand(phi, x):
    W, x = phi.directions(x), x.flatten(1) / phi.lengthscale
    return torch.exp(x @ W.mT - x.square().sum(1, keepdim=True)) / math.sqrt(phi.num_features)


def softmax_by_hand(phi, x):
    W, x = phi.directions(x), x.flatten(1) / phi.lengthscale
    return torch.exp(x @ W.mT - x.square().sum(1, keepdim=True) / 2) / math.sqrt(phi.num_features)


def trigonometric_by_hand(phi, x):
    u = x.flatten(1) / phi.lengthscale @ phi.directions(x).mT
    out = x.new_empty(len(x), phi.num_features)
    out[:, ::2], out[:, 1::2] = u.cos(), u.sin()
    return out / math.sqrt(phi.num_features / 2)


fast = SimplexCoupling(HadamardRotation())

TestKernelFeatures = conformance(
    FeatureMapSuite,
    Case(lambda: PositiveRandomFeatures(4, 10, lengthscale=2.0, seed=1), normal(4), gaussian_by_hand),
    Case(lambda: PositiveRandomFeatures(6, 300, coupling=fast), normal(2, 3), gaussian_by_hand, name="Positive-fast"),
    Case(lambda: SoftmaxRandomFeatures(4, 7, coupling=SimplexPlusCoupling()), normal(4), softmax_by_hand),
    Case(lambda: TrigonometricRandomFeatures(4, 10, lengthscale=0.7), normal(4), trigonometric_by_hand),
)


def pair(d, kind, seed=0):
    """Two samples at which no coupling's error is dominated by draws too rare to be seen."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, d, generator=generator, dtype=torch.float64)
    y = torch.randn(1, d, generator=generator, dtype=torch.float64)
    x, y = 0.5 * x / x.norm(), 0.4 * y / y.norm()
    return (x, y) if kind is not TrigonometricRandomFeatures else (3 * x, -3 * y)


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("kind", MAPS)
def test_estimates_have_no_bias_and_the_variance_of_the_formula(kind, coupling):
    d, m, repeats = 5, 7, 8000  # one group of five and a cut one of two
    x, y = pair(d, kind)
    columns = kind.columns_per_direction
    width = 10 * columns
    phi = kind(d, width * repeats, coupling=coupling(), lengthscale=1.3)
    products = (phi(x) * phi(y)).reshape(repeats, width)[:, : m * columns].sum(1) * (10 * repeats / m)
    exact = kind(d, m * columns, coupling=coupling(), lengthscale=1.3)
    error = products - float(phi.kernel(x, y))
    assert abs(float(error.mean() / (error.std() / math.sqrt(repeats)))) < 4
    squares = error.square()
    z = (squares.mean() - exact.variance(x, y)[0]) / (squares.std() / math.sqrt(repeats))
    assert abs(float(z)) < 4


@pytest.mark.parametrize("kind", MAPS)
def test_directions_are_handed_out_as_a_copy(kind):
    phi, x = kind(4, 10, coupling=IIDCoupling()), torch.eye(4, dtype=torch.float64)
    before = phi(x)
    phi.directions(x).zero_()
    assert torch.equal(phi(x), before)


@pytest.mark.parametrize("kind", [PositiveRandomFeatures, SoftmaxRandomFeatures])
def test_positive_errors_are_in_the_order_that_the_paper_proves(kind):
    d, generator = 8, torch.Generator().manual_seed(1)
    x = torch.randn(5, d, generator=generator, dtype=torch.float64) * 0.6
    y = torch.randn(5, d, generator=generator, dtype=torch.float64) * 0.6
    iid, orthogonal, simplex, plus = (kind(d, d, coupling=coupling()).variance(x, y) for coupling in COUPLINGS)
    assert bool((orthogonal < iid).all())
    assert bool((simplex < orthogonal).all())
    assert bool((plus < simplex * (1 + 1e-6)).all())


def test_closed_forms_agree_with_a_simulation_of_six_dimensions():
    x, y = torch.zeros(1, 6, dtype=torch.float64), torch.zeros(1, 6, dtype=torch.float64)
    x[0, 0], y[0, 0], y[0, 1] = 0.9, -0.0637, 0.6971
    found = [float(PositiveRandomFeatures(6, 6, coupling=coupling()).variance(x, y)) for coupling in COUPLINGS]
    # A million groups of six gave 0.0407 ± 0.0005 for the last.
    assert found == pytest.approx([0.092, 0.078, 0.0445, 0.0405], abs=0.0005)


def test_errors_depend_on_lengths_and_angle_alone():
    Q, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    x, y = pair(5, PositiveRandomFeatures)
    for kind in MAPS:
        phi = kind(5, 10)
        torch.testing.assert_close(phi.variance(x @ Q, y @ Q), phi.variance(x, y), rtol=1e-10, atol=0)


def test_independent_groups_average_and_a_single_direction_has_no_partner():
    x, y = pair(4, PositiveRandomFeatures)
    one, four = (PositiveRandomFeatures(4, 4 * groups).variance(x, y) for groups in (1, 4))
    torch.testing.assert_close(four, one / 4, rtol=1e-12, atol=0)
    alone = PositiveRandomFeatures(4, 1).variance(x, y)
    torch.testing.assert_close(alone, PositiveRandomFeatures(4, 1, coupling=IIDCoupling()).variance(x, y))


def test_orthogonal_directions_suit_trigonometric_features_better_than_the_simplex():
    x, y = pair(6, TrigonometricRandomFeatures)
    iid, orthogonal, simplex, _ = (
        float(TrigonometricRandomFeatures(6, 12, coupling=coupling()).variance(x, y)) for coupling in COUPLINGS
    )
    assert orthogonal < simplex < iid


@pytest.mark.parametrize("coupling", [IIDCoupling(), SimplexCoupling(), SimplexPlusCoupling()])
def test_no_pairs_have_no_variances(coupling):
    for make in (PositiveRandomFeatures, TrigonometricRandomFeatures):
        none = torch.empty(0, 4)
        assert make(4, 8, coupling=coupling).variance(none, none).shape == (0,)


def test_variances_stay_finite_where_the_plain_terms_overflow():
    x = torch.full((1, 16), 3.0, dtype=torch.float64)
    for coupling in COUPLINGS:
        phi = PositiveRandomFeatures(16, 16, coupling=coupling())
        assert bool(phi.variance(x, -x).isfinite().all())
        assert bool(phi.variance(x, 0.9 * x).isfinite().all())


def test_positive_features_are_positive_and_their_logarithms_do_not_overflow():
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 2
    phi = PositiveRandomFeatures(5, 64)
    assert bool((phi(x) > 0).all())
    torch.testing.assert_close(phi.log_features(x).exp(), phi(x))
    far = SoftmaxRandomFeatures(5, 64).log_features(100 * x)
    assert bool(far.isfinite().all())


def test_kernels_are_scikit_learns_and_features_are_as_close_to_it_as_its_own():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phi = TrigonometricRandomFeatures(6, 600, lengthscale=1.5, coupling=IIDCoupling())
    exact = rbf_kernel(x.numpy(), gamma=0.5 / 1.5**2)
    torch.testing.assert_close(phi.kernel(x, x), torch.from_numpy(exact), rtol=1e-12, atol=1e-14)
    theirs = RBFSampler(gamma=0.5 / 1.5**2, n_components=600, random_state=0).fit_transform(x.numpy())
    error = abs(theirs @ theirs.T - exact).mean()
    assert float((phi.gram(x) - torch.from_numpy(exact)).abs().mean()) < 1.3 * error
    softmax = SoftmaxRandomFeatures(6, 6, lengthscale=1.5).kernel(x, x)
    torch.testing.assert_close(softmax, torch.exp(x @ x.mT / 1.5**2), rtol=1e-12, atol=0)


def test_features_are_differentiable_in_the_samples():
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    for kind in MAPS:
        assert torch.autograd.gradcheck(kind(3, 6), (x,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PositiveRandomFeatures(1, 4), "in_features ≥ 2"),
        (lambda: PositiveRandomFeatures(4, 0), "sizes ≥ 1"),
        (lambda: PositiveRandomFeatures(4, 4, lengthscale=0.0), "lengthscale > 0"),
        (lambda: TrigonometricRandomFeatures(4, 5), "2 columns a direction"),
        (lambda: SoftmaxRandomFeatures(2, 2)(torch.tensor([[0.0, math.inf]])), "sample 0"),
    ],
    ids=["one dimension", "no features", "length scale", "odd", "infinite"],
)
def test_bad_input_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
