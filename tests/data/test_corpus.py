"""Words, windows and noise of a text."""

import pytest
import torch

from tangrams.data import Corpus, context_windows


def test_rare_words_are_left_out_and_the_rest_counted():
    corpus = Corpus.read("The cat saw the dog; the dog's cat 12 ran. Cat!", min_count=2)
    assert corpus.words == ("the", "cat")
    assert corpus.tokens.tolist() == [0, 1, 0, 0, 1, 1]
    assert corpus.counts.tolist() == [3, 3]
    with pytest.raises(ValueError, match="lower min_count"):
        Corpus.read("one two", min_count=2)


def test_windows_hold_the_neighbours_within_a_drawn_reach():
    tokens = torch.arange(50)
    windows = context_windows(tokens, 3, generator=torch.Generator().manual_seed(0))
    reaches = set()
    for i, row in enumerate(windows.tolist()):
        left, right = row[:3][::-1], row[3:]
        reach = max(sum(v >= 0 for v in left), sum(v >= 0 for v in right))
        reaches.add(reach)
        assert [v for v in left if v >= 0] == [i - k for k in range(1, reach + 1) if i - k >= 0]
        assert [v for v in right if v >= 0] == [i + k for k in range(1, reach + 1) if i + k < 50]
    assert reaches == {1, 2, 3}
    with pytest.raises(ValueError, match="window ≥ 1"):
        context_windows(tokens, 0, generator=torch.Generator())


def test_frequent_words_are_thinned_by_the_rule_of_word2vec():
    corpus = Corpus.read("a " * 9000 + "b " * 1000)
    kept = (
        torch.stack(
            [
                torch.bincount(corpus.subsampled(0.01, generator=torch.Generator().manual_seed(s)), minlength=2)
                for s in range(20)
            ]
        )
        .double()
        .mean(0)
    )
    for count, n, share in zip(kept.tolist(), (9000, 1000), (0.9, 0.1), strict=True):
        p = (0.01 / share) ** 0.5 + 0.01 / share
        assert count == pytest.approx(n * p, abs=5 * (n * p * (1 - p) / 20) ** 0.5)
    noise = corpus.noise()
    assert float(noise.sum()) == pytest.approx(1)
    assert float(noise[0] / noise[1]) == pytest.approx(9**0.75)
