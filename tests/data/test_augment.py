"""Flips and crops against one image at a time."""

import pytest
import torch

from tangrams.data import flip_and_crop


def candidates(image, padding):
    """Every flip and crop of one image."""
    _, h, w = image.shape
    for flipped in (image, image.flip(-1)):
        padded = torch.nn.functional.pad(flipped, (padding,) * 4)
        for top in range(2 * padding + 1):
            for left in range(2 * padding + 1):
                yield padded[:, top : top + h, left : left + w]


def test_each_image_is_one_of_its_flipped_crops_and_all_of_them_come_up():
    image = torch.arange(1.0, 25.0).reshape(2, 3, 4)
    out = flip_and_crop(image.expand(2000, -1, -1, -1), 1, generator=torch.Generator().manual_seed(0))
    possible = list(candidates(image, 1))
    counts = torch.stack([(out == one).flatten(1).all(1) for one in possible]).sum(1)
    assert int(counts.sum()) == 2000
    # 18 equally likely outcomes: chi-square with 17 degrees of freedom.
    assert float(((counts - 2000 / 18) ** 2 / (2000 / 18)).sum()) < 40.8  # the 0.1 % point


def test_images_draw_for_themselves_and_from_the_generator():
    images = torch.rand(64, 3, 8, 8)
    first, second = (flip_and_crop(images, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    alone = flip_and_crop(images[:1].expand(64, -1, -1, -1), generator=torch.Generator().manual_seed(3))
    assert len({tuple(x.flatten().tolist()) for x in alone}) > 20


def test_a_negative_padding_is_refused():
    with pytest.raises(ValueError, match="padding"):
        flip_and_crop(torch.zeros(1, 1, 2, 2), -1)
