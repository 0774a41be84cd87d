"""A sentence-transformers model taken apart: what it declares, and which of it makes a vector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from reki_feast.encoding.columns import Floats
from reki_feast.errors import EncodeError

#: Ways to make one vector of a text's tokens, by the names of sentence-transformers.
Pooling = Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
POOLINGS: tuple[str, ...] = get_args(Pooling)

#: Knowledge is a document to a model that tells documents from queries.
DOCUMENT = "document"
_PROMPTS = (DOCUMENT, "passage", "corpus")
#: Modules that may follow the pooling and read nothing but its vector.
_FINISHERS = {"Dense", "Normalize", "LayerNorm", "Dropout"}
_ROWS = 1024  # vectors that they read at a time


@dataclass(frozen=True)
class ModelParts:
    """What a document goes through in a model.

    Attributes:
        model: the model whose ``encode`` gives these vectors.
        modules: on a document's way, in their order.
        prompt: stands before every text; empty for none.
        size: floats of a vector that are kept; None keeps all.
    """

    model: Any
    modules: tuple[Any, ...]
    prompt: str
    size: int | None

    @property
    def pooling(self) -> Any | None:
        """The module that makes one vector of a text's tokens, where there is one."""
        return next((module for module in self.modules if _modes(module)), None)

    @property
    def modes(self) -> tuple[str, ...]:
        """How it is made; several are laid side by side."""
        return _modes(self.pooling)

    @property
    def before(self) -> tuple[Any, ...]:
        """The modules up to the pooling."""
        return self.modules[: self.modules.index(self.pooling)]

    @property
    def after(self) -> tuple[Any, ...]:
        """The modules after the pooling; those after the first where there is none."""
        return self.modules[1 if self.pooling is None else self.modules.index(self.pooling) + 1 :]

    @property
    def how(self) -> str:
        """What makes the vectors, in words that differ where the vectors do."""
        first, *later = self.modules
        reads_tokens = self.pooling in later and hasattr(first, "auto_model")
        words = [_word(one) for one in (later if reads_tokens else self.modules)]
        size = "" if self.size is None else f"[:{self.size}]"
        return "+".join(word for word in words if word != "Dropout") + size


def parts_of(model: Any, pooling: Pooling | None, prompt: str | None) -> ModelParts:
    """The parts of a model that are used.

    Args:
        model: of sentence-transformers.
        pooling: pools tokens so, and leaves out the modules after; None is as declared.
        prompt: stands before every text; None takes the model's own for documents.

    Raises:
        EncodeError: the model has no tokens to pool as wanted.
    """
    chosen = _prompt(model) if prompt is None else prompt
    modules = _document_modules(model)
    if pooling is not None:
        modules = _pooled_by(modules, pooling)
        model = type(model)(modules=list(modules), device=str(model.device)).eval()
    return ModelParts(model, tuple(modules), chosen, getattr(model, "truncate_dim", None))


def declared(model: Any) -> str:
    """The modules and prompts that a model declares, in words."""
    prompts = [f"prompt {name}={text!r}" for name, text in model.prompts.items() if text]
    default = model.default_prompt_name
    return ", ".join([_told(model), *prompts, *([f"default prompt {default}"] if default else [])])


def finish(parts: ModelParts, pooled: Floats) -> Floats:
    """What the modules after the pooling make of its vectors: ``[n, m]`` to ``[n, k]``."""
    import torch

    if not parts.after:
        return pooled[:, : parts.size]
    own = [weights for module in parts.after for weights in module.parameters()]
    kind = own[0].dtype if own else torch.float32
    made = []
    with torch.inference_mode():
        for start in range(0, len(pooled), _ROWS):
            rows = torch.from_numpy(pooled[start : start + _ROWS])
            features = {"sentence_embedding": rows.to(parts.model.device, kind)}
            for module in parts.after:
                features = module(features)
            made.append(features["sentence_embedding"].float().cpu().numpy())
    return np.concatenate(made)[:, : parts.size]


def finishes(modules: Sequence[Any]) -> bool:
    """Whether modules read the one vector of a text, and nothing else of it."""
    names = [
        getattr(module, f"module_{way}_name", "sentence_embedding")
        for module in modules
        for way in ("input", "output")
    ]
    return {type(module).__name__ for module in modules} <= _FINISHERS and (
        set(names) <= {"sentence_embedding"}
    )


def is_bag(module: Any) -> bool:
    """Whether a module is a bag of token vectors, whatever its class is called."""
    import torch

    return isinstance(getattr(module, "embedding", None), torch.nn.EmbeddingBag)


def _modes(module: Any) -> tuple[str, ...]:
    said = getattr(module, "pooling_mode", ())
    return (said,) if isinstance(said, str) else tuple(said)


def _word(module: Any) -> str:
    if is_bag(module):
        return "mean"
    return ",".join(_modes(module)) or type(module).__name__


def _told(modules: Iterable[Any]) -> str:
    """Modules by their classes, with what a pooling pools and where a router leads."""
    words = []
    for module in modules:
        inner = ",".join(_modes(module))
        routes = getattr(module, "sub_modules", {})
        inner = inner or "; ".join(f"{route}: {_told(routes[route])}" for route in routes)
        words.append(type(module).__name__ + (f"({inner})" if inner else ""))
    return ", ".join(words)


def _prompt(model: Any) -> str:
    """As the model's own ``encode_document`` chooses it."""
    names = [*(name for name in _PROMPTS if name in model.prompts), model.default_prompt_name]
    return model.prompts.get(names[0]) or ""


def _document_modules(model: Any) -> list[Any]:
    """The modules one after the other, with a router's modules for documents in its place."""
    found: list[Any] = []
    for module in model:
        routes = getattr(module, "sub_modules", {})
        plain = DOCUMENT in routes and not module.route_mappings
        found += routes[DOCUMENT] if plain else [module]
    return found


def _pooled_by(modules: list[Any], pooling: Pooling) -> list[Any]:
    """The modules up to the pooling, then another pooling and no more."""
    if is_bag(modules[0]) and pooling == "mean":
        return modules[:1]
    at = next((at for at, module in enumerate(modules) if _modes(module)), None)
    if at is None:
        raise EncodeError(
            "pooling=… pools otherwise what a model's Pooling does",
            detail=f"{pooling!r} for a model of {_told(modules)}",
            hint="leave pooling out",
        )
    has = modules[at]
    other = type(has)(has.embedding_dimension, pooling, include_prompt=has.include_prompt)
    return [*modules[:at], other]
