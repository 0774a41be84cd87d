"""A user's project: its folder, what it declares, and the outside world made from that.

The language model, the encoder, the ledger and the lake are opened here and handed to the stages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reki_feast import files, lake, scenario
from reki_feast.errors import DeclarationError, LakeError, LLMError
from reki_feast.extract import FactorsFile, Templates, Wording, require_confirmed
from reki_feast.extract.factors import loads
from reki_feast.lake import Lake
from reki_feast.locking import alone
from reki_feast.rights import OWNER, Rights, make_file
from reki_feast.scenario import Declarations

if TYPE_CHECKING:
    from reki_feast.encode import Encoder, Pooling
    from reki_feast.encode import Progress as EncodeProgress
    from reki_feast.extract.gates import Limits as GateLimits
    from reki_feast.llm import LLM, Ledger, Price, Terms


#: What groups are formed from, a part of what a project writes.
GROUPS = "groups."


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
        return Lake(self.data, self.rights)

    def alone(self, doing: str, part: str = "") -> AbstractContextManager[None]:
        """Be the project folder's only writer for a while; wait for whoever writes.

        Args:
            doing: what is done, told to those who wait.
            part: of what is written; without one, the tables that are published and the Feast repo.

        Raises:
            LakeError: the data folder cannot be written.
        """
        self.lake.claim()
        lock = self.root / "data" / f".{part}lock"
        try:
            make_file(lock, self.rights)  # whoever can open it can have others wait
        except OSError as error:
            raise LakeError(files.unwritable(lock, error)) from error
        return alone(lock, doing)

    @property
    def rights(self) -> Rights:
        """Who may read and write what is stored."""
        said = self.declared.privacy
        umask = said.umask if said.umask is not None else (0o007 if said.group else OWNER.umask)
        return Rights(umask, said.group)

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

    def known_factors(self) -> tuple[str, ...]:
        """The factors that knowledge may have, confirmed or not; none where there are none yet."""
        named = self.declared.scenario.factors is not None or self.factors_path.exists()
        return self.factors(allow_unconfirmed=True) if named else ()

    def factors_file(self) -> FactorsFile | None:
        """What the factors file says; None without one."""
        text = files.read_text(self.factors_path)
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
            facts=tuple(self.declared.gates.facts),
        )

    def llm(self, *, online: bool = False) -> LLM:
        """The declared language model; nothing is sent yet.

        Args:
            online: call by call, also where batches are declared: for a few questions now.

        Raises:
            DeclarationError: provider ``recorded`` without ``answers``.
            LLMError: the server's address is none, or one that a private scenario does not allow.
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
        privacy = self.declared.privacy
        how: dict[str, Any] = {
            "model": said.model,
            "base_url": said.base_url,
            "api_key_env": said.api_key_env,
            "temperature": said.temperature,
            "max_tokens": said.max_tokens,
            "timeout_s": said.timeout_s,
            "structured": said.structured,
            "extra_body": said.extra_body,
            "allow_hosts": privacy.allow_hosts if privacy.private else None,
        }
        if said.provider == "openai-batch" and not online:
            from reki_feast.llm import OpenAIBatchLLM

            return OpenAIBatchLLM(**how, poll_s=said.poll_s)
        return OpenAILLM(**how)

    def check_key(self) -> None:
        """See that a declared variable holds a key, also for servers that may need none.

        Raises:
            LLMError: it does not.
        """
        said = self.declared.llm
        asks = said.provider in ("openai", "openai-batch")
        if asks and "api_key_env" in said.model_fields_set and not os.environ.get(said.api_key_env):
            raise LLMError(
                f"the declared variable {said.api_key_env} holds the key",
                found="it is not set",
                mend=f"export {said.api_key_env}=…, or leave api_key_env out where a server on "
                "this machine needs no key",
            )

    def prices(self, *, online: bool = False) -> dict[str, Price]:
        """Prices by model: the scenario's own, else the table's; half of that for batches."""
        from reki_feast.llm.price import PRICES, Price, halved

        said = self.declared.llm
        if said.provider in ("recorded", "echo"):
            return {**PRICES, said.model: Price(0.0, 0.0), "echo": Price(0.0, 0.0)}
        if said.price is not None:
            return {**PRICES, said.model: Price(*said.price)}
        is_batch = said.provider == "openai-batch" and not online
        return halved(PRICES) if is_batch else dict(PRICES)

    def terms(
        self,
        llm: LLM,
        ledger: Ledger,
        *,
        limits: Mapping[str, float | None] | None = None,
        retry_quarantined: bool = False,
        online: bool = False,
    ) -> Terms:
        """On which terms the model is asked.

        Args:
            llm: the model.
            ledger: where nearly equal answers are looked up.
            limits: max_cost, max_calls, max_tokens of this run, before the declared ones.
            retry_quarantined: ask again for what failed a gate in an earlier run.
            online: as for :meth:`llm`.
        """
        from reki_feast.extract.gates import Gates
        from reki_feast.llm import Limits, Terms, price_of

        said, gates = self.declared.llm, self.declared.gates
        given = {name: value for name, value in (limits or {}).items() if value is not None}
        is_free = not llm.longest_answer
        return Terms(
            concurrency=said.concurrency,
            requests_per_minute=said.requests_per_minute,
            tokens_per_minute=said.tokens_per_minute,
            attempts=said.attempts,
            judge=Gates(self.gate_limits(), alike=ledger.alike).judge,
            # an answer from a table is the same however often it is asked for
            mends=0 if is_free else gates.mends,
            read=gates.read,
            review=gates.review and not is_free,
            price=price_of(llm.name.split("/", 1)[-1], self.prices(online=online)),
            of_run=Limits("the run", **{**self._budget("run"), **given}),
            of_project=Limits("the project", **self._budget("project")),
            retry_quarantined=retry_quarantined,
        )

    def gate_limits(self) -> GateLimits:
        """What answers, and texts made elsewhere, must keep to."""
        from reki_feast.extract.gates import Limits as GateLimits

        said = self.declared.gates
        return GateLimits(
            coverage=said.coverage,
            shortest=said.shortest,
            longest=said.longest,
            language=self.declared.scenario.language if said.language else None,
            # the echo has few words, and says the same of many
            duplicates=None if self.declared.llm.provider == "echo" else said.duplicates,
        )

    def _budget(self, per: str) -> dict[str, Any]:
        said = self.declared.budget(per)
        return {} if said is None else said.model_dump(exclude={"per"})

    def redact(self) -> Callable[[str], str]:
        """What strikes from prompts that may not leave.

        Raises:
            MissingExtraError: presidio is declared and not installed.
        """
        from reki_feast.extract.redact import redactor

        return redactor(self.declared.privacy.redact)

    def ledger(self, *, reading: bool = False) -> Ledger:
        """The scenario's ledger of answers, made on first use; close it after use.

        Args:
            reading: none is made, and one that cannot be written is read.
        """
        from reki_feast.llm import Ledger

        if not reading:
            self.lake.claim()
        return Ledger(self.data / "ledger.sqlite", rights=self.rights, reading=reading)

    def encoder(
        self,
        progress: EncodeProgress | None = None,
        *,
        model: str | None = None,
        pooling: Pooling | None = None,
    ) -> Encoder:
        """The declared encoder, or another ``model`` used alike; it is loaded when first used.

        Args:
            progress: called after every batch.
            model: in place of the declared one.
            pooling: in place of the declared one.

        Raises:
            MissingExtraError: the package that carries it is not installed.
        """
        from reki_feast.encode import HashEncoder, SentenceTransformerEncoder

        said = self.declared.encoder
        name = model or said.model
        if name == "hash":
            return HashEncoder()
        return SentenceTransformerEncoder(
            name,
            pooling=pooling or said.pooling,
            prompt=said.prompt if name == said.model else None,
            batch_size=said.batch_size,
            max_tokens=said.max_tokens,
            progress=progress,
            local_only=self.declared.privacy.private,
        )


def open_project(root: Path, name: str | None = None) -> Project:
    """Read a project's declarations.

    Raises:
        DeclarationError: there is no declarations file, or it has faults.
    """
    root = root.resolve()
    return Project(root, scenario.load(scenario.find(root, name)))
