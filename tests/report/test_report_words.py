"""Numbers as they are written."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from tangrams.study.report import png, signed_png
from tangrams.study.report.svg import Linear, padded
from tangrams.study.report.words import (
    about,
    count,
    duration,
    interval,
    listing,
    memory,
    number,
    percent,
    plural,
    points,
    provenance,
    setting,
    value,
)

S = "\u202f"


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (0, "0"),
        (1.2345, "1.23"),
        (0.0123456, "0.0123"),
        (-0.5, "−0.500"),
        (123.4, "123"),
        (12345.6, f"12{S}346"),
        (9999.0, "9999"),
        (1.5e7, f"1.50{S}×{S}10⁷"),
        (-2e-7, f"−2.00{S}×{S}10⁻⁷"),
    ],
)
def test_numbers_have_three_figures(given, written):
    assert number(given) == written


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (0.953, f"95.3{S}%"),
        (0, f"0{S}%"),
        (1, f"100{S}%"),
        (0.9996, f"99.96{S}%"),
        (0.00004, f"0.004{S}%"),
        (0.9999999, f"> 99.999{S}%"),
        (1e-9, f"< 0.001{S}%"),
    ],
)
def test_a_share_never_reads_as_all_or_nothing_when_it_is_not(given, written):
    assert percent(given) == written


def test_intervals_name_their_unit_once_and_decide_how_many_figures_are_worth_writing():
    tight = {"value": 0.9534, "interval": [0.94, 0.965], "how": "95 % Wilson"}
    wide = {"value": 0.8734, "interval": [0.82, 0.92], "how": "95 % Wilson"}
    none = {"value": 0.8734, "interval": None, "how": "one run: no interval"}
    assert about(tight, percent) == f"95.3{S}% (94.0 to 96.5{S}%)"
    assert about(wide, percent) == f"87{S}% (82 to 92{S}%)"
    assert value(wide, percent) == f"87{S}%"
    assert about(none, percent) == f"87.3{S}%"
    assert interval(none) == ""
    assert provenance(none) == "one run: no interval"
    assert provenance(wide, percent) == f"82 to 92{S}%, 95 % Wilson"


def test_units_plurals_and_lists():
    assert duration(3.21) == f"3.2{S}s"
    assert duration(47.3) == f"47{S}s"
    assert duration(185) == f"3{S}min 5{S}s"
    assert duration(7300) == f"2{S}h 1{S}min"
    assert memory(812) == f"812{S}MiB"
    assert memory(1130) == f"1.1{S}GiB"
    assert plural(1, "class", "classes") == "1 class"
    assert plural(38282, "parameter") == f"38{S}282 parameters"
    assert count(-3) == "−3"
    assert points(0.01) == "+1.0\u00a0point"
    assert points(-0.023) == "−2.3\u00a0points"
    assert setting(0.05) == "0.05"
    assert setting(1.0) == "1"
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing([]) == ""


def decoded(uri):
    import base64

    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def pixels_of(image):
    return [image.getpixel((x, y)) for y in range(image.height) for x in range(image.width)]


def test_a_png_holds_the_pixels():
    grey = torch.linspace(0, 1, 12).reshape(3, 4)
    image = decoded(png(grey))
    assert image.size == (4, 3)
    assert image.mode == "L"
    assert pixels_of(image) == [round(255 * v) for v in grey.flatten().tolist()]
    colour = torch.rand(3, 5, 6)
    image = decoded(png(colour, low=0, high=1))
    assert image.mode == "RGB"
    pixels = torch.tensor(pixels_of(image)).reshape(5, 6, 3).permute(2, 0, 1)
    assert bool(((pixels / 255 - colour).abs() <= 0.5 / 255 + 1e-6).all())


def test_large_pictures_shrink_and_other_channels_become_grey():
    assert decoded(png(torch.rand(1, 200, 100))).size == (24, 48)
    assert decoded(png(torch.rand(2, 9, 9))).mode == "L"
    assert decoded(png(torch.full((4, 4), torch.nan))).size == (4, 4)
    assert decoded(png(torch.zeros(4, 4))).getextrema() == (0, 0)


def test_a_change_is_orange_where_it_raises_and_blue_where_it_lowers():
    change = torch.tensor([[1.0, 0.0, -1.0]])
    up, still, down = pixels_of(decoded(signed_png(change)))
    assert up[0] > up[2] + 100
    assert down[2] > down[0] + 100
    assert max(still) - min(still) == 0
    decoded(signed_png(torch.zeros(3, 2, 2)))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 5), (0, 4)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match="png expects an image"):
        png(torch.zeros(shape))


def test_the_ticks_of_a_padded_axis_can_be_told_apart():
    for values in ([100.01, 100.02], [0.0, 0.0], [12.9, 40.0], [1e-3, 1.0001e-3]):
        low, high = padded(values)
        assert low <= min(values)
        assert high > max(values)
        texts = [text for _, text in Linear(low, high).ticks()]
        assert len(texts) == len(set(texts)) >= 3
