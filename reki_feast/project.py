"""A project's folder, its declarations, and the objects made from them.

The language model, the encoder, the ledger and the stored tables are made here and passed to the
stages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reki_feast import declare, files
from reki_feast.declare import Declarations
from reki_feast.errors import DeclarationError, LakeError, LLMError
from reki_feast.knowledge import FactorsFile, Templates, Wording, require_confirmed
from reki_feast.knowledge.factors.file import loads
from reki_feast.locking import alone
from reki_feast.permissions import OWNER, Rights, make_file
from reki_feast.tables import duckdb_session
from reki_feast.tables.lake import Lake
from reki_feast.views.spaces import VectorSpace, read_spaces

if TYPE_CHECKING:
    from reki_feast.encoding import Pooling, QuantizedModel, TextEncoder
    from reki_feast.encoding import Progress as EncodeProgress
    from reki_feast.knowledge.validation.gates import AnswerRules
    from reki_feast.llm import LanguageModel, Ledger, Price, RequestPolicy
    from reki_feast.llm.embeddings import EndpointEncoder


#: The part of a project's files that groups are formed from; it has a lock of its own.
GROUPS = "groups."


def now() -> datetime:
    """The clock of the pipeline."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class DeclaredProject:
    """One scenario of a project folder.

    Attributes:
        root: the folder, resolved.
        declared: what ``generators/NAME.py`` declares.
        space: the space of vectors that is meant; None: the one in service.
    """

    root: Path
    declared: Declarations
    space: VectorSpace | None = None

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
        """The scenario's tables, with those of the space."""
        return Lake(self.data, self.rights, self.space or read_spaces(self.data).in_service)

    def write_lock(self, doing: str, part: str = "") -> AbstractContextManager[None]:
        """Lock the project folder for writing; wait while another process holds the lock.

        Args:
            doing: what is done, shown to those who wait.
            part: the part of the files; empty for the published tables and the Feast repo.

        Raises:
            LakeError: the data folder cannot be written.
        """
        self.lake.claim()
        lock = self.root / "data" / f".{part}lock"
        try:
            make_file(lock, self.rights)  # who can open it can block others
        except OSError as error:
            raise LakeError(files.unwritable(lock, error)) from error
        return alone(lock, doing)

    @property
    def rights(self) -> Rights:
        """Permissions of stored files."""
        privacy = self.declared.privacy
        default = 0o007 if privacy.group else OWNER.umask
        return Rights(default if privacy.umask is None else privacy.umask, privacy.group)

    @cached_property
    def templates(self) -> Templates:
        """Prompt templates: the shipped ones, or those of ``generators/templates/`` instead.

        Those in a folder there that is named as the scenario go before both.
        """
        folder = self.declared.path.parent / "templates"
        return Templates.load(folder, folder / self.name)

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
        """The factors file, parsed; None without one."""
        text = files.read_text(self.factors_path)
        return None if text is None else loads(text, source=str(self.factors_path))

    def wording(self, factors: tuple[str, ...] = ()) -> Wording:
        """The scenario's words for the prompts."""
        declared = self.declared.scenario
        return Wording(
            user_key=declared.user_key,
            item_key=declared.item_key,
            title=declared.title,
            description=declared.description or f"{{{{ {declared.title} }}}}",
            factors=factors,
            profile=declared.profile,
            rating="rating" if declared.rating else None,
            rating_scale=declared.rating_scale,
            item=declared.item,
            user=declared.user,
            action=declared.action,
            n=declared.history,
            language=declared.language,
            facts=tuple(self.declared.gates.facts),
        )

    def llm(self, *, online: bool = False) -> LanguageModel:
        """The declared language model; nothing is sent yet.

        Args:
            online: call by call, also where batches are declared.

        Raises:
            DeclarationError: provider ``recorded`` without ``answers``.
            LLMError: the server's address is none, or one that a private scenario does not allow.
        """
        from reki_feast.llm import (
            BatchOptions,
            CompletionOptions,
            EchoLLM,
            OpenAIBatchLLM,
            OpenAILLM,
            RecordedLLM,
        )

        declared = self.declared.llm
        if declared.provider == "echo":
            return EchoLLM()
        if declared.provider == "recorded":
            if declared.answers is None:
                rule, hint = "LLM.answers: provider 'recorded' has a table", "add answers=…"
                raise DeclarationError(rule, detail="no answers", hint=hint)
            setup = self.declared.sources.setup
            answers = duckdb_session.query(declared.answers, root=self.root, setup=setup)
            return RecordedLLM(answers, name=f"recorded/{declared.model}")
        privacy = self.declared.privacy
        options = CompletionOptions(
            temperature=declared.temperature,
            max_tokens=declared.max_tokens,
            timeout_s=declared.timeout_s,
            structured=declared.structured,
            extra_body=declared.extra_body or {},
        )
        make: Callable[..., OpenAILLM] = OpenAILLM
        if declared.provider == "openai-batch" and not online:
            make = partial(OpenAIBatchLLM, batches=BatchOptions(poll_s=declared.poll_s))
        return make(
            model=declared.model,
            base_url=declared.base_url,
            api_key_env=declared.api_key_env,
            allow_hosts=privacy.allow_hosts if privacy.private else None,
            options=options,
        )

    def check_key(self) -> None:
        """Check that a declared variable holds a key, also for servers that may need none.

        Raises:
            LLMError: it does not.
        """
        declared = self.declared.llm
        has_key = os.environ.get(declared.api_key_env)
        is_needed = declared.provider in ("openai", "openai-batch")
        if is_needed and "api_key_env" in declared.model_fields_set and not has_key:
            raise LLMError(
                f"the declared variable {declared.api_key_env} holds the key",
                detail="it is not set",
                hint=f"export {declared.api_key_env}=…, or leave api_key_env out where a server on "
                "this machine needs no key",
            )

    def price(self, *, online: bool = False) -> Price | None:
        """The model's price: the declared one, else its list price; None: unknown.

        Args:
            online: as for :meth:`llm`.
        """
        from reki_feast.llm.pricing import Price, price_of
        from reki_feast.llm.server import server_address

        declared = self.declared.llm
        if declared.provider in ("recorded", "echo"):
            return Price(0.0, 0.0)
        if declared.price is not None:
            return Price(*declared.price, source="LLM(price=…)")
        is_batch = declared.provider == "openai-batch" and not online
        return price_of(declared.model, server_address(declared.base_url), is_batch=is_batch)

    def request_policy(
        self,
        llm: LanguageModel,
        ledger: Ledger,
        *,
        limits: Mapping[str, float | None] | None = None,
        retry_quarantined: bool = False,
        online: bool = False,
    ) -> RequestPolicy:
        """Limits, retries and validation of the calls to the model.

        Args:
            llm: the model.
            ledger: where nearly equal answers are looked up.
            limits: ``max_cost``, ``max_calls``, ``max_tokens`` of this run, instead of the declared
                ones.
            retry_quarantined: ask again for what failed a gate in an earlier run.
            online: as for :meth:`llm`.
        """
        from reki_feast.knowledge.validation.gates import AnswerValidator
        from reki_feast.llm import RequestPolicy, SpendLimits

        declared, gates = self.declared.llm, self.declared.gates
        given = {name: value for name, value in (limits or {}).items() if value is not None}
        is_free = not llm.max_answer_tokens
        return RequestPolicy(
            concurrency=declared.concurrency,
            requests_per_minute=declared.requests_per_minute,
            tokens_per_minute=declared.tokens_per_minute,
            attempts=declared.attempts,
            validator=AnswerValidator(self.answer_rules(), alike=ledger.alike).validate,
            # an answer from a table is the same however often it is asked for
            re_prompts=0 if is_free else gates.mends,
            read=gates.read,
            review=gates.review and not is_free,
            price=self.price(online=online),
            run_limits=SpendLimits("the run", **{**self._budget("run"), **given}),
            project_limits=SpendLimits("the project", **self._budget("project")),
            retry_quarantined=retry_quarantined,
        )

    def answer_rules(self) -> AnswerRules:
        """What answers and imported texts are validated by."""
        from reki_feast.knowledge.validation.gates import AnswerRules

        declared = self.declared.gates
        return AnswerRules(
            coverage=declared.coverage,
            shortest=declared.shortest,
            longest=declared.longest,
            language=self.declared.scenario.language if declared.language else None,
            # the echo has few words, and says the same of many
            duplicates=None if self.declared.llm.provider == "echo" else declared.duplicates,
        )

    def _budget(self, per: str) -> dict[str, Any]:
        declared = self.declared.budget(per)
        return {} if declared is None else declared.model_dump(exclude={"per"})

    def redact(self) -> Callable[[str], str]:
        """The function that redacts prompts.

        Raises:
            MissingExtraError: presidio is declared and not installed.
        """
        from reki_feast.knowledge.prompts.redaction import redactor_of

        return redactor_of(self.declared.privacy.redact)

    def ledger(self, *, reading: bool = False) -> Ledger:
        """The scenario's ledger of answers, made on first use; close it after use.

        Args:
            reading: open it read-only where it cannot be written, and do not make one.
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
        local_only: bool = False,
    ) -> TextEncoder:
        """The declared encoder, or another model with its options; it is loaded on first use.

        Args:
            progress: called after every batch.
            model: instead of the declared one.
            pooling: instead of the declared one.
            local_only: load it from this machine, or not at all; a private scenario always does.

        Raises:
            MissingExtraError: the package that carries it is not installed.
            LLMError: as for :meth:`endpoint_encoder`.
        """
        from reki_feast.encoding import EncoderOptions, HashEncoder, SentenceTransformerEncoder

        declared = self.declared.encoder
        name = model or declared.model
        if declared.provider == "openai" and model is None:
            return self.endpoint_encoder(progress)
        if name == "hash":
            return HashEncoder()
        return SentenceTransformerEncoder(
            name,
            EncoderOptions(
                pooling=pooling or declared.pooling,
                prompt=declared.prompt if name == declared.model else None,
                batch_size=declared.batch_size,
                max_tokens=declared.max_tokens,
                backend=declared.backend if name == declared.model else "torch",
                quantized=self.quantized() if name == declared.model else None,
                local_only=local_only or self.declared.privacy.private,
            ),
            progress=progress,
        )

    @property
    def int8_path(self) -> Path:
        """The file of the declared encoder in 8-bit integers, one a space's encoding."""
        return self.lake.folder_of("int8") / "int8.safetensors"

    def quantized(self) -> QuantizedModel | None:
        """The declared encoder in 8-bit integers; None without ``backend="int8"``, or before it is.

        Raises:
            LakeError: the file is damaged.
            EncodeError: it is of another format.
        """
        from reki_feast.encoding import QuantizedModel

        if self.declared.encoder.backend != "int8" or not self.int8_path.exists():
            return None
        return QuantizedModel.of(*files.read_tensors(self.int8_path))

    def endpoint_encoder(self, progress: EncodeProgress | None = None) -> EndpointEncoder:
        """The declared encoder behind a server; nothing is sent yet.

        Args:
            progress: called as texts are encoded.

        Raises:
            LLMError: the server's address is none, or one that a private scenario does not allow.
            MissingExtraError: presidio is declared and not installed.
        """
        from reki_feast.llm import RequestPolicy, SpendLimits
        from reki_feast.llm.embeddings import (
            EmbeddingOptions,
            EndpointEncoder,
            OpenAIEmbeddings,
            TextOptions,
        )

        declared, privacy = self.declared.encoder, self.declared.privacy
        client = OpenAIEmbeddings(
            model=declared.model,
            base_url=declared.base_url,
            api_key_env=declared.api_key_env,
            allow_hosts=privacy.allow_hosts if privacy.private else None,
            options=EmbeddingOptions(
                dimensions=declared.dimensions,
                timeout_s=declared.timeout_s,
                extra_body=declared.extra_body or {},
            ),
        )
        policy = RequestPolicy(
            concurrency=declared.concurrency,
            requests_per_minute=declared.requests_per_minute,
            tokens_per_minute=declared.tokens_per_minute,
            attempts=declared.attempts,
            re_prompts=0,
            price=self.embedding_price(),
            run_limits=SpendLimits("the run", **self._budget("run")),
            project_limits=SpendLimits("the project", **self._budget("project")),
            retry_quarantined=True,
        )
        options = TextOptions(
            prompt=declared.prompt or "",
            max_tokens=declared.max_tokens,
            batch_size=declared.batch_size,
            redact=self.redact(),
        )
        return EndpointEncoder(client, self.ledger, policy, options, progress=progress)

    def embedding_price(self) -> Price | None:
        """What the encoder's server takes for texts; None: unknown."""
        from reki_feast.llm.pricing import Price, embedding_price_of
        from reki_feast.llm.server import server_address

        declared = self.declared.encoder
        if declared.price is not None:
            return Price(declared.price, 0.0, source="Encoder(price=…)")
        return embedding_price_of(declared.model, server_address(declared.base_url))


def open_project(root: Path, name: str | None = None) -> DeclaredProject:
    """Read a project's declarations.

    Args:
        root: folder of the project.
        name: which ``generators/NAME.py``, if there are several.

    Returns:
        The declared project; :class:`reki_feast.Project` has the commands.

    Raises:
        DeclarationError: there is no declarations file, or it has faults.
    """
    root = root.resolve()
    return DeclaredProject(root, declare.load(declare.find(root, name)))
