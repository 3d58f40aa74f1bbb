import pytest
import torch

from tangrams.features.tangent.axis import Axis, find_axis

WEIGHTS = torch.tensor([1.0, 4.0, 0.5, 2.0, 8.0], dtype=torch.float64)


def weighted(plain, axis):
    first = axis.samples_first(plain.clone(), len(WEIGHTS))
    scaled = first * WEIGHTS.reshape(-1, *[1] * (first.ndim - 1))
    return scaled.movedim(0, axis.dim + 1).reshape(plain.shape)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((5, 3), Axis(0, 1, 1)),
        ((35, 3), Axis(0, 1, 7)),
        ((35, 3), Axis(0, 7, 1)),
        ((30, 3), Axis(0, 2, 3)),
        ((5, 5, 3), Axis(1, 1, 1)),
        ((25, 3), Axis(0, 5, 1)),
        ((25, 3), Axis(0, 1, 5)),
    ],
)
def test_the_sample_axis_is_found_wherever_it_lies(shape, axis):
    plain = torch.randn(shape, dtype=torch.float64)
    assert find_axis(plain, weighted(plain, axis), WEIGHTS, range(len(shape) - 1)) == axis


def test_a_gradient_that_mixes_samples_has_no_axis():
    plain = torch.randn(5, 3, dtype=torch.float64)
    mixed = WEIGHTS[:, None] * plain + plain.mean(0)
    assert find_axis(plain, mixed, WEIGHTS, [0]) is None


def test_a_zero_gradient_with_several_candidates_is_left_undecided():
    zero = torch.zeros(35, 3, dtype=torch.float64)
    assert find_axis(zero, zero, WEIGHTS, [0]) is None
    assert find_axis(zero[:5], zero[:5], WEIGHTS, [0]) == Axis(0, 1, 1)


def test_samples_first_undoes_positions_by_samples():
    rows = torch.arange(6).repeat_interleave(4).reshape(24, 1)  # positions × samples: sample varies fastest
    by_position = torch.arange(4).repeat(6).reshape(24, 1)
    first = Axis(0, 6, 1).samples_first(by_position, 4).reshape(4, 6)
    assert torch.equal(first, torch.arange(4)[:, None].expand(4, 6))
    assert torch.equal(Axis(0, 1, 4).samples_first(rows, 6).reshape(6, 4), torch.arange(6)[:, None].expand(6, 4))
