"""Rows of knowledge from answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa

from reki_feast.errors import KnowledgeError, Problem
from reki_feast.knowledge.answers.parsing import READ_MAX, parse_answer
from reki_feast.knowledge.text import FACTOR_TEXT_MAX, clean
from reki_feast.schema import KNOWLEDGE, content_hash


def knowledge_from(
    prompts: pa.Table, answers: pa.Table, *, created: datetime
) -> tuple[pa.Table, list[Problem]]:
    """Turn answers into knowledge.

    Args:
        prompts: ``schema.PROMPTS``.
        answers: columns ``prompt_hash``, ``text`` and ``model``, such as ``ledger.answers``
            gives; an answer serves every prompt of its hash.
        created: when the knowledge is made; has a time zone.

    Returns:
        A table of ``schema.KNOWLEDGE``, one row a prompt with a usable answer, and what was left
        out or incomplete, for a report.

    Raises:
        KnowledgeError: ``answers`` lacks a column.
    """
    lacking = [n for n in ("prompt_hash", "text", "model") if n not in answers.column_names]
    if lacking:
        found = f"no {', '.join(lacking)}"
        raise KnowledgeError("answers have prompt_hash, text, model", detail=found)
    columns = (answers[name].to_pylist() for name in ("prompt_hash", "text", "model"))
    by_hash = {row[0]: row for row in zip(*columns, strict=True)}
    rows, lost = [], _Lost()
    for batch in prompts.to_batches(max_chunksize=4096):
        for prompt in batch.to_pylist():
            row = _known(prompt, by_hash.get(prompt["prompt_hash"]), lost)
            if row is not None:
                rows.append({**row, "created_timestamp": created})
    return pa.Table.from_pylist(rows, schema=KNOWLEDGE), lost.faults(prompts.num_rows)


def join_factors(parts: dict[str, str]) -> str:
    """The texts of all factors as one, a line a factor."""
    return "\n".join(f"{factor}: {text}" for factor, text in parts.items())


def free_text(text: str) -> str:
    """An answer without factors, its lines kept, fit to be stored."""
    lines = (clean(line, FACTOR_TEXT_MAX) for line in text[:READ_MAX].splitlines())
    return "\n".join(line for line in lines if line)


class _Lost:
    """Entities whose answers are missing, unusable or incomplete."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.unusable: list[str] = []
        self.partial: list[str] = []

    def faults(self, count: int) -> list[Problem]:
        """A fault for each sort of loss, naming the first few owners."""
        again = "run `reki generate` again: answered prompts are not paid for twice"
        sorts = [
            ("every prompt has an answer", self.missing, again),
            (
                "every answer can be read as a JSON object with a key per factor",
                self.unusable,
                "their owners get the default vector; try structured output or another model",
            ),
            (
                "every answer covers every factor",
                self.partial,
                "kept with what they cover; a stronger model or fewer factors cover more",
            ),
        ]
        return [
            Problem(rule, f"{len(owners)} of {count} do not: {_few(owners)}", hint)
            for rule, owners, hint in sorts
            if owners
        ]


def _few(owners: list[str]) -> str:
    more = ", …" if len(owners) > 5 else ""
    return ", ".join(owners[:5]) + more


def _known(
    prompt: dict[str, Any], answer: tuple[str, str, str] | None, lost: _Lost
) -> dict[str, Any] | None:
    who = f"{prompt['kind']} {prompt['owner']}"
    if answer is None:
        lost.missing.append(who)
        return None
    prompt_hash, text, model = answer
    factors = prompt["factors"]
    parts = parse_answer(text, factors)
    whole = join_factors(parts) if factors else free_text(text)
    if not whole:
        lost.unusable.append(who)
        return None
    if len(parts) < len(factors):
        lost.partial.append(who)
    carried = ("kind", "channel", "owner", "grouped", "event_timestamp")
    return {
        **{name: prompt[name] for name in carried},
        "text": whole,
        "factors": list(parts.items()) if factors else None,
        "model": model,
        "prompt_hash": prompt_hash,
        "hash": content_hash(prompt_hash, model or "", text),
    }
