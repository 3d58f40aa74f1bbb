"""Writes open_lth.npz: what the residual networks of facebookresearch/open_lth compute with known weights.

Run from a checkout of it at commit 2ce732f, where `models` imports; torchvision, which it imports and does not need for
this, may be an empty module, and the two classes that are derived from parallel wrappers may be derived from nothing.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch


def known_state(shapes):
    """Values for a state dict, from its names and shapes alone."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(shape, dtype=torch.int64)
        else:
            value = torch.rand(shape, generator=generator, dtype=torch.float64)
            state[name] = value - 0.5 if len(shape) > 1 or name.endswith("bias") else value + 0.1
    return state


def known_images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


if __name__ == "__main__":
    from models.cifar_resnet import Model

    arrays = {}
    for depth, width in ((14, 4), (20, 3)):
        model = Model.get_model_from_name(f"cifar_resnet_{depth}_{width}", lambda module: None).double()
        shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
        model.load_state_dict(known_state(shapes))
        arrays[f"shapes_{depth}_{width}"] = np.array(json.dumps(shapes))
        with torch.no_grad():
            arrays[f"eval_{depth}_{width}"] = model.eval()(known_images()).numpy()
            arrays[f"train_{depth}_{width}"] = model.train()(known_images()).numpy()
    np.savez_compressed(Path(sys.argv[1]), **arrays)
