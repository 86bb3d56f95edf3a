"""What llama.cpp makes of the base and of an adapter over it: tokens, ends of answers, and greedy answers.

The counterpart of a cell, in the job's own process, so that what was learned is tried as it will be served.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np

from training.errors import JobError
from training.language.memory_file import MemoryFile
from training.language.trial import Trial, close, stream_of

CHUNK = 512  # tokens of a prompt at once


class NotServed(JobError):
    """llama.cpp does not take the adapter or cannot compute with it: what was learned cannot be served."""

    code = "parity_failed"


class Served(Trial):
    """The base by llama.cpp; `adapt` puts an adapter over it. One thread at a time."""

    def __init__(self, file: MemoryFile, *, threads: int) -> None:
        super().__init__(file, threads=threads)
        self._adapter: Any = None

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._adapter:
            self._library.llama_adapter_lora_free(self._adapter)
        super().__exit__(kind, error, trace)

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        is_end = self._library.llama_vocab_is_eog
        return frozenset(token for token in range(self.tokens_known) if is_end(self._vocabulary, token))

    def adapt(self, file: MemoryFile) -> None:
        stream = stream_of(file.descriptor)
        try:
            self._adapter = self._library.llama_adapter_lora_init_from_file_ptr(self._model, stream)
        finally:
            close(stream)
        if not self._adapter:
            raise NotServed("llama.cpp does not load the adapter over its base")

    def greedy(self, prompts: Sequence[Sequence[int]], most_tokens: int) -> list[list[int]]:
        """To each prompt the likeliest token, again and again, until one ends the answer or there are enough."""
        context = self._context(max(map(len, prompts)) + most_tokens)
        try:
            return [self._answer(context, prompt, most_tokens) for prompt in prompts]
        finally:
            self._library.llama_free(context)

    def _context(self, tokens: int) -> Any:
        library = self._library
        parameters = self._context_parameters()
        parameters.n_ctx = tokens
        parameters.n_batch = parameters.n_ubatch = CHUNK
        parameters.n_threads = 1  # a token at a time: on a busy machine two threads wait longer than they compute
        context = library.llama_init_from_model(self._model, parameters)
        if not context:
            raise NotServed(f"llama.cpp makes no context of {tokens} tokens")
        if self._adapter:
            adapters = (library.llama_adapter_lora_p_ctypes * 1)(self._adapter)
            if library.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)):
                library.llama_free(context)
                raise NotServed("llama.cpp does not use the adapter")
        return context

    def _answer(self, context: Any, prompt: Sequence[int], most_tokens: int) -> list[int]:
        library = self._library
        library.llama_memory_clear(library.llama_get_memory(context), True)
        answer: list[int] = []
        waiting, place = list(prompt), 0
        while len(answer) < most_tokens and not (answer and answer[-1] in self.ends):
            for first in range(0, len(waiting), CHUNK):
                piece = waiting[first : first + CHUNK]
                logits = self._decoded(context, piece, place)
                place += len(piece)
            waiting = [int(np.argmax(logits))]
            answer += waiting
        return answer

    def _decoded(self, context: Any, tokens: Sequence[int], place: int) -> Any:
        """The logits behind the last of these."""
        library = self._library
        batch = library.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for at, token in enumerate(tokens):
                batch.token[at], batch.pos[at], batch.logits[at] = token, place + at, at == len(tokens) - 1
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            if library.llama_decode(context, batch):
                raise NotServed("llama.cpp cannot compute with the adapter")
            return np.ctypeslib.as_array(library.llama_get_logits_ith(context, -1), (self.tokens_known,))
        finally:
            library.llama_batch_free(batch)
