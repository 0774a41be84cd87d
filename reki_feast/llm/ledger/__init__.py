"""The ledger: its file, runs, claims, settlements, and what it tells."""

from reki_feast.llm.ledger.file import Entry, Ledger

__all__ = ["Entry", "Ledger"]
