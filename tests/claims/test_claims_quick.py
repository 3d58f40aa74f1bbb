from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
import torch

from tangrams.claims import Evidence, catalogue, claims, measure
from tangrams.claims.runner import Record, keep, kept
from tangrams.data import DataNotFoundError


@pytest.mark.slow
@pytest.mark.parametrize("slug", sorted(claims()))
def test_the_quick_preset_measures_the_direction_of_the_paper(slug, tmp_path):
    finding = next(row.finding for row in catalogue() if row.slug == slug)
    state = torch.random.get_rng_state()
    record, evidence = measure(slug, "quick")
    assert torch.equal(state, torch.random.get_rng_state())
    assert evidence.verdict in {"holds", "holds in part"} or finding
    assert evidence.numbers
    assert isinstance(evidence.figure, matplotlib.figure.Figure)
    keep(record, evidence, tmp_path)
    assert kept(tmp_path)[slug].verdict == record.verdict


def test_missing_data_skip_a_claim_and_never_pass_it(monkeypatch):
    import dataclasses

    from tangrams.claims import runner

    def measure_without_data(**settings) -> Evidence:
        raise DataNotFoundError("mnist is not here: set TANGRAMS_DATA")

    slug, claim = next(iter(claims().items()))
    monkeypatch.setattr(runner, "claims", lambda: {slug: dataclasses.replace(claim, measure=measure_without_data)})
    record, _ = measure(slug, "quick")
    assert record.verdict == "skipped: data"
    assert "TANGRAMS_DATA" in record.sentence


def test_measuring_puts_the_global_random_state_back_after_an_error(monkeypatch):
    import dataclasses

    from tangrams.claims import runner

    def fails(**settings) -> Evidence:
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.set_default_dtype(torch.float64)
        raise RuntimeError("no")

    slug, claim = next(iter(claims().items()))
    monkeypatch.setattr(runner, "claims", lambda: {slug: dataclasses.replace(claim, measure=fails)})
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with pytest.raises(RuntimeError, match="no"):
        measure(slug, "quick")
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_evidence_that_cannot_be_drawn_leaves_what_was_kept(tmp_path):
    class Broken(matplotlib.figure.Figure):
        def savefig(self, fname, **options):
            Path(fname).write_bytes(b"half")
            raise OSError("no space left on device")

    slug, claim = next(iter(claims().items()))
    settings = {
        "number": claim.number,
        "slug": slug,
        "preset": "quick",
        "statement": "",
        "baselines": (),
        "seconds": 1.0,
    }
    record = Record(**settings, verdict="holds", sentence="", numbers={}, settings={}, versions={})
    keep(record, Evidence("holds", "", {}, matplotlib.figure.Figure()), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OSError, match="no space"):
        keep(record, Evidence("holds", "", {}, Broken()), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
