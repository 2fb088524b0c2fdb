"""What search by text must do on every catalog: whole words, phrases, visibility by sequence, one order."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import sqlalchemy as sa

from relens.errors import BadInput
from relens.gallery import Gallery
from relens.gallery.texts import LONGEST_TOKEN, MOST_RANKED, MOST_TOKENS, add_texts, find_text, tokens_of
from relens.store import Catalog, Tx
from relens.store.schema import texts
from relens.testing.galleries import bury, publish, publish_plan, stage, start
from relens.testing.rows import a_picture, a_plan

READ = {
    "sign": "No entry! Bicycles excepted",
    "page": "The quick brown fox jumps over the lazy dog, and no fox is brown.",
    "menu": "Crème brûlée 4,50 € / ŒUFS à la coque",
    "seal": "北京大学图书馆 · since 1898",
    "form": "北の大京 ガラス 한국어",
    "code": "user_name@example.org 3.14 a-b-c x1e5 007",
    "case": "STRASSE Straße ﬁne Ⅷ İstanbul",
}
INJECTIONS = [
    'fox" OR "a',
    "fox OR dog",
    "NOT zebra fox",
    "tokens:fox",
    "fo*",
    "^the",
    "NEAR(fox dog, 2)",
    "fox' OR 1=1 --",
    "fox | zebra",
    "!zebra",
    "fox:* & dog",
    "<-> fox",
    "%fox%",
    "{fox}",
    "\\fox\\",
    "-fox",
    "+fox",
    "(fox",
    "\0fox",
    "fox\ud800",
]


class TextsContract:
    """Texts of objects. Subclass it as `TestX`, with the fixture `catalog`."""

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("fox", ["page"]),
            ("FOX the", ["page"]),
            ("dog quick", ["page"]),
            ("no", ["sign", "page"]),
            ("fo", []),
            ("foxes", []),
            ("no zebra", []),
            ("creme brulee", ["menu"]),
            ("ŒUFS", ["menu"]),
            ("4,50", ["menu"]),
            ("4.50", ["menu"]),
            ("京大", ["seal", "form"]),
            ("大学", ["seal"]),
            ("ガ", ["form"]),
            ("カ", []),
            ("국", ["form"]),
            ("example", ["code"]),
            ("user name", ["code"]),
            ("3", ["code"]),
            ("x1e5", ["code"]),
            ("007", ["code"]),
            ("7", []),
            ("strasse", ["case"]),
            ("STRAẞE", ["case"]),
            ("fine viii istanbul", ["case"]),
        ],
    )
    def test_all_words_must_have_been_read(self, catalog: Catalog, query: str, expected: list[str]) -> None:
        assert sorted(found(catalog, query)) == sorted(expected)

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ('"brown fox"', ["page"]),
            ('"fox brown"', []),
            ('"the lazy" "quick brown"', ["page"]),
            ('dog "the quick"', ["page"]),
            ('"brown', ["page"]),
            ('fox "brown fox', ["page"]),
            ('"京大"', ["seal"]),
            ('"大京"', ["form"]),
            ('"大学"', ["seal"]),
            ('"fox" "dog"', ["page"]),
            ('"ox jumps"', []),
            ('"fox jump"', []),
            ('"" fox', ["page"]),
        ],
    )
    def test_what_is_in_double_quotes_is_a_phrase(self, catalog: Catalog, query: str, expected: list[str]) -> None:
        assert found(catalog, query) == expected

    def test_nothing_in_a_query_means_anything_to_the_database(self, catalog: Catalog) -> None:
        """A query is its words: the answer is that to the same words alone."""
        with catalog.begin() as tx:
            gallery, _ = read(tx, READ)
            for query in INJECTIONS:
                phrases = query.count('"') > 1
                words = " ".join(tokens_of(query))
                assert search(tx, gallery, query) == search(tx, gallery, words) or phrases, query
            assert search(tx, gallery, "fo*") == []
            assert search(tx, gallery, "tokens:fox") == []
            assert search(tx, gallery, 'fox" OR "a') == []

    def test_a_query_without_a_word_is_refused(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, _ = read(tx, READ)
            for query in ("", "  ", '""', "!?", "· — …", "*", "😀", "\u0301"):
                with pytest.raises(BadInput) as caught:
                    find_text(tx, gallery.id, query, upto_sequence=9)
                assert caught.value.code == "gallery.no-words"
            with pytest.raises(BadInput) as caught:
                find_text(tx, gallery.id, "word " * (MOST_TOKENS + 1), upto_sequence=9)
            assert caught.value.code == "gallery.long-query"
            assert find_text(tx, gallery.id, "word " * MOST_TOKENS, upto_sequence=9) == []

    def test_words_in_a_row_come_first_then_the_larger_share_then_the_older(self, catalog: Catalog) -> None:
        given = {
            "apart": "red and blue",
            "long": "a red blue coat with a red collar",
            "row": "the red blue",
            "same": "red blue the",
            "most": "blue red red blue blue",
        }
        with catalog.begin() as tx:
            gallery, ids = read(tx, given)
            scored = find_text(tx, gallery.id, "red blue", upto_sequence=9)
            assert [number for number, _ in scored] == [ids[name] for name in ("most", "row", "same", "long", "apart")]
            shares = (1 + 1, 1 + 2 / 3, 1 + 2 / 3, 1 + 3 / 8, 0 + 2 / 3)
            assert [score for _, score in scored] == pytest.approx([share / 2 for share in shares])
            assert find_text(tx, gallery.id, "red blue", upto_sequence=9, limit=2) == scored[:2]

    def test_of_very_many_the_newest_are_ranked(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, ids = read(tx, {f"n{number}": f"word {number}" for number in range(MOST_RANKED + 5)})
            scored = find_text(tx, gallery.id, "word", upto_sequence=9, limit=MOST_RANKED + 5)
            assert [number for number, _ in scored] == sorted(ids.values())[5:]

    def test_an_object_is_found_from_its_sequence_until_it_is_deleted(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, plan = start(tx)
            (first,) = stage(tx, gallery, plan, [a_picture("first")])["first"]
            add_texts(tx, gallery.id, [(first, "a word")])
            assert search(tx, gallery, "word", upto=9) == [], "staged, and not published"
            publish_plan(tx, gallery, plan)
            later = a_plan(tx, gallery, key="later")
            (second,) = stage(tx, gallery, later, [a_picture("second")])["second"]
            add_texts(tx, gallery.id, [(second, "word")])
            publish_plan(tx, gallery, later)
            bury(tx, gallery, first, 3)
            by_sequence = {upto: search(tx, gallery, "word", upto=upto) for upto in range(5)}
        assert by_sequence == {0: [], 1: [first], 2: [second, first], 3: [second], 4: [second]}

    def test_galleries_do_not_see_each_others_texts(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, ids = read(tx, {"mine": "word"})
            other, plan = start(tx, "other")
            theirs = stage(tx, other, plan, [a_picture("theirs")])["theirs"]
            add_texts(tx, other.id, [(theirs[0], "word")])
            publish_plan(tx, other, plan)
            assert search(tx, gallery, "word") == [ids["mine"]]
            assert search(tx, other, "word") == theirs

    def test_a_new_text_takes_the_place_of_the_old_one(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, ids = read(tx, {"one": "an old text", "two": "another old one"})
            add_texts(tx, gallery.id, [(ids["one"], "a new text")])
            add_texts(tx, gallery.id, [])
            assert search(tx, gallery, "old") == [ids["two"]]
            assert search(tx, gallery, "new text") == [ids["one"]]
            add_texts(tx, gallery.id, [(ids["two"], "…")])
            assert search(tx, gallery, "old") == []

    def test_a_text_that_is_taken_back_is_not_found(self, catalog: Catalog) -> None:
        with catalog.begin() as tx:
            gallery, ids = read(tx, {"one": "some words", "two": "some more"})
            tx.execute(sa.delete(texts).where(texts.c.object == ids["one"]))
            assert search(tx, gallery, "some") == [ids["two"]]
            assert search(tx, gallery, "words") == []

    def test_a_text_is_kept_as_it_was_read(self, catalog: Catalog) -> None:
        given = {"plain": "Žluťoučký kůň\n 😀 ", "nul": "a\0b", "half": "x\ud83dy", "empty": ""}
        with catalog.begin() as tx:
            _, ids = read(tx, given)
            kept = {row.object: row.text for row in tx.execute(sa.select(texts))}
        assert {name: kept[number] for name, number in ids.items()} == given | {"nul": "a\ufffdb", "half": "x\ufffdy"}

    def test_texts_of_any_length_are_searched_up_to_a_bound(self, catalog: Catalog) -> None:
        """More than PostgreSQL puts into an index entry, and words longer than it keeps."""
        given = {
            "book": " ".join(f"word{number} 東{number}" for number in range(40_000)),
            "same": "ha " * 90_000 + "end",
            "word": "z" * 5000 + " short",
        }
        with catalog.begin() as tx:
            gallery, ids = read(tx, given)
            assert search(tx, gallery, "word0 東") == [ids["book"]]
            assert search(tx, gallery, "word39999") == []
            assert search(tx, gallery, "ha") == [ids["same"]]
            assert search(tx, gallery, "short " + "z" * LONGEST_TOKEN) == [ids["word"]]
            assert search(tx, gallery, f'"{"z" * 130} short"') == []

    def test_a_phrase_is_found_however_often_its_words_were_read_before(self, catalog: Catalog) -> None:
        """Beyond the 256th place of a word, and the 16,383rd of a text, PostgreSQL notes no places."""
        with catalog.begin() as tx:
            gallery, ids = read(tx, {"one": "of course " * 9000 + "of mice and men"})
            assert search(tx, gallery, '"of mice and men"') == [ids["one"]]
            assert search(tx, gallery, '"mice of"') == []


def read(tx: Tx, given: Mapping[str, str]) -> tuple[Gallery, dict[str, int]]:
    """A gallery, published at sequence 1, with an object for each text: ids by name."""
    gallery, staged = publish(tx, [a_picture(name) for name in given])
    ids = {name: staged[name][0] for name in given}
    add_texts(tx, gallery.id, [(ids[name], text) for name, text in given.items()])
    return gallery, ids


def search(tx: Tx, gallery: Gallery, query: str, *, upto: int = 9) -> list[int]:
    return [number for number, _ in find_text(tx, gallery.id, query, upto_sequence=upto)]


def found(catalog: Catalog, query: str) -> list[str]:
    """Names of READ, best first."""
    with catalog.begin() as tx:
        gallery, ids = read(tx, READ)
        names = {number: name for name, number in ids.items()}
        return [names[number] for number in search(tx, gallery, query)]
