"""Texts on which ONNX is compared with PyTorch."""

import itertools
from collections.abc import Iterator

from threephase_ray import formats, sources
from threephase_ray.errors import DataError
from threephase_ray.exporting import Onnx
from threephase_ray.predicting import Input

_STEP = 3  # words by which a text is longer than the one before
_REPEATS = 40  # of the passage, for a text that is longer than any encoder takes
_PASSAGE = """The ferry was late again. Nobody on the pier seemed to mind: two boys were fishing, an old man read yesterday's paper, and
the woman from the bakery counted her coins for the third time. At 7:45 the horn sounded at last (twice, as the rules ask), and everybody
picked up bags, bicycles & dogs. "Is there any room for the van?" someone called. There was, but only just; it had to be turned around, and
the crew took 12.50 EUR for it. Später fing es an zu regnen, et personne n'avait pris de parapluie. 船は港を出た。 By noon the island lay
behind a grey curtain, prices in the café had risen by 5 %, and the talk was of football, bread and the weather 🌧."""


def texts(knobs: Onnx) -> list[str]:
    """The first texts of the files that the knobs name; without any, beginnings of a passage, and it many times.

    Raises:
        DataError: the files cannot be read, or hold no text.
    """
    if knobs.texts is None:
        words = _PASSAGE.split()
        return [*(" ".join(words[:count]) for count in range(1, len(words), _STEP)), " ".join(words * _REPEATS)]
    found = list(itertools.islice(_read(knobs.texts), knobs.rows))
    if not found:
        raise DataError(f"onnx.texts: {knobs.texts.files} holds no text")
    return found


def _read(source: Input) -> Iterator[str]:
    """All texts, empty ones left out."""
    for file in sources.files(source.files, "onnx.texts.files"):
        for number, (value,) in file.values([source.text_column], source.encoding):
            if text := formats.text(value, f"{file.name}, row {number}"):
                yield formats.clean(text)
