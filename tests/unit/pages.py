"""A page as readers and browsers see it: its text, tables, pictures, and whatever would need the network."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}


@dataclass
class Page:
    """What a page consists of."""

    text: str = ""
    headings: list[tuple[int, str]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)  # of all tables
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)

    def of(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a name."""
        return [attributes for tag, attributes in self.tags if tag == name]

    def row(self, first: str) -> list[str]:
        """The first row of a table that opens with a text."""
        return next(row for row in self.rows if row and row[0] == first)


class Reader(HTMLParser):
    """Reads a page, and insists that every element is closed in its turn."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page, self.open = Page(), list[str]()
        self.cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.page.tags.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "tr":
            self.page.rows.append([])
        if tag in ("td", "th"):
            self.cell = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} is closed out of turn"
        if tag in ("td", "th") and self.cell is not None:
            self.page.rows[-1].append(plain("".join(self.cell)))
            self.cell = None

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self.open):
            return
        self.page.text += data
        if self.cell is not None:
            self.cell.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.page.headings.append((int(self.open[-1][1]), data))


def plain(text: str) -> str:
    """A text with plain spaces, as those of a page are."""
    return " ".join(text.split())


def read(html: str) -> Page:
    """The page; AssertionError where it is not well formed."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open, f"never closed: {reader.open}"
    reader.page.text = plain(reader.page.text)
    return reader.page


def check(html: str) -> Page:
    """The page, if it stands alone, keeps all foreign text as text, and can be read without seeing it."""
    page = read(html)
    assert not page.of("script")
    assert not [attributes for attributes in page.of("link") if attributes["href"] != "data:,"]
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
    assert "url(" not in html
    assert "@import" not in html
    assert [level for level, _ in page.headings].count(1) == 1
    assert all(next_ <= level + 1 for (level, _), (next_, _) in zip(page.headings, page.headings[1:], strict=False))
    assert all(attributes.get("aria-label") or attributes.get("aria-hidden") for attributes in page.of("svg"))
    assert all(attributes.get("alt") for attributes in page.of("img"))
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {str(attributes["href"])[1:] for attributes in page.of("a")} <= anchors
    assert page.of("meta")[1]["name"] == "viewport"
    return page
