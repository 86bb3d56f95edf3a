"""A llama of two layers and 300 tokens with fixed random weights, made in milliseconds, and adapters of it.

What it says is nonsense, and the same each time. Its vocabulary is byte-level, so that it can say any bytes; its size
is no multiple of 32, and its template is SmolLM2's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from inference.language.llama import Weights
from training.language.gguf import Bytes, Field, Tensor, Writer
from training.language.tensor_types import BF16, F32, Q4_0, TensorType
from training.language.vocabulary import TokenKind, byte_letters

BLOCKS, WIDTH, FEED_FORWARD, HEADS, KEY_VALUE_HEADS, HEAD_WIDTH = 2, 64, 128, 4, 2, 16
CONTEXT = 1024
ADAPTER_RANK, ADAPTER_SCALE = 4, 0.5
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
NOTE = "<note>"  # found in any text, as models' own words for thoughts or tools are
CONTROL = (END_OF_TEXT, START, END)
_MERGES = (
    "Ġ t|h e|Ġt he|i n|e r|a n|r e|o n|a t|e n|n d|i s|o r|e s|Ġ a|Ġ s|Ġ w|Ġ c|Ġ b|Ġ o|Ġ f|Ġ p|Ġ m|Ġ d|in g|i t|o u|"
    'a l|a r|Ġo f|{ "|" :|" ,|} ,|Ġ {|Ġ "|l l|s t|u s|s y'
)
MERGES = tuple(_MERGES.split("|"))
TOKENS = (*CONTROL, NOTE, *byte_letters().values(), *(merge.replace(" ", "") for merge in MERGES))
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TYPES: Mapping[str, TensorType] = {"F32": F32, "BF16": BF16, "Q4_0": Q4_0}


@cache
def gguf(kind: str = "Q4_0", *, template: str | None = TEMPLATE, seed: int = 7) -> bytes:
    """The model's file."""
    matrix = TYPES[kind]
    table = [Tensor("token_embd.weight", (WIDTH, len(TOKENS)), matrix), Tensor("output_norm.weight", (WIDTH,), F32)]
    for block in range(BLOCKS):
        shapes = _matrices(block)
        table += [Tensor(f"{name}.weight", shape, matrix) for name, shape in shapes.items()]
        table += [Tensor(f"blk.{block}.{norm}_norm.weight", (WIDTH,), F32) for norm in ("attn", "ffn")]
    table.append(Tensor("output.weight", (WIDTH, len(TOKENS)), matrix))
    random = np.random.default_rng(seed)
    return _file(_fields(template), table, lambda tensor: _weights(tensor, random))


@cache
def adapter(seed: int = 1) -> bytes:
    """A LoRA adapter that changes every answer."""
    random = np.random.default_rng(seed)
    rank, table = ADAPTER_RANK, []
    for block in range(BLOCKS):
        for name, (width, rows) in _matrices(block).items():
            table.append(Tensor(f"{name}.weight.lora_a", (width, rank), F32))
            table.append(Tensor(f"{name}.weight.lora_b", (rank, rows), F32))
    fields = {
        "general.architecture": Field("text", "llama"),
        "general.type": Field("text", "adapter"),
        "adapter.type": Field("text", "lora"),
        "adapter.lora.alpha": Field("f32", rank * ADAPTER_SCALE),
    }
    return _file(fields, table, lambda tensor: random.normal(0, 0.2, tensor.shape[::-1]).astype("f4").tobytes())


@contextmanager
def memory(content: bytes) -> Iterator[int]:
    """A descriptor of a file that lies in memory only."""
    descriptor = os.memfd_create("tiny", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield descriptor
    finally:
        os.close(descriptor)


def weights(content: bytes) -> Weights:
    with memory(content) as descriptor:
        return Weights(descriptor)


def _matrices(block: int) -> dict[str, tuple[int, int]]:
    """Name → width and rows."""
    keys = KEY_VALUE_HEADS * HEAD_WIDTH
    return {
        f"blk.{block}.attn_q": (WIDTH, HEADS * HEAD_WIDTH),
        f"blk.{block}.attn_k": (WIDTH, keys),
        f"blk.{block}.attn_v": (WIDTH, keys),
        f"blk.{block}.attn_output": (HEADS * HEAD_WIDTH, WIDTH),
        f"blk.{block}.ffn_gate": (WIDTH, FEED_FORWARD),
        f"blk.{block}.ffn_up": (WIDTH, FEED_FORWARD),
        f"blk.{block}.ffn_down": (FEED_FORWARD, WIDTH),
    }


def _fields(template: str | None) -> dict[str, Field]:
    kinds = [TokenKind.CONTROL] * len(CONTROL) + [TokenKind.USER_DEFINED]
    kinds += [TokenKind.NORMAL] * (len(TOKENS) - len(kinds))
    fields = {
        "general.architecture": Field("text", "llama"),
        "llama.context_length": Field("u32", CONTEXT),
        "llama.embedding_length": Field("u32", WIDTH),
        "llama.block_count": Field("u32", BLOCKS),
        "llama.feed_forward_length": Field("u32", FEED_FORWARD),
        "llama.attention.head_count": Field("u32", HEADS),
        "llama.attention.head_count_kv": Field("u32", KEY_VALUE_HEADS),
        "llama.attention.layer_norm_rms_epsilon": Field("f32", 1e-5),
        "llama.rope.dimension_count": Field("u32", HEAD_WIDTH),
        "llama.rope.freq_base": Field("f32", 10_000.0),
        "llama.vocab_size": Field("u32", len(TOKENS)),
        "tokenizer.ggml.model": Field("text", "gpt2"),
        "tokenizer.ggml.pre": Field("text", "smollm"),
        "tokenizer.ggml.tokens": Field("[text]", list(TOKENS)),
        "tokenizer.ggml.token_type": Field("[i32]", [int(kind) for kind in kinds]),
        "tokenizer.ggml.merges": Field("[text]", list(MERGES)),
        "tokenizer.ggml.bos_token_id": Field("u32", TOKENS.index(START)),
        "tokenizer.ggml.eos_token_id": Field("u32", TOKENS.index(END)),
        "tokenizer.ggml.add_bos_token": Field("bool", False),
    }
    return fields if template is None else fields | {"tokenizer.chat_template": Field("text", template)}


def _weights(tensor: Tensor, random: np.random.Generator) -> bytes:
    if len(tensor.shape) == 1:
        return np.ones(tensor.shape, "f4").tobytes()
    spread = 0.6 if tensor.name == "output.weight" else 0.25
    values = random.normal(0, spread, tensor.shape[::-1]).astype("f4")
    if tensor.type is Q4_0:
        return _q4_0(values)
    if tensor.type is BF16:
        return (values.view("<u4") >> 16).astype("<u2").tobytes()
    return values.tobytes()


def _q4_0(values: np.ndarray[Any, Any]) -> bytes:
    """Blocks of 32: their scale in half precision, then the sixteen steps of each, two in a byte."""
    blocks = values.reshape(-1, 32)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / 7
    steps = np.clip(np.rint(blocks / scales) + 8, 0, 15).astype("u1")
    packed = steps[:, :16] | steps[:, 16:] << 4
    return b"".join(scale + row.tobytes() for scale, row in zip(map(_half, scales[:, 0]), packed, strict=True))


def _half(number: np.float32) -> bytes:
    return np.float16(number).tobytes()


def _file(fields: Mapping[str, Field], table: list[Tensor], data: Any) -> bytes:
    pieces: list[Bytes] = []
    writer = Writer(pieces.append, fields, table)
    for tensor in table:
        writer.data(data(tensor))
    writer.close()
    return b"".join(pieces)
