import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from tangrams.lens.spectra import as_matrix, fresh_spectrum, power_law_windows, weight_spectrum
from tangrams.operators.spectra import hill_alpha


def test_kernel_positions_count_as_inputs_and_a_transposed_convolution_is_turned():
    weight = torch.randn(5, 3, 2, 2)
    assert as_matrix(weight).shape == (5, 12)
    turned = as_matrix(weight, transposed=True)
    assert turned.shape == (3, 20)
    torch.testing.assert_close(turned[1], weight[:, 1].flatten().double())


def test_bad_weights_are_refused():
    with pytest.raises(ValueError, match="two axes"):
        as_matrix(torch.randn(4))
    with pytest.raises(ValueError, match="two axes"):
        as_matrix(torch.randn(0, 4))
    with pytest.raises(ValueError, match="not finite"):
        as_matrix(torch.tensor([[1.0, math.inf]]))


def test_the_spectrum_is_that_of_the_smaller_gram_matrix():
    matrix = torch.randn(7, 12, dtype=torch.float64)
    expected = torch.linalg.eigvalsh(matrix @ matrix.mT).flip(0)
    torch.testing.assert_close(weight_spectrum(matrix), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(weight_spectrum(matrix.mT), expected, rtol=1e-10, atol=1e-10)


LAYERS = {
    "linear": (lambda: nn.Linear(40, 20), "weight"),
    "convolution": (lambda: nn.Conv2d(4, 8, 3), "weight"),
    "transposed convolution": (lambda: nn.ConvTranspose1d(4, 8, 3), "weight"),
    "grouped convolution": (lambda: nn.Conv1d(8, 8, 3, groups=4), "weight"),
    "embedding": (lambda: nn.Embedding(30, 8, padding_idx=0), "weight"),
    "bilinear": (lambda: nn.Bilinear(4, 5, 6), "weight"),
    "recurrent": (lambda: nn.LSTM(6, 8), "weight_hh_l0"),
    "attention": (lambda: nn.MultiheadAttention(8, 2), "in_proj_weight"),
    "spectrally normalised": (lambda: parametrizations.spectral_norm(nn.Linear(9, 7)), "weight"),
    "weight normalised": (lambda: parametrizations.weight_norm(nn.Conv1d(4, 6, 3)), "weight"),
}


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_fresh_layers_are_drawn_without_touching_the_layer_or_the_random_state(kind):
    make, name = LAYERS[kind]
    module = make()
    before, rng = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    spectra = fresh_spectrum(module, name, seed=3, draws=4)
    assert spectra is not None
    assert spectra.shape[0] == 4
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert torch.equal(spectra, fresh_spectrum(module, name, seed=3, draws=4))
    assert not torch.equal(spectra[0], spectra[1])


@pytest.mark.parametrize("kind", ["linear", "convolution", "recurrent", "attention", "transposed convolution"])
def test_a_layer_just_made_looks_like_a_fresh_one(kind):
    make, name = LAYERS[kind]
    module = make()
    transposed = isinstance(module, nn.ConvTranspose1d)
    own = weight_spectrum(as_matrix(getattr(module, name), transposed=transposed))
    fresh = fresh_spectrum(module, name, draws=20)
    assert fresh is not None
    z = (own[0] - fresh[:, 0].mean()) / fresh[:, 0].std()
    assert abs(float(z)) < 4


class Raw(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))


def test_a_module_that_does_not_say_how_it_begins_has_no_fresh_spectrum():
    assert fresh_spectrum(Raw(), "weight") is None


def test_hill_exponents_of_noise_depend_on_the_shape_as_the_literature_says():
    torch.manual_seed(0)
    for columns, expected in ((256, 2.12), (512, 2.71), (1024, 3.48), (2048, 4.48)):
        spectrum = weight_spectrum(torch.randn(256, columns, dtype=torch.float64))
        assert hill_alpha(spectrum) == pytest.approx(expected, abs=0.1)


def test_a_pure_power_law_has_one_exponent_in_every_window():
    spectrum = torch.arange(1, 401, dtype=torch.float64) ** -1.7
    found = power_law_windows(spectrum[torch.randperm(400)], skip=10)
    assert found.exponent == pytest.approx(1.7, abs=1e-9)
    assert found.low == pytest.approx(found.high, abs=1e-9)
    assert len(found.windows) >= 5
    assert found.windows[0][:2] == (10, 200)
    assert all(10 <= a < b <= 200 for a, b, _ in found.windows)


def test_a_bent_spectrum_shows_its_bend_as_spread():
    ranks = torch.arange(1, 1001, dtype=torch.float64)
    bent = ranks**-1 / (1 + (ranks / 100))
    found = power_law_windows(bent, skip=10)
    assert found.low < 1.3
    assert found.high > 1.6
    assert found.low <= found.exponent <= found.high


def test_the_first_ranks_and_the_last_half_do_not_count():
    spectrum = torch.arange(1, 401, dtype=torch.float64) ** -1.7
    touched = spectrum.clone()
    touched[:9] *= 50
    touched[200:] = 1e-12
    assert power_law_windows(touched, skip=10).exponent == pytest.approx(1.7, abs=1e-9)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="eight ranks"):
        power_law_windows(torch.rand(30), skip=10)
