"""A language model in a cell: from a generate frame to sequences, from the engine's events to frames.

    generate ─→ prepared (template, tokens, grammar: a thread of its own) ─→ engine ─→ events ─→ tokens …, done

A caller that streams gets its tokens as they come, as many ahead as its window allows; another gets each choice as one
frame. Every choice ends with a `done` that has its exact usage, cancelled ones too. Everything runs on the event loop's
thread but preparing and computing.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import llama_cpp
import msgpack  # type: ignore[import-untyped]  # it ships no types

from inference.errors import DeadlineExceeded, InferenceError, InputRefused, ModelUnknown, ProtocolError, QueueFull
from inference.language.base_model import Base
from inference.language.interface import LanguageInterface
from inference.language.requests import Generate, Logprob
from inference.language.sampling import Sampler
from inference.language.scheduler import Event, Flow, Sequence
from inference.language.stops import Text
from inference.protocol import COUNTED, DONE, HEAD, TOKENS, Buffer, Frame, frame_parts

MOST_REQUESTS: Final = 1024  # that wait or run
MOST_WAITING_BYTES: Final = 64 << 20
SHORT_CHARACTERS: Final = 4096
MOST_TOLD: Final = 8192  # log-probabilities of a frame, of half a kilobyte each
REASONS: Final = {"stop": "stop", "length": "length", "cancelled": "cancelled", "late": "deadline", "failed": "error"}


class Link(Protocol):
    """Where frames go: a connection of the cell."""

    generating: dict[int, Generation]

    def send(self, parts: list[Buffer]) -> None: ...

    def refuse(self, number: int, error: InferenceError) -> None: ...


@dataclass(eq=False, slots=True)
class Generation:
    """One request in flight."""

    link: Link
    number: int
    model: LanguageModel
    streams: bool
    size: int  # of its body
    flow: Flow = field(default_factory=Flow)
    sequences: list[Sequence] = field(default_factory=list)
    left: int = 0  # choices that have not ended
    gone: bool = False  # nobody reads any more
    cancelled: bool = False
    echoes: dict[int, str] = field(default_factory=dict)  # what each choice's first piece begins with
    texts: dict[int, list[str]] = field(default_factory=dict)
    logprobs: dict[int, list[Logprob]] = field(default_factory=dict)

    def cancel(self, *, silently: bool = False) -> None:
        """The caller is gone, or wants no more; unless `silently`, the usage is still told."""
        self.gone, self.cancelled = self.gone or silently, True
        self.model.cancel(self)


class LanguageModel:
    """One deployment of a base, with an adapter or without."""

    def __init__(self, name: str, version: str, base: Base, interface: LanguageInterface, *, adapter: str = "") -> None:
        self.name, self.version, self.interface = name, version, interface
        self.max_batch, self.context_length = base.room.slots, base.context_length
        self._base, self._adapter = base, adapter
        self._fingerprint = fingerprint(interface.weights_sha256, base.room.threads)
        self._count = self._bytes = 0
        self._retired: Callable[[], None] | None = None
        self.requests = self.errors = 0

    @property
    def waiting(self) -> int:
        return self._count

    def generate(self, link: Link, frame: Frame, fields: dict[str, Any], now: float) -> None:
        """Takes the request in, or raises InferenceError."""
        self._enter(len(frame.body))
        window = fields.get("window")
        flow = Flow(float(window)) if isinstance(window, int) and window > 0 else Flow()
        generation = Generation(link, frame.request, self, bool(fields.get("stream")), len(frame.body), flow)
        deadline = now + frame.deadline_ms / 1000 if frame.deadline_ms else math.inf
        link.generating[frame.request] = generation
        body, lane = bytes(frame.body), lane_of(fields)
        task = self._base.text.ask(lane, lambda: self._prepared(generation, body, fields, lane, deadline))
        task.add_done_callback(lambda done: self._begin(generation, done))

    def count(self, link: Link, frame: Frame, fields: dict[str, Any]) -> None:
        """How many tokens the prompt has, so that a budget can be reserved before the work."""
        body = bytes(frame.body)
        self._enter(len(body))
        task = self._base.text.ask(lane_of(fields), lambda: len(self._base.wording.tokens(Generate.from_json(body))))
        task.add_done_callback(lambda done: self._counted(link, frame.request, len(body), done))

    def cancel(self, generation: Generation) -> None:
        """One that is still being prepared ends when it is."""
        self._base.engine.cancel(generation.sequences)

    def widen(self, generation: Generation, tokens: int) -> None:
        """The reader has taken so many tokens."""

        def widen() -> None:
            generation.flow.left += tokens

        self._base.engine.order(widen)

    def retire(self, freed: Callable[[], None]) -> None:
        """Nothing new is taken in; `freed` is called once all is answered and the memory is free."""
        self._retired = freed
        self._free_if_idle()

    # --- preparing: in the text thread ---

    def _prepared(
        self, generation: Generation, body: bytes, fields: dict[str, Any], lane: int, deadline: float
    ) -> list[Sequence]:
        if generation.cancelled:
            return []
        if deadline < time.monotonic():
            raise DeadlineExceeded("the deadline passed before its turn came")
        generate = Generate.from_json(body)
        tokens = self._base.wording.tokens(generate)
        sampling = generate.sampling
        most = self._most(generate, len(tokens))
        if generate.echo:
            generation.echoes = dict.fromkeys(range(generate.n), self._echo(generate, tokens))
        constraint, leader = sampling.constraint, None
        sequences: list[Sequence] = []
        for index in range(generate.n):
            matcher = None if constraint is None else self._base.grammars().matcher(constraint)
            sequence = Sequence(
                owner=generation,
                index=index,
                lane=lane,
                tokens=tokens[:],
                most=most,
                sampler=Sampler(sampling, self._base.vocabulary.size, tokens, choice=index, mask=matcher),
                text=Text(sampling.stop),
                adapter=self._adapter,
                scope=str(fields.get("scope") or ""),
                logprobs=sampling.logprobs,
                matcher=matcher,
                ignore_end=sampling.ignore_eos,
                deadline=deadline,
                flow=generation.flow,
                leader=leader,
            )
            leader = leader or sequence
            sequences.append(sequence)
        return sequences

    def _echo(self, generate: Generate, tokens: array[int]) -> str:
        """The prompt as text, for an answer that begins with it."""
        if generate.sampling.logprobs is not None:
            hint = "leave out one of them"
            raise InputRefused("/echo", "echo", "cannot be had with logprobs: only new tokens have them", hint)
        if isinstance(generate.prompt, str):
            return generate.prompt
        pieces = [self._base.vocabulary.piece(token, special=True) for token in tokens]
        return b"".join(pieces).decode("utf-8", "replace")

    def _most(self, generate: Generate, prompt: int) -> int:
        """Tokens in all, at which the answer ends; InputRefused where the context has no room for them."""
        limit, max_tokens = self.context_length, generate.sampling.max_tokens
        wanted = prompt + (1 if max_tokens is None else max_tokens)
        if prompt == 0:
            raise InputRefused("/prompt", "empty", "has no tokens", "expected at least one")
        if wanted > limit:
            told = f"{prompt} in the prompt" + (f" and {max_tokens} for the answer" if max_tokens is not None else "")
            hint = f"the context has {limit}; send a shorter prompt or a lower max_tokens"
            path = "/prompt" if generate.messages is None else "/messages"
            raise InputRefused(path, "context_length", f"need {wanted} tokens ({told})", hint)
        return limit if max_tokens is None else wanted

    # --- on the loop ---

    def _enter(self, size: int) -> None:
        """One request more, of so many bytes, until `_leave`."""
        if self._retired is not None:
            raise ModelUnknown(f"'{self.name}' is being unloaded")
        if self._count >= MOST_REQUESTS or self._bytes + size > MOST_WAITING_BYTES:
            self.errors += 1
            raise QueueFull(f"{self._count} requests wait already")
        self._count += 1
        self._bytes += size

    def _leave(self, size: int) -> None:
        self._count -= 1
        self._bytes -= size
        self._free_if_idle()

    def _begin(self, generation: Generation, done: asyncio.Future[list[Sequence]]) -> None:
        failure = done.exception()
        if failure is not None:
            self.errors += 1
            if not generation.gone:
                generation.link.refuse(generation.number, told(failure))
        elif not generation.gone and not done.result():
            generation.link.send(frame_parts(DONE, generation.number, self._never_began()))
        if failure is not None or generation.gone or not done.result():
            self._forget(generation)
            return
        generation.sequences = done.result()
        generation.left = len(generation.sequences)
        self.requests += 1
        self._base.engine.put(generation.sequences)
        if generation.cancelled:
            self._base.engine.cancel(generation.sequences)

    def _counted(self, link: Link, number: int, size: int, done: asyncio.Future[int]) -> None:
        failure = done.exception()
        if failure is not None:
            link.refuse(number, told(failure))
        else:
            link.send(frame_parts(COUNTED, number, {"prompt_tokens": done.result()}))
        self._leave(size)

    def deliver(self, event: Event) -> None:
        """What came of one of this deployment's sequences."""
        generation: Generation = event.sequence.owner
        if event.end is not None:
            generation.left -= 1
        if not generation.gone:
            self._tell(generation, event)
        if not generation.left:
            self._forget(generation)

    def _tell(self, generation: Generation, event: Event) -> None:
        index, told = event.sequence.index, event.logprob
        text = generation.echoes.pop(index, "") + event.text
        if not generation.streams:
            generation.texts.setdefault(index, []).append(text)
            if told is not None:
                generation.logprobs.setdefault(index, []).append(told)
            if event.end is None:
                return
            text = "".join(generation.texts.pop(index))
            logprobs = tuple(generation.logprobs.pop(index, ()))
        else:
            logprobs = () if told is None else (told,)
        parts: list[Buffer] = []
        if text or logprobs:
            parts += tokens_parts(generation.number, index, text, logprobs)
        if event.end is not None:
            parts += frame_parts(DONE, generation.number, self._done(event, generation.left == 0))
        if parts:
            generation.link.send(parts)

    def _done(self, event: Event, last: bool) -> dict[str, Any]:
        sequence = event.sequence
        began = sequence.began or sequence.ended or 0.0
        first = sequence.first or sequence.ended or 0.0
        leads = sequence.leader is None and sequence.began is not None  # computed the prompt, or began to
        return {
            "index": sequence.index,
            "reason": REASONS[event.end or "failed"],
            "prompt_tokens": sequence.prompt_tokens if leads else 0,
            "completion_tokens": sequence.made,
            "cached_tokens": sequence.cached_tokens if leads else 0,
            "queue_ms": round((began - sequence.came) * 1000, 3),
            "prefill_ms": round((first - began) * 1000, 3),
            "decode_ms": round(((sequence.ended or 0.0) - first) * 1000, 3),
            "fingerprint": self._fingerprint,
            "last": last,
        }

    def _never_began(self) -> dict[str, Any]:
        """The end of all choices of what was cancelled before it was prepared."""
        counts = ("prompt_tokens", "completion_tokens", "cached_tokens", "queue_ms", "prefill_ms", "decode_ms")
        said = {"index": 0, "reason": "cancelled", "fingerprint": self._fingerprint, "last": True}
        return said | dict.fromkeys(counts, 0)

    def _forget(self, generation: Generation) -> None:
        generation.link.generating.pop(generation.number, None)
        self._leave(generation.size)

    def _free_if_idle(self) -> None:
        if self._retired is not None and not self._count:
            freed, self._retired = self._retired, None
            if self._adapter:
                self._base.detach(self._adapter)
            self._base.leave(freed)


