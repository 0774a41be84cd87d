"""Which language a text is in, by py3langid, and what the scenario calls it.

An answer is in another language only if two readings say so, each surely: the text as it is, and
without titles in quotes and words in capitals, since "La vita è bella" by Roberto Benigni is
Italian to a detector, and the sentence around it is not.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from reki_feast.extract.similar import fold_text

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

#: Languages by ISO 639-1 code, each with its names.
LANGUAGES: dict[str, tuple[str, ...]] = {
    "ar": ("Arabic", "العربية"),
    "bg": ("Bulgarian", "български"),
    "bn": ("Bengali", "Bangla", "বাংলা"),
    "bs": ("Bosnian", "bosanski"),
    "ca": ("Catalan", "català"),
    "cs": ("Czech", "čeština"),
    "da": ("Danish", "dansk"),
    "de": ("German", "Deutsch"),
    "el": ("Greek", "ελληνικά"),
    "en": ("English",),
    "es": ("Spanish", "español", "castellano", "Castilian"),
    "et": ("Estonian", "eesti"),
    "eu": ("Basque", "euskara"),
    "fa": ("Persian", "Farsi", "فارسی"),
    "fi": ("Finnish", "suomi"),
    "fr": ("French", "français"),
    "gl": ("Galician", "galego"),
    "gu": ("Gujarati", "ગુજરાતી"),
    "he": ("Hebrew", "עברית"),
    "hi": ("Hindi", "हिन्दी"),
    "hr": ("Croatian", "hrvatski"),
    "hu": ("Hungarian", "magyar"),
    "id": ("Indonesian", "Bahasa Indonesia"),
    "is": ("Icelandic", "íslenska"),
    "it": ("Italian", "italiano"),
    "ja": ("Japanese", "日本語"),
    "ko": ("Korean", "한국어"),
    "lt": ("Lithuanian", "lietuvių"),
    "lv": ("Latvian", "latviešu"),
    "mk": ("Macedonian", "македонски"),
    "mr": ("Marathi", "मराठी"),
    "ms": ("Malay", "Bahasa Melayu"),
    "nb": ("Norwegian Bokmål", "bokmål"),
    "nl": ("Dutch", "Nederlands", "Flemish"),
    "nn": ("Norwegian Nynorsk", "nynorsk"),
    "no": ("Norwegian", "norsk"),
    "pl": ("Polish", "polski"),
    "pt": ("Portuguese", "português"),
    "ro": ("Romanian", "română"),
    "ru": ("Russian", "русский"),
    "sk": ("Slovak", "slovenčina"),
    "sl": ("Slovenian", "Slovene", "slovenščina"),
    "sq": ("Albanian", "shqip"),
    "sr": ("Serbian", "српски", "srpski"),
    "sv": ("Swedish", "svenska"),
    "ta": ("Tamil", "தமிழ்"),
    "te": ("Telugu", "తెలుగు"),
    "th": ("Thai", "ไทย"),
    "tr": ("Turkish", "Türkçe"),
    "uk": ("Ukrainian", "українська"),
    "ur": ("Urdu", "اردو"),
    "vi": ("Vietnamese", "Tiếng Việt"),
    "zh": ("Chinese", "Mandarin", "中文", "汉语", "漢語"),
}
#: Languages that are told apart badly, or not by all who speak them.
_KIN = (
    {"bs", "hr", "sr", "sl", "mk"},
    {"da", "nb", "nn", "no"},
    {"id", "ms"},
    {"cs", "sk"},
    {"es", "gl", "pt", "ca"},
    {"hi", "mr"},
    {"bg", "mk"},
    {"fa", "ur", "ar"},
)
#: Words, or letters of a script without spaces, below which nothing is said of a text.
_WORDS_MIN, _SIGNS_MIN = 8, 20
#: How sure a reading must be, 0 to 1, and how many characters it looks at.
_SURE, _READ = 0.8, 480
_QUOTED = re.compile(r"\"[^\"\n]{1,200}\"|“[^”\n]{1,200}”|„[^“\n]{1,200}“|«[^»\n]{1,200}»")
_WORD = re.compile(r"[^\W\d_]+")
_NOTICE = (
    "the language of answers is not checked: {language!r} is none that can be told; "
    "write its English name or ISO 639-1 code, such as 'German' or 'de'"
)


def language_code(name: str) -> str | None:
    """The ISO 639-1 code of a language by its name in English or its own, or by its code.

    >>> language_code("German"), language_code("en-GB"), language_code("Brazilian Portuguese")
    ('de', 'en', 'pt')
    >>> language_code("Klingon") is None
    True
    """
    whole = fold_text(name).strip()
    if whole in _codes():
        return _codes()[whole]
    first, *_ = re.split(r"[-_]", whole)
    if first in LANGUAGES and len(whole) > len(first):
        return first
    # not by two letters: "pirate no code" is not Norwegian
    named = {_codes()[w] for w in re.findall(r"[^\W\d_]{3,}", whole) if w in _codes()}
    return named.pop() if len(named) == 1 else None


def language_notice(name: str) -> str:
    """What to tell the user whose language cannot be checked; empty where it can be.

    >>> language_notice("Dutch")
    ''
    """
    return "" if language_code(name) else _NOTICE.format(language=name)


def other_language(text: str, code: str) -> str:
    """The language that a text is in, in English, if it surely is not in ``code``; else "".

    A text too short to tell, and one in a language hard to tell from ``code``, pass.

    >>> other_language("Wer Argumente mag, ist von diesem Film vom ersten Wort an gefesselt.", "en")
    'German'
    >>> other_language("A film by Vittorio De Sica, with titles such as “La ciociara”.", "en")
    ''
    """
    fine = _fine(code)
    found = ""
    for read in (str, _without_names):
        reading = read(text)
        if not _is_long(reading):
            return ""
        found, sure = _identifier().classify(reading[:_READ])
        if found in fine or sure < _SURE:
            return ""
    return LANGUAGES[found][0]


def _without_names(text: str) -> str:
    words = _QUOTED.sub(" ", text).split()
    return " ".join(word for word in words if not word.lstrip("([{'’*_-")[:1].isupper())


def _is_long(text: str) -> bool:
    return len(_WORD.findall(text)) >= _WORDS_MIN or sum(c > "\u0e00" for c in text) >= _SIGNS_MIN


@cache
def _fine(code: str) -> frozenset[str]:
    return frozenset({code}.union(*(kin for kin in _KIN if code in kin)))


@cache
def _codes() -> dict[str, str]:
    names = {fold_text(name): code for code, all_ in LANGUAGES.items() for name in all_}
    return names | {code: code for code in LANGUAGES}


@cache
def _identifier() -> LanguageIdentifier:
    # imported late: its model takes half a second to load
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([code for code in LANGUAGES if code in identifier.labels])
    return identifier
