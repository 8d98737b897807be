"""The table of token embeddings where it is looked up in and also gives the logits: one gradient for all its uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from threephase_ray import losses
from threephase_ray.noise import IGNORED

Guess = tuple[Tensor, Tensor]  # sum of the cross-entropies of tokens to rebuild, and how many were rebuilt rightly


class Uses:
    """The uses of one table in a forward pass, as a chain: each takes the table that the one before it hands on.

    autograd would make a table of zeros for the few rows of each lookup, and add up all tables. Along the chain the
    gradient of the last use, the logits, comes back through the lookups, and each adds its rows to it in place.
    """

    def __init__(self) -> None:
        """No chain yet."""
        self.table: Tensor | None = None  # [v, h], as the last use handed it on; none outside of `chained`

    @contextmanager
    def chained(self, table: Tensor) -> Iterator[None]:
        """Chain all uses of `table` in here; elsewhere they know nothing of each other."""
        self.table = table
        try:
            yield
        finally:
            self.table = None


class Lookup(nn.Embedding):
    """A stock embedding as one of the uses of its table."""

    def __init__(self, stock: nn.Embedding, uses: Uses) -> None:
        """Take the place of `stock`, with its weight."""
        super().__init__(stock.num_embeddings, stock.embedding_dim, stock.padding_idx, _weight=stock.weight)
        self.weight, self._uses = stock.weight, uses

    def forward(self, input: Tensor) -> Tensor:
        """Rows [..., h] of the tokens [...]; the padding token's get no gradient."""
        if self._uses.table is None:
            return super().forward(input)
        rows: Tensor
        rows, self._uses.table = _Rows.apply(self._uses.table, input, self.padding_idx)  # type: ignore[no-untyped-call]
        return rows


class _Rows(torch.autograd.Function):
    """Rows of a table, and the table for its next use."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, tokens: Tensor, padding: int | None) -> tuple[Tensor, Tensor]:
        """The rows, and the table itself."""
        ctx.save_for_backward(tokens)
        ctx.set_materialize_grads(False)
        ctx.padding, ctx.shape = padding, table.shape
        return table[tokens], table.detach()

    @staticmethod
    def backward(ctx: Any, of_rows: Tensor | None, of_table: Tensor | None) -> tuple[Tensor | None, None, None]:
        """The table's gradient from later uses, which nothing else needs any more, with that of the rows added."""
        if of_rows is None:
            return of_table, None, None
        if of_table is None:
            of_table = of_rows.new_zeros(ctx.shape)
        (tokens,) = ctx.saved_tensors
        if ctx.padding is not None:
            of_rows = of_rows.masked_fill((tokens == ctx.padding)[..., None], 0.0)
        tokens, of_rows = tokens.flatten(), of_rows.flatten(0, -2)
        if of_table.is_cuda:
            return of_table.index_put_((tokens,), of_rows, accumulate=True), None, None  # adds in a fixed order, unlike index_add_
        return of_table.index_add_(0, tokens, of_rows), None, None


class Unembedding(nn.Module):
    """The last linear map of a language model, from states to logits over the vocabulary, which are never held as a whole."""

    def __init__(self, model: nn.Module) -> None:
        """Take the map off `model`, which from then on gives the states before it, as its logits."""
        super().__init__()
        last: nn.Linear = model.get_output_embeddings()  # type: ignore[operator]
        _replace(model, {last: nn.Identity()})
        self.weight, self.bias = last.weight, nn.Parameter(torch.zeros(len(last.weight))) if last.bias is None else last.bias
        self._uses = Uses()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Where a forward pass goes through embeddings with the same weight, and then through this, once: all in one chain."""
        with self._uses.chained(self.weight):
            yield

    def join(self, network: nn.Module) -> None:
        """Have all stock embeddings in `network` that share the weight take part."""
        stock = {module for module in network.modules() if type(module) is nn.Embedding and module.weight is self.weight}
        _replace(network, {module: Lookup(module, self._uses) for module in stock})

    def forward(self, states: Tensor, targets: Tensor) -> Guess:
        """Of states [n, h] and the tokens [n] to rebuild, those of -100 left out."""
        asked, table = targets != IGNORED, self._uses.table
        return losses.reconstruction(states[asked], self.weight if table is None else table, self.bias, targets[asked])


def _replace(network: nn.Module, others: dict[nn.Module, nn.Module]) -> None:
    """Put other modules in the place of some, wherever they occur."""
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if module in others:
            holder, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(holder), leaf, others[module])
