"""What sentence-transformers writes beside an encoder: modules in a row, how tokens become one vector, a text's length.

Of all that only what the graph has inside is taken; the rest is refused by its name.
"""

from __future__ import annotations

import posixpath
from typing import Any

from training.data.archive import shown
from training.errors import ImportRefused
from training.importing.bert import Config, Pooling
from training.importing.folder import Folder, Json, invalid
from training.importing.wordpiece import Rewritten

MODULES = ("Transformer", "Pooling", "Normalize")
_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}  # as it was written before version 6
_SHORTEST = 3  # one token between the two special ones


def pooling(folder: Folder) -> Pooling:
    """Without a word about it the mean, as sentence-transformers do. The folder is entered on the way."""
    transformer, behind = _modules(folder)
    folder.enter(transformer)
    said = folder.optional(posixpath.join(behind, "config.json"))
    if said is None:
        return "mean"
    if not isinstance(said, dict):
        raise invalid("the pooling's config.json", "is no JSON object")
    mode = said.get("pooling_mode", _older_mode(said))
    if mode not in ("mean", "cls"):
        raise ImportRefused(
            f"the pooling {shown(str(mode))} is not served",
            "mean and cls are; export the whole model to ONNX and import that",
            code="encoder_pooling",
        )
    return mode  # type: ignore[no-any-return]  # looked at just above


def _older_mode(said: Json) -> str:
    return "+".join(_MODES.get(key, key) for key, on in said.items() if key.startswith("pooling_mode_") and on is True)


def _modules(folder: Folder) -> tuple[str, str]:
    """The folders of the transformer and of the pooling."""
    listed = folder.optional("modules.json")
    if listed is None:
        return "", "1_Pooling"
    if not isinstance(listed, list) or len(listed) > 16:
        raise invalid("modules.json", "is no list of modules")
    modules = [_module(entry) for entry in listed]
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ImportRefused(
            f"the modules {shown(', '.join(kinds))} are not served in this order",
            f"{', '.join(MODULES)} are; export the whole model to ONNX and import that",
            code="encoder_module",
        )
    return modules[0][1], modules[1][1]


def _module(entry: Any) -> tuple[str, str]:
    kind, path = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(path, str):
        raise invalid("modules.json", "names a module without type and path")
    return kind.rpartition(".")[2], path


def card(folder: Folder, config: Config, mode: Pooling, tokenizer: Rewritten) -> Json:
    """docs/formats/bundle.md says what stands in it."""
    said = folder.optional("sentence_bert_config.json")
    of_sentences = said if isinstance(said, dict) else {}
    if of_sentences.get("do_lower_case") and not tokenizer.lowercases:
        raise invalid("sentence_bert_config.json", "lowers the case of texts, tokenizer.json does not")
    tokens = _most_tokens(folder, of_sentences, config)
    if tokens < _SHORTEST:
        raise invalid("sentence_bert_config.json", f"allows {tokens} tokens")
    return {
        "kind": "text_encoder",
        "width": config.width,
        "max_tokens": tokens,
        "pooling": mode,
        "normalized": True,
        "pad_token": tokenizer.pad,
    }


def _most_tokens(folder: Folder, of_sentences: Json, config: Config) -> int:
    said = folder.optional("tokenizer_config.json")
    of_tokens = said if isinstance(said, dict) else {}
    found = (of_sentences.get("max_seq_length"), of_tokens.get("model_max_length"))
    return min(next((most for most in found if type(most) is int), config.positions), config.positions)
