"""The features of an attention layer whose query–key products are random: linear in its trainable values."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.data.labelled import Labelled
from tangrams.features.random.columnwise import ColumnwiseFeatures, Samples, as_vectors
from tangrams.features.random.couplings import IIDCoupling
from tangrams.features.random.derivatives import Activation, describe_activation
from tangrams.features.random.random_features import RandomFeatures
from tangrams.features.random.stream import WeightStream

_SCORES = 1 << 22
"""Scores of heads and keys that are in memory at once."""


class RandomAttentionFeatures(ColumnwiseFeatures):
    r"""Random-feature attention: M heads with frozen random query–key matrices [039].

    .. math:: φ(x_0, x_{1:N})_m = \frac{1}{\sqrt M} \frac1N \sum_{i=1}^N
              σ\!\left(\tilde x_0^T W_m \tilde x_i\right) \tilde x_i \in R^{d+1}, \qquad \tilde x = (x, 1)

    with independent entries of W_m from N(0, std²): not a softmax, σ acts on each score. A layer with trainable values
    v_m is the linear function of these features with coefficients √M v_m, so that ridge regression on them trains it
    (:class:`~tangrams.learners.KernelRidge` with this map as its kernel), and a vector of targets is a matrix of
    values. It sees the keys as a set: it can learn means over keys of functions of (x₀, x_i), with a number of samples
    that does not grow with N. Features grow like ‖x‖³: scale the data. Its Gram matrix tends to
    :class:`~tangrams.kernels.RandomAttentionKernel`.

    Args:
        in_features: d, entries of the query and of each key.
        num_heads: M.
        activation: σ, elementwise.
        weight_std: the standard deviation of the entries of W_m.
        seed: fixes every draw.

    Shape:
        query ``(n, d)``, keys ``(n, N, d)``, and a mask ``(n, N)``, true where there is a key, as a tuple; or one
        tensor ``(n, 1 + N, d)`` with the query first → ``(n, M (d + 1))``, head after head.

    Raises:
        ValueError: if a size is below one, or the standard deviation is not positive.

    Example:
        >>> phi = RandomAttentionFeatures(3, 50, seed=0)
        >>> phi((torch.ones(2, 3), torch.ones(2, 7, 3))).shape
        torch.Size([2, 200])
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        activation: Activation = torch.relu,
        weight_std: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        if in_features < 1 or num_heads < 1:
            raise ValueError(f"{who} needs sizes ≥ 1, got {in_features} and {num_heads}")
        if not weight_std > 0:
            raise ValueError(f"{who} needs weight_std > 0, got {weight_std}")
        self.in_features, self.num_heads = int(in_features), int(num_heads)
        self.activation, self.weight_std, self.seed = activation, float(weight_std), int(seed)
        self._stream = WeightStream((self.in_features + 1) ** 2, self.num_heads, IIDCoupling(), self.seed)

    @property
    def num_features(self) -> int:
        """M (d + 1)."""
        return self.num_heads * (self.in_features + 1)

    @property
    def panel_unit(self) -> int:
        """Columns of the heads that are drawn together."""
        return self._stream.strip * (self.in_features + 1)

    def judge(self, x: Any) -> Samples:
        """Query, keys and mask, in float32 or wider.

        Args:
            x: a tuple, or one tensor with the query first.
        """
        return as_sequences(x, self.in_features, type(self).__name__)

    def weights(self, start: int, stop: int, like: Tensor) -> Float[Tensor, "m a b"]:
        """W_m of the heads ``start … stop``: ``(m, d + 1, d + 1)``.

        Args:
            start: the first head.
            stop: one past the last.
            like: gives dtype and device.
        """
        a = self.in_features + 1
        return self._stream.rows(start, stop, like).W.unflatten(1, (a, a)) * self.weight_std

    def panel(self, samples: Samples, start: int, stop: int) -> Float[Tensor, "n width"]:
        """The columns ``start … stop``."""
        query, keys, mask = samples
        a = self.in_features + 1
        first, last = start // a, -(-stop // a)
        step = max(1, _SCORES // max(1, keys.shape[0] * max(keys.shape[1], a)))
        query, keys = _augmented(query), _augmented(keys)
        share = mask.to(keys) / mask.sum(1, keepdim=True)
        heads = []
        for head in range(first, last, step):
            W = self.weights(head, min(head + step, last), query)
            scores = torch.einsum("na,mab,nib->nmi", query, W, keys)
            heads.append((self.activation(scores) * share[:, None]) @ keys)
        columns = torch.cat(heads, 1).flatten(1) / math.sqrt(self.num_heads)
        return columns[:, start - first * a : stop - first * a]

    def describe(self) -> dict[str, Any]:
        """Class, sizes, scale, activation and seed."""
        return {
            "class": type(self).__name__,
            "in_features": self.in_features,
            "num_heads": self.num_heads,
            "activation": describe_activation(self.activation),
            "weight_std": self.weight_std,
            "seed": self.seed,
        }

    def extra_repr(self) -> str:
        """Sizes and seed."""
        return f"{self.in_features}, num_heads={self.num_heads}, seed={self.seed}"


class BiasedRandomAttentionFeatures(RandomAttentionFeatures):
    r"""Random-feature attention whose query–key matrices have a mean: scores are ``b ⟨x₀, x_i⟩`` plus noise [039].

    .. math:: W_m = b \begin{pmatrix} I_d & 0 \\ 0 & 0 \end{pmatrix} + \text{noise}

    Each head is a nonlinear function of the correlation of query and key, so that means over keys of F(⟨x₀, x_i⟩) are
    learned from far fewer samples than without the mean; functions of the keys alone from more.

    Args:
        in_features: d, entries of the query and of each key.
        num_heads: M.
        bias_scale: b; at zero this is :class:`RandomAttentionFeatures`.
        activation: σ, elementwise.
        weight_std: the standard deviation of the noise.
        seed: fixes every draw.

    Shape:
        As :class:`RandomAttentionFeatures`.

    Raises:
        ValueError: if a size is below one, the standard deviation is not positive, or b is not finite.
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        bias_scale: float = 4.0,
        *,
        activation: Activation = torch.relu,
        weight_std: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(in_features, num_heads, activation=activation, weight_std=weight_std, seed=seed)
        if not math.isfinite(bias_scale):
            raise ValueError(f"BiasedRandomAttentionFeatures needs a finite bias_scale, got {bias_scale}")
        self.bias_scale = float(bias_scale)

    def weights(self, start: int, stop: int, like: Tensor) -> Float[Tensor, "m a b"]:
        """W_m of the heads ``start … stop``, their mean included."""
        noise = super().weights(start, stop, like)
        mean = torch.full((self.in_features + 1,), self.bias_scale, dtype=noise.dtype, device=noise.device)
        mean[-1] = 0
        return noise + torch.diag(mean)

    def describe(self) -> dict[str, Any]:
        """The base's, and b."""
        return {**super().describe(), "bias_scale": self.bias_scale}


class RandomSequenceFeatures(RandomFeatures):
    r"""Random features of a whole sequence in its order, the baseline that does not see a set [039].

    .. math:: φ(x_0, x_{1:N}) = \frac{1}{\sqrt k}\, σ(W \, (x_0, x_1, …, x_N, 1)), \qquad W_{ij} \sim N(0, 1)

    Args:
        in_features: d, entries of the query and of each key.
        num_keys: N.
        num_features: k.
        activation: σ, elementwise.
        seed: fixes every draw.

    Shape:
        query ``(n, d)`` and keys ``(n, N, d)`` as a tuple, or one tensor ``(n, 1 + N, d)`` → ``(n, k)``.

    Raises:
        ValueError: if ``num_keys < 1``.
    """

    def __init__(
        self, in_features: int, num_keys: int, num_features: int, activation: Activation = torch.relu, *, seed: int = 0
    ) -> None:
        if num_keys < 1:
            raise ValueError(f"RandomSequenceFeatures needs num_keys ≥ 1, got {num_keys}")
        entries = (num_keys + 1) * in_features
        super().__init__(
            entries, num_features, activation, weight_std=math.sqrt(max(entries, 0)), bias_std=1.0, seed=seed
        )
        self.num_keys, self.entry_features = int(num_keys), int(in_features)

    def judge(self, x: Any) -> Samples:
        """The sequence as one vector.

        Args:
            x: a tuple of query and keys, or one tensor with the query first.

        Raises:
            TypeError: if there is a mask: the order matters here.
        """
        x = x.inputs if isinstance(x, Labelled) else x
        if isinstance(x, tuple) and len(x) > 2:
            raise TypeError("RandomSequenceFeatures reads keys in their order and takes no mask: pad them with zeros")
        query, keys, _ = as_sequences(x, self.entry_features, type(self).__name__)
        return super().judge(torch.cat([query[:, None], keys], 1))

    def describe(self) -> dict[str, Any]:
        """The base's, and N."""
        return {**super().describe(), "num_keys": self.num_keys}


def as_sequences(x: Any, in_features: int, who: str) -> tuple[Tensor, Tensor, Tensor]:
    """Query ``(n, d)``, keys ``(n, N, d)`` and mask ``(n, N)`` of n samples, in at least float32.

    Args:
        x: a tuple of query, keys and perhaps a mask, or one tensor ``(n, 1 + N, d)`` with the query first.
        in_features: d.
        who: named in a refusal.

    Raises:
        TypeError: if it is neither.
        ValueError: if shapes do not fit, or a sample has no key.
    """
    x = x.inputs if isinstance(x, Labelled) else x
    if isinstance(x, Tensor) and x.ndim == 3:
        x = x[:, 0], x[:, 1:]
    if not isinstance(x, tuple) or len(x) not in (2, 3) or not all(isinstance(part, Tensor) for part in x):
        raise TypeError(f"{who} expects (query, keys), (query, keys, mask) or a tensor (n, 1 + N, d)")
    query, keys = x[0], x[1]
    if keys.ndim != 3 or query.ndim != 2 or len(query) != len(keys) or query.shape[1] != keys.shape[2]:
        raise ValueError(
            f"{who} expects a query (n, d) and keys (n, N, d), got {tuple(query.shape)} and {tuple(keys.shape)}"
        )
    if query.shape[1] != in_features or query.dtype != keys.dtype:
        raise ValueError(
            f"{who} expects {in_features} entries of one dtype in query and keys, got {query.shape[1]} of "
            f"{query.dtype} and {keys.dtype}"
        )
    mask = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device) if len(x) == 2 else x[2]
    if mask.dtype != torch.bool or mask.shape != keys.shape[:2]:
        raise ValueError(f"{who} expects a boolean mask {tuple(keys.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}")
    if len(keys) and not bool(mask.any(1).all()):
        raise ValueError(f"{who} got no key in sample {int((~mask.any(1)).nonzero()[0])}: a mean needs one")
    length = keys.shape[1]
    vectors = (
        as_vectors(query, in_features, who, "the query"),
        as_vectors(keys, length * in_features, who, "the keys").unflatten(1, (length, in_features)),
    )
    return *vectors, mask


def _augmented(x: Tensor) -> Tensor:
    """(x, 1)."""
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1)
