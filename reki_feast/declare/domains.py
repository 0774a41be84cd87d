"""Which parts of a shop are domains of their own: departments, surfaces."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from reki_feast.declare.base import Declared, Word


class Domains(Declared):
    """Parts of one shop that share their users, and texts: departments, surfaces.

    A domain is a value of a column. One that opens later reads the general vectors from its first
    day on; `reki train --domain NAME` goes on from there.
    """

    column: Word = Field(
        description="column of the items, or of the interactions, that names the domain: department"
    )
    of: Literal["items", "interactions"] = Field(
        default="items",
        description='the table that has the column; "interactions" for surfaces such as the home '
        "page and search",
    )
    least: int = Field(
        default=2_000,
        ge=1,
        description="interactions that a domain has at least to be one of its own; smaller ones, "
        "and rows without a domain, read the general vectors",
    )
    experts: bool = Field(
        default=False,
        description="`reki evaluate --table domains` also trains experts and a gate for each "
        "domain of items, beside HEIN's; what is published stays general",
    )

    @model_validator(mode="after")
    def _experts_follow_items(self) -> Domains:
        if self.experts and self.of != "items":
            raise ValueError('experts go by the item\'s domain: of="items" beside them')
        return self
