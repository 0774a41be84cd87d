"""A user's project: its folder, what it declares, and the outside world made from that.

The language model, the encoder, the ledger and the lake are opened here and handed to the stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from reki_feast import lake, scenario
from reki_feast.errors import DeclarationError
from reki_feast.extract import FactorsFile, Templates, Wording, require_confirmed
from reki_feast.extract.factors import loads
from reki_feast.lake import Lake
from reki_feast.scenario import Declarations

if TYPE_CHECKING:
    from reki_feast.encode import Encoder
    from reki_feast.encode import Progress as EncodeProgress
    from reki_feast.llm import LLM, Ledger


def now() -> datetime:
    """The clock of the pipeline."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Project:
    """One scenario of a project folder."""

    root: Path
    declared: Declarations

    @property
    def name(self) -> str:
        """The scenario's name."""
        return self.declared.scenario.name

    @property
    def data(self) -> Path:
        """Folder of the scenario's tables."""
        return self.root / "data" / self.name

    @property
    def redis(self) -> Path:
        """Folder of the embedded Redis, one a project."""
        return self.root / "data" / "redis"

    @property
    def feature_repo(self) -> Path:
        """The project's Feast repo, if it has one."""
        return self.root / "feature_repo"

    @property
    def factors_path(self) -> Path:
        """The file in which an expert confirms factors."""
        return self.declared.path.with_suffix(".factors.yaml")

    @cached_property
    def lake(self) -> Lake:
        """The scenario's tables."""
        return Lake(self.data)

    @cached_property
    def templates(self) -> Templates:
        """Prompt templates; files in ``generators/templates/`` go before the shipped ones."""
        folder = self.declared.path.parent / "templates"
        return Templates.load(folder if folder.is_dir() else None)

    def factors(self, *, allow_unconfirmed: bool = False) -> tuple[str, ...]:
        """The factors to ask about: the scenario's own, or those of the confirmed file.

        Raises:
            FactorsError: there are none, or no expert has confirmed them.
        """
        if self.declared.scenario.factors is not None:
            return tuple(self.declared.scenario.factors)
        file = self.factors_file()
        where = str(self.factors_path)
        return require_confirmed(file, source=where, unconfirmed_too=allow_unconfirmed)

    def factors_file(self) -> FactorsFile | None:
        """What the factors file says; None without one."""
        text = lake.read_text(self.factors_path)
        return None if text is None else loads(text, source=str(self.factors_path))

    def wording(self, factors: tuple[str, ...] = ()) -> Wording:
        """The scenario's words for the prompts."""
        said = self.declared.scenario
        return Wording(
            user_key=said.user_key,
            item_key=said.item_key,
            title=said.title,
            description=said.description or f"{{{{ {said.title} }}}}",
            factors=factors,
            profile=said.profile,
            rating="rating" if said.rating else None,
            rating_scale=said.rating_scale,
            item=said.item,
            user=said.user,
            action=said.action,
            n=said.history,
            language=said.language,
        )

    def llm(self) -> LLM:
        """The declared language model; nothing is sent yet.

        Raises:
            DeclarationError: provider ``recorded`` without ``answers``.
        """
        from reki_feast.llm import EchoLLM, OpenAILLM, RecordedLLM

        said = self.declared.llm
        if said.provider == "echo":
            return EchoLLM()
        if said.provider == "recorded":
            if said.answers is None:
                rule, mend = "LLM.answers: provider 'recorded' has a table", "add answers=…"
                raise DeclarationError(rule, found="no answers", mend=mend)
            setup = self.declared.sources.setup
            answers = lake.query(said.answers, root=self.root, setup=setup)
            return RecordedLLM(answers, name=f"recorded/{said.model}")
        return OpenAILLM(
            model=said.model,
            base_url=said.base_url,
            api_key_env=said.api_key_env,
            temperature=said.temperature,
            max_tokens=said.max_tokens,
            timeout_s=said.timeout_s,
            structured=said.structured,
            extra_body=said.extra_body,
        )

    def ledger(self) -> Ledger:
        """The scenario's ledger of answers, made on first use; close it after use."""
        from reki_feast.llm import Ledger

        return Ledger(self.data / "ledger.sqlite")

    def encoder(self, progress: EncodeProgress | None = None) -> Encoder:
        """The declared encoder; its model is loaded when first used.

        Raises:
            MissingExtraError: the package that carries it is not installed.
        """
        from reki_feast.encode import HashEncoder, SentenceTransformerEncoder

        said = self.declared.encoder
        if said.model == "hash":
            return HashEncoder()
        return SentenceTransformerEncoder(
            said.model,
            pooling=said.pooling,
            batch_size=said.batch_size,
            max_tokens=said.max_tokens,
            progress=progress,
        )


def open_project(root: Path, name: str | None = None) -> Project:
    """Read a project's declarations.

    Raises:
        DeclarationError: there is no declarations file, or it has faults.
    """
    root = root.resolve()
    return Project(root, scenario.load(scenario.find(root, name)))
