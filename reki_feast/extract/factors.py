"""Which factors decide: asked of the model several times, merged, confirmed by an expert."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import yaml

from reki_feast.errors import FactorsError, Fault
from reki_feast.extract.names import fold
from reki_feast.extract.reading import begun, without_thoughts
from reki_feast.extract.templating import Templates
from reki_feast.extract.text import clean
from reki_feast.extract.wording import Wording
from reki_feast.llm.asking import ask_all
from reki_feast.llm.budget import QUOTA_MEND, BudgetError, QuotaError
from reki_feast.llm.ledger import Ledger
from reki_feast.llm.port import LLM, Request, call_key
from reki_feast.llm.report import RunReport
from reki_feast.llm.terms import Terms
from reki_feast.schema import content_hash, factor_column

_NAME_MAX = 60
_VALUES_MAX = 200
#: What is looked at of an answer's line.
_LINE_MAX = 500
_FACTORS_MAX = 12
_HEADER = """\
# Factors that decide whether a user likes an item, as the language model named them.
#
# You know your users better. Read the list, then
#   - delete what does not matter to your users, rename what is unclear, add what is missing;
#   - leave 4 to 12: each is a question in every prompt, and each costs tokens;
#   - put the most important first;
#   - set `confirmed: true` and save. Until then generation refuses to run.
#
# `named_by` says how many of the answers named the factor; it is for your eyes only.
"""
_BRACKET = re.compile(r"[\[{]")
_AFTER_NAME = re.compile(r":|：| [–—-] ")
_NUMBERED = re.compile(r"[*_]*(?:\d{1,2}[.)]|[-*•]) ?[*_]* ?(?:\d{1,2}[.)])?(.+)")
_ASIDE = re.compile(r"\s?[(\[（][^)\]）]{0,200}[)\]）]")


@dataclass(frozen=True)
class Factor:
    """One factor, and how many answers named it (None: an expert added it)."""

    name: str
    named_by: int | None = None


@dataclass(frozen=True)
class FactorsFile:
    """What the factors file says.

    Attributes:
        factors: the most important first.
        confirmed: whether an expert has read and accepted them.
        model: the model that named them.
        answers: how many answers were merged.
    """

    factors: tuple[Factor, ...]
    confirmed: bool = False
    model: str = ""
    answers: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The factors' names."""
        return tuple(factor.name for factor in self.factors)


def factor_requests(
    wording: Wording, *, templates: Templates, asks: int, as_of: datetime
) -> list[Request]:
    """The paper's question, ``asks`` times; each is numbered, so that none is taken for another."""
    words = {name: getattr(wording, name) for name in ("item", "user", "action", "language")}
    system = templates.render("system", **words)
    requests = []
    for opinion in range(1, asks + 1):
        prompt = templates.render("factors", **words, opinion=opinion)
        prompt_hash = content_hash(system, prompt)
        who = ("factors", "factors", str(opinion), as_of)
        requests.append(Request(system, prompt, (), prompt_hash, *who))
    return requests


def ask_factors(
    wording: Wording,
    llm: LLM,
    ledger: Ledger,
    *,
    templates: Templates,
    as_of: datetime,
    asks: int = 5,
    terms: Terms | None = None,
) -> tuple[FactorsFile, RunReport]:
    """Ask the model which factors decide, and merge its answers; unconfirmed.

    Raises:
        LLMError: the model cannot be asked.
        BudgetError: a limit was reached before all answers came; those that came are kept.
        QuotaError: the same, of a limit by the day that the server has.
        KeyboardInterrupt: the same, on Ctrl-C.
        FactorsError: no answer names a factor.
    """
    requests = factor_requests(wording, templates=templates, asks=asks, as_of=as_of)
    report = ask_all(requests, llm, ledger, terms=terms)
    _raise_if_stopped(report, asks)
    keys = [call_key(r.prompt_hash, llm.name, llm.parameters) for r in requests]
    answers = [answer for key in keys if (answer := ledger.answered(key)) is not None]
    factors = merge_factors([answer.text for answer in answers])
    if not factors:
        first = report.failures[0].error if report.failures else "no list of names in any answer"
        raise FactorsError(
            "the model names factors",
            found=first,
            mend="list factors in the scenario yourself, or name another model",
        )
    return FactorsFile(factors, model=answers[0].model, answers=len(answers)), report


