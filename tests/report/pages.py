"""A page as a browser sees it, and the laws that every page obeys."""

import re
from html.parser import HTMLParser
from pathlib import Path

SCRIPT = "<script>alert(1)</script>"
ATTRIBUTE = '"><img src=x onerror=alert(1)>'
VOID = {"meta", "img", "link", "br", "hr", "input", "base"}


class Parsed(HTMLParser):
    """A page as a browser sees it: tags with attributes, text, and tables as lists of rows."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.feed(page.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "tags are nested"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    def row(self, table: int, name: str) -> dict[str, str]:
        head, *rows = self.tables[table]
        (row,) = [row for row in rows if row[0] == name]
        return dict(zip(head, row, strict=True))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


def assert_inert(page: Parsed) -> None:
    """Nothing in the page acts, whatever the names in it are."""
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "link", "form", "svg", "base"}
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert page.open == []


def assert_offline(path: Path) -> None:
    """The page loads nothing, and its links lead to its own sections."""
    page = Parsed(path)
    links = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "srcset")]
    assert links
    assert all(link and link.startswith(("data:image/png;base64,", "#")) for link in links)
    anchors = {attributes.get("id") for attributes in page.all("section")}
    assert {link[1:] for link in links if link and link.startswith("#")} <= anchors
    assert not re.search(r"https?://|url\(|@import", path.read_text())
    (policy,) = [a for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy["content"]).startswith("default-src 'none'")
