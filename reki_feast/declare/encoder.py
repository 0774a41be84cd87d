"""Which model turns text into vectors, on this machine or behind a server."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from reki_feast.declare.base import Declared, Word

#: Keys of Encoder that a server's model has no use for, and those that only a server has one for.
LOCAL_ONLY = frozenset(("pooling", "backend"))
#: Those of the way to a server, which change no vector.
WAY_TO_SERVER = frozenset(
    (
        *("base_url", "api_key_env", "concurrency", "requests_per_minute", "tokens_per_minute"),
        *("timeout_s", "attempts", "price"),
    )
)
AT_SERVER = WAY_TO_SERVER | {"dimensions", "extra_body"}


class Encoder(Declared):
    """Which model turns text into vectors."""

    provider: Literal["local", "openai"] = Field(
        default="local",
        description="local: a sentence-transformers model on this machine; openai: any server with "
        "OpenAI's embeddings protocol (vLLM, TEI, Ollama), under the scenario's budgets",
    )
    model: Word = Field(
        default="minilm",
        description="any sentence-transformers model; 'minilm': the weights in the demo extra; "
        "'hash': a fake for tests that reads no meaning; of a server: its name there",
    )
    base_url: str | None = Field(
        default=None, description="openai: the server; default: OPENAI_BASE_URL, else OpenAI's own"
    )
    api_key_env: Word = Field(
        default="OPENAI_API_KEY", description="openai: variable that holds the key"
    )
    dimensions: int | None = Field(
        default=None,
        ge=1,
        description="openai: floats of a vector, where the model makes several lengths",
    )
    pooling: (
        Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] | None
    ) = Field(
        default=None,
        description="pool the model's tokens so, and leave out its modules after the pooling; "
        "default: all as the model declares",
    )
    prompt: str | None = Field(
        default=None,
        description="stands before every text; default: the model's own for documents; '': none",
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="texts encoded together, at most; default: as many as make 2,048 tokens; "
        "openai: 64 texts of 8,192 tokens together",
    )
    max_tokens: int | None = Field(
        default=None,
        ge=8,
        description="cut texts at so many tokens; openai: as estimated, 4 bytes each",
    )
    backend: Literal["torch", "bf16", "int8"] = Field(
        default="torch",
        description="how a transformer computes: torch: in the model's own precision; bf16: twice "
        "as fast where the CPU computes with bfloat16 (avx512_bf16 or amx_bf16 in lscpu); int8: in "
        "8-bit integers, by OpenVINO, calibrated on the scenario's own texts (extra 'openvino')",
    )
    concurrency: int = Field(
        default=8, ge=1, le=1024, description="openai: calls in flight at once, at most"
    )
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="openai; default: as the server's headers say, if they do"
    )
    tokens_per_minute: float | None = Field(
        default=None, gt=0, description="openai; default: as the server's headers say, if they do"
    )
    timeout_s: float = Field(
        default=120.0, gt=0, description="openai: seconds that one call may take"
    )
    attempts: int = Field(
        default=8, ge=1, description="openai: tries of one call at a server at fault"
    )
    price: float | None = Field(
        default=None, ge=0, description="openai: money per million tokens; default: the list price"
    )
    extra_body: dict[str, Any] | None = Field(
        default=None,
        description="openai: further fields of each request, for servers that want them",
    )
    components: int | None = Field(
        default=None,
        ge=1,
        description="principal components of the encoder's vectors that are kept as "
        "representations, by a PCA that is fitted at the first encode; default: all floats. "
        "Training(components=…) is what HEIN reads of these",
    )
    taste: bool = Field(
        default=False,
        description="one more channel of users, 'taste': the mean of what is known of the items "
        "that they liked last",
    )
    history: bool = Field(
        default=True,
        description="the channel 'history' of users: what they did last, as a text to encode for "
        "each; False where 'taste' is to stand for it",
    )
    preferences: bool = Field(
        default=False,
        description="a vector for each factor of a user's knowledge: `reki recall` finds items by "
        "these",
    )

    @model_validator(mode="after")
    def _fits_its_provider(self) -> Encoder:
        others = LOCAL_ONLY if self.provider == "openai" else AT_SERVER
        if strange := sorted(name for name in others if self._says_otherwise(name)):
            one = "a server" if self.provider == "openai" else "this machine"
            raise ValueError(f"{', '.join(strange)} does nothing for an encoder of {one}")
        if self.provider == "openai" and "model" not in self.model_fields_set:
            raise ValueError("provider='openai' has the server's name of the model: model=…")
        return self

    def _says_otherwise(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @model_validator(mode="after")
    def _users_have_a_channel(self) -> Encoder:
        if not (self.history or self.taste):
            raise ValueError("users without knowledge have a channel: history, or taste=True")
        return self
