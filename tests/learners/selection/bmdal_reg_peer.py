"""What bmdal-reg computes, for the frozen values and for the test that runs beside it."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch

vars(np)["Inf"] = np.inf  # it was written for NumPy 1

from bmdal_reg.bmdal import selection as peer  # noqa: E402
from bmdal_reg.bmdal.feature_data import TensorFeatureData  # noqa: E402
from bmdal_reg.bmdal.feature_maps import (  # noqa: E402
    IdentityFeatureMap,
    LaplaceKernelFeatureMap,
    ReLUNNGPFeatureMap,
    ReLUNTKFeatureMap,
)
from bmdal_reg.bmdal.features import Features  # noqa: E402
from bmdal_reg.bmdal.layer_features import LinearLayer, create_grad_feature_map  # noqa: E402

METHODS = {
    "maxdiag": (peer.MaxDiagSelectionMethod, {}),
    "maxdet": (peer.MaxDetSelectionMethod, {"noise_sigma": 0.1}),
    "maxdet_features": (peer.MaxDetFeatureSpaceSelectionMethod, {"noise_sigma": 0.1}),
    "bait_f": (peer.BaitFeatureSpaceSelectionMethod, {"noise_sigma": 0.1}),
    "bait_fb": (peer.BaitFeatureSpaceSelectionMethod, {"noise_sigma": 0.1, "overselection_factor": 2.0}),
    "frank_wolfe": (peer.FrankWolfeSelectionMethod, {}),
    "frank_wolfe_kernel": (peer.FrankWolfeKernelSpaceSelectionMethod, {}),
    "maxdist": (peer.MaxDistSelectionMethod, {}),
    "lcmd": (peer.LargestClusterMaxDistSelectionMethod, {}),
}


def rows(X):
    return Features(IdentityFeatureMap(X.shape[1]), TensorFeatureData(X))


def selections(pool, train, batch_size):
    """Every deterministic method in both modes: name → indices."""
    found = {}
    for name, (method, options) in METHODS.items():
        for mode in ("P", "TP"):
            with contextlib.redirect_stdout(io.StringIO()):
                if name == "maxdiag":
                    chosen = method(rows(pool)).select(batch_size)
                else:
                    selector = method(rows(pool), rows(train), sel_with_train=mode == "TP", verbosity=0, **options)
                    chosen = selector.select(batch_size)
            found[f"{name}_{mode}"] = chosen.numpy()
    return found


def kernels(pool, train):
    """Base kernels and transformations on the given rows."""
    x, y = TensorFeatureData(pool), TensorFeatureData(train)
    posterior = rows(train).posterior_tfm(0.3)
    found = {
        "laplace": LaplaceKernelFeatureMap(0.7).get_kernel_matrix(x, y),
        "nngp": ReLUNNGPFeatureMap(3, 0.8, 0.1).get_kernel_matrix(x, y),
        "ntk": ReLUNTKFeatureMap(3, 0.8, 0.1).get_kernel_matrix(x, y),
        "scale": rows(train).scale_tfm()(rows(pool)).get_kernel_matrix_diag(),
        "posterior": posterior(rows(pool)).get_kernel_matrix(posterior(rows(train))),
    }
    product = rows(train).acs_grad_tfm(0.3)
    found["acs_grad"] = product(rows(pool)).get_kernel_matrix(product(rows(train)))
    torch.manual_seed(0)
    transform = rows(train).acs_rf_tfm(5, 0.3)(rows(pool))
    found["acs_rf"] = transform.get_feature_matrix()
    found["acs_rf_theta"] = transform.feature_map.tfms[1].theta_samples
    y_train = train.sum(1, keepdim=True) / 3
    transform = rows(train).acs_rf_hyper_tfm(y_train, 5)(rows(pool))
    found["acs_hyper"] = transform.get_feature_matrix()
    found["acs_hyper_theta"] = transform.feature_map.tfms[1].theta_samples
    return {name: value.numpy() for name, value in found.items()}


def gradients(weights, pool, train):
    """The gradient and last-layer kernels of a two-layer network with factors 0.2 / √d on weights and 0.2 on biases."""
    layers = [LinearLayer(W, b, 0.2 / W.shape[0] ** 0.5, 0.2) for W, b in weights]
    network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])
    found = {}
    for name, chosen in (("grad", layers), ("last", layers[1:])):
        phi = create_grad_feature_map(network, chosen)
        found[name] = phi.get_kernel_matrix(TensorFeatureData(pool), TensorFeatureData(train)).detach().numpy()
    return found
