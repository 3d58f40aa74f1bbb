"""Attention, transformers, recurrent networks, and what comes with sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tangrams.testing.models.base import NastyModel, floats, ints, named, several


class SelfAttention(nn.Module):
    """``nn.MultiheadAttention`` on itself; sequence-first internally unless ``batch_first``."""

    def __init__(self, batch_first: bool, **options: Any) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=batch_first, **options)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        x = x if self.attend.batch_first else x.transpose(0, 1)
        h, _ = self.attend(x, x, x)
        return self.head(h.mean(1 if self.attend.batch_first else 0))


class CrossAttention(nn.Module):
    """Attention with keys and values of other widths: three projection weights instead of one."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, kdim=3, vdim=5, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(self.attend(query, key, value, need_weights=False)[0].mean(1))


class Pooled(nn.Module):
    """A sequence model, the mean over its positions and a head."""

    def __init__(self, body: nn.Module, width: int, time: int = 1) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, 3)
        self.time = time

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        h = self.body(x if self.time == 1 else x.transpose(0, 1))
        return self.head((h[0] if isinstance(h, tuple) else h).mean(self.time))


class Masked(nn.Module):
    """An encoder with a padding mask: its eval fast path uses nested tensors."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """``(n, 3)``, the mean over what is not padding."""
        h = self.encoder(x, src_key_padding_mask=padding).masked_fill(padding.unsqueeze(-1), 0.0)
        return self.head(h.sum(1) / (~padding).sum(1, keepdim=True))


class Translator(nn.Module):
    """``nn.Transformer``: encoder, decoder, cross attention."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Transformer(4, 2, 1, 1, 6, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(self.body(source, target).mean(1))


class Cells(nn.Module):
    """A recurrent cell in a Python loop: the same weights at every step."""

    def __init__(self, cell: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.cell = cell(3, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Packed(nn.Module):
    """An LSTM over sequences of different lengths, packed: the rows of a step are not one per sample."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """``(n, 3)``."""
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.rnn(packed)
        return self.head(h[-1])


class Positions(nn.Module):
    """Tokens plus a learned table of positions, looked up once and broadcast over the batch."""

    def __init__(self, table: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(9, 4)
        self.places = nn.Embedding(5, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 4))
        self.table = nn.Parameter(torch.zeros(6, 4)) if table else None
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, 3)``."""
        h = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        h = torch.cat([self.cls.expand(len(tokens), -1, -1), h], 1)
        h = h if self.table is None else h + self.table
        return self.head(torch.tanh(h).mean(1))


def bert() -> nn.Module:
    """A BERT classifier of a few hundred weights; its positions are embedded at batch size one."""
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            num_labels=3,  # pyright: ignore[reportCallIssue] (one of its extra keywords)
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=12,
            max_position_embeddings=8,
        )
    )


def gpt() -> nn.Module:
    """A GPT-2 language model: causal, its output weight tied to its token embedding."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=11, n_positions=8, n_embd=4, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    )


def llama() -> nn.Module:
    """A Llama classifier: rotary positions, RMS norms, gated products."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    return LlamaForSequenceClassification(
        LlamaConfig(
            num_labels=3,  # pyright: ignore[reportCallIssue] (one of its extra keywords)
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=12,
            max_position_embeddings=8,
            pad_token_id=0,
        )
    )


def _mask(n: int, generator: torch.Generator) -> Tensor:
    """1 for tokens, 0 for padding at the end; lengths 2 … 5."""
    return (torch.arange(5) < torch.randint(2, 6, (n, 1), generator=generator)).long()


def _padding(n: int, generator: torch.Generator) -> Tensor:
    return _mask(n, generator) == 0


def _lengths(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(1, 6, (n,), generator=generator)


def last_token(result: Any) -> Tensor:
    """The logits at the last position, ``(n, vocabulary)``."""
    return result.logits[:, -1]


def _encoder(**options: Any) -> Callable[[], nn.Module]:
    return lambda: Pooled(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, **options), 4)


_RECURRENT = "its backward is one fused node or many: vmap and two peers fail"

