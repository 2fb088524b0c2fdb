"""Search by the text that was read in objects: all words of a query, phrases in double quotes, as of a sequence.

What a word is, and which text is better, is decided here, so that every catalog finds the same in the same order; the
catalog's own index only says where words occur. Words are matched whole, without regard to case and accents.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from relens.errors import BadInput
from relens.gallery.deleting import living, published
from relens.gallery.filtering import conditions_of
from relens.narrowing import Where
from relens.store import Tx
from relens.store.schema import objects, plans, texts

LONGEST_TOKEN = 64
"""Characters. A longer word is several tokens."""

MOST_TOKENS = 64
"""In a query."""

ANYWHERE = Where(off_shelf=True)

MOST_RANKED = 1000
"""Of more texts that match, the newest so many are ranked."""

# Of a text, so many characters of tokens as the catalog keeps them are searched: some 30,000 words. PostgreSQL refuses
# an index entry of 1 MB, and each token takes up to 3.5 times its length there.
_MOST_INDEXED = 250_000

# Scripts without spaces between words: each character is a token. Punctuation among them is none.
_ALONE = (
    (0x3005, 0x3007),  # 々〆〇
    (0x3021, 0x3029),
    (0x3038, 0x303C),
    (0x3040, 0x30FF),  # hiragana, katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),  # hangul
    (0xF900, 0xFAFF),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)

# Marks over and under letters have combining class 10 or more, strokes through them 1. Others are parts of letters:
# of Indic vowels (0), nuktas (7), voiced kana (8), viramas (9).
_STROKE, _FIRST_ACCENT = 1, 10

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxy0123456789")

# FTS5 is asked by a column with the name of its table.
_TEXT_INDEX = sa.table("text_index", sa.column("rowid", sa.BigInteger), sa.column("text_index", sa.Text))
_SIMPLE: sa.ColumnElement[str] = sa.literal_column("'simple'")


def tokens_of(text: str) -> list[str]:
    """The words of a text, in order, as they are compared: no case, no accents, no widths or ligatures.

    A word is made of letters and digits. Each ideograph, kana and hangul syllable is a word of its own. Whatever joins
    or hyphenates letters without being seen is left out.
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    plain = unicodedata.normalize("NFC", "".join(c for c in plain if not _is_accent(c)))
    tokens: list[str] = []
    last = ""  # what the character before was: of a word, alone, or neither
    for c in plain:
        if not c.isalnum():
            if unicodedata.category(c)[0] != "M":
                last = ""
            elif last:
                tokens[-1] += c
        elif _is_alone(c):
            tokens.append(c)
            last = "alone"
        elif last == "word" and len(tokens[-1]) < LONGEST_TOKEN:
            tokens[-1] += c
        else:
            tokens.append(c)
            last = "word"
    return tokens


def add_texts(tx: Tx, gallery: int, rows: Iterable[tuple[int, str]]) -> None:
    """Keep what was read in objects, and make it searchable: (object id, text). A new text replaces an old one.

    What a catalog cannot hold (NUL, halves of surrogate pairs) is kept as U+FFFD.
    """
    given = [
        {"object": number, "gallery": gallery, "text": _storable(text), "tokens": _indexed(text)}
        for number, text in rows
    ]
    if given:
        insert = (sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert)(texts)
        newer = {name: insert.excluded[name] for name in ("gallery", "text", "tokens")}
        tx.execute(insert.on_conflict_do_update(index_elements=[texts.c.object], set_=newer), given)


