"""A real model, SmolLM2-135M-Instruct: kept byte by byte, written anew, and back from a Hugging Face folder of it."""

from __future__ import annotations

import io
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest

from tests.training.language import making
from training.language import structure, vocabulary
from training.language.importing import Facts, take_in
from training.language.memory_file import MemoryFile
from training.language.structure import Hyperparameters
from training.language.trial import Trial

pytestmark = pytest.mark.slow


@cache
def original() -> bytes:
    return making.smollm2()


def hyperparameters() -> Hyperparameters:
    head = making.read(original())
    return structure.check(head, len(vocabulary.read(head.fields).tokens))


@cache
def taken(wanted: str, format: Literal["gguf", "safetensors-zip"] = "gguf") -> tuple[bytes, Facts]:
    data = original() if format == "gguf" else as_folder()
    spec = {"weights": wanted, "name": "SmolLM2"}
    write, facts = take_in(making.sealed(data), format, spec, threads=2, watch=making.watch)
    served = io.BytesIO()
    write(served)  # type: ignore[arg-type]  # a SealWriter is written to in the same way
    return served.getvalue(), facts


def as_folder() -> bytes:
    """The same model as Hugging Face keeps it: BF16, in two files, the tokenizer beside it."""
    head, found = making.read(original()), hyperparameters()
    state = making.state(making.floats(original()), found)
    names = list(state)
    first, second = (dict.fromkeys(names[part::2]) for part in (0, 1))
    files = {
        "model-00001-of-00002.safetensors": making.safetensors_file({name: state[name] for name in first}, "BF16"),
        "model-00002-of-00002.safetensors": making.safetensors_file({name: state[name] for name in second}, "BF16"),
    }
    where = {name: min(files) for name in first} | {name: max(files) for name in second}
    documents = {
        "config.json": making.config(found),
        "tokenizer.json": making.tokenizer(head.fields),
        "tokenizer_config.json": {
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "chat_template": head.metadata["tokenizer.chat_template"],
        },
        "model.safetensors.index.json": {"weight_map": where},
    }
    return making.folder(documents, files, arrays_={})


def logits(data: bytes, text: str = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n") -> Any:
    file = MemoryFile()
    file.write(data)
    with Trial(file, threads=1) as trial:
        return trial.logits(trial.tokens(text, special=True))


def test_a_model_that_is_kept_is_the_file_that_was_uploaded() -> None:
    served, facts = taken("keep")
    assert served == original()
    assert facts["card"] == {
        "architecture": "llama",
        "name": "Smollm2 135M 8k Lc100K Mix1 Ep2",
        "license": "apache-2.0",
        "parameters": 134_515_008,
        "type": "Q4_1",
        "size_bytes": 98_362_432,
        "context_length": 8192,
        "embedding_length": 576,
        "blocks": 30,
        "vocabulary": 49_152,
        "tokenizer": "smollm",
        "chat_template": True,
        "tools": False,
    }


def test_four_bits_take_less_room_and_mean_much_the_same() -> None:
    served, facts = taken("q4_0")
    assert (facts["card"]["type"], len(served)) == ("Q4_0", 91_726_912)
    one, other = logits(served)[-1], logits(original())[-1]
    assert np.corrcoef(one, other)[0, 1] > 0.85  # measured 0.91: four bits out of four other bits lose a second time


def test_sixteen_bits_mean_the_same() -> None:
    served, facts = taken("bf16")
    assert facts["card"]["type"] == "BF16"
    one, other = logits(served), logits(original())
    assert all(np.corrcoef(mine, theirs)[0, 1] > 0.995 for mine, theirs in zip(one, other, strict=True))


def test_the_folder_of_a_model_gives_the_weights_that_it_was_made_from() -> None:
    served, facts = taken("bf16", "safetensors-zip")
    direct, _ = taken("bf16")
    assert facts["card"]["parameters"] == 134_515_008
    stored, expected = making.stored(served), making.stored(direct)
    assert stored.keys() == expected.keys()
    matrices = [tensor.name for tensor in making.read(direct).tensors if structure.is_matrix(tensor)]
    assert all(stored[name] == expected[name] for name in matrices)
    for key, value in making.read(direct).metadata.items():
        if key.startswith("tokenizer.ggml.") and not key.endswith(
            ("add_space_prefix", "unknown_token_id", "padding_token_id")
        ):
            assert making.read(served).metadata[key] == value, key


def test_the_folder_of_a_model_can_be_served_in_four_bits() -> None:
    served, facts = taken("q4_0", "safetensors-zip")
    assert facts["card"]["type"] == "Q4_0"
    assert any("and the model's own" in line for line in facts["report"])
    assert np.isfinite(logits(served)).all()
