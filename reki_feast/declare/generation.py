"""How the language model is asked: which one, how fast, for how much, and what is believed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from reki_feast.declare.base import Declared, Word


class LLM(Declared):
    """Which language model answers. The key comes from the environment only."""

    provider: Literal["openai", "openai-batch", "recorded", "echo"] = Field(
        default="openai",
        description="openai: any compatible server, call by call; openai-batch: the Batch API, "
        "half the price within a day; recorded: answers from a table; echo: a fake for tests",
    )
    model: str = Field(default="gpt-4o-mini", description="the server's name of the model")
    base_url: str | None = Field(default=None, description="any OpenAI-compatible server")
    api_key_env: Word = Field(default="OPENAI_API_KEY", description="variable that holds the key")
    answers: Word | None = Field(default=None, description="provider 'recorded': SQL for its table")
    concurrency: int = Field(
        default=8, ge=1, le=1024, description="calls in flight at once, at most"
    )
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="default: as the server's headers say, if they do"
    )
    tokens_per_minute: float | None = Field(
        default=None, gt=0, description="default: as the server's headers say, if they do"
    )
    temperature: float | None = Field(
        default=0.0, ge=0, le=2, description="None leaves it out, as where a model refuses it"
    )
    structured: Literal["auto", "json_schema", "json_object", "off"] = Field(
        default="auto", description="how answers are bound to JSON; auto tries and falls back"
    )
    max_tokens: int = Field(default=1200, ge=16, description="tokens of one answer, at most")
    timeout_s: float = Field(default=120.0, gt=0, description="seconds that one call may take")
    attempts: int = Field(default=8, ge=1, description="tries of one prompt at a server at fault")
    poll_s: float = Field(
        default=30.0, gt=0, description="openai-batch: seconds between two looks at a batch"
    )
    price: tuple[float, float] | None = Field(
        default=None, description="money per million prompt and completion tokens"
    )
    extra_body: dict[str, Any] | None = Field(
        default=None, description="further fields of each request, for servers that want them"
    )


class Budget(Declared):
    """A hard stop: a run ends before a limit is passed, and goes on when it is raised.

    At most one for the project (all that its ledger holds) and one for each run.
    """

    per: Literal["project", "run"] = Field(
        default="project", description="whether the limits hold for all runs together or for each"
    )
    max_cost: float | None = Field(
        default=None, gt=0, description="money, in the currency of the prices"
    )
    max_calls: int | None = Field(default=None, ge=1, description="calls that went out")
    max_tokens: int | None = Field(default=None, ge=1, description="tokens of questions, answers")

    @model_validator(mode="after")
    def _limits_something(self) -> Budget:
        if self.max_cost is None and self.max_calls is None and self.max_tokens is None:
            raise ValueError("names at least one of max_cost, max_calls, max_tokens")
        return self


class Gates(Declared):
    """What an answer must pass before it becomes knowledge."""

    coverage: float = Field(
        default=1.0, ge=0, le=1, description="share of the factors that an answer covers, at least"
    )
    shortest: int = Field(default=3, ge=1, description="characters of a factor's text, at least")
    longest: int = Field(default=2_000, ge=10, description="characters of a factor's text, at most")
    language: bool = Field(
        default=True, description="answers are in the scenario's language, if it can be told"
    )
    duplicates: float | None = Field(
        default=0.95,
        gt=0,
        le=1,
        description="answers of two entities are less alike than this (Jaccard); None: no matter",
    )
    facts: list[str] = Field(
        default_factory=list,
        description="items columns that an answer may not contradict: year, director, author …; "
        "a value is sent when an answer contradicts it",
    )
    read: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of a prompt's tokens, as estimated, that the server must bill, lest it "
        "cut the prompt; 0.5 suits English; None: a warning only",
    )
    mends: int = Field(
        default=1, ge=0, le=5, description="times that a failing answer is asked for again"
    )
    review: bool = Field(
        default=False,
        description="the model checks and corrects each answer of its own: twice the calls",
    )


class Freshness(Declared):
    """When a run asks again about what is known."""

    max_age_days: float | None = Field(
        default=None, gt=0, description="answers older than this are asked for anew"
    )
    min_new: int = Field(
        default=1, ge=1, description="interactions since a user was asked about, to ask again"
    )
    catalogue: bool = Field(
        default=False,
        description="ask about users again, too, when the catalogue has other words for what they "
        "met before, or no longer has it",
    )
    incremental: bool = Field(
        default=False,
        description="send a user's last knowledge and the new interactions, not the whole history",
    )


class Privacy(Declared):
    """What may leave, and where to; and who may read what is stored."""

    redact: Literal["patterns", "presidio", "off"] = Field(
        default="patterns",
        description="patterns: e-mail addresses, phone and card numbers are struck from prompts; "
        "presidio: IBANs, wallets, IP addresses, identity numbers too, with the pii extra",
    )
    private: bool = Field(
        default=False, description="refuse to talk to any host that allow_hosts does not name"
    )
    allow_hosts: list[Word] = Field(
        default_factory=list, description="hosts, with or without port: llm.internal, 10.0.0.7:8000"
    )
    group: Word | None = Field(
        default=None,
        description="Unix group whose members may read and write what is stored; default: its "
        "owner alone may",
    )
    umask: int | None = Field(
        default=None,
        ge=0,
        le=0o077,
        description="bits that stored files lack; default: 0o077, or 0o007 with a group; 0o027: "
        "the group may read",
    )

    @model_validator(mode="after")
    def _hosts_have_a_use(self) -> Privacy:
        if self.allow_hosts and not self.private:
            raise ValueError("allow_hosts has a use only with private=True")
        return self
