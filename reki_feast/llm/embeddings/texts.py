"""What leaves of texts that are encoded at a server, and how many of them in a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reki_feast.llm.pricing import BYTES_A_TOKEN, estimate_tokens

#: Texts of a call, and their tokens as estimated, at most.
MOST_TEXTS, MOST_TOKENS = 64, 8_192


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """What is sent of texts, and how many of them in a call.

    Attributes:
        prompt: prefix of every text.
        max_tokens: cut texts at so many tokens, as estimated (4 bytes each); None: whole.
        batch_size: texts of a call, at most; None: :data:`MOST_TEXTS`.
        redact: what is struck from texts before they leave.
    """

    prompt: str = ""
    max_tokens: int | None = None
    batch_size: int | None = None
    redact: Callable[[str], str] = str

    def sent(self, text: str) -> str:
        """A text as it leaves."""
        shown = self.redact(self.prompt + text)
        if self.max_tokens is not None:
            cut = shown.encode("utf-8", "replace")[: self.max_tokens * BYTES_A_TOKEN]
            shown = cut.decode("utf-8", "ignore")
        return shown if shown.strip() else "-"  # servers refuse texts without a word


def batches(texts: Mapping[str, str], most: int) -> list[list[str]]:
    """Texts' hashes for each call: so many texts, and so many tokens, at most."""
    made: list[list[str]] = []
    tokens = MOST_TOKENS
    for digest, text in texts.items():
        size = estimate_tokens(text)
        if tokens + size > MOST_TOKENS or len(made[-1]) >= most:
            made.append([])
            tokens = 0
        made[-1].append(digest)
        tokens += size
    return made
