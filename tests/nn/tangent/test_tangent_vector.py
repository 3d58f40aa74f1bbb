"""Tangent vectors: an algebra, a file, and no mixing of base points."""

import pytest
import torch
from torch import nn

from tangrams.nn.tangent import BasePointMismatchError, TangentSum, TangentVector, linearize


def vector(seed: int, base: str = "w0") -> TangentVector:
    g = torch.Generator().manual_seed(seed)
    return TangentVector({"b.w": torch.randn(2, 3, generator=g), "a": torch.randn(4, generator=g)}, base)


def test_the_algebra_is_that_of_the_flat_vectors():
    a, b = vector(0), vector(1)
    combined = 2 * a - b / 4 + (-b) * 3
    torch.testing.assert_close(combined.flat(), 2 * a.flat() - b.flat() / 4 - 3 * b.flat())
    assert a.dot(b) == pytest.approx(float(a.flat().double() @ b.flat().double()))
    assert a.norm() == pytest.approx(float(a.flat().double().norm()))
    assert a.with_flat(a.flat()) == a
    assert a != b


def test_a_saved_vector_comes_back_with_its_order_and_base(tmp_path):
    a = vector(0)
    a.save(tmp_path / "a.safetensors")
    back = TangentVector.load(tmp_path / "a.safetensors")
    assert back == a
    assert list(back) == ["b.w", "a"]


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no tangent vector"):
        TangentVector.load(path)
    with pytest.raises(FileNotFoundError, match="no tangent vector at"):
        TangentVector.load(tmp_path / "nowhere")


def test_a_safetensors_file_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="no tangent vector"):
        TangentVector.load(tmp_path / "w.safetensors")


@pytest.mark.parametrize("mix", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a.dot(b)])
def test_vectors_of_different_base_points_do_not_mix(mix):
    with pytest.raises(BasePointMismatchError, match="different base points"):
        mix(vector(0), vector(0, "w1"))
    with pytest.raises(BasePointMismatchError, match="different parameters"):
        mix(vector(0), TangentVector({"a": torch.ones(4)}, "w0"))


def test_a_network_refuses_the_vector_of_another():
    with torch.random.fork_rng():
        one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    with pytest.raises(BasePointMismatchError):
        linearize(two, vector=linearize(one).vector())


def test_a_vector_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="has 10 entries, got"):
        vector(0).with_flat(torch.ones(9))


@pytest.mark.parametrize("kind", [TangentVector, TangentSum])
def test_saving_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch, kind):
    import safetensors.torch

    def of(seed):
        if kind is TangentVector:
            return vector(seed)
        composition = TangentSum()
        composition.add("a", vector(seed))
        return composition

    def break_off(tensors, filename, metadata=None):
        with open(filename, "wb") as file:
            file.write(b"half")
        raise OSError("no space left on device")

    path = tmp_path / "x.safetensors"
    of(0).save(path)
    before = path.read_bytes()
    monkeypatch.setattr(safetensors.torch, "save_file", break_off)
    with pytest.raises(OSError, match="no space"):
        of(1).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
