"""Vectors in replies of the embeddings protocol, and as the ledger keeps them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from reki_feast.llm.headers import rate_limits_of
from reki_feast.llm.interface import Answer, FailedReply
from reki_feast.llm.key_masking import SURE_KEY, excerpt, mask_key
from reki_feast.llm.responses import check_error, parse_body
from reki_feast.llm.usage import token_counts
from reki_feast.llm.wire import OK, CallError, Endpoint

Vectors: TypeAlias = npt.NDArray[np.float32]

_RULE = "the reply has one vector for each text"
_QUOTED = 60


def parse_embeddings(
    text: str, headers: Mapping[str, str], endpoint: Endpoint, texts: Sequence[str]
) -> tuple[Vectors, str, int]:
    """The vectors ``[n, m]`` of n texts in a reply, in the order of the texts.

    Args:
        text: the reply's body.
        headers: its headers.
        endpoint: the server and the model.
        texts: that were sent.

    Returns:
        The vectors, the model's name as the server tells it, and the tokens that it bills.

    Raises:
        CallError: vectors are missing, differ in length, or hold NaN, infinity or nothing.
        LLMError: the reply holds an error that every call would meet.
    """
    tokens = 0
    try:
        body = parse_body(text, endpoint.key_env)
        check_error(body, headers, endpoint, "data")
        tokens = sum(token_counts(body.get("usage")))
        vectors = _matrix(_in_order(body.get("data"), len(texts)), texts)
    except CallError as trouble:
        if trouble.status == OK:  # it was answered, and is billed
            trouble.is_lost, trouble.limits = True, rate_limits_of(headers)
            trouble.prompt_tokens = tokens
        raise
    name = mask_key(str(body.get("model") or endpoint.model), endpoint.key_env, SURE_KEY)
    return vectors, name, tokens


def pack(vectors: Vectors) -> str:
    """Vectors ``[n, m]`` as the text of an answer, every bit kept.

    >>> unpack(pack(np.eye(2, dtype=np.float32))).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    floats = np.ascontiguousarray(vectors, "<f4").tobytes()
    return f"{len(vectors)} {base64.b64encode(floats).decode()}"


def unpack(text: str) -> Vectors:
    """The vectors ``[n, m]`` of :func:`pack`."""
    count, _, floats = text.partition(" ")
    return np.frombuffer(base64.b64decode(floats), "<f4").reshape(int(count), -1)


def answer_of(
    vectors: Vectors, model: str, tokens: int, latency_s: float, headers: Mapping[str, str]
) -> Answer:
    """What the ledger keeps of a call."""
    limits = rate_limits_of(headers)
    return Answer(pack(vectors), model, "stop", tokens, 0, latency_s, limits)


def _in_order(data: Any, count: int) -> list[Any]:
    """What stands for each text, by its index; in the order of the reply where none is told."""
    found = data if isinstance(data, list) else []
    parts = [one for one in found if isinstance(one, dict)]
    places = [one.get("index") for one in parts]
    if places == [None] * count:
        places = list(range(count))
    if len(found) != count or sorted(p for p in places if isinstance(p, int)) != [*range(count)]:
        raise _unusable(_RULE, f"{len(found)} for {count} texts, with indices {places[:5]}")
    by_place = dict(zip(places, (one.get("embedding") for one in parts), strict=True))
    return [by_place[place] for place in range(count)]


def _matrix(found: Sequence[Any], texts: Sequence[str]) -> Vectors:
    rows = [_floats(one, text) for one, text in zip(found, texts, strict=True)]
    widths = sorted({len(row) for row in rows})
    if len(widths) != 1 or not widths[0]:
        rule = "the vectors of a reply have one length"
        raise _unusable(rule, f"lengths {', '.join(map(str, widths[:5]))}")
    made = np.stack(rows)
    bad = ~np.isfinite(made).all(axis=1)
    if bad.any():
        first = texts[int(bad.argmax())][:_QUOTED]
        found_bad = f"NaN or infinity in {int(bad.sum())} vectors, the first of {first!r}"
        hint = "serve the model in another precision, or name another model"
        raise _unusable("vectors are finite", found_bad, hint, again=False)
    return made


def _floats(found: Any, text: str) -> Vectors:
    """One vector, of a list of numbers or of base64 of little-endian floats."""
    try:
        if isinstance(found, str):
            return np.frombuffer(base64.b64decode(found, validate=True), "<f4")
        if isinstance(found, list):
            # what is no number at all, null among it, is refused, and not read as NaN
            if not all(type(one) in (int, float) for one in found):
                raise TypeError
            with np.errstate(over="ignore"):  # what is too large is infinity, and refused
                return np.asarray(found, np.float32)
    except (TypeError, ValueError, OverflowError, binascii.Error):
        pass
    said = json.dumps(found, default=str)[:_QUOTED]
    raise _unusable(_RULE, f"{said} for {text[:_QUOTED]!r}")


def _unusable(rule: str, found: str, hint: str = "", *, again: bool = True) -> CallError:
    detail = excerpt(found, "")
    return CallError(rule, detail=detail, hint=hint, again=again, reply=FailedReply(OK))
