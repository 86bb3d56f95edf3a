"""llama.cpp by llama-cpp-python's ctypes layer: weights from a descriptor, their vocabulary, a context to compute in.

Nothing is opened: weights and adapters are read from descriptors that were handed over, mapped read-only. Knows C
structures, tokens and logits; knows nothing of requests, sampling or scheduling. A Context belongs to one thread, a
Vocabulary may be used by several. Source: include/llama.h of llama.cpp, as bundled with llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as ll

from inference.errors import ComputeFailed, LoadFailed

PIECE_BYTES: Final = 256
MOST_META_BYTES: Final = 1 << 20
LEAST_KEPT: Final = 256
PARAMETERS_A_KEPT_TOKEN: Final = 2000  # of one head: measured on SmolLM2, 256 tokens of 135 million

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fdopen.restype = ctypes.c_void_p
_libc.fdopen.argtypes = (ctypes.c_int, ctypes.c_char_p)
_libc.fclose.argtypes = (ctypes.c_void_p,)
# Nothing of a model is written to a log; the callback must stay referenced, or the library calls into freed memory.
_silent = ll.llama_log_callback(lambda _level, _text, _data: None)
ll.llama_log_set(_silent, None)


class Weights:
    """A language model's weights and vocabulary, mapped from a descriptor of a GGUF file. LoadFailed."""

    def __init__(self, descriptor: int, *, share: bool = False, check: bool = False, vocabulary_only: bool = False):
        """`share` keeps the pages as they lie in the file, so that processes share them; else some are repacked for
        speed into private memory (1.2 to 1.8 times as fast). `check` looks at every tensor for numbers that are none.
        """
        parameters = ll.llama_model_default_params()
        parameters.load_mode = ll.LLAMA_LOAD_MODE_MMAP
        parameters.use_extra_bufts = not share
        parameters.check_tensors = check
        parameters.vocab_only = vocabulary_only
        self._model: Any = _from_file(descriptor, lambda file: ll.llama_model_load_from_file_ptr(file, parameters))
        if not self._model:
            raise LoadFailed("llama.cpp refused the weights")
        self.vocabulary = Vocabulary(ll.llama_model_get_vocab(self._model))
        self._adapters: list[Any] = []

    @property
    def context_length(self) -> int:
        """Tokens that the model was trained to look back on."""
        return int(ll.llama_model_n_ctx_train(self._model))

    @property
    def kv_bytes_a_token(self) -> int:
        """What one token's keys and values take, in half precision."""
        width = ll.llama_model_n_embd(self._model) // max(1, ll.llama_model_n_head(self._model))
        return int(2 * 2 * ll.llama_model_n_layer(self._model) * ll.llama_model_n_head_kv(self._model) * width)

    @property
    def kept_tokens(self) -> int:
        """How many tokens of earlier sequences may lie in a context without slowing its steps by more than 3 %: each is
        looked past by every head of every block, which is little beside many parameters."""
        heads = int(ll.llama_model_n_head(self._model) * ll.llama_model_n_layer(self._model))
        parameters = int(ll.llama_model_n_params(self._model))
        return max(LEAST_KEPT, parameters // max(1, heads) // PARAMETERS_A_KEPT_TOKEN)

    def metadata(self, key: str) -> str | None:
        """One of the file's own facts as text, None where it has none of that name."""
        buffer = ctypes.create_string_buffer(PIECE_BYTES)
        length = ll.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        if length >= len(buffer):
            buffer = ctypes.create_string_buffer(min(length + 1, MOST_META_BYTES))
            length = ll.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    def adapter(self, descriptor: int) -> Any:
        """A LoRA adapter of these weights, from a descriptor of its GGUF file. LoadFailed."""
        found = _from_file(descriptor, lambda file: ll.llama_adapter_lora_init_from_file_ptr(self._model, file))
        if not found:
            raise LoadFailed("llama.cpp refused the adapter: it is not one of this base")
        self._adapters.append(found)
        return found

    def free_adapter(self, adapter: Any) -> None:
        self._adapters.remove(adapter)
        ll.llama_adapter_lora_free(adapter)

    def free(self) -> None:
        """After the last context of it was freed."""
        for adapter in self._adapters:
            ll.llama_adapter_lora_free(adapter)
        self._adapters.clear()
        if self._model:
            ll.llama_model_free(self._model)
            self._model = None

    def context(self, *, sequences: int, cells: int, chunk: int, threads: int) -> Context:
        return Context(self._model, self.vocabulary, sequences, cells, chunk, threads)


def _from_file(descriptor: int, load: Any) -> Any:
    """The offset belongs to all who hold the file, so one loader at a time."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    file = _libc.fdopen(os.dup(descriptor), b"rb")
    if not file:
        raise LoadFailed("the weights' descriptor does not open")
    try:
        return load(file)
    finally:
        _libc.fclose(file)


class Vocabulary:
    """Text to tokens and back."""

    def __init__(self, vocabulary: Any) -> None:
        self._vocabulary = vocabulary
        self.size = int(ll.llama_vocab_n_tokens(vocabulary))
        self.eos = int(ll.llama_vocab_eos(vocabulary))
        self.bos = int(ll.llama_vocab_bos(vocabulary))
        self.adds_bos = bool(ll.llama_vocab_get_add_bos(vocabulary))
        self.ends = frozenset(token for token in range(self.size) if ll.llama_vocab_is_eog(vocabulary, token))
        self._pieces: dict[int, bytes] = {}

    def tokens(self, text: str, *, special: bool) -> array[int]:
        """`special`: text like <|im_end|> becomes the token of that name, which only a template's own text may."""
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 8
        found = (ll.llama_token * room)()
        count = ll.llama_tokenize(self._vocabulary, raw, len(raw), found, room, False, special)
        if count < 0:
            raise ComputeFailed("the text could not be tokenized")
        return array("i", found[:count])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """A token's bytes: not always whole UTF-8, empty for a control token unless `special`."""
        if special:
            return self._piece(token, special=True)
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._piece(token, special=False)
        return piece

    def _piece(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(PIECE_BYTES)
        length = ll.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, special)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = ll.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, special)
        return buffer.raw[: max(length, 0)]

    def is_control(self, token: int) -> bool:
        return bool(ll.llama_vocab_is_control(self._vocabulary, token))

    def is_special(self, token: int) -> bool:
        """Whether its text becomes this very token with `special` only."""
        only = ll.LLAMA_TOKEN_ATTR_CONTROL | ll.LLAMA_TOKEN_ATTR_UNKNOWN
        return bool(ll.llama_vocab_get_attr(self._vocabulary, token) & only)

    def text_of(self, token: int) -> str:
        """A token as it stands in the vocabulary."""
        text = ll.llama_vocab_get_text(self._vocabulary, token)
        return (text or b"").decode("utf-8", "replace")


