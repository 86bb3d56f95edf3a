"""A BERT encoder brought as a folder: its vectors are sentence-transformers' own; what is no encoder is refused."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer

from tests.sandbox.inside import inside
from tests.training.importing.encoders import CONFIG, Small, minilm, minilm_folder, safetensors, tensors
from training.errors import ImportRefused, ParityFailed
from training.importing import bert_graph, encoder
from training.importing.bundle import Imported

pytestmark = pytest.mark.slow

KNOWN = json.loads((Path(__file__).parents[2] / "vectors" / "encoder" / "minilm.json").read_text())


def opened(imported: Imported) -> tuple[onnxruntime.InferenceSession, Tokenizer]:
    parts = imported.parts
    assert parts.weights is not None
    assert parts.tokenizer is not None
    options = onnxruntime.SessionOptions()
    options.add_external_initializers_from_files_in_memory(["weights"], [parts.weights], [len(parts.weights)])
    session = onnxruntime.InferenceSession(parts.graph, options, providers=["CPUExecutionProvider"])
    return session, Tokenizer.from_str(parts.tokenizer.decode())


def vectors(imported: Imported, texts: list[str]) -> Any:
    """One text after the other, without padding."""
    session, library = opened(imported)
    rows = [np.array([library.encode(text).ids], dtype=np.int64) for text in texts]
    return np.concatenate(
        [session.run(None, {"input_ids": row, "attention_mask": np.ones_like(row)})[0] for row in rows]
    )


# ---- MiniLM


def test_minilm_answers_as_sentence_transformers_do() -> None:
    found = vectors(minilm(), KNOWN["texts"])
    np.testing.assert_allclose(found[:, :24], KNOWN["vectors"], atol=2e-6)
    np.testing.assert_allclose(found @ found.T, KNOWN["similarities"], atol=2e-5)
    assert found[0] @ found[1] > 0.7 > 0.2 > found[0] @ found[2]


def test_minilms_card_and_signature_say_what_it_takes_and_gives() -> None:
    imported = minilm()
    assert imported.card == {
        "kind": "text_encoder",
        "width": 384,
        "max_tokens": 256,
        "pooling": "mean",
        "normalized": True,
        "pad_token": 0,
    }
    assert json.loads(imported.parts.card or b"") == imported.card
    assert imported.signature == {
        "inputs": [
            {"name": "input_ids", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "attention_mask", "datatype": "INT64", "shape": [-1, -1]},
        ],
        "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}],
        "classes": None,
        "task": "embedding",
    }
    assert imported.parameters == 22_565_376


def test_minilms_tokenizer_cuts_every_text_as_the_one_that_came() -> None:
    came = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    came.no_truncation()
    came.no_padding()
    served = Tokenizer.from_str((minilm().parts.tokenizer or b"").decode())
    texts = [
        *KNOWN["texts"],
        *encoder.TEXTS,
        "[CLS] [MASK]ed [UNK]",
        "\u0000\u200b\ufffd tab\t",
        "x" * 300,
        "ＦＵＬＬ ﬁ İ",
    ]
    for text in texts:
        assert served.encode(text).ids == came.encode(text).ids, text


# ---- small ones


TEXTS = ["Hello, a strongroom.", "the banks", "a, a. a unknown"]


def test_only_operators_of_onnx_itself_are_in_the_graph() -> None:
    graph = onnx.load_from_string(Small().take_in().parts.graph)
    assert {entry.domain for entry in graph.opset_import} == {""}
    assert {node.domain for node in graph.graph.node} == {""}


def test_padding_does_not_change_a_vector() -> None:
    imported = Small().take_in()
    alone = vectors(imported, TEXTS)
    session, library = opened(imported)
    library.enable_padding(pad_id=0, length=30)
    encoded = library.encode_batch(TEXTS)
    inputs = {"input_ids": [one.ids for one in encoded], "attention_mask": [one.attention_mask for one in encoded]}
    together = session.run(None, {name: np.array(rows, dtype=np.int64) for name, rows in inputs.items()})[0]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_row_without_any_token_has_no_direction_and_harms_nobody() -> None:
    session, _ = opened(Small().take_in())
    ids = np.array([[2, 5, 3], [0, 0, 0]], dtype=np.int64)
    found = session.run(None, {"input_ids": ids, "attention_mask": np.array([[1, 1, 1], [0, 0, 0]], dtype=np.int64)})[0]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0], atol=1e-6)


def renamed(change: Callable[[str], str]) -> bytes:
    return safetensors({change(name): values for name, values in tensors().items()})


def old_names(name: str) -> str:
    return "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def beside() -> bytes:
    more = {
        "embeddings.position_ids": np.arange(64).reshape(1, 64),
        "pooler.dense.weight": np.ones((16, 16), dtype="<f4"),
        "cls.predictions.bias": np.ones(20, dtype="<f4"),
    }
    return safetensors({**tensors(), **more})


SAME: dict[str, Callable[[], Small]] = {
    "in a folder": lambda: Small(folder="encoder/"),
    "as a masked language model": lambda: Small(config=CONFIG | {"architectures": ["BertForMaskedLM"]}),
    "under the names of before": lambda: Small(weights=renamed(old_names)),
    "with what is not needed": lambda: Small(weights=beside()),
    "in FP16": lambda: Small(weights=safetensors(tensors(), dtype="F16")),
    "in BF16": lambda: Small(weights=safetensors(tensors(), dtype="BF16")),
    "in another order": lambda: Small(weights=safetensors(dict(reversed(tensors().items())))),
    "without modules and pooling": lambda: Small(without=("modules.json", "1_Pooling/config.json")),
    "without Normalize": lambda: Small(modules=Small().modules[:2]),
    "with the pooling of version 6": lambda: Small(pooling={"embedding_dimension": 16, "pooling_mode": "mean"}),
    "with an older tokenizer": lambda: Small(tokenizer=older_tokenizer()),
}


def older_tokenizer() -> Any:
    found = Small().tokenizer
    del found["model"]["type"]
    found["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    return found


@pytest.mark.parametrize("case", SAME)
def test_the_same_encoder_is_taken_in_however_it_was_saved(case: str) -> None:
    plain, other = Small().take_in(), SAME[case]().take_in()
    assert other.weights_sha256 == plain.weights_sha256
    np.testing.assert_array_equal(vectors(other, TEXTS), vectors(plain, TEXTS))


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "relu"])
def test_every_activation_is_pytorchs(activation: str) -> None:
    plain, other = Small().take_in(), Small(config=CONFIG | {"hidden_act": activation}).take_in()
    assert np.abs(vectors(other, TEXTS) - vectors(plain, TEXTS)).max() > 1e-6


def test_the_first_token_speaks_for_the_text_where_the_pooling_says_so() -> None:
    imported = Small(pooling={"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}).take_in()
    assert imported.card is not None
    assert imported.card["pooling"] == "cls"
    assert np.abs(vectors(imported, TEXTS) - vectors(Small().take_in(), TEXTS)).max() > 1e-3


def test_a_transformer_in_a_folder_of_its_own_is_found() -> None:
    small = Small(modules=[dict(one) for one in Small().modules])
    small.modules[0]["path"] = "0_Transformer"
    inner = Small().zip()
    files = {}
    with zipfile.ZipFile(inner) as came:
        for name in ("config.json", "tokenizer.json", "model.safetensors", "sentence_bert_config.json"):
            files[f"0_Transformer/{name}"] = came.read(name)
    small.more, small.without = (
        files,
        ("config.json", "tokenizer.json", "model.safetensors", "sentence_bert_config.json"),
    )
    assert small.take_in().weights_sha256 == Small().take_in().weights_sha256


@pytest.mark.parametrize(
    ("lengths", "tokens"),
    [({"max_seq_length": 32}, 32), ({"max_seq_length": 1000}, 64), ({"max_seq_length": None}, 24), ([], 24)],
)
def test_a_text_may_be_as_long_as_the_folder_says_and_the_positions_reach(lengths: Any, tokens: int) -> None:
    card = Small(lengths=lengths, more={"tokenizer_config.json": b'{"model_max_length": 24}'}).take_in().card
    assert card is not None
    assert card["max_tokens"] == tokens


def test_a_graph_that_answers_otherwise_than_pytorch_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bert_graph, "_ACTIVATIONS", {"gelu": ("Gelu", {"approximate": "tanh"})})
    monkeypatch.setattr(encoder, "TOLERANCE", 1e-7)
    with pytest.raises(ParityFailed, match="differ by"):
        Small().take_in()


def test_an_encoder_is_taken_in_inside_a_jobs_walls() -> None:
    def take_in() -> list[object]:
        import os

        from training.importing import encoder

        with open(os.dup(4), "rb", buffering=0) as file:
            imported = encoder.take_in(file, threads=2)
        return [imported.weights_sha256, imported.card]

    descriptor = os.memfd_create("upload")
    try:
        os.write(descriptor, Small().zip().getvalue())
        answer = inside(take_in, descriptors=[descriptor], memory_bytes=1 << 30)
    finally:
        os.close(descriptor)
    plain = Small().take_in()
    assert (answer.error, answer.value) == (None, [plain.weights_sha256, plain.card])


# ---- what is refused


def with_capitals() -> Any:
    found = Small().tokenizer
    found["normalizer"]["lowercase"] = False
    return found


def changed(**fields: Any) -> Callable[[], Small]:
    return lambda: Small(config={key: value for key, value in (CONFIG | fields).items() if value is not ...})


def without(*names: str) -> Callable[[], Small]:
    return lambda: Small(without=names)


def weighing(change: Callable[[dict[str, Any]], Any]) -> Callable[[], Small]:
    def made() -> Small:
        found = tensors()
        change(found)
        return Small(weights=safetensors(found))

    return made


REFUSED: dict[str, tuple[Callable[[], Small], str, str]] = {
    "RoBERTa": (changed(architectures=["RobertaModel"]), "encoder_architecture", "RobertaModel"),
    "a classifier": (
        changed(architectures=["BertForSequenceClassification"]),
        "encoder_architecture",
        "BertForSequenceClassification",
    ),
    "two architectures": (changed(architectures=["BertModel", "BertModel"]), "encoder_architecture", "BertModel"),
    "no architecture": (changed(architectures=...), "encoder_architecture", "None"),
    "an unknown activation": (changed(hidden_act="swish"), "encoder_config", "swish"),
    "relative positions": (changed(position_embedding_type="relative_key"), "encoder_config", "relative_key"),
    "a decoder": (changed(is_decoder=True), "encoder_config", "is_decoder"),
    "no layers": (changed(num_hidden_layers=0), "encoder_config", "num_hidden_layers"),
    "a million layers": (changed(num_hidden_layers=10**6), "encoder_config", "num_hidden_layers"),
    "half a head": (changed(num_attention_heads=2.5), "encoder_config", "num_attention_heads"),
    "heads that do not divide": (changed(num_attention_heads=3), "encoder_config", "multiple"),
    "a width in words": (changed(hidden_size="16"), "encoder_config", "hidden_size"),
    "an epsilon of nothing": (changed(layer_norm_eps=0), "encoder_config", "layer_norm_eps"),
    "a config that is a list": (lambda: Small(config=[]), "document_invalid", "config.json"),
    "no config": (without("config.json"), "file_missing", "config.json"),
    "no tokenizer": (without("tokenizer.json"), "file_missing", "tokenizer.json"),
    "no weights but a pickle": (without("model.safetensors"), "file_missing", "model.safetensors"),
    "a Dense module": (
        lambda: Small(
            modules=[*Small().modules[:2], {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]
        ),
        "encoder_module",
        "Dense",
    ),
    "no pooling among the modules": (lambda: Small(modules=Small().modules[:1]), "encoder_module", "Transformer"),
    "modules that are none": (lambda: Small(modules=[1]), "document_invalid", "modules.json"),
    "pooling by the largest": (
        lambda: Small(pooling={"pooling_mode_max_tokens": True}),
        "encoder_pooling",
        "pooling_mode_max_tokens",
    ),
    "two poolings": (
        lambda: Small(pooling={"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}),
        "encoder_pooling",
        "cls",
    ),
    "small letters that its tokenizer does not make": (
        lambda: Small(lengths={"do_lower_case": True}, tokenizer=with_capitals()),
        "document_invalid",
        "lowers the case",
    ),
    "a length of two": (lambda: Small(lengths={"max_seq_length": 2}), "document_invalid", "2 tokens"),
    "a tensor missing": (
        weighing(lambda found: found.pop("encoder.layer.1.output.dense.bias")),
        "encoder_weights",
        "encoder.layer.1.output.dense.bias",
    ),
    "a layer too many": (
        weighing(lambda found: found.update({"encoder.layer.2.output.dense.bias": np.ones(16, dtype="<f4")})),
        "encoder_weights",
        "encoder.layer.2",
    ),
    "a tensor of another shape": (
        weighing(lambda found: found.update({"embeddings.LayerNorm.bias": np.ones(15, dtype="<f4")})),
        "encoder_weights",
        "LayerNorm.bias",
    ),
    "a tensor twice": (
        weighing(lambda found: found.update({"bert.embeddings.LayerNorm.bias": np.ones(16, dtype="<f4")})),
        "encoder_weights",
        "LayerNorm.bias",
    ),
    "whole numbers as weights": (
        weighing(lambda found: found.update({"embeddings.LayerNorm.bias": np.ones(16, dtype="<i8")})),
        "encoder_weights",
        "I64",
    ),
    "weights that are not finite": (
        weighing(lambda found: found["embeddings.LayerNorm.bias"].__setitem__(0, np.inf)),
        "encoder_weights",
        "finite",
    ),
    "weights beyond all numbers": (
        weighing(lambda found: found["encoder.layer.0.output.dense.weight"].__imul__(np.float32(1e38))),
        "parity_failed",
        "nan",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_encoder_that_is_served_is_refused_by_name(case: str) -> None:
    made, code, says = REFUSED[case]
    with pytest.raises((ImportRefused, ParityFailed)) as caught:
        made().take_in()
    assert caught.value.code == code
    assert says in caught.value.message
    assert caught.value.hint


def test_an_empty_zip_is_no_encoder() -> None:
    file = io.BytesIO()
    zipfile.ZipFile(file, "w").close()
    with pytest.raises(ImportRefused) as caught:
        encoder.take_in(file, threads=1)
    assert caught.value.code == "file_missing"
