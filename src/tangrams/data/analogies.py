"""A text with planted analogies, for word vectors."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from tangrams.data.corpus import Corpus


def planted_analogies(
    sentences: int, *, stems: int = 30, forms: int = 4, cues: int = 3, fillers: int = 50, seed: int = 0
) -> tuple[Corpus, Int[Tensor, "q 4"]]:
    """Sentences about words that are a stem in a form, as king and queen are, each of which shows in the words around.

    A sentence is a cue of the stem, one of the form, the word, and again a cue of the form and of the stem; behind it
    come two fillers, the k-th in proportion to 1/k. So a word is known by its company, and vectors that are learned
    from it should be sums of a part for the stem and a part for the form.

    Args:
        sentences: of seven tokens each; stems and forms are drawn evenly.
        stems: S.
        forms: F; each stem has every form.
        cues: words that go with each stem and each form.
        fillers: words without a meaning.
        seed: fixes the draw.

    Returns:
        The text, and all questions ``(a, b, c, d)``, "a is to b as c is to d": a and b forms of one stem, c and d the
        same forms of another, ``S (S − 1) F (F − 1)`` of them.

    Raises:
        ValueError: for fewer than one sentence, two stems, two forms, a cue and a filler.
    """
    if sentences < 1 or min(stems, forms) < 2 or min(cues, fillers) < 1:
        raise ValueError(
            "planted_analogies needs a sentence, two stems, two forms, a cue and a filler or more, got "
            f"{sentences}, {stems}, {forms}, {cues} and {fillers}"
        )
    generator = torch.Generator().manual_seed(seed)
    names = [f"stem{s}form{f}" for s in range(stems) for f in range(forms)]
    first = {"stem": len(names), "form": len(names) + stems * cues}
    names += [f"stem{s}cue{k}" for s in range(stems) for k in range(cues)]
    names += [f"form{f}cue{k}" for f in range(forms) for k in range(cues)]
    common = len(names)
    names += [f"filler{k}" for k in range(fillers)]

    stem, form = (torch.randint(size, (sentences, 1), generator=generator) for size in (stems, forms))
    of_stem, of_form = (torch.randint(cues, (sentences, 2), generator=generator) for _ in range(2))
    of_stem, of_form = first["stem"] + stem * cues + of_stem, first["form"] + form * cues + of_form
    weights = 1 / torch.arange(1, fillers + 1, dtype=torch.float64)
    filler = common + torch.multinomial(weights, 2 * sentences, replacement=True, generator=generator).reshape(-1, 2)
    parts = (of_stem[:, :1], of_form[:, :1], stem * forms + form, of_form[:, 1:], of_stem[:, 1:], filler)
    tokens = torch.cat(parts, 1).flatten()

    counts = torch.bincount(tokens, minlength=len(names))
    order = counts.argsort(descending=True, stable=True)
    place = order.argsort()
    s, t, f, g = torch.cartesian_prod(*(torch.arange(size) for size in (stems, stems, forms, forms))).unbind(1)
    asked = (s != t) & (f != g)
    questions = torch.stack([s * forms + f, s * forms + g, t * forms + f, t * forms + g], 1)[asked]
    return Corpus(tuple(names[i] for i in order.tolist()), place[tokens], counts[order]), place[questions]