class Context:
    """Keys and values of up to `sequences` sequences in `cells` cells, and steps of up to `chunk` tokens.

    A step: `add` tokens, `decode`, then `logits`, a row for each token that was added with `wanted`.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary, sequences: int, cells: int, chunk: int, threads: int):
        parameters = ll.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max = cells, sequences
        parameters.n_batch = parameters.n_ubatch = chunk
        parameters.n_outputs_max = sequences  # logits of so many rows are kept, not of a whole chunk
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.kv_unified = True  # 1.33 times as fast where lengths differ; a split cache cuts a step into pieces
        parameters.no_perf = True
        self._context = ll.llama_init_from_model(model, parameters)
        if not self._context:
            raise LoadFailed(f"no context of {cells} tokens could be made")
        self._memory = ll.llama_get_memory(self._context)
        self.cells, self.chunk, self.sequences = int(ll.llama_n_ctx(self._context)), chunk, sequences
        self._vocabulary_size = vocabulary.size
        self._batch = ll.llama_batch_init(chunk, 0, 1)
        self._tokens = _view(self._batch.token, ctypes.c_int32, chunk)
        self._positions = _view(self._batch.pos, ctypes.c_int32, chunk)
        self._wanted = _view(self._batch.logits, ctypes.c_int8, chunk)
        _view(self._batch.n_seq_id, ctypes.c_int32, chunk)[:] = 1
        # The sequence of each place stands behind a pointer of its own: here they all point into one array.
        self._sequence_ids = np.zeros(chunk, dtype=np.int32)
        self._places = _view(self._batch.seq_id, ctypes.c_size_t, chunk)
        self._own_places = self._places.copy()
        self._places[:] = self._sequence_ids.ctypes.data + 4 * np.arange(chunk, dtype=np.uintp)
        self.filled = self.rows = 0

    def add(self, sequence: int, tokens: Sequence[int] | npt.NDArray[np.int32], position: int, *, wanted: bool) -> None:
        """Tokens of one sequence from `position` on; `wanted`: the logits after the last of them."""
        start, end = self.filled, self.filled + len(tokens)
        self._tokens[start:end] = tokens
        self._positions[start:end] = np.arange(position, position + len(tokens))
        self._sequence_ids[start:end] = sequence
        self._wanted[start:end] = 0
        if wanted:
            self._wanted[end - 1] = 1
            self.rows += 1
        self.filled = end

    def add_one(self, sequence: int, token: int, position: int) -> None:
        """The usual case, at a third of the cost."""
        at = self.filled
        self._tokens[at], self._positions[at], self._sequence_ids[at], self._wanted[at] = token, position, sequence, 1
        self.filled = at + 1
        self.rows += 1

    def decode(self) -> npt.NDArray[np.float32]:
        """Computes what was added: logits [rows, vocabulary], a view that the next decode overwrites. ComputeFailed."""
        self._batch.n_tokens, rows = self.filled, self.rows
        self.filled = self.rows = 0
        code = ll.llama_decode(self._context, self._batch)
        if code:
            raise ComputeFailed(f"llama.cpp could not compute this step (code {code})")
        if not rows:
            return np.empty((0, self._vocabulary_size), dtype=np.float32)
        floats = ctypes.cast(ll.llama_get_logits(self._context), ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(floats, (rows, self._vocabulary_size))

    def drop(self) -> None:
        """What was added and not computed."""
        self.filled = self.rows = 0

    def truncate(self, sequence: int, length: int) -> None:
        """Forgets what lies behind `length` tokens."""
        ll.llama_memory_seq_rm(self._memory, sequence, length, -1)

    def copy(self, source: int, target: int, length: int) -> None:
        """The target sees the source's first `length` tokens; nothing is computed or copied."""
        ll.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def use(self, adapter: Any | None) -> None:
        """The adapter of the steps from now on."""
        if adapter is None:
            ll.llama_set_adapters_lora(self._context, None, 0, None)
            return
        adapters, scales = (ll.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(1.0)
        if ll.llama_set_adapters_lora(self._context, adapters, 1, scales):
            raise ComputeFailed("the adapter cannot be used")

    def free(self) -> None:
        if self._context:
            self._places[:] = self._own_places  # the library frees what it had put there
            ll.llama_batch_free(self._batch)
            ll.llama_free(self._context)
            self._context = None


def _view(pointer: Any, kind: Any, count: int) -> npt.NDArray[Any]:
    return np.frombuffer((kind * count).from_address(_address(pointer)), dtype=kind)


def _address(pointer: Any) -> int:
    return ctypes.addressof(pointer.contents)
