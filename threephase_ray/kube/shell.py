"""What a shell would make of a command that is meant as plain words."""

from collections.abc import Iterator

_ACTIVE = {  # characters that mean something to a shell outside of quotes
    "$": "expands", "`": "runs a command", ";": "ends the command", "&": "ends the command", "|": "starts a pipe", "<": "reads a file",
    ">": "writes a file", "(": "starts a subshell", ")": "ends a subshell", "{": "expands", "}": "expands", "*": "names files",
    "?": "names files", "[": "names files", "\n": "ends the command",
}  # fmt: skip
_AT_A_WORDS_START = {"#": "starts a comment", "~": "expands"}
_IN_DOUBLE_QUOTES = {"$", "`"}


def surprises(command: str) -> Iterator[str]:
    """What stands in the command and would not reach the program as it is: metacharacters outside of quotes, quotes without end."""
    quote, escaped = "", False
    for place, character in enumerate(command):
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        elif _is_active(character, quote):
            yield f"{character!r} at character {place + 1} {_ACTIVE[character]}"
        elif not quote and character in _AT_A_WORDS_START and (place == 0 or command[place - 1].isspace()):
            yield f"{character!r} at character {place + 1} {_AT_A_WORDS_START[character]}"
    if quote:
        yield f"the quote {quote} has no end"
    if escaped:
        yield "a backslash at the end"


def _is_active(character: str, quote: str) -> bool:
    return character in (_ACTIVE if not quote else _IN_DOUBLE_QUOTES if quote == '"' else ())
