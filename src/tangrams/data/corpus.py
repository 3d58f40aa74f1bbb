"""Text as word indices and windows, for word vectors."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Corpus:
    """A text in indices of its frequent words.

    Attributes:
        words: the vocabulary, most frequent first.
        tokens: the text; rarer words are left out.
        counts: how often each word occurs.
    """

    words: tuple[str, ...]
    tokens: Int[Tensor, "n"]
    counts: Int[Tensor, "v"]

    @classmethod
    def read(cls, text: str, *, min_count: int = 5) -> Corpus:
        """Lower-case runs of letters and apostrophes are words.

        Args:
            text: anything.
            min_count: words that occur less often are left out.

        Raises:
            ValueError: if no word is frequent enough.
        """
        found = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())
        kept = [(word, count) for word, count in Counter(found).most_common() if count >= min_count]
        if not kept:
            raise ValueError(f"Corpus.read found no word that occurs {min_count} times: lower min_count")
        index = {word: i for i, (word, _) in enumerate(kept)}
        tokens = torch.tensor([index[word] for word in found if word in index])
        return cls(tuple(index), tokens, torch.tensor([count for _, count in kept]))

    def subsampled(self, threshold: float, *, generator: torch.Generator) -> Int[Tensor, "m"]:
        r"""Tokens with frequent words thinned as word2vec does: each kept with probability ``\sqrt{t/f} + t/f``.

        Args:
            threshold: t, a share of the text.
            generator: draws.
        """
        ratio = threshold * self.counts.sum() / self.counts.to(torch.float32)
        keep = (ratio.sqrt() + ratio).clamp_max(1)
        drawn = torch.rand(len(self.tokens), generator=generator, dtype=torch.float32).to(keep.device)
        return self.tokens[drawn < keep[self.tokens]]

    def noise(self) -> Float[Tensor, "v"]:
        """The distribution of negative samples, counts to the power 3/4."""
        weights = self.counts.to(torch.float32) ** 0.75
        return weights / weights.sum()


def context_windows(tokens: Int[Tensor, "n"], window: int, *, generator: torch.Generator) -> Int[Tensor, "n k"]:
    """The words around each word, up to ``window`` on either side; the reach of each is drawn from 1 … window.

    Args:
        tokens: a text.
        window: the farthest.
        generator: draws the reaches.

    Returns:
        Indices, ``k = 2 window``; −1 where there is no word or it is out of reach.

    Raises:
        ValueError: if the window is below one.
    """
    if window < 1:
        raise ValueError(f"context_windows needs window ≥ 1, got {window}")
    device = tokens.device
    offsets = torch.tensor([o for o in range(-window, window + 1) if o], device=device)
    at = torch.arange(len(tokens), device=device)[:, None] + offsets
    reach = torch.randint(1, window + 1, (len(tokens), 1), generator=generator).to(device)
    inside = (at >= 0) & (at < len(tokens)) & (offsets.abs() <= reach)
    return torch.where(inside, tokens[at.clamp(0, max(len(tokens) - 1, 0))], -1)
