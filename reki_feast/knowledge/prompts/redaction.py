r"""Redacts personal data in prompts: e-mail addresses, phone and card numbers.

The patterns look for what has the form of such a thing. A catalogue is full of numbers (years,
dates, prices, ISBNs, "867-5309/Jenny"), and a number struck from a title is knowledge lost: so a
phone number has a country code, an area code or a word such as "phone" before it, and a card
number is an issuer's and passes Luhn's test.

Names of persons and places are never struck: they are what catalogues tell of. A recognizer of
names takes three titles of MovieLens in ten for a person or a place. So ``presidio`` stands here
for its recognizers of account, network and identity numbers, which need no language model, and of
those only for the ones whose finds have a form of their own: nine in ten ISBNs of ten digits could
be British health numbers. Its recognizer of e-mail addresses fetches a list of domains when first
used, and so stays out: nothing here talks to anybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from reki_feast.errors import MissingExtraError

#: Redacts a text; one without personal data is returned unchanged.
Redactor = Callable[[str], str]

# JSON's escapes are passed over as wholes: the "u003c" of a quoted "<" is no part of an address.
_ESCAPE_OR_MAIL = re.compile(
    r"\\(?:u[0-9a-fA-F]{4}|.)"
    r"|\w[\w.+%'&~-]{0,63}[@＠]"
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?:xn--[\w-]{1,59}|[^\W\d_]{2,63})"
)

#: What every card or phone number holds; most lines of most prompts do not.
_DIGITS = re.compile(r"[0-9](?:[ ./()‑-]{0,3}[0-9]){6}")
#: No number begins within a word, but behind a "<" or ">" that JSON quotes; none ends within one.
_BEGIN = r"(?:(?<![0-9A-Za-z])|(?<=\\u003[ce]))"
_END = r"(?![0-9A-Za-z])"

_CARD = re.compile(
    _BEGIN + r"(?<![0-9][.,-])(?:[0-9]{14,19}"
    r"|[0-9]{4}(?P<s>[ -])(?:[0-9]{4}(?:(?P=s)[0-9]{4}){2}|[0-9]{6}(?P=s)[0-9]{4,5}))"
    r"(?P<more>(?(s)(?:(?P=s)[0-9]{3})?))" + _END
)
# Visa, Mastercard, American Express, Diners, Discover and JCB, UnionPay and Maestro. Old Visa cards
# of 13 digits are left out: a tenth of the barcodes that begin with 4 would be one.
_ISSUED = re.compile(
    r"4[0-9]{15}(?:[0-9]{3})?"
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"
    r"|3[47][0-9]{13}"
    r"|3(?:0[0-5]|[689][0-9])[0-9]{11}"
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2}|35[2-8][0-9])[0-9]{12}(?:[0-9]{3})?"
    r"|(?:62|50|5[6-8]|63|67)[0-9]{14,17}"
)

_GAP = "[ .‑-]"
_ALONE = rf"{_BEGIN}(?<![0-9][./-])"
_OVER = rf"{_END}(?!{_GAP}?[0-9])"
_DATE = r"[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{4}\b|[0-9]{1,2}[./](?:1[5-9]|20)[0-9]{2}\b"
#: Forms of phone numbers, and how many digits each has, at least and at most.
_FORMS = (
    # +1 (202) 555-0123
    (rf"(?<![0-9+])\+1(?:[ .(‑-]{{0,2}}[2-9][0-9]{{2}}\)?){{2}}{_GAP}?[0-9]{{4}}{_END}", 11, 11),
    # +49 (0)30 1234567, but no +30 000 000
    (
        r"(?<![0-9+])\+(?![0-9]{1,3}[ .]000)[2-9][0-9](?:[ ./()‑-]{0,3}[0-9]){6,14}" + _END,
        *(8, 16),
    ),
    # 0049 30 1234567
    (rf"{_ALONE}00[1-9][0-9]{{0,2}}(?:{_GAP}[0-9]{{2,10}}){{2,5}}{_OVER}", 10, 17),
    # (202) 555-0123, 1-800-555-0199
    (
        rf"{_ALONE}(?:1{_GAP})?(?:\([2-9][0-9]{{2}}\) ?[2-9][0-9]{{2}}{_GAP}"
        rf"|[2-9][0-9]{{2}}(?P<s>{_GAP})[2-9][0-9]{{2}}(?P=s))[0-9]{{4}}{_OVER}",
        *(10, 11),
    ),
    # 01 23 45 67 89
    (rf"{_ALONE}(?<![0-9] )0[1-9](?P<s>{_GAP})[0-9]{{2}}(?:(?P=s)[0-9]{{2}}){{3}}{_OVER}", 10, 10),
    # 030/1234567, (020) 7946 0958, 0171-234 56 78, but no date and no postal code 02139-4307
    (
        rf"{_ALONE}(?!{_DATE}|[0-9]{{5}}-[0-9]{{4}}\b)"
        rf"(?:\(0[1-9][0-9]{{0,4}}\) ?|0[1-9](?:[0-9]{{1,4}}|(?= ?[/ .‑-] ?[0-9]{{3}})) ?[/ .‑-] ?)"
        rf"[0-9]{{2,8}}(?:(?P<s>{_GAP})[0-9]{{2,5}}(?:(?P=s)[0-9]{{2,5}}){{0,2}})?{_OVER}",
        *(9, 12),
    ),
    # 138-1234-5678, (11) 91234-5678
    (
        rf"{_ALONE}(?:1[3-9][0-9](?P<s>[ ‑-])[0-9]{{4}}(?P=s)|\([1-9][0-9]\) ?9[0-9]{{4}}-)"
        rf"[0-9]{{4}}{_OVER}",
        *(11, 11),
    ),
    # phone: 2025550123, but no "mobile 1984-1999"
    (
        r"(?P<word>(?<![A-Za-z])(?i:tel|telephone|phone|mobile|cell|fax|whatsapp)"
        r"(?: ?(?i:number|no|nr))?[ .:=(\"\\]{1,6})"
        r"(?!(?:1[5-9]|20)[0-9]{2}\b)[0-9](?:[ ./()‑-]{0,2}[0-9]){6,14}" + _END,
        *(7, 15),
    ),
)
_PHONES = tuple((re.compile(form), range(least, most + 1)) for form, least, most in _FORMS)

#: Presidio's recognizers in use, and what stands for what they find.
_RECOGNIZERS = {
    "IbanRecognizer": "[account]",
    "CryptoRecognizer": "[wallet]",
    "IpRecognizer": "[ip address]",
    "UsSsnRecognizer": "[identity number]",
    "UsItinRecognizer": "[identity number]",
    "ItFiscalCodeRecognizer": "[identity number]",
    "FiPersonalIdentityCodeRecognizer": "[identity number]",
}
#: Presidio's own mark of a find that needs no context to be believed.
_SURE = 0.5


def redactor_of(how: Literal["patterns", "presidio", "off"]) -> Redactor:
    r"""A function that redacts a text, JSON-quoted or not.

    It is idempotent. A mark replaces what is redacted:
    ``[e-mail]``, ``[phone]``, ``[card]``; with presidio also ``[account]`` (IBAN), ``[wallet]``
    (crypto-currencies), ``[ip address]`` and ``[identity number]`` (of the United States, Italy
    and Finland).

    Args:
        how: ``patterns``, those of this module; ``presidio``, Presidio's besides; ``off``.

    Raises:
        MissingExtraError: Presidio is not installed.

    >>> redact = redactor_of("patterns")
    >>> redact("Ask joe@example.org or (202) 555-0123; paid with 4111 1111 1111 1111")
    'Ask [e-mail] or [phone]; paid with [card]'
    >>> redact("2001: A Space Odyssey (1968), 867-5309/Jenny, ISBN 978-0-306-40615-7")
    '2001: A Space Odyssey (1968), 867-5309/Jenny, ISBN 978-0-306-40615-7'
    """
    if how == "off":
        return _as_it_is
    if how == "patterns":
        return lambda text: _settled(text, _by_patterns)
    recognizers = _recognizers()
    return lambda text: _settled(text, lambda said: _by_presidio(_by_patterns(said), recognizers))


def _as_it_is(text: str) -> str:
    return text


def _settled(text: str, strike: Redactor) -> str:
    """Redact until nothing changes; each round leaves fewer letters and digits."""
    while (kept := strike(text)) != text:
        text = kept
    return text


def _by_patterns(text: str) -> str:
    if "@" in text or "＠" in text:
        text = _ESCAPE_OR_MAIL.sub(lambda m: m[0] if m[0][0] == "\\" else "[e-mail]", text)
    if not _DIGITS.search(text):
        return text
    lines = text.split("\n")
    return "\n".join(_without_numbers(line) if _DIGITS.search(line) else line for line in lines)


def _without_numbers(line: str) -> str:
    line = _CARD.sub(_card, line)
    for form, lengths in _PHONES:
        line = form.sub(partial(_phone, lengths=lengths), line)
    return line


def _card(match: re.Match[str]) -> str:
    # Behind a card's number may stand another of three digits, which belongs to it or does not.
    more = match["more"]
    for rest in ("", more):
        digits = re.sub("[ -]", "", match[0].removesuffix(more) + more.removesuffix(rest))
        if _ISSUED.fullmatch(digits) and _passes_luhn(digits):
            return "[card]" + rest
    return match[0]


def _passes_luhn(digits: str) -> bool:
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(n // 10 + n % 10 for n in doubled) % 10 == 0


def _phone(match: re.Match[str], lengths: range) -> str:
    word = match.groupdict().get("word") or ""
    count = sum(char.isdigit() for char in match[0])
    return f"{word}[phone]" if count in lengths else match[0]


def _recognizers() -> list[tuple[Any, str]]:
    try:
        from presidio_analyzer import predefined_recognizers as known
    except ImportError as error:
        raise MissingExtraError(
            'redact="presidio" has Presidio\'s recognizers',
            detail=f"presidio-analyzer cannot be imported: {error}",
            hint="pip install 'reki-feast[pii]', or declare Privacy(redact=\"patterns\")",
        ) from error
    return [(getattr(known, name)(), mark) for name, mark in _RECOGNIZERS.items()]


def _by_presidio(text: str, recognizers: list[tuple[Any, str]]) -> str:
    for recognizer, mark in recognizers:
        found = recognizer.analyze(text, recognizer.supported_entities, None)
        spans = sorted((place.start, place.end) for place in found if place.score >= _SURE)
        text = _marked(text, spans, mark)
    return text


def _marked(text: str, spans: list[tuple[int, int]], mark: str) -> str:
    """A text with a mark in place of each span, and of spans that overlap one."""
    parts, at = list[str](), 0
    for start, end in spans:
        if start >= at:
            parts += [text[at:start], mark]
        at = max(at, end)
    return "".join(parts) + text[at:]
