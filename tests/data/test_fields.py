"""Signals, solids and scenes."""

import math

import pytest
import torch

from tangrams.data import gyroid_solid, orbit_rays, render_rays, sine_mixture, striped_balls
from tangrams.lens import radial_power


def test_each_sine_is_one_coefficient_of_unit_size():
    x, y = sine_mixture(256, (3, 7))
    assert float(x[0]) == -1
    spectrum = torch.fft.rfft(y[:, 0].double()).abs() / 128
    expected = torch.zeros(129, dtype=torch.float64)
    expected[[6, 14]] = 1
    torch.testing.assert_close(spectrum, expected, atol=1e-5, rtol=0)


def test_the_sponge_has_walls_within_a_hull():
    p, inside = gyroid_solid(21, periods=2.0)
    assert p.shape == (21**3, 3)
    assert set(inside.unique().tolist()) == {0.0, 1.0}
    assert not inside[p.norm(dim=1) >= 0.9].any()
    for i in (0, 4000, 4630, 5000):
        a, b, c = (2 * math.pi * v for v in p[i].tolist())
        value = math.sin(a) * math.cos(b) + math.sin(b) * math.cos(c) + math.sin(c) * math.cos(a)
        assert bool(inside[i]) == (abs(value) < 0.5 and math.hypot(*p[i].tolist()) < 0.9)
    volumes = [float(gyroid_solid(21, wall=w)[1].mean()) for w in (0.2, 0.5, 1.6)]
    assert volumes == sorted(volumes)
    assert volumes[2] == pytest.approx(4 / 3 * math.pi * 0.9**3 / 8, rel=0.2)


def test_cameras_look_at_the_origin_from_all_around():
    origins, directions = orbit_rays(4, 6)
    assert origins.shape == directions.shape == (4 * 36, 3)
    torch.testing.assert_close(origins.norm(dim=1), torch.full((144,), 3.0))
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(144))
    distance = torch.linalg.cross(origins, directions).norm(dim=1).reshape(4, 36)
    assert (distance < 1.5).all()
    centre = directions.reshape(4, 36, 3).mean(1)
    torch.testing.assert_close(torch.nn.functional.normalize(centre, dim=1), -origins[::36] / 3)
    first = directions.reshape(4, 6, 6, 3)
    assert (first[:, 0, :, 2] > first[:, -1, :, 2]).all()  # the upper row looks up


def test_a_slab_is_rendered_by_the_law_of_beer():
    """Constant density: the sum telescopes to 1 − exp(−σ s δ), at any number of steps."""
    for s in (1, 7, 400):
        seen = render_rays(torch.full((2, s, 3), 0.5), torch.full((2, s), 1.5), 2 / s)
        torch.testing.assert_close(seen, torch.full((2, 3), 0.5 * (1 - math.exp(-3))))


def test_what_is_in_front_hides_what_is_behind():
    colour = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    assert torch.equal(render_rays(colour, torch.tensor([1e4, 1e4]), 1.0), colour[0])
    assert torch.equal(render_rays(colour, torch.tensor([0.0, 1e4]), 1.0), colour[1])


def test_a_rendered_scene_has_balls_on_black_with_fine_stripes():
    origins, directions = orbit_rays(2, 24)
    depth = 2 + (torch.arange(200) + 0.5) * 0.01
    pictures = render_rays(*striped_balls(origins[:, None] + depth[:, None] * directions[:, None]), 0.01)
    pictures = pictures.reshape(2, 24, 24, 3)
    assert float(pictures.min()) >= 0
    assert float(pictures.max()) < 1
    assert float(pictures[:, 0, 0].max()) < 0.01
    assert 0.2 < float((pictures.amax(-1) > 0.1).float().mean()) < 0.9
    power = radial_power(pictures.movedim(-1, 1), 4)
    assert float((power[..., 2:].sum(-1) / power.sum(-1)).min()) > 1e-3


def test_sizes_that_make_no_sense_are_refused():
    for call in (
        lambda: sine_mixture(100, (30,)),
        lambda: sine_mixture(100, ()),
        lambda: gyroid_solid(1),
        lambda: gyroid_solid(4, wall=0.0),
        lambda: orbit_rays(0, 4),
    ):
        with pytest.raises(ValueError, match="needs"):
            call()
