"""The endpoints of `/v1` that ask a language model: chat completions, completions, responses; and the list of models.

Each reads its request (chat.py, completions.py, responses.py), has it answered (edge/language.py) and writes OpenAI's
documents (answers.py, chunks.py, events.py). What a request may do is decided as for every other face.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from time import perf_counter
from typing import Any

from inference.language.requests import Done, Generate, Logprob, Tokens
from strongroom.access.services import Principal
from strongroom.deployments import services as deployments
from strongroom.edge import core, database, http, language, limits, principals
from strongroom.edge.language import Speech
from strongroom.edge.openai import answers, calls, errors, events, requests
from strongroom.edge.openai.answers import Choice, Finish, Head, ToolCall, Usage
from strongroom.edge.openai.chat import ChatRequest
from strongroom.edge.openai.chunks import DONE, ChatChunks, CompletionChunks
from strongroom.edge.openai.completions import CompletionsRequest
from strongroom.edge.openai.responses import ResponsesRequest
from strongroom.edge.snapshot import Served
from strongroom.errors import FieldError, Invalid, NotFound, StrongroomError
from strongroom.tenants import scope
from strongroom.tenants.models import Tenant

MAX_BODY_BYTES = 2 << 20
STREAM = b"text/event-stream; charset=utf-8"
Headers = list[tuple[bytes, bytes]]


async def chat(request: http.Request) -> http.Answer:
    """POST /v1/chat/completions"""
    principal, document = await _document(request)
    asked = requests.read(ChatRequest, document)
    forced = asked.tool_choice.mode == "required"
    free = bool(asked.tools) and asked.tool_choice.mode == "auto"

    def read(served: Served) -> list[Generate]:
        if free and not served.language.tools:
            raise _no_tools(served)
        return [asked.generate()]

    speech = await _spoken(request, principal, asked.model, read, stream=asked.stream, key=asked.prompt_cache_key)
    head = Head.of("chatcmpl", asked.model)
    if asked.stream:
        writer = ChatChunks(head, asked.n, with_usage=asked.with_usage, is_padded=asked.is_padded)
        pieces = _chat_calls if forced else _chat_free if free else _chat_text
        usage = writer.usage if asked.with_usage else None
        return await _streamed(request, speech, pieces(speech, writer, asked.n), usage=usage)
    said = await _whole(request, speech)
    choices = [_chat_choice(end, said.get(end.index, []), asked.logprobs, forced, free) for end in _sorted(speech)]
    return _answer(request, answers.chat_completion(_told(head, speech), choices, Usage.of(speech.ends)))


async def completions(request: http.Request) -> http.Answer:
    """POST /v1/completions"""
    principal, document = await _document(request)
    asked = requests.read(CompletionsRequest, document)
    speech = await _spoken(
        request, principal, asked.model, lambda _: asked.generate(), stream=asked.stream, key=asked.prompt_cache_key
    )
    head = Head.of("cmpl", asked.model)
    count = asked.n * len(asked.prompt)
    if asked.stream:
        writer = CompletionChunks(head, count, with_usage=asked.with_usage, is_padded=asked.is_padded)
        usage = writer.usage if asked.with_usage else None
        return await _streamed(request, speech, _completion_text(speech, writer, count), usage=usage)
    said = await _whole(request, speech)
    choices = []
    for end in _sorted(speech):
        parts = said.get(end.index, [])
        logprobs = [one for part in parts for one in part.logprobs] if asked.logprobs is not None else None
        choices.append(Choice(end.index, "".join([part.text for part in parts]), _finish(end), logprobs))
    return _answer(request, answers.completion(_told(head, speech), choices, Usage.of(speech.ends)))


async def responses(request: http.Request) -> http.Answer:
    """POST /v1/responses"""
    principal, document = await _document(request)
    asked = requests.read(ResponsesRequest, document)
    forced = asked.tool_choice.mode == "required"
    free = bool(asked.tools) and asked.tool_choice.mode == "auto"

    def read(served: Served) -> list[Generate]:
        if free and not served.language.tools:
            raise _no_tools(served)
        return [asked.generate()]

    speech = await _spoken(request, principal, asked.model, read, stream=asked.stream, key=asked.prompt_cache_key)
    head, echo = Head.of("resp", asked.model), asked.echo()
    if asked.stream:
        writer = events.Events(head, echo)
        pieces = _response_call if forced else _response_free if free else _response_text
        return await _streamed(request, speech, pieces(speech, writer), failed=writer.failed)
    said = await _whole(request, speech)
    end = speech.ends[0]
    text = "".join([part.text for part in said.get(0, [])])
    found: list[ToolCall] = []
    if forced:
        found = calls.forced(text)
        text = "" if found else text
    elif free:
        text, found = calls.free(text)
    status: events.Status = "incomplete" if end.reason == "length" else "completed"
    whole = events.response(head, echo, status, events.output(text, found, status), Usage.of(speech.ends))
    return _answer(request, whole)


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


async def _spoken(
    request: http.Request,
    principal: Principal,
    name: str,
    read: Callable[[Served], Sequence[Generate]],
    *,
    stream: bool,
    key: str | None,
) -> Speech:
    speaking = language.speak(principal, name, read, stream=stream, scope=key or "")
    return await language.while_there(request, speaking)


async def _whole(request: http.Request, speech: Speech) -> dict[int, list[Tokens]]:
    try:
        return await language.while_there(request, speech.whole())
    finally:
        speech.close()


async def _streamed(
    request: http.Request,
    speech: Speech,
    pieces: AsyncGenerator[bytes],
    *,
    usage: Callable[[Usage], bytes] | None = None,
    failed: Callable[[StrongroomError, Usage], bytes] | None = None,
) -> http.Answer:
    """The first piece is there before the head goes out, so that what is refused has its own status."""
    try:
        first = await language.while_there(request, anext(pieces))
    except BaseException:
        speech.close()
        raise

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

    return http.Stream(all_of_it(), STREAM, _timing(request))


def _answer(request: http.Request, document: dict[str, Any]) -> http.Answer:
    return http.Answer.of(200, document, _timing(request))


def _timing(request: http.Request) -> Headers:
    return [(b"openai-processing-ms", b"%d" % (1000 * (perf_counter() - request.began)))]


def _no_tools(served: Served) -> Invalid:
    message = f"cannot be given to {served.name!r}: its chat template knows no tools"
    hint = "set tool_choice to 'required' or to a function, which every model can follow"
    return Invalid.all([FieldError("/tools", "tools_unsupported", message, hint)])


# --- whole answers ---


def _sorted(speech: Speech) -> list[Done]:
    return sorted(speech.ends, key=lambda end: end.index)


def _told(head: Head, speech: Speech) -> Head:
    """With the fingerprint, which comes with the end."""
    return Head(head.id, head.created, head.model, speech.ends[0].fingerprint)


def _chat_choice(end: Done, parts: list[Tokens], with_logprobs: bool, forced: bool, free: bool) -> Choice:
    text = "".join([part.text for part in parts])
    logprobs: list[Logprob] | None = [one for part in parts for one in part.logprobs] if with_logprobs else None
    found: list[ToolCall] = []
    if forced:
        found = calls.forced(text)
        text = "" if found else text
    elif free:
        text, found = calls.free(text)
    finish: Finish = "tool_calls" if found else _finish(end)
    return Choice(end.index, text, finish, logprobs, found)


def _finish(end: Done) -> Finish:
    return "length" if end.reason == "length" else "stop"


# --- streams ---


async def _chat_text(speech: Speech, chunks: ChatChunks, n: int) -> AsyncGenerator[bytes]:
    opening: bytes | None = b"".join([chunks.first(index) for index in range(n)])
    async for parts in speech:
        pieces = [opening] if opening else []
        opening = None
        for part in parts:
            if isinstance(part, Done):
                pieces.append(chunks.last(part.index, _finish(part)))
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
                pieces.append(chunks.last(part.index, _finish(part) if part.reason == "length" else "tool_calls"))
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
            pieces.append(chunks.last(index, "tool_calls" if found else _finish(part)))
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
                pieces.append(chunks.last(part.index, _finish(part)))
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
            if text or not found:
                pieces += [writer.begin_message(), writer.text(text), writer.end_message()]
            for call in found:
                pieces += [writer.begin_call(ToolCall(call.id, call.name, "")), writer.arguments(call.arguments)]
                pieces.append(writer.end_call())
            pieces.append(_response_end(writer, speech, part, None))
        yield b"".join(pieces)


def _response_end(
    writer: events.Events, speech: Speech, end: Done, close: Callable[[events.Status], bytes] | None
) -> bytes:
    usage = Usage.of(speech.ends)
    if end.reason == "length":
        return (b"" if close is None else close("incomplete")) + writer.incomplete(usage)
    return (b"" if close is None else close("completed")) + writer.completed(usage)
