"""A Hugging Face folder in a zip becomes the GGUF that it was made from; each folder that cannot is refused by name."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import gguf as package
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.depth import examples
from tests.training.language import making
from tests.training.language.making import TINY, TOKENS, arrays, config, folder, refusal, state, tokenizer
from training.errors import ImportRefused
from training.language import own_tokenizer, structure, vocabulary
from training.language.convert import planned
from training.language.folder import Folder
from training.language.gguf import Head
from training.language.memory_file import MemoryFile

FEW_FILES = making.split(state(arrays()), 3)


@dataclass
class Converted:
    file: MemoryFile
    head: Head


def convert(data: bytes, wanted: str = "bf16", name: str = "Tiny") -> Converted:
    """The file that was written, and its head as it is read from it."""
    file, _ = planned(Folder(io.BytesIO(data)), name, wanted, threads=2).written(making.watch)
    return Converted(file, making.read(content(file)))


def content(file: MemoryFile) -> bytes:
    return file.read(0, file.size_bytes)


def bfloat16(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """As the format's own package rounds."""
    kind = package.GGMLQuantizationType.BF16
    return package.dequantize(package.quantize(array, kind), kind)


# ---- what is taken in


def test_every_weight_comes_back_under_its_name_and_in_its_order() -> None:
    found = making.floats(content(convert(folder()).file))
    expected = arrays()
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array if array.ndim == 1 else bfloat16(array), err_msg=name)


def test_the_head_says_what_config_and_tokenizer_say() -> None:
    head = convert(folder({"generation_config.json": {"eos_token_id": [2, 0]}})).head
    expected = making.fields()
    for key, field in expected.items():
        if key not in ("general.license", "general.file_type"):
            value = head.metadata[key]
            assert value == (pytest.approx(field.value) if field.kind == "f32" else field.value), key
    assert head.metadata["general.file_type"] == 32
    assert head.metadata["tokenizer.ggml.eot_token_id"] == 0
    assert head.metadata["tokenizer.ggml.add_bos_token"] is False


