"""A job's log on this terminal."""


class Printer:
    """Prints a log that is sent from its beginning each time one asks, without what was printed before."""

    def __init__(self) -> None:
        self._printed = self._seen = 0

    def begin(self) -> None:
        """It is sent anew."""
        self._seen = 0

    def add(self, text: str) -> None:
        """A piece of it."""
        print(text[max(0, self._printed - self._seen) :], end="", flush=True)
        self._seen += len(text)
        self._printed = max(self._printed, self._seen)
