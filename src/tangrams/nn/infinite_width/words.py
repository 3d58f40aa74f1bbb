"""How a random matrix acts on the vectors that training can ever see, as its size goes to infinity.

A Gaussian matrix W between two wide layers turns a vector into a fresh Gaussian one, independent of all before, and its
transpose turns that back into the old vector plus a fresh one again. The vectors that gradient descent forms are
spanned by words over "up a layer" and "down a layer" that begin at an input or at an output: W is creation by one
letter plus annihilation by the other, on a full Fock space (Voiculescu's circular operator). Cut after some length it
is a matrix of zeros and ones, and exact for as long as no longer word is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Word:
    """A basis vector of a layer's features, once per input or output coordinate.

    Attributes:
        start: "input" or "output".
        path: the layers it went through, the last is where it lives.
    """

    start: str
    path: tuple[int, ...]

    @property
    def layer(self) -> int:
        """Where it lives."""
        return self.path[-1]

    @property
    def came_up(self) -> bool:
        """Whether its last letter is a step up; a word of no letters came from nowhere."""
        return len(self.path) > 1 and self.path[-1] > self.path[-2]

    def step(self, layer: int) -> Word:
        """One letter more."""
        return Word(self.start, (*self.path, layer))


@dataclass(frozen=True)
class Words:
    """All words up to a length, layer by layer, those of an input before those of an output.

    Attributes:
        by_layer: the words that live in each layer.
        sizes: copies of a word by its start.
    """

    by_layer: tuple[tuple[Word, ...], ...]
    sizes: dict[str, int]

    @classmethod
    def up_to(cls, length: int, layers: int, inputs: int, outputs: int) -> Words:
        """Every word of at most ``length`` letters; none from the outputs where ``outputs`` is zero."""
        found: list[list[Word]] = [[] for _ in range(layers)]
        frontier = [Word("input", (0,))] + ([Word("output", (layers - 1,))] if outputs else [])
        for _ in range(length + 1):
            for word in frontier:
                found[word.layer].append(word)
            frontier = [
                word.step(layer)
                for word in frontier
                for layer in (word.layer + 1, word.layer - 1)
                if 0 <= layer < layers
            ]
        ordered = tuple(tuple(sorted(words, key=lambda word: (word.start, len(word.path)))) for words in found)
        return cls(ordered, {"input": inputs, "output": outputs})

    def width(self, layer: int) -> int:
        """Dimension of a layer's features."""
        return sum(self.sizes[word.start] for word in self.by_layer[layer])

    def slices(self, layer: int) -> dict[Word, slice]:
        """Which features of a layer are which word's."""
        found, at = {}, 0
        for word in self.by_layer[layer]:
            found[word] = slice(at, at + self.sizes[word.start])
            at += self.sizes[word.start]
        return found

    def matrix(self, layer: int, dtype: torch.dtype) -> Tensor:
        """The initial weight from a layer to the next, of unit variance: ``(width above, width below)``."""
        below, above = self.slices(layer), self.slices(layer + 1)
        W = torch.zeros(self.width(layer + 1), self.width(layer), dtype=dtype)
        for word, columns in below.items():
            up = word.step(layer + 1)
            if up in above:
                W[above[up], columns] = torch.eye(self.sizes[word.start], dtype=dtype)
        for word, rows in above.items():
            down = word.step(layer)
            if down in below:
                W[rows, below[down]] = torch.eye(self.sizes[word.start], dtype=dtype)
        return W

    def realise(self, matrices: list[Tensor], inputs: Tensor, outputs: Tensor) -> list[Tensor]:
        """The basis of each layer in networks of finite width n.

        Args:
            matrices: W of unit variance per layer, ``(n, n)`` with entries of variance 1/n.
            inputs: ``(n, d)`` with entries of variance 1/n, the words of no letters from the input.
            outputs: ``(n, c)``, those from the output.

        Returns:
            ``(n, width)`` per layer.
        """
        known: dict[Word, Tensor] = {}
        everything = sorted((word for words in self.by_layer for word in words), key=lambda word: len(word.path))
        for word in everything:
            if len(word.path) == 1:
                known[word] = inputs if word.start == "input" else outputs
                continue
            before = Word(word.start, word.path[:-1])
            image = matrices[before.layer] if word.came_up else matrices[word.layer].mT
            vectors = image @ known[before]
            if word.path[-3:-2] == (word.layer,):  # up and down again, or down and up: only what is fresh
                vectors = vectors - known[Word(word.start, word.path[:-2])]
            known[word] = vectors
        return [torch.cat([known[word] for word in words], 1) for words in self.by_layer]
