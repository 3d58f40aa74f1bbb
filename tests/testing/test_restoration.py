"""The snapshot sees every change that it promises to see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tangrams.testing.restoration import Snapshot


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.note = "as it was"

    def forward(self, x):
        return self.norm(self.body(x))


def in_place(net, x):
    with torch.no_grad():
        net.body.weight[0, 0] += 1e-9


def replace_parameter(net, x):
    net.body.weight = nn.Parameter(net.body.weight.detach().clone())


def freeze(net, x):
    net.body.weight.requires_grad_(False)


def give_gradient(net, x):
    net.body.bias.grad = torch.zeros(2)


def write_buffer(net, x):
    net.norm.running_mean += 1


def replace_buffer(net, x):
    net.norm.running_mean = net.norm.running_mean.clone()


def change_mode(net, x):
    net.norm.eval()


def add_hook(net, x):
    net.body.register_forward_hook(lambda *args: None)


def add_tensor_hook(net, x):
    net.body.weight.register_hook(lambda grad: None)


def set_attribute(net, x):
    net.note = "changed"


def add_module(net, x):
    net.more = nn.Linear(1, 1)


def write_input(net, x):
    x[0, 0] = 5.0


def cast(net, x):
    net.body.double()


def draw(net, x):
    torch.rand(1)


def draw_from_numpy(net, x):
    np.random.rand()  # noqa: NPY002


CHANGES = {
    in_place: "parameter weight: value",
    replace_parameter: "parameter weight: identity",
    freeze: "parameter weight: requires_grad",
    give_gradient: "parameter bias: grad",
    write_buffer: "buffer running_mean: value",
    replace_buffer: "buffer running_mean: identity",
    change_mode: "model.norm: mode",
    add_hook: "model.body: _forward_hooks",
    add_tensor_hook: "parameter weight: hooks",
    set_attribute: "model: attributes",
    add_module: "model.more",
    write_input: "input 0: value",
    cast: "parameter weight: memory",
    draw: "torch: random state",
    draw_from_numpy: "numpy: random state",
}


def test_nothing_changed_is_nothing_reported():
    net, x = Net(), torch.ones(4, 3)
    before = Snapshot(net, x)
    with torch.no_grad():
        net.eval()(x)
    net.train()
    assert before.differences() == []


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_reported_by_name(change):
    net, x = Net(), torch.ones(4, 3)
    before = Snapshot(net, x)
    change(net, x)
    assert any(CHANGES[change] in difference for difference in before.differences())


def test_global_flags_are_watched():
    net = Net()
    before = Snapshot(net)
    torch.set_default_dtype(torch.float64)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(not fast)
    try:
        with torch.no_grad():
            found = before.differences()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.backends.mha.set_fastpath_enabled(fast)
    assert found == ["torch: attention fast path", "torch: default dtype", "torch: gradient mode"]
    assert before.differences() == []
