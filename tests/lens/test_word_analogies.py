"""Analogies between word vectors."""

import pytest
import torch

from tangrams.data import planted_analogies
from tangrams.lens import analogy_accuracy


def by_loops(vectors, questions):
    units = [v / v.norm() for v in vectors]
    right = 0
    for a, b, c, d in questions.tolist():
        wanted = units[b] - units[a] + units[c]
        scores = {w: float(u @ wanted) for w, u in enumerate(units) if w not in (a, b, c)}
        right += max(scores, key=scores.__getitem__) == d
    return right / len(questions)


def test_the_accuracy_is_that_of_the_slow_search(monkeypatch):
    monkeypatch.setattr("tangrams.lens.word_analogies._SCORES", 100)  # several portions
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    questions = torch.stack([torch.randperm(12, generator=generator)[:4] for _ in range(200)])
    found = analogy_accuracy(vectors, questions)
    assert found == by_loops(vectors, questions)
    assert 0 < found < 1


def test_sums_of_stems_and_forms_answer_all_and_vectors_without_relations_none():
    corpus, questions = planted_analogies(50, stems=4, forms=3)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(len(corpus.words), 16, generator=generator)
    stems, forms = torch.randn(4, 16, generator=generator), torch.randn(3, 16, generator=generator)
    for word, name in enumerate(corpus.words):
        if "cue" not in name and "filler" not in name:
            stem, form = name.removeprefix("stem").split("form")
            vectors[word] = stems[int(stem)] + forms[int(form)]
    assert analogy_accuracy(vectors, questions) > 0.95
    assert analogy_accuracy(torch.eye(len(corpus.words)), questions) == 0  # all others tie


def test_questions_about_unknown_words_are_refused():
    with pytest.raises(ValueError, match="words 0 … 2"):
        analogy_accuracy(torch.eye(3), torch.tensor([[0, 1, 2, 3]]))
    with pytest.raises(ValueError, match="analogy_accuracy"):
        analogy_accuracy(torch.eye(3), torch.zeros(0, 4, dtype=torch.long))
