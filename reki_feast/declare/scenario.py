"""What is recommended to whom, from which tables, and how it is trained."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from reki_feast.declare.base import Declared, Factors, Time, Word, one_word


class Scenario(Declared):
    """What is recommended to whom, and in which words the language model is asked about it."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="lower-case letters, digits and _; names the data folder",
    )
    item: Word = Field(description="what one item is called: movie, book, song, article")
    user: Word = Field(default="user", description="what one user is called: viewer, reader")
    action: Word = Field(default="watched", description="what a user did to an item, past tense")
    factors: Factors | None = Field(
        default=None,
        description="at least one; leave the key out to use the file that `reki factors` writes",
    )
    item_key: Word = Field(
        default="item_id", description="join key of items, as in your Feast repo"
    )
    user_key: Word = Field(
        default="user_id", description="join key of users, as in your Feast repo"
    )
    title: Word = Field(default="title", description="items column that names an item to a reader")
    description: Word | None = Field(
        default=None, description="Jinja text over items columns: '{{ title }} ({{ year }})'"
    )
    profile: Word | None = Field(
        default=None, description="Jinja text over users columns; columns not named never leave"
    )
    rating: Word | None = Field(default=None, description="interactions column shown as rating")
    rating_scale: str = Field(default="", description="how to read a rating: 'from 1 to 5'")
    liked: Word = Field(
        default="rating >= 4", description="SQL over interactions columns: true is a positive"
    )
    held_out: Word | None = Field(
        default=None,
        description="SQL over interactions columns: true is a test row, which no prompt shows and "
        "nothing learns from; `reki evaluate` scores these, in place of users that it holds out",
    )
    history: int = Field(
        default=30, ge=1, le=30, description="interactions shown in a prompt, at most"
    )
    as_of: list[Time] = Field(
        default_factory=list,
        description="snapshot times, each of what came before it; default: the first time, and "
        "just after the median and the last",
    )
    language: str = Field(default="English", description="language the answers are asked for in")
    summary: str = Field(default="", description="one line for the Feast UI")
    owner: str = Field(default="", description="owner shown in the Feast UI")


