"""What every feature map promises: one feature matrix, however it is asked for."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tangrams.data import Labelled
from tangrams.features import Chain, FeatureMap, ModelRef
from tangrams.operators import FeatureMatrix
from tangrams.operators.sketches import CountSketch, RademacherSketch
from tangrams.testing.conformance import Case, Suite

N = 5
"""Samples in a check."""


class FeatureMapSuite(Suite):
    """Checks of a map from data to rows of features.

    A case's ``make()`` gives a map; ``inputs`` gives what it takes, float64 throughout; ``reference``, where there is
    one, gives the dense rows: ``(map, x) -> (n * r, d)``. The dense rows ``phi(x)`` are what everything else has to
    agree with.
    """

    role = FeatureMap

    @staticmethod
    def check_shape(case: Case) -> None:
        """Rows are ``(n * rows_per_sample, num_features)``, dense and lazy alike."""
        phi, x = _map(case), _inputs(case)
        expected = (N * phi.rows_per_sample, phi.num_features)
        assert tuple(phi(x).shape) == expected
        matrix = phi.matrix(x)
        assert isinstance(matrix, FeatureMatrix)
        assert tuple(matrix.shape) == tuple(phi.rows(x).shape) == expected
        assert tuple(phi.gram(x).shape) == (expected[0], expected[0])
        assert tuple(phi.diag(x).shape) == expected[:1]

    @staticmethod
    def check_columns(case: Case) -> None:
        """Columns are named runs that follow one another and cover the features."""
        phi = _map(case)
        stop = 0
        for column in phi.columns:
            assert column.start == stop, f"{column.name} starts at {column.start}, the one before stops at {stop}"
            assert column.stop - column.start == torch.Size(column.shape).numel()
            stop = column.stop
        assert stop == phi.num_features
        names = [column.name for column in phi.columns]
        assert len(set(names)) == len(names)

    @staticmethod
    def check_reference(case: Case) -> None:
        """Rows are those of the slow implementation."""
        if case.reference is not None:
            phi, x = _map(case), _inputs(case)
            _same(phi(x), case.reference(phi, x))

    @staticmethod
    def check_dtype(case: Case) -> None:
        """One floating dtype, in every answer; float64 data give float64."""
        phi, x = _map(case), _inputs(case)
        answers = {phi(x).dtype, phi.matrix(x).dtype, phi.rows(x).dense().dtype, phi.gram(x).dtype, phi.diag(x).dtype}
        assert answers == {torch.float64}

    @staticmethod
    def check_determinism(case: Case) -> None:
        """The same bits at a second call and from a second map, whatever the global random state, which stays."""
        phi, x = _map(case), _inputs(case)
        before = torch.get_rng_state()
        first = phi(x).detach()
        grams = phi.gram(x)
        assert torch.equal(torch.get_rng_state(), before), "the global random state moved"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(12345)
            assert torch.equal(phi(x), first)
            assert torch.equal(_map(case)(x), first)
            assert torch.equal(phi.gram(x), grams)

    @staticmethod
    def check_batch_independence(case: Case) -> None:
        """A sample's rows do not depend on the others, nor on their order."""
        phi, x = _map(case), _inputs(case)
        r, rows = phi.rows_per_sample, phi(x)
        _same(phi(_take(x, [0, 1])), rows[: 2 * r])
        order = [3, 0, 4, 1, 2]
        _same(phi(_take(x, order)), rows.unflatten(0, (N, r))[order].flatten(0, 1))

    @staticmethod
    def check_inputs_are_left_alone(case: Case) -> None:
        """What the map is given is not written to."""
        phi, x = _map(case), _inputs(case)
        before = [tensor.clone() for tensor in _tensors(x)]
        _ = phi(x), phi.gram(x), phi.diag(x)
        assert all(torch.equal(a, b) for a, b in zip(before, _tensors(x), strict=True))

    @staticmethod
    def check_empty_batch(case: Case) -> None:
        """No samples give no rows, and every answer keeps its shape."""
        phi, x = _map(case), _inputs(case)
        none = _take(x, [])
        d, rows = phi.num_features, N * phi.rows_per_sample
        assert tuple(phi(none).shape) == tuple(phi.matrix(none).shape) == (0, d)
        assert tuple(phi.gram(none).shape) == (0, 0)
        assert tuple(phi.gram(x, none).shape) == (rows, 0)
        assert tuple(phi.gram(none, x).shape) == (0, rows)
        assert tuple(phi.diag(none).shape) == (0,)

    @staticmethod
    def check_gram_is_the_product_of_rows(case: Case) -> None:
        """``gram = Φ Φᵀ`` and ``gram(x, y) = Φ Ψᵀ``, symmetric; ``diag`` is its diagonal."""
        phi, x, y = _map(case), _inputs(case), _inputs(case, seed=1)
        Phi, Psi = phi(x), phi(y)
        gram = phi.gram(x)
        _same(gram, Phi @ Phi.mT)
        _same(gram, gram.mT)
        _same(phi.gram(x, y), Phi @ Psi.mT)
        _same(phi.diag(x), Phi.square().sum(1))

    @staticmethod
    def check_matrix_is_the_rows(case: Case) -> None:
        """The lazy matrix has the dense rows' products, rows, Gram and dense form."""
        phi, x, y = _map(case), _inputs(case), _inputs(case, seed=1)
        Phi, matrix = phi(x).detach(), phi.matrix(x)
        generator = torch.Generator().manual_seed(0)
        v = torch.randn(Phi.shape[1], 3, generator=generator, dtype=Phi.dtype)
        u = torch.randn(Phi.shape[0], 3, generator=generator, dtype=Phi.dtype)
        _same(matrix.to_dense(), Phi)
        _same(matrix @ v, Phi @ v)
        _same(matrix.mT @ u, Phi.mT @ u)
        _same(matrix[[2, 0, 2]].to_dense(), Phi[[2, 0, 2]])
        _same((matrix @ phi.matrix(y).mT).to_dense(), Phi @ phi(y).detach().mT)

    @staticmethod
    def check_sketching(case: Case) -> None:
        """``phi >> sketch`` is the sketch of the dense rows, and its Gram the product of those."""
        phi, x = _map(case), _inputs(case)
        for sketch in (CountSketch(4, seed=1), RademacherSketch(3, seed=2)):
            sketched = phi >> sketch
            expected = sketch.bind(phi.columns).project(phi(x).detach())
            _same(sketched(x), expected)
            _same(sketched.gram(x), expected @ expected.mT)
            assert sketched.num_features == sketch.num_features

    @staticmethod
    def check_stacking(case: Case) -> None:
        """``phi | phi`` has the columns twice and twice the Gram; its own sketch is the sketch of both."""
        phi, x = _map(case), _inputs(case)
        both = phi | phi
        Phi = phi(x).detach()
        _same(both(x), torch.cat([Phi, Phi], 1))
        _same(both.gram(x), 2 * Phi @ Phi.mT)
        assert both.num_features == 2 * phi.num_features
        sketch = CountSketch(4, seed=1)
        _same((both >> sketch)(x), sketch.bind(both.columns).project(torch.cat([Phi, Phi], 1)))

    @staticmethod
    def check_brackets_do_not_matter(case: Case) -> None:
        """``(a | b) | c`` and ``a | (b | c)``, a chain in a chain: the same state keys and features."""
        phi, x = _map(case), _inputs(case)
        left, right = (phi | phi) | phi, phi | (phi | phi)
        assert list(left.state_dict()) == list(right.state_dict())
        assert torch.equal(left(x), right(x))
        sketches = CountSketch(6, seed=1), RademacherSketch(3, seed=2)
        chained = (phi >> sketches[0]) >> sketches[1]
        assert isinstance(chained, Chain)
        assert len(chained.parts) == len(phi.parts if isinstance(phi, Chain) else [phi]) + 2
        once = sketches[0].bind(phi.columns).project(phi(x).detach())
        _same(chained(x), sketches[1].bind(6).project(once))

    @staticmethod
    def check_state_round_trip(case: Case) -> None:
        """A fresh map with the state of another, and a deep copy, give the same features."""
        phi, x = _map(case), _inputs(case)
        fresh = _map(case)
        with torch.no_grad():
            for tensor in fresh.state_dict().values():
                tensor.zero_()
        fresh.load_state_dict(phi.state_dict())
        assert torch.equal(fresh(x), phi(x))
        assert torch.equal(copy.deepcopy(phi)(x), phi(x))

    @staticmethod
    def check_description(case: Case) -> None:
        """The description is JSON, names the class, and is the same for the same map."""
        phi = _map(case)
        text = json.dumps(phi.describe(), sort_keys=True)
        assert type(phi).__name__ in text
        assert json.dumps(_map(case).describe(), sort_keys=True) == text

    @staticmethod
    def check_the_network_stays_the_users(case: Case) -> None:
        """Nothing of a network that the map refers to is in its parameters, state or reach."""
        phi, x = _map(case), _inputs(case)
        for model in _networks(phi):
            theirs = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
            ours = {tensor.data_ptr() for tensor in (*phi.parameters(), *phi.buffers(), *phi.state_dict().values())}
            assert not theirs & ours, "weights of the network are in the map's state"
            assert model not in set(phi.modules()), "the network is a submodule of the map"
            modes = [module.training for module in model.modules()]
            for mode in (True, False):
                phi.train(mode)
                for question in (phi, phi.gram, phi.diag):
                    question(x)
                    assert [module.training for module in model.modules()] == modes, "the network's mode changed"
            assert all(p.grad is None for p in model.parameters()), "the network got gradients"
            assert model in set(_networks(copy.deepcopy(phi))), "a copy of the map copied the network"


