"""Client of any server with the embeddings protocol of OpenAI (OpenAI, vLLM, TEI, Ollama, …).

It makes one call at a time, as :mod:`reki_feast.llm.openai` does. Vectors are asked for as base64,
a third of the bytes of written numbers; a server that refuses this is asked for numbers. How many
texts a server takes in one call is learned from its refusals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reki_feast.errors import LLMError
from reki_feast.llm import wire
from reki_feast.llm._openai import EMBEDDINGS
from reki_feast.llm.embeddings.replies import Vectors, answer_of, parse_embeddings
from reki_feast.llm.interface import Answer, FailedReply, Request, canonical_json
from reki_feast.llm.pricing import estimate_tokens
from reki_feast.llm.server import ModelServer, check_extra_body
from reki_feast.llm.wire import CallError

_OURS = frozenset(("model", "input", "encoding_format", "dimensions"))
_EXTRA_HINT = "leave it out; Encoder(model=…, dimensions=…) set the others"
#: Statuses of a call that is refused for its size, or for one of its texts.
_TOO_LARGE = (400, 413, 422)
_ENCODING = re.compile(r"encoding_?format|base64")
_DIMENSIONS = re.compile(r"dimension|matryoshka")
#: Estimated tokens that tell something, and the share of them below which a server cuts texts.
_ENOUGH, _CUT = 2_000, 1 / 3
_WIDTH_HINT = "leave dimensions out; Encoder(components=…) makes shorter vectors here"


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """The parameters of each call.

    Attributes:
        dimensions: floats of a vector, where the model can make several lengths; None: its own.
        timeout_s: seconds that one call may take in all.
        extra_body: further fields of the request's body. Part of the ledger's key: no secrets.
    """

    dimensions: int | None = None
    timeout_s: float = 120.0
    extra_body: Mapping[str, object] = field(default_factory=dict)


class OpenAIEmbeddings(ModelServer):
    """An embedding model at a server; a language model whose prompt is a JSON list of texts.

    Args:
        model: the model's name there.
        base_url: as for :class:`~reki_feast.llm.openai.OpenAILLM`, as are the next two.
        api_key_env: the environment variable that holds the key.
        allow_hosts: the only hosts that may be talked to; None: any.
        options: the parameters of each call.

    Attributes:
        most_texts: texts of a call, at most, as far as refusals have told.
        width: floats of a vector; None before the first reply.
        fault: the last call that failed.

    Raises:
        LLMError: the url is none, its host is not allowed, or ``extra_body`` sets what is ours.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        allow_hosts: Sequence[str] | None = None,
        options: EmbeddingOptions | None = None,
    ) -> None:
        self._options = options or EmbeddingOptions()
        super().__init__(
            model=model,
            base_url=base_url,
            api_key_env=api_key_env,
            allow_hosts=allow_hosts,
            timeout_s=self._options.timeout_s,
        )
        check_extra_body(self._options.extra_body, _OURS, _EXTRA_HINT)
        self._format = "base64"
        self._sent = self._billed = 0
        self._counts = True
        self.most_texts = 1 << 20
        self.width = self._options.dimensions
        self.fault: CallError | None = None

    @property
    def name(self) -> str:
        """``openai/`` and the model; the server's address is not part of it."""
        return f"openai/{self._endpoint.model}"

    @property
    def parameters(self) -> str:
        """What changes the vectors."""
        options = {"dimensions": self._options.dimensions}
        return canonical_json({**options, "extra_body": dict(self._options.extra_body)})

    @property
    def max_answer_tokens(self) -> int:
        """1: vectors cost no tokens, and a call is not free."""
        return 1

    @property
    def is_unusable(self) -> bool:
        """Whether the last fault is of vectors that came, and that another call would not mend."""
        return self.fault is not None and self.fault.status == wire.OK

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the calls: a sentence for each."""
        notes = [] if self._counts else ["the server counts no tokens: 4 bytes are taken for one"]
        if self._sent > _ENOUGH and self._billed < _CUT * self._sent:
            notes.append(
                f"the server bills {self._billed:,} tokens where some {self._sent:,} were sent: it "
                "seems to cut long texts (Ollama: num_ctx in a Modelfile)"
            )
        return tuple(notes)

    async def ask(self, request: Request) -> Answer:
        """Make one call.

        Raises:
            RequestError: it brought no vectors, or unusable ones.
            LLMError: no key, key refused, no such model or url, no money left.
        """
        texts: list[str] = json.loads(request.prompt)
        try:
            return await self._call(texts)
        except wire.ForbiddenError as error:
            raise error.of_prompt() from None
        except CallError as trouble:
            self.fault = trouble
            raise

    async def _call(self, texts: list[str]) -> Answer:
        body = self._body(texts)
        try:
            response, latency_s = await self._post(EMBEDDINGS, body)
            reply = parse_embeddings(response.text, response.headers, self._endpoint, texts)
            vectors, model, tokens = reply
            self._check_width(vectors, tokens)
        except CallError as trouble:
            self._learn(trouble, body)
            raise
        expected = sum(map(estimate_tokens, texts))
        self._counts = self._counts and tokens > 0
        tokens = tokens or expected
        self._sent, self._billed = self._sent + expected, self._billed + tokens
        return answer_of(vectors, model, tokens, latency_s, response.headers)

    def _body(self, texts: list[str]) -> dict[str, Any]:
        own: dict[str, Any] = {
            "model": self._endpoint.model,
            "input": texts,
            "encoding_format": self._format,
        }
        if self._options.dimensions is not None:
            own["dimensions"] = self._options.dimensions
        return {**own, **self._options.extra_body}

    def _check_width(self, vectors: Vectors, tokens: int) -> None:
        """All vectors have one length: as declared, or as the first."""
        self.width = self.width or vectors.shape[1]
        if vectors.shape[1] == self.width:
            return
        is_declared = self._options.dimensions is not None
        hint = (
            _WIDTH_HINT if is_declared else "another model serves under this name: see the server"
        )
        trouble = CallError(
            f"the vectors of {self._endpoint.model!r} have {self.width:,} floats",
            detail=f"{vectors.shape[1]:,} in a reply",
            hint=f"{hint}; `reki run --retrain` makes a space of another encoder",
            reply=FailedReply(wire.OK),
        )
        trouble.is_lost, trouble.prompt_tokens = True, tokens
        raise trouble

    def _learn(self, trouble: CallError, sent: Mapping[str, Any]) -> None:
        """Ask for numbers, or for fewer texts, where a server refuses more.

        Raises:
            LLMError: the model has no vectors of the declared length.
        """
        if trouble.status not in _TOO_LARGE or trouble.status == wire.OK:
            return
        words = trouble.error_body.words
        if sent["encoding_format"] == "base64" and _ENCODING.search(words):
            self._format = "float"
            trouble.again, trouble.is_uncounted = True, True
        elif "dimensions" in sent and _DIMENSIONS.search(words):
            rule = f"the model makes vectors of {sent['dimensions']} floats"
            raise LLMError(rule, detail=trouble.problems[0].detail, hint=_WIDTH_HINT) from None
        elif len(sent["input"]) > 1:
            self.most_texts = min(self.most_texts, max(1, len(sent["input"]) // 2))