def _callable_alone(source: object) -> object:
    """A function is called without arguments, and what it gives is a table, not a promise of it."""
    if isinstance(source, str):
        return one_word(source)
    if not callable(source):
        raise ValueError("is an SQL query, or a Python function that gives Arrow tables or batches")
    if inspect.iscoroutinefunction(source) or inspect.isasyncgenfunction(source):
        raise ValueError("is a function that is not async: asyncio.run(…) within it")
    needed = [
        name
        for name, one in inspect.signature(source).parameters.items()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if needed:
        raise ValueError(f"is a function without arguments; this one wants {', '.join(needed)}")
    return source


#: One table: SQL that DuckDB runs, or a function that gives Arrow.
Rows = Annotated[Any, AfterValidator(_callable_alone)]


class Sources(Declared):
    """The tables, each as one SQL query that DuckDB runs, or as a Python function that gives Arrow.

    Relative paths start at the project, in functions too. A function has no arguments and gives a
    ``pyarrow.Table``, batches one by one, or what streams as Arrow, with the columns that a query
    would select.
    """

    items: Rows = Field(description="select item key, title, further columns")
    interactions: Rows | None = Field(
        default=None,
        description="select user key, item key, rating …, event_timestamp (or position); knowledge "
        "is imported and judged without them, all else needs them",
    )
    users: Rows | None = Field(default=None, description="select user key, profile columns")
    embeddings: Rows | None = Field(
        default=None,
        description="select item key, vector: your own item vectors to form groups by, in place of "
        "learnt ones; event_timestamp, if there, says since when a vector holds",
    )
    user_embeddings: Rows | None = Field(
        default=None,
        description="select user key, vector: joined to the mean of a user's item vectors, in "
        "place of learnt profile embeddings",
    )
    setup: list[str] = Field(
        default_factory=list, description="statements run before: attach, load, create secret"
    )


class Individual(Declared):
    """One factorized prompt for each entity of a kind."""

    kind: Literal["user", "item"] = Field(description="whom the prompts are about")


class Collective(Declared):
    """One factorized prompt for each group of entities of a kind that are alike."""

    kind: Literal["user", "item"] = Field(description="whom the prompts are about")
    max_items: int = Field(default=80, ge=1, description="items of a group, at most")
    max_users: int = Field(default=100, ge=1, description="users of a group, at most")
    shown: int = Field(
        default=15, ge=1, le=50, description="items that a group is shown to the model by"
    )
    attributes: list[str] | None = Field(
        default=None,
        description="columns with categories, or lists of them, that tell entities apart; "
        "default: those of description (of profile) that hold few enough values",
    )
    refresh: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="a group is asked again when more than this share of its items is new",
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Collective:
        other = "max_users" if self.kind == "item" else "max_items"
        if other in self.model_fields_set:
            right = "max_items" if self.kind == "item" else "max_users"
            raise ValueError(f"{other} does not cap groups of {self.kind}s; use {right}")
        return self

    @property
    def max_size(self) -> int:
        """Entities of a group, at most."""
        return self.max_items if self.kind == "item" else self.max_users


class Training(Declared):
    """How HEIN and the recommender it learns with are trained."""

    backbone: Literal[
        "din", "dien", "dcnv2", "dcn", "deepfm", "xdeepfm", "fibinet", "autoint", "fignn"
    ] = Field(default="din", description="the recommender that HEIN is trained with")
    epochs: int = Field(default=4, ge=1, description="passes over the training samples")
    samples: int | None = Field(
        default=2_000_000,
        ge=1,
        description="interactions to learn weights, scores and groups' embeddings from, at most: "
        "of a longer log those of users drawn by the seed; None: all, which memory must hold",
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="default: about a hundredth of the samples"
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Adam's, at the start; default: .01 for batches of 2,048 samples, and with the "
        "square root of the batch size",
    )
    patience: int = Field(default=2, ge=1, description="epochs without a better validation loss")
    shared_experts: int = Field(default=2, ge=1, description="experts that all channels share")
    dedicated_experts: int = Field(
        default=4, ge=1, description="experts of users alone, and as many of items"
    )
    output_size: int = Field(
        default=32, ge=1, description="floats of an augmented vector, per pair"
    )
    components: int | None = Field(
        default=64, ge=1, description="principal components of a channel that HEIN reads; None: all"
    )
    match: float = Field(
        default=0.0,
        ge=0,
        description="weight of the two-tower head's loss, which makes reki_match's scores; 0: none",
    )
    folds: int = Field(
        default=0,
        ge=0,
        description="make users' vectors out of so many folds of users, for models that are "
        "trained on the same users later; 0: all by one network",
    )
    blocks: int = Field(
        default=6,
        ge=1,
        description="parts of a log with times; what is stored of one is made by weights that "
        "learnt from earlier ones alone",
    )
    shrink: float = Field(
        default=3.0,
        ge=0,
        description="interactions with which a user's vector stands half-way between the default "
        "vector and its own, where they have times; 0: vectors as they are",
    )
    forget: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the item ids of a training batch that the recommender does not see, "
        "so that it leans on vectors, and ids that it never learnt are zero; for items and domains "
        "that come later",
    )
    check: bool = Field(
        default=True,
        description="measure after training, on the last fifth of the log, whether scores help",
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of an expert's hidden units left out in training",
    )
    device: str = Field(
        default="cpu",
        description='torch device to train on, say "cuda"; on the CPU alone a seed gives the same '
        "weights each time",
    )
    test: float = Field(default=0.1, ge=0, lt=1, description="share of users held out for the test")
    seed: int = Field(default=0, description="of weights, splits and shuffles")

    @model_validator(mode="after")
    def _folds_can_be(self) -> Training:
        if self.folds == 1:
            raise ValueError("one fold leaves nobody to learn from: 2 or more, or 0 for none")
        if self.folds and not self.match:
            raise ValueError("folds learn by the two-tower head: match=1 beside them")
        return self


#: What asks the language model.
Generator = Individual | Collective
