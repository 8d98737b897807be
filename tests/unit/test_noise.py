import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest

from threephase_ray import noise

PAD, MASK, VOCABULARY = 0, 1, 1000


def texts(seed: int, rows: int = 40, longest: int = 30) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.bool_]]:
    """Random tokens, words and presence [n, t]: a special token at both ends, words of one to four tokens, then padding."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, longest + 1, rows)
    present = np.arange(longest) < lengths[:, None]
    words = np.where(rng.random(present.shape) < 0.5, noise.STARTS, noise.CONTINUES).astype(np.uint8)
    words[:, 1] = noise.STARTS
    words[:, 0] = words[np.arange(rows), lengths - 1] = noise.SPECIAL
    words[~present] = noise.SPECIAL
    return np.where(present, rng.integers(2, VOCABULARY, present.shape), PAD), words, present


def visits(rows: int, copy: int = 0) -> NDArray[np.int64]:
    """Visits of rows 0 ... n - 1."""
    return np.column_stack([np.arange(rows), np.full(rows, copy)])


def test_numbers_are_uniform_and_independent() -> None:
    draws = noise.uniform((3, 0), visits(400), 250)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert kstest(draws.ravel(), "uniform").pvalue > 1e-3
    for axis in (0, 1):  # neighbours in a text, and the same place of neighbouring rows
        before, after = (np.take(draws, range(i, draws.shape[axis] - 1 + i), axis=axis).ravel() for i in (0, 1))
        cells = np.histogram2d(before, after, bins=8, range=[[0, 1], [0, 1]])[0]
        assert chisquare(cells.ravel()).pvalue > 1e-3
    bits = (draws[..., None] * 2.0 ** np.arange(1, 21)).astype(np.int64) % 2
    assert np.abs(bits.mean(axis=(0, 1)) - 0.5).max() < 0.01


def test_every_part_of_the_key_counts() -> None:
    base = noise.uniform((1, 2), visits(8), 20)
    others = [
        noise.uniform((2, 2), visits(8), 20),
        noise.uniform((1, 3), visits(8), 20),
        noise.uniform((1, -1), visits(8), 20),
        noise.uniform((1, 2, 1), visits(8), 20),
        noise.uniform((1, 2), visits(8, copy=1), 20),
        noise.uniform((2, 1), visits(8), 20),
        noise.uniform((1, 2), visits(9)[1:, ::-1], 20),  # row and copy change places
    ]
    for other in others:
        assert (base != other).all()
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 0.35
    np.testing.assert_array_equal(base, noise.uniform((1, 2), visits(8), 20))


@pytest.mark.parametrize("whole_words", [True, False])
def test_noise_depends_on_the_visit_and_not_on_the_batch_around_it(whole_words: bool) -> None:
    _, words, present = texts(0)
    together = noise.chosen(words, noise.uniform((5, 1), visits(40), 30), 0.6, whole_words)
    for row in range(40):
        width = int(present[row].sum())  # the row alone, without padding
        draws = noise.uniform((5, 1), visits(40)[row : row + 1], width)
        alone = noise.chosen(words[row : row + 1, :width], draws, 0.6, whole_words)
        assert (together[row, :width] == alone[0]).all()
        assert not together[row, width:].any()
    later = noise.chosen(words, noise.uniform((5, 2), visits(40), 30), 0.6, whole_words)
    assert (later != together).any(axis=1).mean() > 0.8


@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("whole_words", [True, False])
def test_the_ratio_is_met_and_something_stays(whole_words: bool, ratio: float) -> None:
    hits = ordinary = 0
    for epoch in range(20):
        _, words, _ = texts(epoch, rows=100, longest=60)
        hit = noise.chosen(words, noise.uniform((0, epoch), visits(100), 60), ratio, whole_words)
        assert not hit[words == noise.SPECIAL].any()
        assert ((words != noise.SPECIAL) & ~hit).any(axis=1).all()
        long = (words != noise.SPECIAL).sum(axis=1) > 20  # where the word that stays in any case hardly counts
        hits, ordinary = hits + hit[long].sum(), ordinary + (words[long] != noise.SPECIAL).sum()
    assert hits / ordinary == pytest.approx(ratio, abs=0.01)


def test_a_text_of_one_word_is_left_alone() -> None:
    words = np.array([[2, 1, 0, 0, 2, 2], [2, 1, 2, 2, 2, 2], [2, 2, 2, 2, 2, 2]], dtype=np.uint8)
    for epoch in range(50):
        assert not noise.chosen(words, noise.uniform((0, epoch), visits(3), 6), 0.99, whole_words=True).any()


def test_whole_words_fall_together() -> None:
    split = 0
    for epoch in range(10):
        _, words, _ = texts(epoch)
        starts = noise.word_starts(words)
        assert (np.take_along_axis(words, starts, axis=1)[words == noise.CONTINUES] == noise.STARTS).all()
        draws = noise.uniform((0, epoch), visits(40), 30)
        hit = noise.chosen(words, draws, 0.6, whole_words=True)
        assert (hit == np.take_along_axis(hit, starts, axis=1))[words != noise.SPECIAL].all()
        tokens_hit = noise.chosen(words, draws, 0.6, whole_words=False)
        split += (tokens_hit != np.take_along_axis(tokens_hit, starts, axis=1))[words != noise.SPECIAL].sum()
    assert split > 0  # tokens alone do not


def test_deletion_closes_the_gaps_in_order() -> None:
    tokens, words, present = texts(1)
    hit = noise.chosen(words, noise.uniform((0, 0), visits(40), 30), 0.6, whole_words=True)
    left, there = noise.delete(tokens, present, hit, PAD)
    for row in range(40):
        expected = tokens[row][present[row] & ~hit[row]]
        assert left[row][there[row]].tolist() == expected.tolist()
        assert there[row].tolist() == [True] * len(expected) + [False] * (left.shape[1] - len(expected))
        assert (left[row][~there[row]] == PAD).all()
    assert there.any(axis=0).all()  # no wider than the longest


def test_masking_keeps_the_length() -> None:
    tokens, words, _ = texts(2)
    hit = noise.chosen(words, noise.uniform((0, 0), visits(40), 30), 0.5, whole_words=False)
    masked = noise.mask(tokens, hit, MASK)
    assert (masked[hit] == MASK).all()
    assert (masked[~hit] == tokens[~hit]).all()


def test_masked_language_modelling_masks_80_replaces_10_and_keeps_10_percent() -> None:
    tokens, words, _ = texts(3, rows=2000)
    hit = noise.chosen(words, noise.uniform((0, 0), visits(2000), 30), 0.6, whole_words=False)
    inputs, targets = noise.masked_lm(tokens, hit, noise.uniform((0, 0, 1), visits(2000), 30), MASK, VOCABULARY)
    assert (targets[~hit] == noise.IGNORED).all()
    assert (targets[hit] == tokens[hit]).all()
    assert (inputs[~hit] == tokens[~hit]).all()
    masked, kept = inputs[hit] == MASK, inputs[hit] == tokens[hit]
    replaced = inputs[hit][~masked & ~kept]
    assert [masked.mean(), kept.mean(), len(replaced) / hit.sum()] == pytest.approx([0.8, 0.1, 0.1], abs=0.015)
    assert kstest(replaced, "uniform", args=(0, VOCABULARY)).pvalue > 1e-3
    assert replaced.min() >= 0
    assert replaced.max() < VOCABULARY


@pytest.mark.parametrize("whole_words", [True, False])
def test_hidden_tokens_come_last_in_a_random_order(whole_words: bool) -> None:
    rises = []
    for epoch in range(20):
        _, words, _ = texts(epoch)
        draws = noise.uniform((0, epoch), visits(40), 30)
        hit = noise.chosen(words, draws, 0.4, whole_words)
        places = noise.ranks(words, draws, hit, whole_words)
        starts = noise.word_starts(words) if whole_words else np.broadcast_to(np.arange(30), words.shape)
        for row in range(40):
            order = np.argsort(places[row])[30 - hit[row].sum() :]
            assert places[row, order].tolist() == list(range(1, len(order) + 1))
            assert set(order) == set(np.flatnonzero(hit[row]))
            by_draw = sorted(order, key=lambda token: (-draws[row, starts[row, token]], token))
            assert by_draw == order.tolist()  # a whole word's tokens from left to right
            ends = starts[row, order[[0, -1]]] if len(order) else np.zeros(2)
            rises += [ends[0] < ends[1]] if ends[0] != ends[1] else []
    assert np.mean(rises) == pytest.approx(0.5, abs=0.08)


def test_queries_are_the_hidden_tokens_in_their_order() -> None:
    places = np.array([[0, 3, 0, 1, 2, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    assert noise.queries(places).tolist() == [[3, 4, 1], [2, -1, -1], [-1, -1, -1]]
    assert noise.queries(places[2:]).tolist() == [[-1]]


def test_who_sees_whom() -> None:
    """Special token, two tokens of the context with one hidden between, another hidden one, padding; then two queries."""
    places, present = np.array([[0, 0, 2, 0, 1, 0]]), np.array([[True] * 5 + [False]])
    seen = noise.sight(places, present, noise.queries(places))[0]
    context, first, second = [0, 1, 3], 4, 2
    expected = {
        **dict.fromkeys(context, context),
        first: [*context, first],
        second: [*context, first, second],
        5: [*context, 5],
        6: [*context, 6],
        7: [*context, first, 7],
    }
    assert {row: np.flatnonzero(seen[row]).tolist() for row in range(8)} == {row: sorted(columns) for row, columns in expected.items()}


def test_nothing_that_a_query_hears_of_knows_its_token() -> None:
    for seed in range(5):
        _, words, present = texts(seed)
        draws = noise.uniform((seed, 0), visits(40), 30)
        places = noise.ranks(words, draws, noise.chosen(words, draws, 0.5, whole_words=False), whole_words=False)
        asked = noise.queries(places)
        heard = noise.sight(places, present, asked)
        for _ in range(3):
            heard = heard | (heard.astype(np.int64) @ heard.astype(np.int64) > 0)  # over two, four, eight layers
        for row, queries in enumerate(asked):
            for place, position in enumerate(queries[queries >= 0], start=1):
                sources = np.flatnonzero(heard[row, 30 + place - 1, :30])
                assert position not in sources
                assert (places[row, sources] < place).all()
                assert set(sources) == set(np.flatnonzero(present[row] & (places[row] < place)))
