import functools

import pytest

import tangrams.learners.selection as selection
from tangrams.claims import c007_deep_batch_active_learning as batches
from tangrams.claims import claims
from tangrams.learners import BatchSelector, RandomSelection


def _class_of(selector):
    return selector.func if isinstance(selector, functools.partial) else selector


def test_every_selection_is_measured_on_gradients_and_on_the_last_layer():
    exported = [getattr(selection, name) for name in selection.__all__]
    selectors = {c for c in exported if isinstance(c, type) and issubclass(c, BatchSelector)}
    measured = {_class_of(chosen.selector) for chosen in batches._SELECTIONS.values()}
    assert measured == selectors - {BatchSelector, RandomSelection}
    assert len(batches._METHODS) == 1 + 2 * len(measured)
    assert claims()["deep-batch-active-learning"].presets["full"]["methods"] == batches._METHODS


@pytest.mark.parametrize("preset", ["quick", "full", "gpu"])
@pytest.mark.parametrize("slug", ["tangent-model-composition", "tangent-transformers"])
def test_every_way_of_fine_tuning_is_tuned_over_as_many_values(slug, preset):
    settings = claims()[slug].presets[preset]
    assert len({len(settings[name]) for name in ("rates", "ridges", "adam_rates") if name in settings}) == 1