def _map(case: Case) -> FeatureMap:
    """A map that has met data, so that what depends on the number of outputs is known."""
    phi = case.make()
    phi(_take(_inputs(case), [0]))
    return phi


def _inputs(case: Case, seed: int = 0) -> Any:
    assert case.inputs is not None, "a case of this suite has inputs"
    return case.inputs(N, torch.Generator().manual_seed(seed))


def _same(got: Any, expected: Tensor) -> None:
    """Equal up to the rounding of float64, relative to the largest entry."""
    assert got.shape == expected.shape, f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    error = float((got - expected).detach().abs().max()) / max(float(expected.detach().abs().max()), 1e-30)
    assert error < 1e-10, f"relative error {error:.1e}"


def _take(x: Any, index: list[int]) -> Any:
    """Some samples of whatever a map takes."""
    if isinstance(x, Tensor):
        return x[index]
    if isinstance(x, Labelled):
        return Labelled(_take(x.inputs, index), x.targets[index])
    if isinstance(x, Mapping):
        return {key: _take(value, index) for key, value in x.items()}
    if isinstance(x, tuple | list):
        return tuple(_take(value, index) for value in x)
    return x


def _tensors(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    values = x.values() if isinstance(x, Mapping) else x if isinstance(x, tuple | list) else ()
    return [tensor for value in values for tensor in _tensors(value)]


def _networks(phi: FeatureMap) -> list[nn.Module]:
    """The networks that a map or any of its parts holds by reference."""
    found = []
    for part in phi.modules():
        held = [
            *vars(part).values(),
            *(v for value in vars(part).values() for v in getattr(value, "__dict__", {}).values()),
        ]
        for value in held:
            if isinstance(value, ModelRef):
                found.append(value.model)
    return found
