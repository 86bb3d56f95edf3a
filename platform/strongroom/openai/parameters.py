"""Which parameters of OpenAI's are refused by name, and why: nothing that was asked for is ignored in silence.

A refused parameter may stand in a request as null, or with a value that asks for nothing (`store: false`). What has no
effect by its nature and is accepted, is a field of requests.py; what stands nowhere is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a parameter is not supported, and the values of it that ask for nothing."""

    why: str
    harmless: tuple[object, ...] = ()

    def allows(self, value: object) -> bool:
        """Whether `value` asks for nothing: equal and of the same type, since 0 is not false."""
        return value is None or any(type(value) is type(one) and value == one for one in self.harmless)


Table = dict[str, Refused]

STORE = Refused("nothing of prompts and answers is kept; keep them on your side", (False,))
REASONING = Refused("the models served here have no reasoning effort to set")
TIER_OF_CACHE = "prompts are cached in memory only, for as long as there is room"
MODERATION = Refused("no moderation runs beside a model; deploy a classifier and call it")

EVERY: Table = {
    "store": STORE,
    "moderation": MODERATION,
    "prompt_cache_options": Refused(TIER_OF_CACHE),
    "prompt_cache_retention": Refused(TIER_OF_CACHE, ("in_memory",)),
}

CHAT: Table = EVERY | {
    "audio": Refused("the models served here answer in text only"),
    "modalities": Refused("the models served here answer in text only", (["text"],)),
    "prediction": Refused("an answer is not predicted from a given text"),
    "reasoning_effort": REASONING,
    "verbosity": Refused("the models served here have no verbosity to set; say it in the messages"),
    "web_search_options": Refused("nothing is searched on the web: the cells have no network"),
    "functions": Refused("functions are deprecated; use 'tools'"),
    "function_call": Refused("functions are deprecated; use 'tool_choice'"),
}

COMPLETIONS: Table = EVERY | {
    "suffix": Refused("text is not filled in between a prompt and a suffix", ("",)),
    "best_of": Refused("the best of several completions is not chosen; ask for 'n' and choose", (1,)),
}

EMBEDDINGS: Table = {}

RESPONSES: Table = EVERY | {
    "previous_response_id": Refused("no response is kept; send the earlier items in 'input'"),
    "conversation": Refused("no conversation is kept; send the earlier items in 'input'"),
    "background": Refused("a response is not kept, so it cannot be fetched later; use a batch", (False,)),
    "background_options": Refused("a response is not kept, so it cannot be fetched later; use a batch"),
    "include": Refused("there is nothing more to include in a response", ([],)),
    "reasoning": REASONING,
    "prompt": Refused("no prompt templates are kept; send 'instructions' and 'input'"),
    "truncation": Refused("no item is dropped in silence: shorten 'input'", ("disabled",)),
    "context_management": Refused("no item is dropped or summed up in silence: shorten 'input'", ([],)),
    "max_tool_calls": Refused("there are no built-in tools whose calls could be counted"),
    "top_logprobs": Refused("log-probabilities are answered by /v1/chat/completions only", (0,)),
    "image": Refused("images are not taken"),
    "access_programs": Refused("there are no access programs here"),
}

_SPLIT = "a tenth of the training file validates; POST /api/v1/jobs takes another share"
TUNING: Table = {
    "validation_file": Refused(f"rows of another file do not validate: {_SPLIT}"),
    "integrations": Refused("nothing leaves the platform while it learns; read the job's events", ([],)),
}
METHOD: Table = {"reinforcement": Refused("there is no grader to learn from; use 'supervised' or 'dpo'")}

MESSAGE: Table = {
    "audio": Refused("the models served here have no audio"),
    "function_call": Refused("functions are deprecated; use 'tool_calls'"),
}
TEXT: Table = {"verbosity": Refused("the models served here have no verbosity to set; say it in 'instructions'")}
STREAM: Table = {"include_obfuscation": Refused("the events of a response are not padded", (False,))}

PARTS: Mapping[str, str] = {
    "image_url": "images are not taken",
    "input_image": "images are not taken",
    "input_audio": "audio is not taken",
    "file": "files are not taken in messages; send their text",
    "input_file": "files are not taken in messages; send their text",
}
