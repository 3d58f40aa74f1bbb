"""Continuous bag of words with negative sampling, at any width and at infinite width."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class CBOW(nn.Module):
    r"""Word vectors that predict a word from the mean of those around it, in μP [017].

    .. math:: s(w | C) = v_w^⊤ \frac{1}{|C|} \sum_{c ∈ C} u_c, \qquad u \sim N(0, 1/n), \quad v = 0

    A linear network with one hidden layer and one-hot inputs. :meth:`infinite` is its limit, trained at the same rate.

    Args:
        vocabulary: number of words V, of indices 0 … V − 1; −1 marks an empty place of a context.
        width: n.
        sparse: gradients have the rows of the words at hand alone, as in ``nn.Embedding``, so that a step of plain SGD
            costs as much for a large vocabulary as for a small one.
        generator: draws u, uniformly as word2vec does; a fixed seed by default.

    Shape:
        contexts ``(b, k)`` and candidates ``(b, m)`` → scores ``(b, m)``.

    Raises:
        ValueError: if a size is below one.
    """

    def __init__(
        self, vocabulary: int, width: int, *, sparse: bool = False, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if vocabulary < 1 or width < 1:
            raise ValueError(f"CBOW needs sizes ≥ 1, got {vocabulary} words and width {width}")
        self.sparse = sparse
        generator = generator or torch.Generator().manual_seed(0)
        bound = (3 / width) ** 0.5
        self.input = nn.Parameter((2 * torch.rand(vocabulary, width, generator=generator) - 1) * bound)
        self.output = nn.Parameter(torch.zeros(vocabulary, width))

    @classmethod
    def infinite(cls, vocabulary: int, *, sparse: bool = True) -> CBOW:
        """The limit of infinite width: one hidden unit per word, ``u = I`` and ``v = 0``.

        Two V × V matrices: every word that was seen in a context is a direction that all vectors may come to have a
        part in. The steps of sparse gradients touch the rows of few words.

        Args:
            vocabulary: V.
            sparse: as of the class.

        Raises:
            ValueError: if there is no word.
        """
        if vocabulary < 1:
            raise ValueError(f"CBOW.infinite needs a word, got a vocabulary of {vocabulary}")
        model = cls(1, 1, sparse=sparse)
        model.input = nn.Parameter(torch.eye(vocabulary))
        model.output = nn.Parameter(torch.zeros(vocabulary, vocabulary))
        return model

    def forward(self, contexts: Tensor, candidates: Tensor) -> Tensor:
        """Scores of the candidates."""
        present = (contexts >= 0).to(self.input.dtype)
        vectors = F.embedding(contexts.clamp_min(0), self.input, sparse=self.sparse) * present[..., None]
        mean = vectors.sum(1) / present.sum(1, keepdim=True).clamp_min(1)
        return (F.embedding(candidates, self.output, sparse=self.sparse) @ mean[:, :, None])[:, :, 0]

    def word_vectors(self) -> Float[Tensor, "V n"]:
        """The input vectors, which stand for the words."""
        return self.input.detach()


def negative_sampling_loss(scores: Float[Tensor, "b m"]) -> Tensor:
    """Logistic loss of the first candidate being true and the others noise, summed over them, meaned over the batch.

    Args:
        scores: of one true word and its m − 1 negatives.
    """
    return (F.softplus(-scores[:, 0]) + F.softplus(scores[:, 1:]).sum(1)).mean()