def lane_of(fields: Mapping[str, Any]) -> int:
    """Of whom the request is, so that principals take turns."""
    principal = fields.get("principal")
    return principal if type(principal) is int else 0


def told(failure: BaseException) -> InferenceError:
    """What is said of a request that could not be prepared."""
    if isinstance(failure, InferenceError):
        return failure
    return InferenceError(str(failure) if isinstance(failure, ProtocolError) else "the cell failed on this request")


def tokens_parts(number: int, index: int, text: str, logprobs: tuple[Logprob, ...]) -> list[Buffer]:
    """Tokens frames, usually one with all in its header, packed directly; else in bodies."""
    if not logprobs and len(text) < SHORT_CHARACTERS:
        header = msgpack.packb({"index": index, "text": text})
        return [HEAD.pack(HEAD.size + len(header), TOKENS, 0, len(header), number, 0), header]
    parts: list[Buffer] = []
    for start in range(0, max(1, len(logprobs)), MOST_TOLD):
        told = logprobs[start : start + MOST_TOLD]
        packed = [[one.token, one.text, one.logprob, [list(other) for other in one.top]] for one in told]
        body = msgpack.packb({"text": "" if start else text, "logprobs": packed})
        parts += frame_parts(TOKENS, number, {"index": index}, [body])
    return parts


def fingerprint(weights_sha256: str | None, threads: int) -> str:
    """OpenAI's system_fingerprint: equal where weights, engine and number of threads are, so that a seed can hold."""
    made_from = f"{weights_sha256} llama-cpp-python {llama_cpp.__version__} threads {threads}"
    return f"fp_{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"
