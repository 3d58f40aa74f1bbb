"""Deep linear networks of finite and of infinite width, trained as they are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tangrams.nn.infinite_width.words import Words


class LinearNetwork(nn.Module):
    r"""``f(x) = α v W_{L-1} ⋯ W_1 (u x + β b) + γ c``, in coordinates where gradient descent is μP at any width [017].

    With standard deviations ``n^{-1/2}`` of u, W and v and one rate for all of them this is the maximal update
    parametrization: the weights that a textbook would write are ``\sqrt n u``, W and ``v / \sqrt n``.

    Args:
        input_weight: u, ``(n, d)``.
        hidden_weights: W_l, ``(n, n)``; none for one hidden layer.
        output_weight: v, ``(c, n)``.
        alpha: α.
        input_bias: β, the multiplier of a bias that starts at zero; zero leaves it out.
        output_bias: γ, likewise.

    Shape:
        ``(…, d)`` → ``(…, c)``.

    Raises:
        ValueError: if the weights do not fit upon one another.
    """

    def __init__(
        self,
        input_weight: Tensor,
        hidden_weights: Sequence[Tensor],
        output_weight: Tensor,
        *,
        alpha: float = 1.0,
        input_bias: float = 0.0,
        output_bias: float = 0.0,
    ) -> None:
        super().__init__()
        chain = [input_weight, *hidden_weights, output_weight]
        if any(a.shape[0] != b.shape[1] for a, b in itertools.pairwise(chain)):
            raise ValueError(f"{type(self).__name__} got weights of shapes {[tuple(w.shape) for w in chain]}: no chain")
        self.alpha, self.input_bias, self.output_bias = alpha, input_bias, output_bias
        self.input_weight = nn.Parameter(input_weight)
        self.hidden_weights = nn.ParameterList([nn.Parameter(w) for w in hidden_weights])
        self.output_weight = nn.Parameter(output_weight)
        zeros = input_weight.new_zeros
        self.b = nn.Parameter(zeros(len(input_weight))) if input_bias else None
        self.c = nn.Parameter(zeros(len(output_weight))) if output_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The network."""
        h = x @ self.input_weight.mT
        if self.b is not None:
            h = h + self.input_bias * self.b
        for weight in self.hidden_weights:
            h = h @ weight.mT
        f = self.alpha * (h @ self.output_weight.mT)
        return f if self.c is None else f + self.output_bias * self.c

    def extra_repr(self) -> str:
        """Sizes."""
        d, n, c = self.input_weight.shape[1], self.output_weight.shape[1], len(self.output_weight)
        return f"{d}, {c}, hidden_layers={len(self.hidden_weights) + 1}, width={n}"


