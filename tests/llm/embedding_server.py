"""A server of embeddings for tests, over the real HTTP server: what it answers and counts."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from typing import Any

from reki_feast.encoding import HashEncoder
from tests.llm.conftest import FakeServer, Reply

#: Changes a good reply's body, given the request's.
Spoil = Callable[[dict[str, Any], dict[str, Any]], Any]


class EmbeddingServer:
    """Answers as vLLM, TEI or OpenAI do, with a :class:`HashEncoder`'s vectors.

    Args:
        width: floats of a vector.
        most_texts: texts of a call, at most; more are refused, as TEI does.

    Attributes:
        spoil: changes the body of replies.
        refuse: gives a reply in place of vectors, by the request's body and number; None: none.
        served: how often each text was answered.
    """

    def __init__(self, *, width: int = 8, most_texts: int = 1_000) -> None:
        self.width, self.most_texts = width, most_texts
        self.spoil: Spoil | None = None
        self.refuse: Callable[[dict[str, Any], int], Reply | None] = lambda body, number: None
        self.served: Counter[str] = Counter()
        self.http = FakeServer()
        self.http.answer = self._answer

    def __enter__(self) -> EmbeddingServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.http.close()

    @property
    def url(self) -> str:
        return self.http.url

    @property
    def calls(self) -> list[list[str]]:
        """The texts of each call, in order of arrival."""
        return [body["input"] for body in self.http.bodies]

    def _answer(self, body: dict[str, Any], number: int) -> Reply:
        refused = self.refuse(body, number)
        if refused is not None:
            return refused
        texts = body["input"]
        if len(texts) > self.most_texts:
            found = f"batch size {len(texts)} > maximum allowed batch size {self.most_texts}"
            return Reply(422, {"message": found, "type": "Validation"})
        self.served.update(texts)
        rows = HashEncoder(dimension=body.get("dimensions", self.width)).encode(texts)
        is_base64 = body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": at,
                "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()
                if is_base64
                else row.tolist(),
            }
            for at, row in enumerate(rows)
        ]
        tokens = sum(-(-len(text) // 4) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        made = {"object": "list", "data": data[::-1], "model": body["model"], "usage": usage}
        return Reply(body=made if self.spoil is None else self.spoil(body, made))
