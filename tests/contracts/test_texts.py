"""Texts against the contract on SQLite and PostgreSQL, and any text beside a plain reading of its words."""

from __future__ import annotations

import unicodedata

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relens.gallery.texts import LONGEST_TOKEN, add_texts, find_text, tokens_of
from relens.store.schema import texts
from relens.testing.rows import taken_back
from relens.testing.texts import TextsContract, read

NASTY = st.sampled_from(
    "aAzZ09 _-.,'\"*:&|!()<>\\%\0\u0301\u00ad\u200d\ufe0f\u3099\u0345\u0131\u017f\ud800\u2028"
    "éßİﬁⅧ²½٣東々〆ーガガが한ᄒ𠀀ไทยहिन्दीשָׁאَ😀ꙮǅΣς"
)
ANY = st.one_of(st.text(NASTY, max_size=30), st.text(max_size=20))
SETTINGS = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestTexts(TextsContract):
    pass


@settings(deadline=None, max_examples=400)
@given(text=ANY)
@example("ᾳͅ ΐ ẛ̣ ǰ")
def test_tokens_are_words_without_case_and_accents(text):
    tokens = tokens_of(text)
    for token in tokens:
        assert token[0].isalnum()
        assert all(c.isalnum() or unicodedata.category(c) in {"Mn", "Mc"} for c in token)
        assert len(token.encode("utf-8", "replace")) <= 8 * LONGEST_TOKEN
    assert tokens_of(" ".join(tokens)) == tokens, "once is enough"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("snake_case kebab-case don't", ["snake", "case", "kebab", "case", "don", "t"]),
        ("Ångström naïve Čapek", ["angstrom", "naive", "capek"]),
        ("Straße STRASSE ﬃ ŒUVRE", ["strasse", "strasse", "ffi", "œuvre"]),
        ("İstanbul ISTANBUL \u0131slak", ["istanbul", "istanbul", "\u0131slak"]),
        ("\uff13\uff0e\uff11\uff14 ² ½ Ⅳ", ["3", "14", "2", "1", "2", "iv"]),
        ("北京2025年", ["北", "京", "2025", "年"]),
        ("スーパー・マン ｶﾞ か\u3099 が", ["ス", "ー", "パ", "ー", "マ", "ン", "ガ", "が", "が"]),
        ("한국어 ABC한", ["한", "국", "어", "abc", "한"]),
        ("葛\U000e0100飾 co\u00adop zero\u200bwidth", ["葛", "飾", "coop", "zerowidth"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("שָׁלוֹם مُحَمَّد", ["שלום", "محمد"]),
        ("ΣΊΣΥΦΟΣ σίσυφος", ["σισυφοσ", "σισυφοσ"]),
        ("a" * 70, ["a" * 64, "a" * 6]),
        ("…", []),
        ("\u0301\u3099", []),
    ],
)
def test_what_the_words_of_a_text_are(text, expected):
    assert tokens_of(text) == expected


@SETTINGS
@given(given=st.lists(ANY, min_size=1, max_size=4), data=st.data())
def test_any_text_is_found_by_any_of_its_words_and_by_no_others(catalog, given, data):
    every = [tokens_of(text) for text in given]
    with taken_back(catalog) as tx:
        gallery, ids = read(tx, {f"n{number}": text for number, text in enumerate(given)})
        pool = sorted({token for tokens in every for token in tokens} | {"a", "0", "東", "zz"})
        asked = data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3))
        found = find_text(tx, gallery.id, " ".join(asked), upto_sequence=1)
        wanted = {number for number, tokens in zip(ids.values(), every, strict=True) if set(asked) <= set(tokens)}
        assert {number for number, _ in found} == wanted
        assert all(0 < score <= 1 for _, score in found)


@SETTINGS
@given(text=ANY, data=st.data())
def test_any_words_in_a_row_are_a_phrase(catalog, text, data):
    tokens = tokens_of(text)[:40]
    with taken_back(catalog) as tx:
        gallery, ids = read(tx, {"one": text, "two": " ".join(reversed(tokens))})
        if tokens:
            start = data.draw(st.integers(0, len(tokens) - 1))
            end = data.draw(st.integers(start + 1, len(tokens)))
            found = dict(find_text(tx, gallery.id, f'"{" ".join(tokens[start:end])}"', upto_sequence=1))
            assert found[ids["one"]] > 0.5


@SETTINGS
@given(text=ANY)
def test_the_database_keeps_the_tokens_as_they_are(catalog, text):
    """What it splits or changes would be found by other words than those of the text."""
    with taken_back(catalog) as tx:
        gallery, ids = read(tx, {"one": text})
        kept = tx.execute(sa.select(texts.c.tokens)).scalar_one()
        assert len(kept.split()) == len(tokens_of(text))
        if catalog.is_sqlite:
            tx.exec_driver_sql("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, text_index, row)")
            indexed = {term for (term,) in tx.exec_driver_sql("SELECT term FROM temp.terms")}
            tx.exec_driver_sql("DROP TABLE temp.terms")
        else:
            query = sa.select(sa.func.unnest(sa.func.tsvector_to_array(sa.func.to_tsvector("simple", kept))))
            indexed = set(tx.execute(query).scalars())
        assert indexed == set(kept.split())
        add_texts(tx, gallery.id, [(ids["one"], "")])