class InfiniteLinearNetwork(LinearNetwork):
    r"""The limit of :class:`LinearNetwork` as its width goes to infinity, in finitely many numbers [017].

    Everything that gradient descent does to a wide linear network happens in the span of its initial vectors. With one
    hidden layer these are the columns of u and the rows of v, orthonormal in the limit, and the network equals one of
    d + c hidden units, ``u = (σ_u I, 0)`` and ``v = (0, σ_v I)``. With L hidden layers, the Gaussian matrices between
    them add a fresh orthonormal vector for every word of steps up and down; T steps of gradient descent form words of
    up to T (L − 1) letters, which is where the basis is cut. Train it like any module, by plain SGD (with momentum or
    weight decay); adaptive optimisers are not the limit of theirs.

    Args:
        in_features: d.
        out_features: c.
        hidden_layers: L.
        sigma_u: of the input weights.
        sigma_w: of the hidden ones.
        sigma_v: of the output weights; zero is allowed, and needs no basis of outputs.
        alpha: α, the multiplier of the output.
        input_bias: β.
        output_bias: γ.
        horizon: T, how many steps are followed exactly where there are two or more hidden layers; the number of hidden
            units grows with it, as ``(d + c) T / 2`` for two hidden layers and exponentially for more.
        dtype: of the weights.

    Shape:
        ``(…, d)`` → ``(…, c)``.

    Raises:
        ValueError: for sizes below one or negative deviations.

    Example:
        >>> limit = InfiniteLinearNetwork(3, 1)
        >>> limit.input_weight.shape, limit.sample(1000).input_weight.shape
        (torch.Size([4, 3]), torch.Size([1000, 3]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_layers: int = 1,
        *,
        sigma_u: float = 1.0,
        sigma_w: float = 1.0,
        sigma_v: float = 1.0,
        alpha: float = 1.0,
        input_bias: float = 0.0,
        output_bias: float = 0.0,
        horizon: int = 8,
        dtype: torch.dtype | None = None,
    ) -> None:
        sizes = {"in_features": in_features, "out_features": out_features, "hidden_layers": hidden_layers}
        sizes |= {"horizon": horizon}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"InfiniteLinearNetwork needs {name} ≥ 1, got {size}")
        for name, sigma in (("sigma_u", sigma_u), ("sigma_w", sigma_w), ("sigma_v", sigma_v)):
            if sigma < 0:
                raise ValueError(f"InfiniteLinearNetwork needs {name} ≥ 0, got {sigma}")
        dtype = dtype or torch.get_default_dtype()
        length = horizon * (hidden_layers - 1)
        words = Words.up_to(length, hidden_layers, in_features, out_features if sigma_v else 0)
        hidden = [sigma_w * words.matrix(layer, dtype) for layer in range(hidden_layers - 1)]
        u = torch.zeros(words.width(0), in_features, dtype=dtype)
        v = torch.zeros(out_features, words.width(hidden_layers - 1), dtype=dtype)
        for layer, weight, sigma, start in ((0, u, sigma_u, "input"), (hidden_layers - 1, v.mT, sigma_v, "output")):
            for word, rows in words.slices(layer).items():
                if word.start == start and len(word.path) == 1:
                    weight[rows] = sigma * torch.eye(weight.shape[1], dtype=dtype)
        super().__init__(u, hidden, v, alpha=alpha, input_bias=input_bias, output_bias=output_bias)
        self.words, self.sigma_w = words, sigma_w

    def sample(self, width: int, *, generator: torch.Generator | None = None) -> LinearNetwork:
        """A network of finite width whose weights, trained or not, are drawn from this limit.

        Fresh Gaussian vectors and matrices take the place of the basis, so that its outputs differ from the limit's by
        O(width^{-1/2}); sampled before training and then trained, it goes on to do so.

        Args:
            width: n.
            generator: draws; a fixed seed by default.

        Raises:
            ValueError: if the width is below one.
        """
        if width < 1:
            raise ValueError(f"InfiniteLinearNetwork.sample needs width ≥ 1, got {width}")
        generator = generator or torch.Generator().manual_seed(0)
        like = self.input_weight

        def draw(columns: int) -> Tensor:
            values = torch.randn(width, columns, generator=generator, dtype=like.dtype, device=generator.device)
            return values.to(like.device) / math.sqrt(width)

        with torch.no_grad():
            inputs, outputs = draw(self.words.sizes["input"]), draw(self.words.sizes["output"])
            gaussian = [draw(width) for _ in self.hidden_weights]
            basis = self.words.realise(gaussian, inputs, outputs)
            hidden = []
            for layer, weight in enumerate(self.hidden_weights):
                learned = weight - self.sigma_w * self.words.matrix(layer, like.dtype).to(like.device)
                hidden.append(self.sigma_w * gaussian[layer] + basis[layer + 1] @ learned @ basis[layer].mT)
            network = LinearNetwork(
                basis[0] @ self.input_weight,
                hidden,
                self.output_weight @ basis[-1].mT,
                alpha=self.alpha,
                input_bias=self.input_bias,
                output_bias=self.output_bias,
            )
            if self.b is not None and network.b is not None:
                network.b.copy_(basis[0] @ self.b)
            if self.c is not None and network.c is not None:
                network.c.copy_(self.c)
        return network
