"""Samples of planar and linear densities have the moments of those."""

import math

import pytest
import torch

from tangrams.data import eight_gaussians, image_density, two_modes


def test_eight_gaussians_lie_around_eight_points():
    x = eight_gaussians(8000, std=0.1)
    octant = (torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)).round().long() % 8
    counts = octant.bincount(minlength=8)
    assert ((counts - 1000) / math.sqrt(1000 * 7 / 8)).abs().max() < 4
    assert abs(float(x.norm(dim=1).mean()) - 5) < 0.01
    assert torch.equal(x[:10], eight_gaussians(8000, std=0.1)[:10])


def test_two_modes_are_on_both_sides():
    x = two_modes(4000, distance=6.0, std=0.3)[:, 0]
    assert abs(float((x > 0).float().mean()) - 0.5) < 4 * 0.5 / math.sqrt(4000)
    assert float(x[x > 0].mean()) == pytest.approx(3.0, abs=0.03)


def test_a_picture_stands_upright():
    picture = torch.zeros(4, 4)
    picture[0, 3] = 3.0
    picture[3, 0] = 1.0
    x = image_density(picture, 4000)
    corner = (x[:, 0] > 0.5) & (x[:, 1] > 0.5)
    other = (x[:, 0] < -0.5) & (x[:, 1] < -0.5)
    assert bool((corner | other).all())
    assert abs(float(corner.float().mean()) - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4000)


def test_impossible_arguments_are_refused():
    for draw in (eight_gaussians, two_modes):
        with pytest.raises(ValueError, match="n ≥ 1"):
            draw(0)
    with pytest.raises(ValueError, match="picture"):
        image_density(-torch.ones(2, 2), 3)
