"""Encoders without padding: the texts of a batch as one row of real tokens; only attention sees them apart.

Everything but attention treats each token by itself, so padding need not be passed there. Attention is an implementation of our own,
registered with transformers. On a GPU in half precision it is FlashAttention over texts of any length; elsewhere it puts queries, keys
and values back into their padded places, and takes only real ones out.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask, sdpa_mask

NAME = "threephase_packed"  # of the attention, in a loaded configuration; it is never saved
FAMILIES = {
    "bert",
    "electra",
    "distilbert",
    "modernbert",
    "roberta",
    "xlm-roberta",
    "camembert",
}  # with attention to plug in, and positions
_LIKE_BERT = FAMILIES - {"distilbert", "modernbert"}  # as their layers are built
_FLASH = (torch.bfloat16, torch.float16)  # what FlashAttention takes
_OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet")  # whose positions start behind the padding token's id


class Packing:
    """Where the tokens of a batch belong: `mask` [b, t] is true where there is one; the row of real tokens has n of them."""

    def __init__(self, mask: Tensor, causal: bool = False) -> None:
        """`causal`: whether a token sees none after it."""
        self.mask, self.causal = mask, causal
        self._places = mask.flatten().nonzero().squeeze(1)

    @cached_property
    def starts(self) -> Tensor:
        """Where each text begins in the row, and where the last one ends, [b + 1]."""
        return F.pad(self.mask.sum(dim=1).cumsum(dim=0), (1, 0)).int()

    def take(self, padded: Tensor) -> Tensor:
        """The real tokens [n, ...] of [b, t, ...]."""
        return padded.flatten(0, 1).index_select(0, self._places)

    def spread(self, real: Tensor) -> Tensor:
        """Real tokens [n, ...] in their places [b, t, ...], zero elsewhere."""
        rows, columns = self.mask.shape
        empty = real.new_zeros(rows * columns, *real.shape[1:])
        spread: Tensor = empty.index_copy(0, self._places, real)
        return spread.view(rows, columns, *real.shape[1:])

    def repeat(self, each: Tensor) -> Tensor:
        """What belongs to the texts [b, ...], for each real token [n, ...]. Its gradient is a sum over places, which GPUs do fast."""
        return self.take(each[:, None].expand(-1, self.mask.shape[1], *each.shape[1:]))

    def positions(self) -> Tensor:
        """The place [n] of each token in its own text, from 0."""
        return self.take(self.mask.long().cumsum(dim=1) - 1)


def first_position(config: Any, pad: int) -> int:
    """The position id of a text's first token, `pad` being the id of the padding token."""
    return pad + 1 if config.model_type in _OFFSET else 0


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packing: Packing | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention over [1, heads, n, d] with each text by itself, as [1, n, heads, d]; without a packing it is PyTorch's own.

    Keys and values of a decoder's cross-attention are the texts' memories, one each, [1, heads, b, d]: a softmax over one is 1.
    """
    if packing is None:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return result
    if key.shape[2] != query.shape[2]:
        idle = 0.0 * (query.sum() + key.sum())  # they have no effect, but each parameter is to have a gradient, as engines expect
        return F.dropout(packing.repeat(value[0].transpose(0, 1)) + idle, dropout)[None], None
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))  # [n, heads, d]
    if query.is_cuda and query.dtype in _FLASH and options.get("sliding_window") is None:
        return _flash(q, k, v, packing, dropout, scaling)[None], None
    q, k, v = (packing.spread(states).transpose(1, 2) for states in (q, k, v))
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, dropout_p=dropout, scale=scaling)
    return packing.take(found.transpose(1, 2))[None], None


def _flash(query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float, scaling: float | None) -> Tensor:
    """FlashAttention (Dao et al. 2022) over rows [n, heads, d]. PyTorch's public `varlen_attn` is the same kernel, but has no dropout."""
    longest = packing.mask.shape[1]
    found: Tensor = torch.ops.aten._flash_attention_forward(
        query, key, value, packing.starts, packing.starts, longest, longest, dropout, packing.causal, False, scale=scaling
    )[0]
    return found


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


def enable(encoder: Any) -> bool:
    """Let an encoder use the attention, if its family can; whether it can."""
    if encoder.config.model_type not in FAMILIES or encoder.config._attn_implementation not in ("sdpa", NAME):
        return False
    encoder.config._attn_implementation = NAME
    return True


class FirstOnly(nn.Module):
    """A BERT-like last layer for the texts' first tokens alone: the others give keys and values, and come out as they went in."""

    def __init__(self, layer: Any) -> None:
        """Wrap the layer, in evaluation mode."""
        super().__init__()
        self.layer = layer

    def forward(
        self, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, packing: Packing | None = None, **options: Any
    ) -> Tensor:
        """States [b, t, h], or [1, n, h] of a packing; those of the first tokens are the layer's."""
        first = packing.starts[:-1].long() if packing else torch.zeros(1, dtype=torch.long, device=hidden.device)
        attended = self.layer.attention.self(hidden, attention_mask, packing=packing, **options)[0].index_select(1, first)
        found = self.layer.feed_forward_chunk(self.layer.attention.output(attended, hidden.index_select(1, first)))
        return hidden.to(found.dtype).index_copy(1, first, found)  # under autocast a GPU norms in float32


def shorten(encoder: Any) -> None:
    """Leave out what an encoder's last layer computes for other tokens than the first, if its family can; not for training."""
    if encoder.config.model_type in _LIKE_BERT:
        layers = encoder.encoder.layer
        layers[-1] = FirstOnly(layers[-1])


def states(encoder: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Last hidden states [b, t, h] of token ids [b, t], zero where `mask` is false. The encoder is `enable`d."""
    packing = Packing(mask)
    found = encoder(
        input_ids=packing.take(ids)[None],
        position_ids=packing.positions()[None] + first_position(encoder.config, encoder.config.pad_token_id),
        attention_mask=_masks(encoder.config, mask),
        packing=packing,
    )
    return packing.spread(found.last_hidden_state[0])


def decoded(causal: Any, memory: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """What a causal class, which is `enable`d, gives as logits [n, ...] for each real token of `ids` [b, t], given memory [b, h]."""
    packing = Packing(mask, causal=True)
    seen = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril() & mask[:, None, None, :]
    found: Tensor = causal(
        input_ids=packing.take(ids)[None],
        position_ids=packing.positions()[None] + first_position(causal.config, causal.config.pad_token_id),
        attention_mask=seen,
        encoder_hidden_states=memory[None],
        use_cache=False,
        packing=packing,
    ).logits
    return found[0]


def _masks(config: Any, mask: Tensor) -> Any:
    """The attention's masks in padded places, made by transformers; most of ModernBERT's layers look at near tokens only."""
    shape = torch.empty(*mask.shape, 1, device=mask.device)
    full = create_bidirectional_mask(config, shape, mask, allow_is_bidirectional_skip=False)
    if config.model_type != "modernbert":
        return full
    return {"full_attention": full, "sliding_attention": create_bidirectional_sliding_window_mask(config, shape, mask)}
