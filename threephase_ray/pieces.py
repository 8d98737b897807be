"""Texts to tokens, piece by piece: most pieces were met before and are looked up, so that distinct words are tokenised, not texts.

A piece is a word with the blank before it. Where a tokenizer itself cuts at blanks before it does anything else that sees more than a
character, the tokens of a text are those of its pieces, one after the other; with another tokenizer each text is one piece.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from threephase_ray.noise import CONTINUES, SPECIAL, STARTS

Ints = NDArray[np.int64]

MOST = 1 << 19  # tokens of pieces that are remembered
# A single blank between characters of which no normaliser makes blanks or joins them with one: printable ASCII, Latin, Cyrillic.
_CUT = re.compile(" (?=[!-~À-ʯЀ-҂Ҋ-ӿ])(?<=[!-~À-ʯЀ-҂Ҋ-ӿ] )")
_FIRST = "\n"  # marks a text's first piece, which has no blank before it; no other piece begins so
_BY_CHARACTER = {"BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Lowercase", "StripAccents"}
_AT_BLANKS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}


@dataclass(frozen=True)
class Encoded:
    """Tokens of some texts, one text after the other; text i has those from `offsets[i]` to `offsets[i + 1]`."""

    offsets: NDArray[np.int32]
    tokens: NDArray[np.int32]
    words: NDArray[np.uint8]  # see `noise`
    truncated: int  # texts that were cut off


class Pieces:
    """Encodes texts as the tokenizer does, with its special tokens, and keeps `length` tokens at most, those special ones included."""

    _numbers: defaultdict[str, int]  # numbers a new piece when it is asked for
    _tokens: NDArray[np.int32]  # of all pieces, one after the other
    _words: NDArray[np.uint8]
    _ends: Ints  # piece k has the tokens from `_ends[k]` to `_ends[k + 1]`

    def __init__(self, tokenizer: Tokenizer, length: int, *, left: bool = False) -> None:
        """`tokenizer` neither pads nor truncates; `left`: of a long text the end is kept."""
        self._tokenizer, self._left = tokenizer, left
        self._cuts = cuts(tokenizer)
        around = tokenizer.encode("a")
        inner = [place for place, word in enumerate(around.word_ids) if word is not None]
        self._before, self._after = around.ids[: inner[0]], around.ids[inner[-1] + 1 :]
        self._room = length - len(self._before) - len(self._after)
        self._forget()

    def encode(self, texts: Sequence[str]) -> Encoded:
        """The tokens of at least one text."""
        split = [_CUT.split(_FIRST + text) for text in texts] if self._cuts else [[_FIRST + text] for text in texts]
        pieces = self._numbered([*chain.from_iterable(split)])
        sizes = self._ends[pieces + 1] - self._ends[pieces]
        counts = np.add.reduceat(sizes, _starts(np.fromiter(map(len, split), np.int64, len(split))))
        source = np.repeat(self._ends[pieces] - _starts(sizes), sizes) + np.arange(sizes.sum())
        kept = np.minimum(counts, self._room)
        place = np.arange(len(source)) - np.repeat(_starts(counts), counts)
        source = source[place >= np.repeat(counts - kept, counts) if self._left else place < np.repeat(kept, counts)]

        ends = np.cumsum(kept + len(self._before) + len(self._after))
        offsets = np.concatenate([[0], ends])
        first, last = offsets[:-1, None] + np.arange(len(self._before)), ends[:, None] + np.arange(-len(self._after), 0)
        tokens, words = np.zeros(offsets[-1], dtype=np.int32), np.full(offsets[-1], STARTS, dtype=np.uint8)
        tokens[first], words[first], tokens[last], words[last] = self._before, SPECIAL, self._after, SPECIAL
        body = words != SPECIAL
        tokens[body], words[body] = self._tokens[source], self._words[source]
        words[(offsets[:-1] + len(self._before))[kept > 0]] = STARTS  # what is left of a word is a word
        return Encoded(offsets.astype(np.int32), tokens, words, int((counts > self._room).sum()))

    def _numbered(self, pieces: list[str]) -> Ints:
        """The numbers of pieces; new ones are tokenised."""
        if len(self._tokens) > MOST:
            self._forget()
        numbers = np.fromiter(map(self._numbers.__getitem__, pieces), np.int64, len(pieces))
        if unseen := [*islice(reversed(self._numbers), len(self._numbers) - len(self._ends) + 1)][::-1]:
            spelt = [piece[1:] if piece.startswith(_FIRST) else " " + piece for piece in unseen]
            encodings = self._tokenizer.encode_batch(spelt, add_special_tokens=False)
            self._tokens = np.concatenate([self._tokens, *(np.array(encoding.ids, dtype=np.int32) for encoding in encodings)])
            self._words = np.concatenate([self._words, *(np.array(_words(encoding), dtype=np.uint8) for encoding in encodings)])
            self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum([len(encoding) for encoding in encodings])])
        return numbers

    def _forget(self) -> None:
        """Start with no piece."""
        self._numbers = defaultdict(count().__next__)
        self._tokens, self._words, self._ends = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint8), np.zeros(1, dtype=np.int64)


def cuts(tokenizer: Tokenizer) -> bool:
    """Whether the tokens of a text are those of its pieces.

    So it is where normalisers look at characters only, and the text is then cut at blanks: by BERT's pre-tokenizer, at white space, or
    by the pattern of GPT-2, in which a blank opens a word and never ends one; unless an added token holds blanks or swallows them.
    """
    state = json.loads(tokenizer.to_str())
    tokens = [token for token in state["added_tokens"] if token["rstrip"] or re.search(r"\s", token["content"])]
    steps = [*_flat(state["pre_tokenizer"], "pretokenizers")]
    at_blanks = bool(steps) and (steps[0]["type"] in _AT_BLANKS or (steps[0]["type"] == "ByteLevel" and steps[0]["use_regex"]))
    return at_blanks and not tokens and all(step["type"] in _BY_CHARACTER for step in _flat(state["normalizer"], "normalizers"))


def _flat(step: dict[str, Any] | None, parts: str) -> Iterator[dict[str, Any]]:
    """A step, or the steps that it consists of."""
    if step is not None and step["type"] == "Sequence":
        for part in step[parts]:
            yield from _flat(part, parts)
    elif step is not None:
        yield step


def _words(encoding: Encoding) -> list[int]:
    """For each token whether it continues a word or starts one."""
    words = encoding.word_ids
    return [CONTINUES if word == before else STARTS for before, word in zip([None, *words], words, strict=False)]


def _starts(sizes: Ints) -> Ints:
    """Where each of some parts, one after the other, begins."""
    return np.cumsum(sizes) - sizes
