"""The command's part: networks, weights and samples from files, and what is said when they are bad."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tangrams.study.run import build_model, load_samples, read_weights, run_user

MODEL = """
from torch import nn


def build():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def broken():
    raise RuntimeError("no")


number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(150, 6)).astype(np.float32)
    y = x[:, :3].argmax(1)
    (tmp_path / "my_network.py").write_text(MODEL)
    np.savez(tmp_path / "train.npz", x=x[:110], y=y[:110])
    np.savez(tmp_path / "test.npz", x=x[110:], y=y[110:])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_network_of_the_users_is_studied_from_files(folder, capsys):
    found = run_user("my_network:build", "w.safetensors", "train.npz", "test.npz", folder / "out", pool="test.npz")
    assert (folder / "out" / "report.html").exists()
    data = json.loads((folder / "out" / "study.json").read_text())
    assert data["model"]["source"] == "w.safetensors"
    assert data["again"]["command"].startswith("tangrams study my_network:build --weights w.safetensors --train")
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == f"Report: {folder / 'out' / 'report.html'}"
    assert len(lines) == 4
    assert found["next"]["state"] == "measured"


def test_both_formats_give_the_same_weights(folder):
    a, b = read_weights("w.safetensors"), read_weights("w.pt")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_keyword_inputs_come_as_a_dict(folder):
    np.savez(folder / "named.npz", x_a=np.ones((4, 2)), x_b=np.ones((4, 3)), y=np.arange(4))
    found = load_samples("named.npz")
    assert {name: tuple(t.shape) for name, t in found.inputs.items()} == {"a": (4, 2), "b": (4, 3)}


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("my_network", "package.module:function"),
        ("no_such_module_here:build", "cannot import no_such_module_here"),
        ("my_network:nothing", "has no 'nothing'"),
        ("my_network:number", "neither a function nor"),
        ("my_network:broken", r"broken\(\) failed: RuntimeError: no"),
        ("json:dumps", r"dumps\(\) failed"),
        ("builtins:list", "returned a list, expected"),
    ],
)
def test_targets_that_give_no_network_are_named(folder, target, match):
    with pytest.raises(ValueError, match=match):
        build_model(target)


def test_files_that_cannot_be_read_are_named(folder):
    (folder / "junk.npz").write_bytes(b"not a zip file")
    (folder / "junk.safetensors").write_bytes(b"nothing")
    np.savez(folder / "objects.npz", x=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    np.savez(folder / "no_x.npz", y=np.zeros(3))
    np.savez(folder / "no_y.npz", x=np.zeros((3, 6)))
    np.savez(folder / "uneven.npz", x=np.zeros((3, 6)), y=np.zeros(4))
    np.savez(folder / "words.npz", x=np.array(["a", "b"]), y=np.zeros(2))
    torch.save({"a": 1}, folder / "no_dict.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "whole.pt")
    (folder / "junk.pt").write_text("nothing")
    np.save(folder / "array.npy", np.zeros(3))
    for call, match in (
        (lambda: load_samples("absent.npz"), "no file absent.npz"),
        (lambda: load_samples("junk.npz"), "cannot read junk.npz"),
        (lambda: load_samples("objects.npz"), "without pickle"),
        (lambda: load_samples("no_x.npz"), r"no array 'x', only \['y'\]"),
        (lambda: load_samples("no_y.npz"), r"no array 'y', only \['x'\]"),
        (lambda: load_samples("uneven.npz"), "3 samples in 'x' and 4 in 'y'"),
        (lambda: load_samples("words.npz"), "expected numbers"),
        (lambda: read_weights("junk.safetensors"), "cannot read weights"),
        (lambda: read_weights("no_dict.pt"), "no state dict"),
        (lambda: read_weights("whole.pt"), r"whole.pt: torch finds no plain tensors in it; save model.state_dict\(\)"),
        (lambda: read_weights("junk.pt"), r"junk.pt: torch finds no plain tensors"),
        (lambda: load_samples("array.npy"), "array.npy: it is no .npz archive"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_weights_with_code_in_them_are_not_run(folder):
    class Bomb:
        def __reduce__(self):
            return (exec, ("open('pwned', 'w').close()",))

    torch.save({"w": Bomb()}, folder / "bomb.pt")
    with pytest.raises(ValueError, match="cannot read weights"):
        read_weights("bomb.pt")
    assert not (folder / "pwned").exists()


def test_weights_of_another_shape_are_refused(folder):
    save_file(nn.Linear(6, 3).state_dict(), folder / "other.safetensors")
    with pytest.raises(ValueError, match="does not fit the network"):
        run_user("my_network:build", "other.safetensors", "train.npz", "test.npz", folder / "out")


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(folder):
    (folder / "taken").write_text("a file")
    with pytest.raises(ValueError, match="cannot write to"):
        run_user("my_network:build", None, "train.npz", "test.npz", folder / "taken")
