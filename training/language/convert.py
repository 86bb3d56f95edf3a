"""A LlamaForCausalLM as Hugging Face keeps it, into GGUF: names, the order of rows, the head's numbers, the vocabulary.

The weights go by once, in the order in which they lie in the zip. What a llama of GGUF cannot say is refused, by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.data.archive import shown
from training.errors import ImportRefused
from training.language import gguf, llama_config, own_tokenizer
from training.language.folder import CONFIG, TOKENIZER, Folder, Weights, type_of
from training.language.gguf import Bytes, Field, Head, Tensor, refused
from training.language.llama_config import Config
from training.language.memory_file import MemoryFile
from training.language.own_tokenizer import OwnTokenizer
from training.language.rewrite import Look, Part, described, target, whole_rows, written
from training.language.structure import ARCHITECTURE, Hyperparameters
from training.language.tensor_types import F32
from training.language.weights import Recoder
from training.safetensors import Stored

TEMPLATE = "chat_template.jinja"
_SETTINGS = "tokenizer_config.json"
_GENERATION = "generation_config.json"
_ROPE = "rope_freqs.weight"
_WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_OF_BLOCK = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
_BLOCK = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,3})\.(.+)")
_LEFT_OUT = "self_attn.rotary_emb.inv_freq"  # a table that older versions saved along
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """The file as it will be, before a weight is read, and the tokenizer to compare it with."""

    fields: Mapping[str, Field]
    own: OwnTokenizer
    _config: Config
    _weights: Weights
    _parts: Sequence[tuple[str, Part]]  # by the name that each comes with

    @property
    def head(self) -> Head:
        return Head(gguf.VERSIONS[-1], self.fields, tuple(part.tensor for _, part in self._parts), -1, -1)

    def written(self, watch: Look) -> tuple[MemoryFile, Head]:
        """The weights go by once."""
        parts = [part for _, part in self._parts]
        return written(self.fields, parts, _pieces(self._weights, self._parts, self._config), watch)


def planned(folder: Folder, name: str, wanted: str, *, threads: int) -> Plan:
    """The folder's model with its matrices as q4_0 or bf16."""
    document = folder.document(CONFIG)
    config = llama_config.read(document)
    own = own_tokenizer.read(folder.document(TOKENIZER), config.hyperparameters.vocabulary)
    weights = folder.weights()
    parts = _parts(weights, config, wanted, threads)
    fields = {
        **_hyperparameter_fields(config.hyperparameters, name),
        **described([part.tensor for _, part in parts]),
        **_vocabulary_fields(own, folder, document),
    }
    return Plan(fields, own, config, weights, parts)


def _gguf_name(name: str) -> str | None:
    """None for what no model needs."""
    if name in _WHOLE:
        return _WHOLE[name]
    found = _BLOCK.fullmatch(name)
    if found and found[2] == _LEFT_OUT:
        return None
    if found and found[2] in _OF_BLOCK:
        return f"blk.{found[1]}.{_OF_BLOCK[found[2]]}"
    raise refused(
        "tensor_unknown",
        f"tensor {shown(name)} is none of a llama's",
        "models without biases, adapters or experts are taken in",
    )


def _parts(weights: Weights, config: Config, wanted: str, threads: int) -> list[tuple[str, Part]]:
    """Each tensor by the name that it comes with, in the order in which it comes."""
    shapes = config.hyperparameters.tensors() | config.hyperparameters.optional_tensors()
    parts: list[tuple[str, Part]] = []
    if config.rope_factors is not None:
        tensor = Tensor(_ROPE, (len(config.rope_factors),), F32)
        parts.append((_ROPE, Part(tensor, lambda rows: rows, tensor.size_bytes)))
    for one in weights.slices:
        name = _gguf_name(one.name)
        if name is None or (config.is_tied and name == "output.weight"):
            continue
        if shapes.get(name) != one.shape[::-1]:
            raise refused(
                "tensor_shape",
                f"tensor {shown(one.name)} has the shape {list(one.shape)}, config.json asks for "
                f"{list(shapes.get(name, ()))[::-1]}",
                "upload the config.json that belongs to the weights",
            )
        parts.append((one.name, _part(one, name, config, wanted, threads)))
    missing = config.hyperparameters.tensors().keys() - {part.tensor.name for _, part in parts}
    if missing:
        raise refused("tensor_missing", f"tensor {shown(min(missing))} is missing", "upload all files of the weights")
    return parts


def _part(one: Stored, name: str, config: Config, wanted: str, threads: int) -> Part:
    shape = one.shape[::-1]
    stored = type_of(one)
    kind = F32 if len(shape) == 1 else target(name, shape, stored, wanted, tied=config.is_tied)
    recode = Recoder(name, stored, kind, shape[0], threads)
    row_bytes, head_width = stored.row_bytes(shape[0]), config.hyperparameters.head_width
    if not name.endswith(("attn_q.weight", "attn_k.weight")):
        return Part(Tensor(name, shape, kind), recode, whole_rows(row_bytes))

    def paired(rows: Bytes) -> Bytes:
        return recode(_interleaved(rows, head_width, row_bytes))

    return Part(Tensor(name, shape, kind), paired, whole_rows(row_bytes, head_width))


