"""torch's own list of modules: every parametrised class, against the dense reference."""

from __future__ import annotations

import pytest

from tangrams.features import TangentFeatures
from tangrams.testing.module_db import networks, parametrised
from tangrams.testing.reference import reference_rows

pytest.importorskip("expecttest", reason="torch's module_db imports it")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
MODULES = parametrised()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_of_torch_has_exact_tangent_features(name):
    count = 0
    for network, x in networks(MODULES[name]):
        J = reference_rows(network, x)
        scale = J.abs().max().clamp(min=1e-30)
        phi = TangentFeatures(network)
        assert (phi(x) - J).abs().max() / scale < 1e-10
        assert (phi.gram(x) - J @ J.mT).abs().max() / (J @ J.mT).abs().max().clamp(min=1e-30) < 1e-10
        count += 1
    assert count > 0


def test_torch_lists_at_least_the_classes_of_the_release_we_measured():
    assert len(MODULES) >= 34
