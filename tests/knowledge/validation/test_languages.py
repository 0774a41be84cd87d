"""Names of languages, and texts in another language than was asked for."""

from __future__ import annotations

import json

import pytest

from reki_feast.knowledge.validation.languages import (
    language_code,
    language_notice,
    languages,
    mismatched_language,
)
from reki_feast.sample.films import load_films
from reki_feast.sample.tables import simulate

TEXTS = {
    "de": "Ein Gerichtsdrama ohne Gerichtssaal: nur Gespräche, Hitze und eine Abstimmung. Wer "
    "Argumente mag, ist gefesselt; wer Schauplätze braucht, fühlt sich beengt.",
    "fr": "Le réalisateur Sidney Lumet montre sa discipline, avec Henry Fonda dans le rôle du "
    "sceptique calme que les autres finissent par écouter.",
    "es": "Casi todo ocurre en una sola sala el día más caluroso del año en Nueva York, y quien "
    "disfruta de los argumentos queda atrapado.",
    "it": "Quasi tutto accade in una sola stanza nel giorno più caldo dell'anno a New York, e chi "
    "ama le discussioni ne è affascinato.",
    "nl": "Bijna alles speelt zich af in een kamer op de warmste dag van het jaar, en wie van "
    "discussie houdt, is geboeid.",
    "pl": "Dramat sądowy bez sali sądowej: tylko rozmowa, upał i głosowanie. Kto lubi argumenty, "
    "będzie zachwycony.",
    "ru": "Судебная драма без зала суда: только разговор, жара и голосование. Кто любит споры, "
    "будет увлечён с первой минуты.",
    "ja": "法廷のない法廷劇であり、会話と暑さと投票だけがある。議論を楽しむ観客は引き込まれる。",
    "zh": "一部没有法庭的法庭剧，只有谈话、炎热和投票。喜欢辩论的观众会被深深吸引。",
    "en": "Almost everything happens in one locked jury room on the hottest day of the year, and "
    "those who enjoy argument are riveted.",
}
#: English sentences that are mostly names and titles of other languages.
FOREIGN_NAMES = (
    "A French film by Jean-Pierre Jeunet, “Le Fabuleux Destin d'Amélie Poulain”, set in Montmartre "
    "with Audrey Tautou and Mathieu Kassovitz.",
    '"La vita è bella" by Roberto Benigni, "Nuovo Cinema Paradiso" by Giuseppe Tornatore and '
    '"Ladri di biciclette" by Vittorio De Sica.',
    "Likes films by Akira Kurosawa, Yasujiro Ozu and Hayao Miyazaki, such as Tonari no Totoro.",
    'Likes films by Luis Bunuel and Pedro Almodovar. Gave five stars for "Todo sobre mi madre", '
    '"El angel exterminador" and "Mujeres al borde de un ataque de nervios".',
    'Directed by Rainer Werner Fassbinder, Wim Wenders, Werner Herzog: "Der Himmel über Berlin", '
    '"Aguirre, der Zorn Gottes", "Angst essen Seele auf".',
)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("English", "en"),
        ("german", "de"),
        ("  Français ", "fr"),
        ("francais", "fr"),
        ("日本語", "ja"),
        ("한국어", "ko"),
        ("русский", "ru"),
        ("pt", "pt"),
        ("pt_BR", "pt"),
        ("zh-Hant", "zh"),
        ("Brazilian Portuguese", "pt"),
        ("English (UK)", "en"),
        ("simplified Chinese", "zh"),
        ("Norwegian Bokmål", "nb"),
        ("Klingon", None),
        ("", None),
        ("English or German", None),
        ("no idea", None),
    ],
)
def test_language_code(name: str, code: str | None) -> None:
    assert language_code(name) == code


def test_every_name_means_its_language() -> None:
    for code, names in languages().items():
        assert [language_code(name) for name in (code, *names)] == [code] * (len(names) + 1)


def test_a_notice_names_the_language_and_the_way_out() -> None:
    assert language_notice("German") == ""
    assert "'Klingon'" in language_notice("Klingon")
    assert "'de'" in language_notice("Klingon")


@pytest.mark.parametrize("code", TEXTS)
def test_a_text_is_in_its_own_language_and_in_no_other(code: str) -> None:
    assert mismatched_language(TEXTS[code], code) == ""
    for other in TEXTS.keys() - {code}:
        assert mismatched_language(TEXTS[code], other) == languages()[code][0]


@pytest.mark.parametrize("text", FOREIGN_NAMES)
def test_names_and_titles_are_in_no_language(text: str) -> None:
    assert mismatched_language(text, "en") == ""


@pytest.mark.parametrize("text", ["", "Drama.", "Nicht bekannt.", "不明", "1995", "???" * 50])
def test_nothing_is_said_of_short_texts(text: str) -> None:
    assert mismatched_language(text, "en") == ""


@pytest.mark.parametrize(("code", "kin"), [("es", "pt"), ("pl", "cs"), ("ru", "uk")])
def test_only_kin_are_spared(code: str, kin: str) -> None:
    assert (mismatched_language(TEXTS[code], kin) == "") == (code == "es")


def test_no_text_of_the_sample_is_taken_for_another_language() -> None:
    texts = [text for film in load_films() for text in film.knowledge.values()]
    answers = simulate(viewers=20).answers["text"].to_pylist()
    texts += [text for answer in answers for text in json.loads(answer).values()]
    assert len(texts) > 1_000
    assert not [text for text in texts if mismatched_language(text, "en")]
    wrong = [text for text in texts if mismatched_language(text, "de") != "English"]
    assert len(wrong) < 0.02 * len(texts)