def _raise_if_stopped(report: RunReport, asks: int) -> None:
    if report.stopped == "interrupted":
        raise KeyboardInterrupt
    if report.stopped == "budget":
        raise BudgetError(
            "the run stays within its budget",
            found=f"{report.limit} is reached: {report.asked + report.reused} of {asks} answers "
            "are there, and no factors are written",
            mend="raise the limit and run again: it goes on where it stopped and pays for nothing "
            "twice; or merge fewer answers with --calls",
        )
    if report.stopped == "quota":
        rule = "the server's quota lasts for the run"
        raise QuotaError(rule, found=report.limit, mend=QUOTA_MEND)


def merge_factors(answers: Sequence[str]) -> tuple[Factor, ...]:
    """Merge lists of factors: one entry for all spellings, those most often named first.

    >>> merged = merge_factors(['["Genres", "Director"]', "1. Genre (e.g. noir): x\\n2. Cast: y"])
    >>> [(factor.name, factor.named_by) for factor in merged]
    [('genre', 2), ('director', 1), ('cast', 1)]
    """
    counts: Counter[str] = Counter()
    places: Counter[str] = Counter()
    spellings: dict[str, Counter[str]] = {}
    for answer in answers:
        forms: dict[str, tuple[int, str]] = {}
        for place, name in enumerate(parse_factors(answer)):
            forms.setdefault(fold(name), (place, name))
        for form, (place, name) in forms.items():
            counts[form] += 1
            places[form] += place
            spellings.setdefault(form, Counter())[name.casefold()] += 1
    ranked = sorted(counts, key=lambda form: (-counts[form], places[form] / counts[form]))
    return tuple(Factor(_spelling(spellings[f]), counts[f]) for f in ranked[:_FACTORS_MAX])


def parse_factors(answer: str) -> list[str]:
    """Names of factors in one answer: JSON (a list, or an object with one) or a list in text.

    >>> parse_factors('Sure: {"factors": ["Genre", {"name": "Cast (actors)"}]}')
    ['Genre', 'Cast']
    >>> parse_factors("1. **Genre**: what kind\\n- Mood - how it feels")
    ['Genre', 'Mood']
    """
    answer = without_thoughts(answer)
    raw = _in_json(answer) or _in_lines(answer)
    names = (
        clean(_AFTER_NAME.split(_ASIDE.sub("", n[:_LINE_MAX]))[0].strip(" .*_\"'"), 200)
        for n in raw
    )
    return [
        name for name in names if 0 < len(name) <= _NAME_MAX and factor_column(name) != "factor_"
    ]


def dumps(file: FactorsFile) -> str:
    """The factors file as text: YAML under a header that tells an expert what to do."""
    body: dict[str, Any] = {"confirmed": file.confirmed}
    if file.model:
        body |= {"model": file.model, "answers": file.answers}
    body["factors"] = [
        factor.name
        if factor.named_by is None
        else {"name": factor.name, "named_by": factor.named_by}
        for factor in file.factors
    ]
    text: str = yaml.safe_dump(body, sort_keys=False, allow_unicode=True)
    return _HEADER + text


def loads(text: str, *, source: str = "the factors file") -> FactorsFile:
    """Read the factors file; strict, all faults at once.

    Args:
        text: its content.
        source: its path, for messages.

    Raises:
        FactorsError: it is no YAML, has unknown keys, or lists no or doubtful factors.
    """
    body = _yaml(text, source)
    faults = [
        Fault(
            f"{source} has only known keys", repr(key), "known: confirmed, model, answers, factors"
        )
        for key in body
        if key not in ("confirmed", "model", "answers", "factors")
    ]
    confirmed = body.get("confirmed", False)
    if not isinstance(confirmed, bool):
        faults.append(Fault(f"{source}: confirmed is true or false", repr(confirmed), "mend it"))
    factors, more = _factors(body.get("factors"), source)
    if faults + more:
        raise FactorsError(faults + more)
    answers = body.get("answers")
    count = answers if isinstance(answers, int) else 0
    return FactorsFile(factors, confirmed, str(body.get("model") or ""), count)


def require_confirmed(
    file: FactorsFile | None, *, source: str, unconfirmed_too: bool = False
) -> tuple[str, ...]:
    """The factors' names, if an expert confirmed them.

    Args:
        file: what the factors file says; None when there is none.
        source: its path, for messages.
        unconfirmed_too: take them unconfirmed.

    Raises:
        FactorsError: there is no file, or it is not confirmed.
    """
    if file is None:
        raise FactorsError(
            "the scenario has factors",
            found=f"none in the scenario, and no {source}",
            mend="run `reki factors`, or list factors in the scenario",
        )
    if not file.confirmed and not unconfirmed_too:
        raise FactorsError(
            "an expert has confirmed the factors",
            found=f"{source} says confirmed: false",
            mend=f"read {source}, set `confirmed: true`, or pass --allow-unconfirmed",
        )
    return file.names


