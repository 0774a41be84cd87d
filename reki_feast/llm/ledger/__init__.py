"""The ledger of calls: its file, runs, leases, outcomes and reports."""

from reki_feast.llm.ledger.file import Entry, Ledger

__all__ = ["Entry", "Ledger"]
