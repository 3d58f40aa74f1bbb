"""Facts of sheet 022 about the labelled pseudo-NTK."""

import pytest
import torch
from torch import nn

from tangrams.data import Labelled
from tangrams.kernels import CosineKernel, EmpiricalNTK, LabelledPseudoNTK


def network(C=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, C)).double()


def samples(n, C=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return Labelled(x, torch.randint(C, (n,), generator=generator))


def signs(y, C):
    return 2 * nn.functional.one_hot(y, C).double() - 1


def test_kappa_is_the_signed_contraction_of_the_full_kernel():
    net, u, o = network(), samples(5), samples(7, seed=1)
    blocks = EmpiricalNTK(net).blocks(u.inputs, o.inputs)
    expected = torch.einsum("ic,ijcd,jd->ij", signs(u.targets, 4), blocks, signs(o.targets, 4)) / 4
    torch.testing.assert_close(LabelledPseudoNTK(net).gram(u, o), expected, rtol=1e-8, atol=1e-10)


def test_permuting_outputs_and_labels_together_changes_nothing():
    net, data = network(), samples(6)
    permutation = torch.tensor([2, 0, 3, 1])
    permuted = network()
    with torch.no_grad():
        for mine, theirs in zip(permuted.parameters(), net.parameters(), strict=True):
            mine.copy_(theirs)
        permuted[2].weight.copy_(net[2].weight[permutation])
        permuted[2].bias.copy_(net[2].bias[permutation])
    moved = Labelled(data.inputs, permutation.argsort()[data.targets])
    expected = LabelledPseudoNTK(net).gram(data)
    torch.testing.assert_close(LabelledPseudoNTK(permuted).gram(moved), expected, rtol=1e-10, atol=1e-12)


def test_two_opposite_logits_give_twice_the_scalar_kernel():
    class Opposite(nn.Module):
        def __init__(self, g):
            super().__init__()
            self.g = g

        def forward(self, x):
            return torch.cat([-self.g(x), self.g(x)], dim=1)

    g, data = network(C=1), samples(6, C=2)
    sign = 2.0 * data.targets - 1
    expected = 2 * sign[:, None] * sign * EmpiricalNTK(g).gram(data.inputs)
    torch.testing.assert_close(LabelledPseudoNTK(Opposite(g)).gram(data), expected, rtol=1e-10, atol=1e-12)


def test_a_single_logit_takes_labels_of_plus_and_minus_one():
    g, data = network(C=1), samples(6, C=2)
    sign = 2 * data.targets - 1
    kernel = LabelledPseudoNTK(g)
    expected = sign[:, None] * sign * EmpiricalNTK(g).gram(data.inputs)
    torch.testing.assert_close(kernel.gram(Labelled(data.inputs, sign)), expected, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="±1, got 0"):
        kernel.gram(Labelled(data.inputs, torch.zeros(6, dtype=torch.int64)))


def test_two_classes_make_a_sample_contradict_itself_with_the_other_label():
    net, data = network(C=2), samples(5, C=2)
    flipped = Labelled(data.inputs, 1 - data.targets)
    cosine = CosineKernel(LabelledPseudoNTK(net)).gram(data, flipped).diagonal()
    torch.testing.assert_close(cosine, -torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.tensor([0, 4]), "0 … 3, got 4 at sample 1"),
        (torch.tensor([-1, 0]), "0 … 3, got -1 at sample 0"),
        (torch.tensor([0]), "2 samples and 1 labels"),
        (torch.tensor([[0], [1]]), "one label per sample"),
    ],
)
def test_labels_that_do_not_fit_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        LabelledPseudoNTK(network()).gram(Labelled(samples(2).inputs, bad))


def test_values_for_labels_and_bare_inputs_are_refused():
    kernel = LabelledPseudoNTK(network())
    with pytest.raises(TypeError, match="integers"):
        kernel.gram(Labelled(samples(2).inputs, torch.tensor([0.5, 1.0])))
    with pytest.raises(TypeError, match="Labelled"):
        kernel.gram(samples(2).inputs)


def test_a_network_that_ends_in_a_softmax_is_warned_about():
    with pytest.warns(UserWarning, match="logits"):
        LabelledPseudoNTK(nn.Sequential(network(), nn.Softmax(1))).gram(samples(3))