SEQUENCES = (
    NastyModel("attention", lambda: SelfAttention(True), floats(5, 4), "one weight for three projections"),
    NastyModel("attention-sequence-first", lambda: SelfAttention(False), floats(5, 4), "rows are positions × samples"),
    NastyModel(
        "attention-sequence-first-square",
        lambda: SelfAttention(False),
        floats(6, 4),
        "T = n and the sample is the second axis",
    ),
    NastyModel(
        "attention-bias-kv",
        lambda: SelfAttention(True, add_bias_kv=True, add_zero_attn=True),
        floats(5, 4),
        "learned extra keys and values, broadcast over the batch",
    ),
    NastyModel("attention-cross", CrossAttention, several(floats(2, 4), floats(3, 3), floats(3, 5)), "three weights"),
    NastyModel("encoder-layer", _encoder(), floats(5, 4), "eval mode has a fast path without a backward"),
    NastyModel(
        "encoder-layer-norm-first", _encoder(norm_first=True, activation="gelu"), floats(6, 4), "pre-norm, T = n"
    ),
    NastyModel(
        "encoder-sequence-first",
        lambda: Pooled(nn.TransformerEncoderLayer(4, 2, 6), 4, time=0),
        floats(6, 4),
        "T = n, sequence first",
    ),
    NastyModel("encoder-padding", Masked, several(floats(5, 4), _padding), "padding masks, nested tensors"),
    NastyModel("transformer", Translator, several(floats(3, 4), floats(2, 4)), "encoder and decoder"),
    NastyModel("lstm", lambda: Pooled(nn.LSTM(3, 4, batch_first=True), 4), floats(4, 3), _RECURRENT),
    NastyModel(
        "lstm-deep",
        lambda: Pooled(nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True), 8),
        floats(6, 3),
        "two layers, two directions, T = n",
    ),
    NastyModel(
        "lstm-projection",
        lambda: Pooled(nn.LSTM(3, 4, batch_first=True, proj_size=2), 2),
        floats(4, 3),
        "projected hidden state",
    ),
    NastyModel("lstm-sequence-first", lambda: Pooled(nn.LSTM(3, 4), 4, time=0), floats(6, 3), "T = n"),
    NastyModel("lstm-packed", Packed, several(floats(5, 3), _lengths), "packed sequences"),
    NastyModel("gru", lambda: Pooled(nn.GRU(3, 4, batch_first=True), 4), floats(4, 3), _RECURRENT),
    NastyModel("rnn", lambda: Pooled(nn.RNN(3, 4, batch_first=True), 4), floats(4, 3), _RECURRENT),
    NastyModel("lstm-cell", lambda: Cells(nn.LSTMCell), floats(4, 3), "a loop over steps"),
    NastyModel("gru-cell", lambda: Cells(nn.GRUCell), floats(4, 3), "a loop over steps"),
    NastyModel("rnn-cell", lambda: Cells(nn.RNNCell), floats(4, 3), "a loop over steps"),
    NastyModel("positions-embedded", lambda: Positions(False), ints(9, 5), "positions at batch 1, then broadcast"),
    NastyModel("positions-table", lambda: Positions(True), ints(9, 5), "a bare table added to every sample"),
    NastyModel(
        "bert",
        bert,
        named(input_ids=ints(20, 5)),
        "ModelOutput; positions broadcast: a peer is 28 % off",
        n=4,
        needs=("transformers",),
    ),
    NastyModel(
        "bert-padded",
        bert,
        named(input_ids=ints(20, 5), attention_mask=_mask),
        "padded dict batches",
        n=4,
        needs=("transformers",),
    ),
    NastyModel(
        "gpt",
        gpt,
        named(input_ids=ints(11, 4)),
        "tied weights, causal attention",
        output=last_token,
        n=4,
        needs=("transformers",),
    ),
    NastyModel(
        "llama",
        llama,
        named(input_ids=lambda n, g: 1 + ints(19, 5)(n, g)),
        "rotary positions; its norms compute in float32 whatever the weights are",
        n=4,
        precision=torch.float32,
        needs=("transformers",),
    ),
)
