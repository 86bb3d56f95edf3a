"""The endpoints of `/v1` that ask a language model: chat completions, completions, responses; and the list of models.

Each reads its request (openai/exchanges.py), has it answered (edge/language.py) and writes OpenAI's documents, whole or
as a stream (openai/chunks.py, events.py). What a request may do is decided as for every other face.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

from inference.language.requests import Done, Tokens
from strongroom.access.services import Principal
from strongroom.deployments import services as deployments
from strongroom.deployments.speech import Speech
from strongroom.edge import core, database, http, language, limits, principals
from strongroom.edge.openai.headers import headers
from strongroom.errors import NotFound, StrongroomError
from strongroom.openai import answers, calls, errors, events, exchanges
from strongroom.openai.answers import ToolCall, Usage
from strongroom.openai.chunks import DONE, ChatChunks, CompletionChunks
from strongroom.openai.exchanges import Exchange, finish_of, told_by
from strongroom.tenants import scope
from strongroom.tenants.models import Tenant

MAX_BODY_BYTES = 2 << 20
STREAM = b"text/event-stream; charset=utf-8"


async def chat(request: http.Request) -> http.Answer:
    """POST /v1/chat/completions"""
    principal, document = await _document(request)
    exchange = exchanges.Chat(document)
    asked = exchange.asked
    if asked.stream:
        writer = ChatChunks(exchange.head, asked.n, with_usage=asked.with_usage, is_padded=asked.is_padded)
        pieces = _chat_calls if exchange.forced else _chat_free if exchange.free else _chat_text
        usage = writer.usage if asked.with_usage else None
        written = partial(pieces, chunks=writer, n=asked.n)
        return await _streamed(request, principal, exchange, written, usage=usage)
    return await _whole(request, principal, exchange)


async def completions(request: http.Request) -> http.Answer:
    """POST /v1/completions"""
    principal, document = await _document(request)
    exchange = exchanges.Completions(document)
    asked = exchange.asked
    if asked.stream:
        count = asked.n * len(asked.prompt)
        writer = CompletionChunks(exchange.head, count, with_usage=asked.with_usage, is_padded=asked.is_padded)
        usage = writer.usage if asked.with_usage else None
        written = partial(_completion_text, chunks=writer, n=count)
        return await _streamed(request, principal, exchange, written, usage=usage)
    return await _whole(request, principal, exchange)


async def responses(request: http.Request) -> http.Answer:
    """POST /v1/responses"""
    principal, document = await _document(request)
    exchange = exchanges.Responses(document)
    if exchange.asked.stream:
        writer = events.Events(exchange.head, exchange.echo)
        pieces = _response_call if exchange.forced else _response_free if exchange.free else _response_text
        written = partial(pieces, writer=writer)
        return await _streamed(request, principal, exchange, written, failed=writer.failed)
    return await _whole(request, principal, exchange)


async def models(request: http.Request) -> http.Answer:
    """GET /v1/models"""
    principal = await principals.of(request)
    principal.require("predict")
    return http.Answer.of(200, answers.models(await database.run(_models, principal)))


async def model(request: http.Request, name: str) -> http.Answer:
    """GET /v1/models/{model}"""
    principal = await principals.of(request)
    served = await core.resolve(principal, name)
    found = await database.run(_models, principal, served.name)
    if not found:
        raise NotFound(f"the deployment {name!r} is no language model")
    return http.Answer.of(200, found[0])


def _models(principal: Principal, name: str | None = None) -> list[dict[str, Any]]:
    """The deployments that this principal may ask in words."""
    with scope.tenant(principal.tenant_id, write=False):
        rows = deployments.in_words()
        if name is not None:
            rows = rows.filter(name=name)
        found = rows.order_by("created_at").values_list("name", "created_at")
        owner = Tenant.objects.get(id=principal.tenant_id).name
        allowed = principal.allowed_models
        return [answers.model(n, int(at.timestamp()), owner) for n, at in found if not allowed or n in allowed]


# --- asking ---


async def _document(request: http.Request) -> tuple[Principal, Any]:
    principal = principals.known(request) or await principals.of(request)
    body = await limits.body(request, principal.tenant_id, MAX_BODY_BYTES)
    if request.media_type != "application/json":
        raise http.unsupported(request.media_type, ["application/json"])
    return principal, http.parse(body)


def _spoken(principal: Principal, exchange: Exchange) -> Awaitable[Speech]:
    asked = exchange.asked
    scope = asked.prompt_cache_key or ""
    return language.speak(principal, asked.model, exchange.generates, stream=asked.stream, scope=scope)


async def _whole(request: http.Request, principal: Principal, exchange: Exchange) -> http.Answer:
    async def said() -> http.Answer:
        speech = await _spoken(principal, exchange)
        try:
            document = exchange.answer(await speech.whole(), speech.ends)
        finally:
            speech.close()
        return http.Answer.of(200, document, headers(request, speech.call))

    with told_by(exchange):
        return await request.while_there(said())


async def _streamed(
    request: http.Request,
    principal: Principal,
    exchange: Exchange,
    written: Callable[[Speech], AsyncGenerator[bytes]],
    *,
    usage: Callable[[Usage], bytes] | None = None,
    failed: Callable[[StrongroomError, Usage], bytes] | None = None,
) -> http.Answer:
    """The first piece is there before the head goes out, so that what is refused has its own status."""

    async def begun() -> tuple[Speech, AsyncGenerator[bytes], bytes]:
        speech = await _spoken(principal, exchange)
        pieces = written(speech)
        try:
            return speech, pieces, await anext(pieces)
        except BaseException:
            speech.close()
            raise

    with told_by(exchange):
        speech, pieces, first = await request.while_there(begun())

    async def all_of_it() -> AsyncGenerator[bytes]:
        try:
            yield first
            try:
                async for piece in pieces:
                    yield piece
            except StrongroomError as error:
                yield errors.event(error) if failed is None else failed(error, Usage.of(speech.ends))
                return
            if failed is None:
                yield (usage(Usage.of(speech.ends)) if usage is not None else b"") + DONE
        finally:
            speech.close()

    return http.Stream(all_of_it(), STREAM, headers(request, speech.call))


# --- streams ---


async def _chat_text(speech: Speech, chunks: ChatChunks, n: int) -> AsyncGenerator[bytes]:
    opening: bytes | None = b"".join([chunks.first(index) for index in range(n)])
    async for parts in speech:
        pieces = [opening] if opening else []
        opening = None
        for part in parts:
            if isinstance(part, Done):
                pieces.append(chunks.last(part.index, finish_of(part)))
            elif part.logprobs:
                pieces.append(chunks.text_with(part.index, part.text, part.logprobs))
            else:
                pieces.append(chunks.text(part.index, part.text))
        yield b"".join(pieces)


async def _chat_calls(speech: Speech, chunks: ChatChunks, n: int) -> AsyncGenerator[bytes]:
    """Forced calls: the name first, then the arguments as they come."""
    opening: bytes | None = b"".join([chunks.first(index) for index in range(n)])
    coming = [calls.Forced() for _ in range(n)]
    async for parts in speech:
        pieces = [opening] if opening else []
        opening = None
        for part in parts:
            call = coming[part.index]
            if isinstance(part, Done):
                pieces.append(chunks.last(part.index, finish_of(part) if part.reason == "length" else "tool_calls"))
                continue
            was_named = call.name is not None
            text = call.add(part.text)
            if call.name is not None and not was_named:
                pieces.append(chunks.call(part.index, 0, answers.fresh("call"), call.name))
            if text:
                pieces.append(chunks.arguments(part.index, 0, text))
        yield b"".join(pieces)


async def _chat_free(speech: Speech, chunks: ChatChunks, n: int) -> AsyncGenerator[bytes]:
    """Text until a call begins; calls, which are only whole at the end, then."""
    said = [""] * n
    sent = [0] * n
    opening: bytes | None = b"".join([chunks.first(index) for index in range(n)])
    async for parts in speech:
        pieces = [opening] if opening else []
        opening = None
        for part in parts:
            index = part.index
            if isinstance(part, Tokens):
                said[index] += part.text
                until = _sure(said[index])
                if until > sent[index]:
                    pieces.append(chunks.text(index, said[index][sent[index] : until]))
                    sent[index] = until
                continue
            _, found = calls.free(said[index])
            if not found:
                pieces.append(chunks.text(index, said[index][sent[index] :]))
            for number, call in enumerate(found):
                pieces.append(chunks.call(index, number, call.id, call.name))
                pieces.append(chunks.arguments(index, number, call.arguments))
            is_whole = found and part.reason != "length"
            pieces.append(chunks.last(index, "tool_calls" if is_whole else finish_of(part)))
        yield b"".join(pieces)


def _sure(text: str) -> int:
    """How much of it surely stands before any call."""
    at = text.find(calls.OPENS)
    if at >= 0:
        return len(text[:at].rstrip())
    for length in range(len(calls.OPENS) - 1, 0, -1):
        if text.endswith(calls.OPENS[:length]):
            return len(text[:-length].rstrip())
    return len(text.rstrip())


async def _completion_text(speech: Speech, chunks: CompletionChunks, n: int) -> AsyncGenerator[bytes]:
    offsets = [0] * n
    async for parts in speech:
        pieces = []
        for part in parts:
            if isinstance(part, Done):
                pieces.append(chunks.last(part.index, finish_of(part)))
                continue
            if part.logprobs:
                pieces.append(chunks.text_with(part.index, part.text, part.logprobs, offsets[part.index]))
            else:
                pieces.append(chunks.text(part.index, part.text))
            offsets[part.index] += len(part.text)
        yield b"".join(pieces)


async def _response_text(speech: Speech, writer: events.Events) -> AsyncGenerator[bytes]:
    opening: bytes | None = writer.begin() + writer.begin_message()
    async for parts in speech:
        pieces = [opening] if opening else []
        opening = None
        for part in parts:
            if isinstance(part, Done):
                pieces.append(_response_end(writer, speech, part, writer.end_message))
            else:
                pieces.append(writer.text(part.text))
        yield b"".join(pieces)


async def _response_call(speech: Speech, writer: events.Events) -> AsyncGenerator[bytes]:
    opening: bytes | None = writer.begin()
    call = calls.Forced()
    async for parts in speech:
        pieces = [opening] if opening else []
        opening = None
        for part in parts:
            if isinstance(part, Done):
                end = writer.end_call if call.name is not None else None
                pieces.append(_response_end(writer, speech, part, end))
                continue
            was_named = call.name is not None
            text = call.add(part.text)
            if call.name is not None and not was_named:
                pieces.append(writer.begin_call(ToolCall.of(call.name, "")))
            if text:
                pieces.append(writer.arguments(text))
        yield b"".join(pieces)


async def _response_free(speech: Speech, writer: events.Events) -> AsyncGenerator[bytes]:
    """Whole at the end: whether it is a call is known then only."""
    said = ""
    opening: bytes | None = writer.begin()
    async for parts in speech:
        pieces = [opening] if opening else []
        opening = None
        for part in parts:
            if isinstance(part, Tokens):
                said += part.text
                continue
            text, found = calls.free(said)
            status: events.Status = "incomplete" if part.reason == "length" else "completed"
            if text or not found:
                pieces += [writer.begin_message(), writer.text(text), writer.end_message(status)]
            for call in found:
                pieces += [writer.begin_call(ToolCall(call.id, call.name, "")), writer.arguments(call.arguments)]
                pieces.append(writer.end_call(status))
            pieces.append(_response_end(writer, speech, part, None))
        yield b"".join(pieces)


def _response_end(
    writer: events.Events, speech: Speech, end: Done, close: Callable[[events.Status], bytes] | None
) -> bytes:
    usage = Usage.of(speech.ends)
    if end.reason == "length":
        return (b"" if close is None else close("incomplete")) + writer.incomplete(usage)
    return (b"" if close is None else close("completed")) + writer.completed(usage)
