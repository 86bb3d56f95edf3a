"""`safetensors-zip`: the folder of a BERT encoder, as transformers and sentence-transformers save it → a bundle.

    imported = take_in(file, threads=2)     # a graph of ours, its weights, a tokenizer written anew, a card

The weights are read in a stream, tensor by tensor, into the memory that they are tried and sealed from. The graph is
tried on real text against the same encoder in plain PyTorch before it is handed out. Knows no jobs and no keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.archive import shown
from training.data.source import Source
from training.errors import ImportRefused, ParityFailed
from training.importing import bert, bert_graph, probe, sentences, wordpiece
from training.importing.adopt import adopt
from training.importing.bert import Config
from training.importing.bundle import Imported, Parts
from training.importing.folder import Folder, Json
from training.importing.structure import check, weights_sha256
from training.importing.weights import Weights
from training.safetensors import Stored, read_table, wanted

Array = NDArray[Any]
TOLERANCE = 1e-4  # between vectors of length 1
_FILE = "model.safetensors"
_BESIDE = ("pooler.", "cls.")  # what the vectors do not depend on
_FLOATS: Mapping[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
# Of several lengths, scripts and signs, so that padding, unknown words and pieces of words all occur.
TEXTS = (
    "A bank's strongroom for models: what is deposited there is used, and never leaves.",
    "Hello.",
    "The quick brown fox jumps over the lazy dog, while 42 engineers from Zürich measured 3.14159 °C at 07:30.",
    "机器学习 モデル модель نموذج",
    "Antidisestablishmentarianism is a long word; https://example.org/a?b=c is none.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it "
    "was the epoch of belief, it was the epoch of incredulity, it was the season of Light.",
)


def take_in(file: Source, *, threads: int) -> Imported:
    """The encoder of the zip; ImportRefused, DataRefused or ParityFailed where it cannot be served."""
    folder = Folder(file)
    pooling = sentences.pooling(folder)
    config = Config.read(folder.document("config.json"))
    tokenizer = wordpiece.rewritten(folder.content("tokenizer.json", wordpiece.MOST_BYTES), config.words)
    card = sentences.card(folder, config, pooling, tokenizer)
    weights, arrays = _weights(folder, config)
    places = dict(zip(arrays, weights.places, strict=True))
    model = check(bert_graph.graph(config, pooling, places).SerializeToString(), with_files=True)
    served, signature = adopt(model, task="embedding", classes=None, threads=threads, weights=weights)
    inputs = _tokens(tokenizer.content, card)
    _prove(_answers(served, weights, inputs, threads), _expected(config, card, arrays, inputs))
    return Imported(
        parts=Parts(served, weights.view, tokenizer.content, json.dumps(card).encode()),
        signature=signature,
        parameters=config.parameters(),
        weights_sha256=weights_sha256(model, weights),
        card=card,
    )


def _weights(folder: Folder, config: Config) -> tuple[Weights, dict[str, Array]]:
    """Every tensor in FP32 as the graph wants it: what multiplies from the right transposed, the type's vector added to
    the positions', since one text has one type."""
    shapes = config.shapes()
    entry = folder.entry(_FILE)
    with folder.archive.open(entry) as stream:
        stored = read_table(stream, entry.file_size, _FILE)
        names = _named(stored, shapes)  # before any room is made for what the file may not hold
        weights, arrays = _room({name: shape for name, shape in shapes.items() if name != bert.TYPES})
        for tensor, content in wanted(stream, stored, lambda tensor: tensor.name in names, _FILE):
            name, values = names[tensor.name], _numbers(tensor, content)
            if name == bert.TYPES:
                first_type = values[0].copy()
            else:
                arrays[name][...] = values.T if bert.is_linear(name) else values
    arrays[bert.POSITIONS] += first_type
    return weights, arrays


def _room(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Weights, dict[str, Array]]:
    weights = Weights([4 * math.prod(shape) for shape in shapes.values()])
    arrays = {
        name: np.frombuffer(weights.at(place), "<f4").reshape(shape[::-1] if bert.is_linear(name) else shape)
        for (name, shape), place in zip(shapes.items(), weights.places, strict=True)
    }
    return weights, arrays


def _named(stored: Sequence[Stored], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The graph's name of each tensor that it needs, by the file's: all are there, none twice, each of its shape."""
    names: dict[str, str] = {}
    for tensor in stored:
        name = tensor.name.removeprefix("bert.")
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
        if name.startswith(_BESIDE) or name.endswith("position_ids"):
            continue
        if name not in shapes or tensor.dtype not in _FLOATS or tensor.shape != shapes[name] or name in names.values():
            raise _refused(
                f"tensor {shown(tensor.name)} of {tensor.dtype} {list(tensor.shape)} does not fit", shapes, name
            )
        names[tensor.name] = name
    for name in shapes.keys() - names.values():
        raise _refused(f"tensor {shown(name)} is missing", shapes, name)
    return names


def _refused(problem: str, shapes: Mapping[str, tuple[int, ...]], name: str) -> ImportRefused:
    wanted = f"config.json asks for {list(shapes[name])}" if name in shapes else "config.json asks for no such tensor"
    return ImportRefused(problem, f"{wanted}, once, in {', '.join(_FLOATS)}", code="encoder_weights")


def _numbers(tensor: Stored, content: bytearray) -> Array:
    values: Array = np.frombuffer(content, _FLOATS[tensor.dtype]).reshape(tensor.shape)
    if tensor.dtype == "BF16":
        values = (values.astype("<u4") << 16).view("<f4")  # BF16 is the upper half of FP32
    if not np.isfinite(values).all():
        raise ImportRefused(
            f"tensor {shown(tensor.name)} holds numbers that are not finite", "save it again", code="encoder_weights"
        )
    return values


def _tokens(tokenizer: bytes, card: Json) -> dict[str, Array]:
    """The texts as the graph takes them, in one batch."""
    try:
        import tokenizers
    except ImportError:
        raise ImportRefused(
            "this node cannot read tokenizers", "install the extra `language` (make language)", code="extra_missing"
        ) from None
    try:
        library = tokenizers.Tokenizer.from_str(tokenizer.decode())
        rows = [library.encode(text).ids[: card["max_tokens"]] for text in TEXTS]
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as problem:  # the package raises bare Exception, and Rust's panics as a BaseException
        raise wordpiece.refused(probe.brief(problem)) from None
    ids = np.full((len(rows), max(map(len, rows))), card["pad_token"], dtype=np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return dict(zip(bert_graph.INPUTS, (ids, mask), strict=True))


def _answers(served: bytes, weights: Weights, inputs: Mapping[str, Array], threads: int) -> Array:
    session = probe.opened(served, threads, weights)
    answers: Array = session.run([bert_graph.OUTPUT], dict(inputs))[0]
    return answers


def _expected(config: Config, card: Json, arrays: Mapping[str, Array], inputs: Mapping[str, Array]) -> Array:
    import torch

    from training.importing import bert_reference

    tensors = {name: torch.from_numpy(values.T if bert.is_linear(name) else values) for name, values in arrays.items()}
    ids, mask = (torch.from_numpy(inputs[name]) for name in bert_graph.INPUTS)
    expected: Array = bert_reference.embed(tensors, config, card["pooling"], ids, mask).numpy()
    return expected


def _prove(answers: Array, expected: Array) -> None:
    difference = np.abs(answers - expected).max()
    if not difference <= TOLERANCE:  # NaN is not within any tolerance
        raise ParityFailed(
            f"the graph's vectors differ by {difference:.3g} from PyTorch's", "export the model to ONNX and import that"
        )
