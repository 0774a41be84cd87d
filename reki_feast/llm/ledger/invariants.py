"""Invariants of the ledger: each as a query that finds the rows that violate it."""

from __future__ import annotations

from reki_feast.llm.ledger.answers import RunQuery
from reki_feast.llm.ledger.reports import NO_PROMPT

#: By the rule, the query that finds the rows that violate it.
_INVARIANTS = {
    "the pages of the file are whole": (
        "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'"
    ),
    "an answered prompt has an answer": (
        "SELECT key FROM prompts WHERE state = 'answered' AND answer IS NULL"
    ),
    "a prompt has one open call at most": (
        "SELECT key FROM calls WHERE state = 'sent' GROUP BY key HAVING COUNT(*) > 1"
    ),
    "a prompt is sent exactly while a call is open": (
        "SELECT key FROM prompts p WHERE (state = 'sent') <>"
        " EXISTS (SELECT 1 FROM calls c WHERE c.key = p.key AND c.state = 'sent')"
    ),
    "every call belongs to a prompt": (
        f"SELECT id FROM calls c WHERE key <> '{NO_PROMPT}'"
        " AND NOT EXISTS (SELECT 1 FROM prompts p WHERE p.key = c.key)"
    ),
    "a call of a forgotten prompt is over, and has no text": (
        f"SELECT id FROM calls WHERE key = '{NO_PROMPT}'"
        " AND (state = 'sent' OR text IS NOT NULL OR error IS NOT NULL)"
    ),
    "every call belongs to a run": (
        "SELECT id FROM calls c WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = c.run)"
    ),
    "attempts are numbered without gaps": (
        f"SELECT key FROM calls WHERE key <> '{NO_PROMPT}' GROUP BY key"
        " HAVING COUNT(*) <> MAX(attempt) AND MAX(run) <> 'version 1'"
    ),
    "a closed call reserves nothing": (
        "SELECT id FROM calls WHERE state <> 'sent' AND (reserved_tokens OR reserved_cost)"
    ),
    "a run's sums are those of its calls": (
        "SELECT r.id FROM runs r LEFT JOIN (SELECT run, SUM(counted) n, SUM(prompt_tokens) p,"
        " SUM(completion_tokens) a, SUM(cost) m, SUM(state = 'sent') o, SUM(reserved_tokens) t"
        " FROM calls GROUP BY run) c ON c.run = r.id WHERE r.calls <> COALESCE(n, 0)"
        " OR r.prompt_tokens <> COALESCE(p, 0) OR r.completion_tokens <> COALESCE(a, 0)"
        " OR ABS(r.cost - COALESCE(m, 0)) > 1e-6 OR r.reserved_calls <> COALESCE(o, 0)"
        " OR r.reserved_tokens <> COALESCE(t, 0)"
    ),
    "an open call of a batch belongs to an open batch": (
        "SELECT id FROM calls c WHERE state = 'sent' AND batch IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM batches b WHERE b.id = c.batch AND b.state <> 'collected')"
    ),
    "a quarantined prompt says which gate": (
        "SELECT key FROM prompts WHERE state = 'quarantined' AND gate = ''"
    ),
    "a finished run holds no prompt outside a batch": (
        "SELECT p.key FROM prompts p JOIN runs r ON r.id = p.run WHERE r.ended IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.key = p.key AND c.state = 'sent'"
        " AND c.batch IS NOT NULL)"
    ),
}


def violations(rows: RunQuery) -> list[str]:
    """The invariants that the ledger violates; none, unless there is a defect."""
    return [
        f"{rule}: {len(found)} do not, such as {found[0][0]}"
        for rule, query in _INVARIANTS.items()
        if (found := rows(query, ()))
    ]
