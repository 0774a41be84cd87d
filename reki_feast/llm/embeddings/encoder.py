"""A text encoder behind an embeddings endpoint, under a project's ledger, budget and pace.

Vectors stand in the ledger from the moment that they come until they are stored elsewhere; then
their calls keep their figures alone. So a killed run has paid for nothing that the next one asks
for again, and the ledger holds no texts between runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from reki_feast.llm.embeddings.client import OpenAIEmbeddings
from reki_feast.llm.embeddings.replies import Vectors
from reki_feast.llm.embeddings.run import EmbeddingRun, Progress
from reki_feast.llm.embeddings.texts import TextOptions
from reki_feast.llm.ledger import Ledger
from reki_feast.llm.policy import RequestPolicy
from reki_feast.schema import content_hash


class EndpointEncoder:
    """An encoder behind an endpoint.

    Vectors are those of the model at the server: the name tells the model, not the address.

    Args:
        client: the model.
        ledger: opens the ledger that calls are entered in.
        policy: how it is asked.
        options: what is sent; None for the defaults.
        progress: called as texts are encoded.

    Attributes:
        client: the model.
        policy: how it is asked.
        notes: what the user should know of the last run, a sentence each.
    """

    def __init__(
        self,
        client: OpenAIEmbeddings,
        ledger: Callable[[], Ledger],
        policy: RequestPolicy,
        options: TextOptions | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        self.client, self.policy = client, policy
        self.notes: tuple[str, ...] = ()
        self._ledger, self._progress = ledger, progress
        self._options = options or TextOptions()

    @property
    def name(self) -> str:
        """The model, and what else determines a vector: dimensions, limit, prompt, …."""
        options, parameters = self._options, json.loads(self.client.parameters)
        dimensions, extra = parameters["dimensions"], parameters["extra_body"]
        parts = [self.client.name]
        parts += [] if dimensions is None else [f"dimensions={dimensions}"]
        parts += [] if options.max_tokens is None else [str(options.max_tokens)]
        parts += [f"prompt={options.prompt!r}"] if options.prompt else []
        parts += [f"extra_body={json.dumps(extra, sort_keys=True)}"] if extra else []
        return "/".join(parts)

    @property
    def dimension(self) -> int:
        """Length m of a vector; one text is sent where it is not known yet."""
        if self.client.width is None:
            self.encode(["a"])
        assert self.client.width is not None
        return self.client.width

    def encode(self, texts: list[str]) -> Vectors:
        """Encode texts to float32 ``[n, m]``, equal ones once, and keep none of it.

        Raises:
            EncodeError: a text has no usable vector.
            LLMError: no call can succeed; BudgetError: a limit is reached.
        """
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        hashes = [content_hash(text) for text in texts]
        with self.run() as run:
            made = run.encode(dict(zip(hashes, texts, strict=True)))
            run.release()
        rows = {digest: row for row, digest in enumerate(dict.fromkeys(hashes))}
        return made[[rows[digest] for digest in hashes]]

    @contextmanager
    def run(self) -> Iterator[EmbeddingRun]:
        """A run in the ledger, within one budget and at one pace."""
        with (
            self._ledger() as ledger,
            EmbeddingRun(
                self.client, self.name, self.policy, ledger, self._options, self._progress
            ) as made,
        ):
            yield made
