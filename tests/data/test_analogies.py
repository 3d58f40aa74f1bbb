"""The text with planted analogies."""

import pytest
import torch

from tangrams.data import planted_analogies

STEMS, FORMS = 5, 3
CORPUS, QUESTIONS = planted_analogies(300, stems=STEMS, forms=FORMS, cues=2, fillers=4, seed=1)


def parts(word):
    """(stem, form) of a word, and what it is a cue of."""
    name = CORPUS.words[word]
    numbers = [int(n) for n in name.translate({ord(c): " " for c in "stemformcuefiller"}).split()]
    if "filler" in name:
        return "filler", None, None
    if "cue" in name:
        return "cue", *((numbers[0], None) if "stem" in name else (None, numbers[0]))
    return "word", *numbers


def test_sentences_are_words_within_cues_of_their_stem_and_form():
    for sentence in CORPUS.tokens.reshape(300, 7).tolist():
        kinds = [parts(word) for word in sentence]
        _, stem, form = kinds[2]
        assert kinds[2][0] == "word"
        assert kinds[0] == kinds[4] == ("cue", stem, None)
        assert kinds[1] == kinds[3] == ("cue", None, form)
        assert kinds[5][0] == kinds[6][0] == "filler"


def test_the_vocabulary_is_counted_and_sorted():
    assert len(CORPUS.words) == STEMS * FORMS + 2 * (STEMS + FORMS) + 4
    assert torch.equal(CORPUS.counts, torch.bincount(CORPUS.tokens, minlength=len(CORPUS.words)))
    assert torch.equal(CORPUS.counts, CORPUS.counts.sort(descending=True).values)


def test_questions_are_all_pairs_of_stems_in_pairs_of_forms():
    assert len(QUESTIONS) == len(QUESTIONS.unique(dim=0)) == STEMS * (STEMS - 1) * FORMS * (FORMS - 1)
    for question in QUESTIONS.tolist():
        (_, s, f), (_, s2, g), (_, t, f2), (_, t2, g2) = (parts(word) for word in question)
        assert (s, f, g) == (s2, f2, g2)
        assert t == t2 != s
        assert f != g


def test_sizes_that_leave_no_analogy_are_refused():
    for bad in ({"stems": 1}, {"forms": 1}, {"cues": 0}, {"fillers": 0}):
        with pytest.raises(ValueError, match="planted_analogies"):
            planted_analogies(10, **bad)
    with pytest.raises(ValueError, match="planted_analogies"):
        planted_analogies(0)
