"""What a search that cannot be answered raises."""

from __future__ import annotations

from reki_feast.errors import StoreError


class QueryError(StoreError, ValueError):
    """A query that does not fit what is searched; a ValueError too, as Feast's own stores raise."""
