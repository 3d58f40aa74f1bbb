"""What the differences of word vectors know."""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

_SCORES = 1 << 24
"""Scores that are held at once."""


def analogy_accuracy(vectors: Float[Tensor, "v n"], questions: Int[Tensor, "q 4"]) -> float:
    r"""The share of analogies that word vectors answer: "a is to b as c is to d" [017].

    .. math:: d = \arg\max_{w \notin \{a, b, c\}} \langle \hat u_w, \hat u_b - \hat u_a + \hat u_c \rangle, \qquad
        \hat u = u / \|u\|

    over all words, as word2vec counts; an answer that another word ties with is none.

    Args:
        vectors: u, one per word.
        questions: words (a, b, c, d).

    Raises:
        ValueError: if there are no questions or a word has no vector.

    Example:
        >>> import torch
        >>> man, king, she = torch.eye(3)
        >>> analogy_accuracy(torch.stack([man, man + she, king, king + she]), torch.tensor([[0, 1, 2, 3]]))
        1.0
    """
    if not len(questions) or not 0 <= int(questions.min()) <= int(questions.max()) < len(vectors):
        raise ValueError(f"analogy_accuracy needs questions about words 0 … {len(vectors) - 1}")
    units = F.normalize(vectors.detach(), dim=1)
    right = 0
    for part in questions.to(units.device).split(max(1, _SCORES // len(units))):
        a, b, c, d = part.unbind(1)
        scores = (units[b] - units[a] + units[c]) @ units.mT
        scores.scatter_(1, part[:, :3], -math.inf)
        own = scores.gather(1, d[:, None])
        right += int((own > scores.scatter(1, d[:, None], -math.inf).amax(1, keepdim=True)).sum())
    return right / len(questions)
