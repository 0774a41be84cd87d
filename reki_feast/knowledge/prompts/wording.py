"""The wording of a scenario: the words and columns that its prompts are made from."""

from __future__ import annotations

from dataclasses import dataclass

from reki_feast.errors import DeclarationError, Problem

#: The most interactions of a user that one prompt holds (section 4.1 of the paper).
HISTORY_MAX = 30


@dataclass(frozen=True)
class Wording:
    """The words and columns that prompts are made from.

    Attributes:
        user_key: the users' key column.
        item_key: the items' key column.
        title: column of ``items`` that names an item in a history.
        description: Jinja text over the columns of ``items``, such as
            ``{{ title }} ({{ year }}), {{ genres }}``.
        factors: what answers are asked for; may be empty while factors are being asked for.
        profile: Jinja text over the columns of ``users``; None sends nothing of them.
        rating: column of ``interactions`` that holds ratings; None: liked or not is told instead.
        rating_scale: what a rating means, such as ``from 1 (worst) to 5 (best)``.
        item: what an item is called.
        user: what a user is called.
        action: what a user did with an item, in the past tense.
        n: how many of a user's latest interactions a prompt holds, 1 to 30.
        language: the language of the answers.
        facts: columns of ``items`` that an answer about an item is checked by.

    Raises:
        DeclarationError: n is out of bounds, or a word is missing.
    """

    user_key: str
    item_key: str
    title: str
    description: str
    factors: tuple[str, ...] = ()
    profile: str | None = None
    rating: str | None = None
    rating_scale: str = ""
    item: str = "item"
    user: str = "user"
    action: str = "used"
    n: int = HISTORY_MAX
    language: str = "English"
    facts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults = []
        if not 1 <= self.n <= HISTORY_MAX:
            rule = f"a prompt holds 1 to {HISTORY_MAX} interactions"
            faults.append(Problem(rule, f"n = {self.n}", f"set n to {HISTORY_MAX} or less"))
        for name in ("user_key", "item_key", "title", "description", "item", "user", "action"):
            if not str(getattr(self, name)).strip():
                faults.append(Problem(f"{name} is given", "an empty text", f"fill in {name}"))
        if faults:
            raise DeclarationError(faults)
