import torch
from torch import nn

from tangrams.claims import c017_infinite_width_feature_learning as claim
from tangrams.kernels import FullyConnectedNTK
from tangrams.learners import FirstOrderMAML, FunctionalSGD, KernelMAML


def test_a_readout_of_kernel_features_meta_learns_as_the_kernel_limit():
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(9, 6, 12, generator=generator, dtype=torch.float64)
    phi = claim._kernel_features(classes[:7], classes[7:], FullyConnectedNTK(2))
    train, test = (classes * 12**0.5).split((7, 2))
    function = KernelMAML(FunctionalSGD(FullyConnectedNTK(2), claim.WAYS, dtype=torch.float64), inner_lr=0.4)
    readout = claim._start(phi[0].shape[2], None, generator).double()
    features = FirstOrderMAML(readout, inner_lr=0.4)
    optimizer = torch.optim.SGD(readout.parameters(), 0.5)
    for step in range(5):
        drawn = [claim._tasks(of, 4, torch.Generator().manual_seed(step)) for of in (train, phi[0])]
        function.step(*drawn[0], 0.5, max_norm=0.1)
        features.backward(*drawn[1])
        nn.utils.clip_grad_norm_(readout.parameters(), 0.1)
        optimizer.step()
    (support, (x, _)), (phi_support, (phi_x, _)) = (
        claim._tasks(torch.cat(parts), 4, torch.Generator().manual_seed(9)) for parts in ((train, test), phi)
    )
    expected = function.predict(support, x, inner_steps=20)
    assert expected.abs().max() > 0.1
    assert (features.predict(phi_support, phi_x, inner_steps=20) - expected).abs().max() < 1e-5
