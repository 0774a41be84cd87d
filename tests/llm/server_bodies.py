"""Bodies of replies, and what becomes of good ones that are spoilt."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.llm import server_texts as texts
from tests.llm.server_texts import Question

#: What is sent as a reply's body.
Body = dict[str, Any] | list[Any] | str
#: Turns a good completion into the body that is sent.
Spoil = Callable[[Question, dict[str, Any]], Body]


def error_body(message: str, code: str) -> dict[str, Any]:
    """An error, in OpenAI's form."""
    return {"error": {"message": message, "type": code, "param": None, "code": code}}


def completion(question: Question, content: str) -> dict[str, Any]:
    """A whole reply; one that passes the request's ``max_tokens`` is cut there."""
    reason, most = "stop", question.max_tokens
    if most is not None and texts.tokens_of(len(content)) > most:
        content, reason = content[: 4 * most], "length"
    asked, said = texts.tokens_of(question.chars), texts.tokens_of(len(content))
    message = {"role": "assistant", "content": content, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": question.model,
        "choices": [
            {"index": 0, "finish_reason": reason, "message": message, "logprobs": None},
        ],
        "usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
    }


def saying(say: Callable[[Question], str]) -> Callable[[Question, dict[str, Any]], dict[str, Any]]:
    return lambda question, body: completion(question, say(question))


def cut(question: Question, body: dict[str, Any]) -> dict[str, Any]:
    content = body["choices"][0]["message"]["content"]
    return completion(question, content[: len(content) // 2])


def ended(reason: str) -> Callable[[Question, dict[str, Any]], dict[str, Any]]:
    def spoil(question: Question, body: dict[str, Any]) -> dict[str, Any]:
        half = cut(question, body)
        half["choices"][0]["finish_reason"] = reason
        return half

    return spoil


def refusing(question: Question, body: dict[str, Any]) -> dict[str, Any]:
    spoilt = completion(question, "")
    spoilt["choices"][0]["message"].update(content=None, refusal="I can't help with that.")
    return spoilt


def headless(question: Question, body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "choices": [], "usage": None}


def ended_without(question: Question, body: dict[str, Any]) -> dict[str, Any]:
    half = cut(question, body)
    del half["choices"][0]["finish_reason"]
    return half


def prose_ended(reason: str) -> Callable[[Question, dict[str, Any]], dict[str, Any]]:
    """Plain text, cut in the middle of its sentence."""

    def spoil(question: Question, body: dict[str, Any]) -> dict[str, Any]:
        said = {key: texts.sentence(question.prompt, key) for key in question.keys or ("answer",)}
        text = "\n".join(f"{key}: {sentence}" for key, sentence in said.items())
        half = completion(question, text[: len(text) - 30])
        half["choices"][0]["finish_reason"] = reason
        return half

    return spoil


def blank_run(question: Question, body: dict[str, Any]) -> dict[str, Any]:
    half = cut(question, body)
    half["choices"][0]["message"]["content"] += " \n" * 200
    half["choices"][0]["finish_reason"] = "length"
    return half


def moved_to(field: str, text: str | None = None) -> Callable[..., dict[str, Any]]:
    """The content, or another text, in another field of the message."""

    def spoil(question: Question, body: dict[str, Any]) -> dict[str, Any]:
        moved = completion(question, text or body["choices"][0]["message"]["content"])
        message = moved["choices"][0]["message"]
        message.update({field: message["content"], "content": None})
        return moved

    return spoil


def thoughtful(question: Question, body: dict[str, Any]) -> dict[str, Any]:
    """A good answer whose thoughts stand in the total of its bill alone."""
    usage = body["usage"]
    return {**body, "usage": {**usage, "total_tokens": usage["total_tokens"] + 900}}


def half_read(question: Question, body: dict[str, Any]) -> dict[str, Any]:
    """A good answer to what is left of a prompt that was cut, by its bill."""
    said = body["usage"]["completion_tokens"]
    asked = body["usage"]["prompt_tokens"] // 8
    usage = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
    return {**body, "usage": usage}


def streamed(body: Body) -> str:
    """A completion as a stream of events, the usage at its end."""
    if not isinstance(body, dict) or not body.get("choices"):
        return f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n"
    choice = body["choices"][0]
    content = choice["message"]["content"] or ""
    told = {name: body[name] for name in ("id", "created", "model")}
    told["object"] = "chat.completion.chunk"
    deltas = [content[at : at + 40] for at in range(0, len(content), 40)]
    choices: list[Any] = [[{"index": 0, "delta": {"role": "assistant", "content": ""}}]]
    choices += [[{"index": 0, "delta": {"content": text}}] for text in deltas]
    choices += [[{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]]
    events = [{**told, "choices": chunk} for chunk in choices]
    events += [{**told, "choices": [], "usage": body["usage"]}]
    lines = [": keep-alive", *(f"data: {json.dumps(event)}" for event in events), "data: [DONE]"]
    return "".join(f"{line}\n\n" for line in lines)


def stream_broken(question: Question, body: dict[str, Any]) -> str:
    whole = streamed(body)
    return whole[: len(whole) // 2].rpartition("data:")[0]


def encoded(body: Body) -> bytes:
    """A body's bytes."""
    return (body if isinstance(body, str) else json.dumps(body)).encode()