@pytest.mark.parametrize("type", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_weights_of_each_type_are_read_stored_and_deflated(type: str, method: int) -> None:
    found = making.floats(content(convert(folder(type=type, method=method)).file))
    for name, array in arrays().items():
        np.testing.assert_allclose(found[name], array, rtol=2**-7, err_msg=name)


def test_halves_stay_the_bytes_they_were() -> None:
    """BF16 in, BF16 out: nothing is rounded on the way."""
    made = {name: bfloat16(array) for name, array in arrays().items()}
    found = making.floats(content(convert(folder(arrays_=made, type="BF16")).file))
    for name, array in made.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_several_files_and_their_index_are_one_model() -> None:
    files, index = FEW_FILES
    data = folder({"model.safetensors.index.json": index}, files)
    assert making.floats(content(convert(data).file)).keys() == arrays().keys()


def test_a_folder_within_the_archive_and_files_beside_it_are_no_trouble() -> None:
    data = folder({"README.md": "# Tiny"}, prefix="Tiny-1.0/")
    assert len(convert(data).head.tensors) == len(arrays())


def test_a_tied_head_that_was_saved_along_is_left_out_and_one_of_its_own_is_kept() -> None:
    own = arrays(tied=False)
    names = {tensor.name for tensor in convert(folder(arrays_=own)).head.tensors}
    assert "output.weight" not in names
    data = folder({"config.json": config(tie_word_embeddings=False)}, arrays_=own)
    np.testing.assert_array_equal(
        making.floats(content(convert(data).file))["output.weight"], bfloat16(own["output.weight"])
    )


def test_tables_that_older_versions_saved_along_are_left_out() -> None:
    saved = state(arrays()) | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    data = folder(files={"model.safetensors": making.safetensors_file(saved)})
    assert {tensor.name for tensor in convert(data).head.tensors} == arrays().keys()


def test_four_bits_are_what_the_formats_own_package_makes_of_them() -> None:
    found = convert(folder(), "q4_0")
    stored = making.stored(content(found.file))
    kinds = {tensor.name: tensor.type.name for tensor in found.head.tensors}
    for name, array in arrays().items():
        kind = "F32" if array.ndim == 1 else "Q8_0" if name == "token_embd.weight" else "Q4_0"
        assert kinds[name] == kind
        assert stored[name] == package.quantize(array, package.GGMLQuantizationType[kind]).tobytes(), name
    assert found.head.metadata["general.file_type"] == 2


def test_llama_3s_longer_context_becomes_factors_of_the_frequencies() -> None:
    rope = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    found = making.floats(content(convert(folder({"config.json": config(rope_scaling=rope)})).file))
    # Waves of 2π·10000^(i/8) places: shorter than 32/4 are kept, longer than 32/1 are 8 times as long.
    lengths = [2 * np.pi * 10_000 ** (step / 8) for step in range(8)]
    factors = found["rope_freqs.weight"]
    assert [round(length, 1) for length in lengths[:4]] == [6.3, 19.9, 62.8, 198.7]
    smooth = (32 / lengths[1] - 1) / 3
    np.testing.assert_allclose(factors, [1, 1 / ((1 - smooth) / 8 + smooth), 8, 8, 8, 8, 8, 8], rtol=1e-6)


def test_the_ropes_parameters_are_read_in_the_writing_of_transformers_5() -> None:
    new = config(rope_theta=..., rope_scaling=..., rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    assert convert(folder({"config.json": new})).head.metadata["llama.rope.freq_base"] == 5e5


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe", "smaug-bpe", "qwen2"])
def test_the_way_of_splitting_is_told_by_the_tokenizer_itself(pre: str) -> None:
    assert own_tokenizer.read(tokenizer(pre=pre), len(TOKENS)).pre == pre


def test_a_template_of_its_own_file_goes_before_the_settings_and_the_default_before_others() -> None:
    key = "tokenizer.chat_template"
    assert convert(folder({"chat_template.jinja": "mine"})).head.metadata[key] == "mine"
    several = [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]
    settings_ = {"eos_token": {"content": "<|im_end|>"}, "chat_template": several}
    assert convert(folder({"tokenizer_config.json": settings_})).head.metadata[key] == "yes"
    assert key not in convert(folder({"tokenizer_config.json": None})).head.metadata


def test_a_begin_token_that_the_tokenizer_puts_before_every_text_is_named() -> None:
    around = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    found = convert(folder({"tokenizer.json": tokenizer(post_processor=around)})).head.metadata
    assert (found["tokenizer.ggml.add_bos_token"], found["tokenizer.ggml.bos_token_id"]) == (True, 0)


def test_rows_of_the_embedding_without_a_token_get_a_name_that_no_text_has() -> None:
    wide = making.arrays(making.TINY)
    rows = len(TOKENS) + 2
    wide["token_embd.weight"] = np.vstack([wide["token_embd.weight"], np.zeros((2, TINY.width), np.float32)])
    found = convert(folder({"config.json": config(vocab_size=rows)}, arrays_=wide)).head.metadata
    assert found["tokenizer.ggml.tokens"][-2:] == [f"[PAD{rows - 2}]", f"[PAD{rows - 1}]"]
    assert found["tokenizer.ggml.token_type"][-2:] == [5, 5]


# ---- what is refused


def changed_header(change: Any) -> bytes:
    """model.safetensors whose table says whatever one likes."""
    data = making.safetensors_file(state(arrays()))
    length = struct.unpack_from("<Q", data)[0]
    table = json.loads(data[8 : 8 + length])
    change(table)
    head = json.dumps(table).encode()
    return struct.pack("<Q", len(head)) + head + data[8 + length :]


def with_file(data: bytes) -> bytes:
    return folder(files={"model.safetensors": data})


def told(change: Any) -> bytes:
    return with_file(changed_header(change))


def without(name: str) -> bytes:
    return folder(arrays_={key: array for key, array in arrays().items() if key != name})


NORM, EMBEDDING = "model.norm.weight", "model.embed_tokens.weight"
GOOD_FILE = making.safetensors_file(state(arrays()))
INDEX = "model.safetensors.index.json"


def configured(**changes: Any) -> bytes:
    return folder({"config.json": config(**changes)})


def tokenized(**changes: Any) -> bytes:
    return folder({"tokenizer.json": tokenizer(**changes)})


def damaged() -> bytes:
    data = bytearray(folder())
    place = data.index(arrays()["blk.0.ffn_up.weight"].tobytes()[:64])
    data[place] ^= 1
    return bytes(data)


REFUSED: dict[str, tuple[bytes, str]] = {
    "no zip": (b"GGUF" * 30, "zip_unreadable"),
    "nothing": (b"", "empty_file"),
    "a name that leaves the archive": (making.zipped({"../config.json": b"{}"}), "zip_entry_outside"),
    "a flipped bit": (damaged(), "zip_entry_damaged"),
    "no config": (folder({"config.json": None}), "file_missing"),
    "no tokenizer": (folder({"tokenizer.json": None}), "file_missing"),
    "pickled weights": (folder(files={"pytorch_model.bin": b"\x80\x04"}), "file_missing"),
    "two files without an index": (folder(files=FEW_FILES[0]), "file_missing"),
    "an index that names what is missing": (
        folder({INDEX: {"weight_map": {NORM: "model-2.safetensors"}}}),
        "file_missing",
    ),
    "an index that disagrees": (
        folder({INDEX: {"weight_map": dict.fromkeys(FEW_FILES[1]["weight_map"], min(FEW_FILES[0]))}}, FEW_FILES[0]),
        "document_invalid",
    ),
    "an index of nothing": (folder({INDEX: {"weight_map": {}}}), "document_invalid"),
    "config that is no JSON": (folder({"config.json": "{"}), "document_invalid"),
    "config that is a list": (folder({"config.json": "[]"}), "document_invalid"),
    "config nested without end": (folder({"config.json": "[" * 100_000}), "document_invalid"),
    "config with half a letter": (folder({"config.json": '{"x": "\\ud800"}'}), "document_invalid"),
    "another architecture": (configured(architectures=["MixtralForCausalLM"]), "architecture_unknown"),
    "two architectures": (configured(architectures=["LlamaForCausalLM", "X"]), "architecture_unknown"),
    "a bias": (configured(attention_bias=True), "config_unsupported"),
    "another activation": (configured(hidden_act="gelu"), "config_unsupported"),
    "quantised weights": (configured(quantization_config={"bits": 4}), "config_unsupported"),
    "experts": (configured(num_local_experts=8), "config_unsupported"),
    "rope scaled by yarn": (configured(rope_scaling={"rope_type": "yarn", "factor": 4.0}), "rope_scaling_unknown"),
    "rope scaled by half the numbers": (configured(rope_scaling={"rope_type": "llama3"}), "config_invalid"),
    "rope scaled by nonsense": (
        configured(
            rope_scaling={
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 4.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        ),
        "config_unsupported",
    ),
    "a number that is text": (configured(hidden_size="64"), "config_invalid"),
    "a number that is missing": (configured(intermediate_size=...), "config_invalid"),
    "a number below nothing": (configured(num_hidden_layers=-1), "config_invalid"),
    "epsilon without end": (folder({"config.json": json.dumps(config(rms_norm_eps=float("inf")))}), "config_invalid"),
    "epsilon of 400 digits": (configured(rms_norm_eps=10**400), "config_invalid"),
    "heads of nothing": (configured(num_attention_heads=0), "hyperparameters"),
    "more blocks than weights": (configured(num_hidden_layers=3), "tensor_missing"),
    "fewer blocks than weights": (configured(num_hidden_layers=1), "tensor_shape"),
    "another width": (configured(intermediate_size=128), "tensor_shape"),
    "a weight too few": (without("blk.1.ffn_down.weight"), "tensor_missing"),
    "a weight too many": (told(lambda table: table.update(extra=table.pop(NORM))), "tensor_unknown"),
    "weights that are no numbers": (
        folder(arrays_=arrays() | {"blk.0.ffn_up.weight": np.full((96, 64), np.nan, np.float32)}),
        "weights_not_finite",
    ),
    "halves that are no numbers": (
        folder(arrays_=arrays() | {"blk.0.ffn_up.weight": np.full((96, 64), np.inf, np.float32)}, type="BF16"),
        "weights_not_finite",
    ),
    "weights of whole numbers": (told(lambda table: table[NORM].update(dtype="I32")), "safetensors_type"),
    "weights of eight bits": (told(lambda table: table[NORM].update(dtype="F8_E4M3", shape=[256])), "safetensors_type"),
    "a table that is cut": (with_file(GOOD_FILE[:100]), "safetensors_lying_size"),
    "a table longer than the file": (with_file(struct.pack("<Q", 2**62) + b"{}"), "safetensors_lying_size"),
    "a file of three bytes": (with_file(b"abc"), "safetensors_truncated"),
    "a table that is no JSON": (with_file(struct.pack("<Q", 4) + b"{{}}"), "safetensors_unreadable"),
    "a table that is a list": (with_file(struct.pack("<Q", 2) + b"[]"), "safetensors_unreadable"),
    "a name twice in a table": (
        with_file(struct.pack("<Q", 17) + b'{"a": {},"a": {}}'),
        "safetensors_unreadable",
    ),
    "weights that are cut": (with_file(GOOD_FILE[:-4]), "safetensors_layout"),
    "bytes behind the weights": (with_file(GOOD_FILE + b"more"), "safetensors_layout"),
    "a weight beyond the file": (
        told(lambda table: table[NORM].update(data_offsets=[2**40, 2**40 + 256])),
        "safetensors_layout",
    ),
    "weights over each other": (
        told(lambda table: table[NORM].update(data_offsets=[0, 256])),
        "safetensors_layout",
    ),
    "a weight shorter than its shape": (
        told(lambda table: table[NORM].update(shape=[65])),
        "safetensors_lying_size",
    ),
    "a shape that is text": (told(lambda table: table[NORM].update(shape="64")), "safetensors_shape"),
    "a shape of nothing": (told(lambda table: table[NORM].update(shape=[64, 0])), "safetensors_shape"),
    "a weight without a place": (told(lambda table: table[NORM].pop("data_offsets")), "safetensors_unreadable"),
    "pieces of words": (tokenized(model={"type": "Unigram"}), "tokenizer_unknown"),
    "a normaliser": (tokenized(normalizer={"type": "NFC"}), "tokenizer_unknown"),
    "bytes spelled out": (tokenized(model={"byte_fallback": True}), "tokenizer_unknown"),
    "an expression of one's own": (
        tokenized(
            pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a*)*b"}, "behavior": "Isolated", "invert": False}
        ),
        "tokenizer_unknown",
    ),
    "no way of splitting": (tokenized(pre_tokenizer=None), "tokenizer_unknown"),
    "a token that eats the spaces around it": (
        tokenized(added_tokens=[{"id": 0, "content": "<|endoftext|>", "special": True, "lstrip": True}]),
        "tokenizer_unknown",
    ),
    "an unknown end of the line": (tokenized(post_processor={"type": "RobertaProcessing"}), "tokenizer_unknown"),
    "a token around a text that is none": (
        tokenized(
            post_processor={
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        ),
        "document_invalid",
    ),
    "a token beyond the embedding": (
        tokenized(added_tokens=[{"id": 10**9, "content": "<x>", "special": True}]),
        "vocabulary",
    ),
    "a token without an id": (tokenized(added_tokens=[{"content": "<x>"}]), "document_invalid"),
    "no vocabulary": (tokenized(model={"vocab": None}), "document_invalid"),
    "no merges": (tokenized(model={"merges": None}), "document_invalid"),
    "a merge of three": (tokenized(model={"merges": [["a", "b", "c"]]}), "document_invalid"),
    "a merge into nothing": (tokenized(model={"merges": [["x", "q"]]}), "document_invalid"),
    "no end": (
        folder({"config.json": config(eos_token_id=None), "tokenizer_config.json": None}),
        "vocabulary",
    ),
    "an end beyond the vocabulary": (
        folder({"config.json": config(eos_token_id=10**6), "tokenizer_config.json": None}),
        "vocabulary",
    ),
    "a template that is a number": (
        folder({"tokenizer_config.json": {"eos_token": "<|im_end|>", "chat_template": 7}}),
        "document_invalid",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_folder_that_cannot_be_served_is_refused_with_code_and_remedy(case: str) -> None:
    data, code = REFUSED[case]
    assert refusal(lambda: checked(convert(data))).code == code


def checked(found: Converted) -> None:
    """What take_in looks at next: the head that was written."""
    vocabulary.read(found.head.fields)
    structure.check(found.head, len(found.head.metadata["tokenizer.ggml.tokens"]))


def test_a_refusal_names_the_file_the_key_and_the_tensor() -> None:
    def said(case: str) -> str:
        return refusal(lambda: checked(convert(REFUSED[case][0]))).message

    assert "MixtralForCausalLM" in said("another architecture")
    assert "attention_bias = 'True'" in said("a bias")
    assert "'model.norm.weight' is stored as F8_E4M3" in said("weights of eight bits")
    assert "'yarn'" in said("rope scaled by yarn")
    assert "'NFC'" in said("a normaliser")


@settings(max_examples=examples(60))
@given(
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.integers(0, len(GOOD_FILE))),
)
def test_a_changed_or_cut_file_of_weights_is_converted_or_refused_and_nothing_else(
    changes: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(GOOD_FILE)
    for place, value in changes:
        data[place] = value
    said: ImportRefused | None = None
    try:
        assert len(convert(with_file(bytes(data[:cut]))).head.tensors) == len(arrays())
    except ImportRefused as problem:
        said = problem
    assert said is None or said.hint


GOOD_TOKENIZER = json.dumps(tokenizer(), ensure_ascii=False)


@settings(max_examples=examples(60))
@given(
    place=st.integers(0, len(GOOD_TOKENIZER) - 1),
    new=st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    gone=st.integers(0, 30),
)
def test_a_changed_tokenizer_is_read_or_refused_and_nothing_else(place: int, new: str, gone: int) -> None:
    changed = GOOD_TOKENIZER[:place] + new + GOOD_TOKENIZER[place + gone :]
    said: ImportRefused | None = None
    try:
        convert(folder({"tokenizer.json": changed}))
    except ImportRefused as problem:
        said = problem
    assert said is None or said.hint
