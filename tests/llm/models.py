"""Models under test, made from flat keyword arguments."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from reki_feast.llm import BatchOptions, CompletionOptions, OpenAIBatchLLM, OpenAILLM


def openai_llm(**given: Any) -> OpenAILLM:
    """A model of such settings; those of :class:`CompletionOptions` are recognised by name."""
    options = _taken(CompletionOptions, given)
    return OpenAILLM(**{"model": "tiny", **given}, options=options)


def openai_batch_llm(**given: Any) -> OpenAIBatchLLM:
    """The same for batches; settings of :class:`BatchOptions` are recognised, too."""
    options, batches = _taken(CompletionOptions, given), _taken(BatchOptions, given)
    return OpenAIBatchLLM(**{"model": "tiny", **given}, options=options, batches=batches)


def _taken(kind: Any, given: dict[str, Any]) -> Any:
    names = [one.name for one in fields(kind) if one.name in given]
    return kind(**{name: given.pop(name) for name in names})