def find_text(
    tx: Tx, gallery: int, query: str, *, upto_sequence: int, limit: int = 10, where: Where = ANYWHERE
) -> list[tuple[int, float]]:
    """The objects of a gallery in which all words of a query were read, best first: (object id, score).

    query          words in any order; those in double quotes must follow each other
    upto_sequence  only objects that are published by this sequence and not deleted by it
    limit          at most so many
    where          which objects may answer

    A text in which the words of the query follow each other comes first; then, the larger the share of its words that
    are among the query's; then the older object. The score is the mean of both, 0 to 1. Of more than MOST_RANKED texts
    the newest are ranked. BadInput for a query without a word, or with more than MOST_TOKENS.
    """
    wanted = _read_query(query)
    spaced = sa.literal(" ").concat(texts.c.tokens).concat(" ")
    found = (
        sa.select(texts.c.object, texts.c.tokens)
        .join(objects, objects.c.id == texts.c.object)
        .outerjoin(plans, plans.c.id == objects.c.plan)
        .where(
            texts.c.gallery == gallery,
            _has_words(tx, wanted.tokens),
            *(spaced.contains(_spaced(phrase)) for phrase in wanted.phrases),
            published(upto_sequence),
            living(upto_sequence),
            *_narrowed(where, tx.dialect.name),
        )
        .order_by(texts.c.object.desc())
        .limit(MOST_RANKED)
    )
    scored = [(row.object, _score(row.tokens.split(" "), wanted.tokens)) for row in tx.execute(found)]
    return sorted(scored, key=lambda one: (-one[1], one[0]))[:limit]


def _narrowed(where: Where, dialect: str) -> list[sa.ColumnElement[bool]]:
    first, last = where.days
    conditions = conditions_of(where, dialect)
    conditions += [] if where.category is None else [objects.c.category == where.category]
    conditions += [] if first is None else [objects.c.day >= first]
    conditions += [] if last is None else [objects.c.day <= last]
    return conditions


@dataclass(frozen=True, slots=True)
class _Query:
    """All tokens of a query in order, and those that must follow each other, as they are stored."""

    tokens: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]


def _read_query(query: str) -> _Query:
    """A quote that is not closed reaches to the end."""
    parts = [tuple(map(_spelled, tokens_of(part))) for part in query.split('"')]
    tokens = tuple(token for part in parts for token in part)
    if not tokens:
        raise BadInput(
            "gallery.no-words", f"there is no word in {query!r}", hint="words are made of letters and digits"
        )
    if len(tokens) > MOST_TOKENS:
        raise BadInput("gallery.long-query", f"a query has at most {MOST_TOKENS} words, not {len(tokens)}")
    return _Query(tokens, tuple(part for part in parts[1::2] if len(part) > 1))


def _has_words(tx: Tx, tokens: Sequence[str]) -> sa.ColumnElement[bool]:
    """Tokens are a-z and 0-9, so that nothing in them means anything to a query."""
    if tx.dialect.name == "sqlite":
        words = " ".join(f'"{token}"' for token in tokens)
        matches = _TEXT_INDEX.c.text_index.op("MATCH", is_comparison=True)(words)
        return texts.c.object.in_(sa.select(_TEXT_INDEX.c.rowid).where(matches))
    indexed = sa.func.to_tsvector(_SIMPLE, texts.c.tokens)
    return indexed.op("@@", is_comparison=True)(sa.func.to_tsquery(_SIMPLE, " & ".join(tokens)))


def _score(read: Sequence[str], wanted: Sequence[str]) -> float:
    together = _spaced(wanted) in _spaced(read)
    among = frozenset(wanted)
    return (together + sum(token in among for token in read) / len(read)) / 2


def _spaced(tokens: Sequence[str]) -> str:
    return f" {' '.join(tokens)} "


def _indexed(text: str) -> str:
    spelled = " ".join(map(_spelled, tokens_of(text)))
    return spelled if len(spelled) <= _MOST_INDEXED else spelled[:_MOST_INDEXED].rpartition(" ")[0]


def _spelled(token: str) -> str:
    """A token as it is stored: a-z and 0-9, beginning with a letter, another one for each token.

    No database splits or changes that further. Any other character, `z`, and a digit in front become their code point
    in hex between two `z`.
    """
    return "".join(c if c in _PLAIN and (at or not c.isdigit()) else f"z{ord(c):x}z" for at, c in enumerate(token))


def _is_alone(c: str) -> bool:
    return ord(c) >= _ALONE[0][0] and any(first <= ord(c) <= last for first, last in _ALONE)


def _is_accent(c: str) -> bool:
    """Whether it is a mark that a reader may leave out, or nothing that is seen."""
    if c.isascii():
        return False
    kind, combining = unicodedata.category(c), unicodedata.combining(c)
    if kind == "Mn":
        return combining == _STROKE or combining >= _FIRST_ACCENT or "VARIATION SELECTOR" in unicodedata.name(c, "")
    return kind in {"Me", "Cf"}


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
