"""What a page is made of. Sections say what is shown; the template alone says how it looks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Cell:
    """A table cell.

    Attributes:
      text: what it says.
      detail: a second, smaller line.
      note: why there is no figure: a tooltip, and a footnote below the table.
      badge, tone: a word set off before the text, and its colour: good, bad or quiet.
    """

    text: str
    detail: str = ""
    note: str = ""
    badge: str = ""
    tone: str = "quiet"


@dataclass(frozen=True)
class Column:
    """A column of figures, or of words; `hint` says what its figures mean."""

    title: str
    hint: str = ""
    words: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows."""

    kind: ClassVar[str] = "table"
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def notes(self) -> list[str]:
        """The footnotes: each reason once, in the order of the cells."""
        return list(dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note))


@dataclass(frozen=True)
class Picture:
    """A plot: its PNG file, what it shows for those who cannot see it, and how to read it."""

    kind: ClassVar[str] = "picture"
    file: Path
    title: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Thumbnail:
    """A small picture: its PNG file, what it shows, its heading and lines below it."""

    file: Path
    alt: str
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Thumbnails:
    """Small pictures beside one another, below one another where there is no room."""

    kind: ClassVar[str] = "thumbnails"
    title: str
    pictures: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Facts:
    """Names and values, such as the keys of a configuration."""

    kind: ClassVar[str] = "facts"
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Listing:
    """A list of sentences."""

    kind: ClassVar[str] = "listing"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Text for a terminal."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Folded:
    """Parts that are shown on demand."""

    kind: ClassVar[str] = "folded"
    title: str
    parts: tuple["Part", ...]


Part = Table | Picture | Thumbnails | Facts | Text | Listing | Code | Folded


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; `anchor` is its place in the address."""

    anchor: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Tile:
    """A figure that answers the first question of a reader."""

    figure: str
    meaning: str
    detail: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
      title: the heading.
      outcome: what came out, in one sentence.
      trusted: whether the outcome can be relied on as it stands.
      tiles: its main figures.
      warnings: what must not be overlooked.
      sections: the rest, in order.
    """

    title: str
    outcome: str
    trusted: bool
    tiles: tuple[Tile, ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...] = field(default=())
