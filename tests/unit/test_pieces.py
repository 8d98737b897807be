"""Texts encoded piece by piece are what the tokenizer itself makes of them."""

import random
import unicodedata
from collections.abc import Callable

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tests.unit import tiny
from threephase_ray import noise, pieces, shards

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
SENTENCES = ["the red ink is drying", "A green leaf, the blue sky!", "it's play-ing: don't stop", "Größe für 12 €", "он читает книгу"]
PARTS = [
    *"ab1.,'\"#ΣЯй中é", "  ", " ", " ", " ", " ", "\t", "\n", "\u0301", "\u0483",
    "\u00a0", "\u3000", "\u200b", "\u0007", "\ufdfa", "\u037a",
    "ŉ", "İ", "\U0001f600", "##", "▁", "[MASK]", "<mask>", "<s>", "'s", "playing", "ink",
]  # fmt: skip


def bert() -> Tokenizer:
    """WordPiece, as BERT has it."""
    return shards.plain(tiny.tokenizer())


def byte_level(prefix: bool = False, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    """Byte-pair encoding, as RoBERTa has it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    made.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(SENTENCES * 3, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=prefix)
    made.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return made


def sentence_pieces(scheme: str, *, splits: bool = True) -> Tokenizer:
    """Unigrams, as XLM-R has them; without `splits` nothing cuts at white space first."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Lowercase()])
    steps = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)]
    made.pre_tokenizer = pre_tokenizers.Sequence(steps if splits else steps[1:])
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)  # noqa: S106
    made.train_from_iterator(SENTENCES * 3, trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s> </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return Tokenizer.from_str(made.to_str())  # scores are rounded when they are written, which may decide between two ways


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "bert": bert,
    "byte level": byte_level,
    "byte level with a blank before": lambda: byte_level(True, normalizers.NFC()),
    "unigrams": lambda: sentence_pieces("always"),
    "unigrams, first": lambda: sentence_pieces("first"),
    "unigrams, never": lambda: sentence_pieces("never"),
    "not cut": lambda: sentence_pieces("always", splits=False),
}


def texts(count: int = 500) -> list[str]:
    """Sentences, and strings of all that may be awkward."""
    rng = random.Random(0)  # noqa: S311
    odd = ["".join(rng.choices(PARTS, k=rng.randint(1, 25))).strip() for _ in range(count)]
    return [*SENTENCES, " ".join(SENTENCES), *filter(None, odd)]


def expected(tokenizer: Tokenizer, given: list[str], length: int, left: bool) -> tuple[list[list[int]], list[list[int]], int]:
    """Tokens and words of each text, and how many were truncated, by the tokenizer alone."""
    own = Tokenizer.from_str(tokenizer.to_str())
    own.enable_truncation(length, direction="left" if left else "right")
    encodings = own.encode_batch(given)
    words = []
    for made in encodings:
        pairs = zip([None, *made.word_ids], made.word_ids, strict=False)
        words.append([noise.SPECIAL if word is None else int(word != before) for before, word in pairs])
    return [made.ids for made in encodings], words, sum(bool(made.overflowing) for made in encodings)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("length", [8, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_tokenizer_says_of_whole_texts(kind: str, length: int, left: bool) -> None:
    tokenizer, given = KINDS[kind](), texts()
    assert pieces.cuts(tokenizer) == (kind != "not cut")
    encoder = pieces.Pieces(tokenizer, length, left=left)
    tokens, words, truncated = expected(tokenizer, given, length, left)
    made = [encoder.encode(given[first : first + 100]) for first in range(0, len(given), 100)]
    ends = [(part, *span) for part in made for span in zip(part.offsets, part.offsets[1:], strict=False)]
    assert [part.tokens[start:end].tolist() for part, start, end in ends] == tokens
    assert [part.words[start:end].tolist() for part, start, end in ends] == words
    assert sum(part.truncated for part in made) == truncated > 0 or length == 64


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MOST", 50)
    encoder, seen = pieces.Pieces(bert(), 64), []
    for number in range(200):
        made = encoder.encode([f"text {number}", "red ink"])
        seen.append(len(encoder._tokens))
        assert made.tokens[made.offsets[1] : made.offsets[2]].tolist() == tiny.tokenizer()("red ink")["input_ids"]
    assert max(seen) < 70
    assert sorted(seen) != seen  # it was forgotten, and learnt anew


def test_no_text_is_cut_where_a_normaliser_makes_a_blank() -> None:
    open_to = [letter for letter in map(chr, range(0x11000)) if pieces._CUT.search(f"x {letter}")]
    assert open_to == [letter for letter in map(chr, range(0x11000)) if pieces._CUT.search(f"{letter} x")]
    assert len(open_to) > 600
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        for letter in open_to:
            changed = unicodedata.normalize(form, letter)
            assert not changed[0].isspace()
            assert not changed[-1].isspace()
            assert not unicodedata.combining(changed[0])


@pytest.mark.parametrize("token", [AddedToken("[GAP]", rstrip=True), AddedToken("New York")])
def test_added_tokens_that_reach_over_blanks_keep_texts_whole(token: AddedToken) -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([token])
    assert not pieces.cuts(tokenizer)
    given = ["red [GAP] ink", "New York is New", "in New York"]
    made = pieces.Pieces(tokenizer, 64).encode(given)
    assert [made.tokens[start:end].tolist() for start, end in zip(made.offsets, made.offsets[1:], strict=False)] == [
        encoding.ids for encoding in tokenizer.encode_batch(given)
    ]


def test_what_may_look_at_more_than_a_character_keeps_texts_whole() -> None:
    tokenizer = bert()
    for step in (normalizers.Prepend("▁"), normalizers.Replace("a b", "c"), normalizers.Strip()):
        tokenizer.normalizer = normalizers.Sequence([normalizers.BertNormalizer(), step])
        assert not pieces.cuts(tokenizer)
    tokenizer.normalizer = normalizers.BertNormalizer()
    for first in (pre_tokenizers.Split("a b", "isolated"), pre_tokenizers.Metaspace(), pre_tokenizers.ByteLevel(use_regex=False)):
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, pre_tokenizers.WhitespaceSplit()])
        assert not pieces.cuts(tokenizer)
    tokenizer.pre_tokenizer = None
    assert not pieces.cuts(tokenizer)
