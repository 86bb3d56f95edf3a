"""A GGUF file tried by llama.cpp itself: loaded from memory, tokens and logits out of it.

This is where a stranger's file meets C++, so it belongs into the sandbox, and after structure.py: some contradictions
end llama.cpp's process instead of being refused. Knows llama-cpp-python's ctypes layer, no formats.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import ImportRefused
from training.language.library import llama_cpp
from training.language.memory_file import MemoryFile

CONTEXT = 64
_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_said: deque[str] = deque(maxlen=8)  # what llama.cpp last complained of; its log is one for the process


@cache
def _library() -> Any:
    """llama.cpp's functions, with its log turned into `_said`; kept for good, since it keeps the callback."""
    os.environ["GGML_NO_BACKTRACE"] = "1"  # where it ends its process it would start a debugger first
    library = llama_cpp()

    def note(level: int, text: bytes, _: object) -> None:
        if level == _ERROR:
            _said.append(text.decode("utf-8", "replace").strip())

    callback = library.llama_log_callback(note)
    library.llama_log_set(callback, None)
    library.llama_backend_init()
    return _Kept(library, callback)


class _Kept:
    def __init__(self, library: Any, callback: Any) -> None:
        self._library, self._callback = library, callback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


class Trial:
    """The loaded model, for one thread at a time; its pages are the file's own, nothing is copied or repacked."""

    def __init__(self, file: MemoryFile, *, threads: int, vocabulary_only: bool = False) -> None:
        self._library = _library()
        self._threads = threads
        self._model = self._load(file, vocabulary_only)
        self._vocabulary = self._library.llama_model_get_vocab(self._model)
        self.tokens_known: int = self._library.llama_vocab_n_tokens(self._vocabulary)

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.llama_model_free(self._model)

    def _load(self, file: MemoryFile, vocabulary_only: bool) -> Any:
        library = self._library
        parameters = library.llama_model_default_params()
        # A head without data is not padded to where data would begin, which mapping asks for.
        parameters.load_mode = library.LLAMA_LOAD_MODE_NONE if vocabulary_only else library.LLAMA_LOAD_MODE_MMAP
        parameters.use_extra_bufts = False
        parameters.check_tensors = False  # weights.py has looked at every piece
        parameters.vocab_only = vocabulary_only
        parameters.n_gpu_layers = 0
        _said.clear()
        stream = stream_of(file.descriptor)
        try:
            model = library.llama_model_load_from_file_ptr(stream, parameters)
        finally:
            close(stream)
        if not model:
            raise _refused("llama.cpp does not load the model")
        return model

    def tokens(self, text: str, *, special: bool) -> list[int]:
        """The text's tokens and nothing before or after; `special`: its control tokens count as such."""
        data = text.encode()
        room = len(data) + 1
        found = (self._library.llama_token * room)()
        count = self._library.llama_tokenize(self._vocabulary, data, len(data), found, room, False, special)
        if count < 0:
            raise _refused("llama.cpp gives more tokens than the text has bytes")
        return list(found[:count])

    def adds(self) -> tuple[bool, bool]:
        """Whether a begin and an end are put around a prompt."""
        library = self._library
        return bool(library.llama_vocab_get_add_bos(self._vocabulary)), bool(
            library.llama_vocab_get_add_eos(self._vocabulary)
        )

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """A row for each token of one sequence, at most CONTEXT of them."""
        library = self._library
        context = library.llama_init_from_model(self._model, self._context_parameters())
        if not context:
            raise _refused("llama.cpp makes no context for the model")
        batch = library.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for place, token in enumerate(tokens):
                batch.token[place], batch.pos[place], batch.logits[place] = token, place, 1
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            if library.llama_decode(context, batch):
                raise _refused("llama.cpp cannot run the model")
            found = np.ctypeslib.as_array(library.llama_get_logits(context), (len(tokens), self.tokens_known))
            return found.copy()
        finally:
            library.llama_batch_free(batch)
            library.llama_free(context)

    def _context_parameters(self) -> Any:
        parameters = self._library.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = CONTEXT
        parameters.n_seq_max = 1
        parameters.n_threads = parameters.n_threads_batch = self._threads
        return parameters


def _refused(problem: str) -> ImportRefused:
    said = "; ".join(_said)[-300:]
    return ImportRefused(
        f"{problem}: {said}" if said else problem,
        "check that llama.cpp serves this very file",
        code="model_not_runnable",
    )


@cache
def _c() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    library.fdopen.restype = ctypes.c_void_p
    library.fdopen.argtypes = (ctypes.c_int, ctypes.c_char_p)
    library.fclose.argtypes = (ctypes.c_void_p,)
    return library


def stream_of(descriptor: int) -> int:
    """A FILE* at the file's begin. The place is shared by every duplicate: one loads at a time."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    stream: int | None = _c().fdopen(os.dup(descriptor), b"rb")
    if not stream:
        raise OSError(ctypes.get_errno(), "fdopen")
    return stream


def close(stream: int) -> None:
    _c().fclose(stream)