def _interleaved(rows: Bytes, head_width: int, row_bytes: int) -> bytes:
    """Hugging Face keeps the two halves that rope turns apart, GGUF puts each pair side by side."""
    heads = np.frombuffer(rows, dtype=np.uint8).reshape(-1, 2, head_width // 2, row_bytes)
    return np.ascontiguousarray(heads.swapaxes(1, 2)).tobytes()


def _pieces(weights: Weights, parts: Sequence[tuple[str, Part]], config: Config) -> Iterator[tuple[str, Bytes]]:
    if config.rope_factors is not None:
        yield _ROPE, config.rope_factors.tobytes()
    names = {name: part.tensor.name for name, part in parts}
    for name, piece in weights.pieces({name: part.piece_bytes for name, part in parts if name != _ROPE}):
        yield names[name], piece


def _hyperparameter_fields(found: Hyperparameters, name: str) -> dict[str, Field]:
    counts = {
        "block_count": found.blocks,
        "context_length": found.context_length,
        "embedding_length": found.width,
        "feed_forward_length": found.feed_forward,
        "attention.head_count": found.heads,
        "attention.head_count_kv": found.key_value_heads,
        "attention.key_length": found.head_width,
        "attention.value_length": found.head_width,
        "rope.dimension_count": found.head_width,
        "vocab_size": found.vocabulary,
    }
    return {
        "general.architecture": Field("text", ARCHITECTURE),
        "general.type": Field("text", "model"),
        "general.name": Field("text", name),
        **{f"{ARCHITECTURE}.{key}": Field("u32", value) for key, value in counts.items()},
        f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon": Field("f32", found.norm_epsilon),
        f"{ARCHITECTURE}.rope.freq_base": Field("f32", found.rope_base),
    }


def _vocabulary_fields(own: OwnTokenizer, folder: Folder, config: Json) -> dict[str, Field]:
    settings = folder.document(_SETTINGS, optional=True)
    generation = folder.document(_GENERATION, optional=True)
    ends = _ids(own, _named(settings, "eos_token"), config.get("eos_token_id"), generation.get("eos_token_id"))
    begins = _ids(own, own.before, _named(settings, "bos_token"), config.get("bos_token_id"))
    if not ends:
        raise refused("vocabulary", "no eos_token is named: no answer would end", "add it to tokenizer_config.json")
    ids = {"bos": begins[:1], "eos": ends[:1], "eot": ends[1:2], "eom": ends[2:3]}
    fields = {
        "tokenizer.ggml.model": Field("text", "gpt2"),
        "tokenizer.ggml.pre": Field("text", own.pre),
        "tokenizer.ggml.tokens": Field("[text]", own.tokens),
        "tokenizer.ggml.token_type": Field("[i32]", own.kinds),
        "tokenizer.ggml.merges": Field("[text]", own.merges),
        "tokenizer.ggml.add_bos_token": Field("bool", own.before is not None),
        "tokenizer.ggml.add_eos_token": Field("bool", own.behind is not None),
        **{f"tokenizer.ggml.{key}_token_id": Field("u32", found[0]) for key, found in ids.items() if found},
    }
    template = folder.text(TEMPLATE) if TEMPLATE in folder else settings.get("chat_template")
    if template is None:
        return fields
    return {**fields, "tokenizer.chat_template": Field("text", _template(template))}


def _template(template: Any) -> str:
    """The one template, or of several the one called default."""
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if not isinstance(template, str):
        raise ImportRefused(
            f"chat_template of {_SETTINGS} is no text", f"put the template into {TEMPLATE}", code="document_invalid"
        )
    return template


def _named(settings: Mapping[str, Any], key: str) -> str | None:
    """A special token as tokenizer_config.json names it: a text, or an object around it."""
    found = settings.get(key)
    found = found.get("content") if isinstance(found, dict) else found
    return found if isinstance(found, str) else None


def _ids(own: OwnTokenizer, *sources: Any) -> list[int]:
    """Each once, in the order of who names it."""
    found: list[int] = []
    for source in _flat(sources):
        token = own.id(source) if isinstance(source, str) else source
        if token is None:
            continue
        if type(token) is not int or not 0 <= token < len(own.tokens):
            raise refused(
                "vocabulary", f"a special token has the id {shown(str(token))}", "upload the files as published"
            )
        found.append(token)
    return list(dict.fromkeys(found))


def _flat(sources: Iterable[Any]) -> Iterator[Any]:
    for source in sources:
        yield from source if isinstance(source, list) else (source,)