def confirmed(file: FactorsFile) -> FactorsFile:
    """The same factors, confirmed."""
    return replace(file, confirmed=True)


def _spelling(spellings: Counter[str]) -> str:
    """The most frequent spelling, the shortest (the singular) among equals."""
    return min(spellings, key=lambda name: (-spellings[name], len(name), name))


def _in_json(answer: str) -> list[str]:
    """The names in the JSON value that has most; of a draft and a final list, the final one."""
    decoder = json.JSONDecoder(strict=False)
    found: list[str] = []
    at, tried = _BRACKET.search(answer), 0
    while at and tried < _VALUES_MAX:
        tried += 1
        try:
            value, end = decoder.raw_decode(answer, at.start())
        except (ValueError, RecursionError):
            end = at.end()
        else:
            names = _listed(value)
            found = names if len(names) >= len(found) else found
        at = _BRACKET.search(answer, end)
    # of an answer that is cut off, what it lists, not what its last whole entry says
    return max(_listed(begun(answer)), found, key=len)


def _listed(value: Any) -> list[str]:
    if isinstance(value, dict):
        inner = next((part for key, part in value.items() if _is_heading(key)), None)
        if isinstance(inner, dict | list):
            return _listed(inner)
        lists = [part for part in value.values() if isinstance(part, list)]
        if lists:
            return _listed(max(lists, key=len))
        if isinstance(value.get("name") or value.get("factor"), str):
            return [str(name) for name in _named(value)]
        return [str(key) for key in value]  # {"genre": "why", …}
    entries = value if isinstance(value, list) else []
    return [name for entry in entries for name in _named(entry) if isinstance(name, str)]


def _is_heading(key: str) -> bool:
    return key.casefold() in ("factors", "answer")


def _named(entry: Any) -> list[Any]:
    """What an entry of a list names: itself, its name, or its only key as in {"genre": "why"}."""
    if not isinstance(entry, dict):
        return [entry]
    name = entry.get("name") or entry.get("factor")
    return [name] if name else list(entry) if len(entry) == 1 else []


def _in_lines(answer: str) -> list[str]:
    lines = (" ".join(line[:_LINE_MAX].split()) for line in answer.splitlines())
    return [match[1] for line in lines if (match := _NUMBERED.match(line))]


def _yaml(text: str, source: str) -> dict[Any, Any]:
    try:
        body = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise FactorsError(f"{source} is YAML", found=where, mend="mend that line") from error
    if not isinstance(body, dict):
        found = type(body).__name__
        raise FactorsError(f"{source} is a mapping", found=found, mend="run `reki factors` again")
    return body


def _factors(listed: Any, source: str) -> tuple[tuple[Factor, ...], list[Fault]]:
    if not isinstance(listed, list) or not listed:
        rule = f"{source} lists at least one factor"
        return (), [Fault(rule, repr(listed), "add them, one a line: `- genre`")]
    factors: list[Factor] = []
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    for place, entry in enumerate(listed, start=1):
        factor, fault = _factor(entry, f"{source}, factor {place}")
        if factor is None:
            faults.append(fault)
            continue
        first = seen.setdefault(factor_column(factor.name), factor.name)
        if first is not factor.name:
            rule = f"{source}: no two factors are the same but for case and punctuation"
            faults.append(Fault(rule, f"{first!r} and {factor.name!r}", "delete one of them"))
        factors.append(factor)
    return tuple(factors), faults


def _factor(entry: Any, where: str) -> tuple[Factor | None, Fault]:
    fault = Fault(
        f"{where} is a name, or a mapping of name and named_by",
        repr(entry),
        'write `- genre`, in quotes if it looks like a number or a yes: `- "1990s"`',
    )
    count = None
    if isinstance(entry, dict):
        if set(entry) - {"name", "named_by"}:
            return None, fault
        count, entry = entry.get("named_by"), entry.get("name")
    if not isinstance(entry, str) or not (count is None or isinstance(count, int)):
        return None, fault
    name = clean(entry, _NAME_MAX)
    return (Factor(name, count) if factor_column(name) != "factor_" else None), fault
