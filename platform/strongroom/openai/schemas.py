"""JSON schemas of callers, bounded before anything compiles them: size, depth, references.

Whether the engine knows each keyword is the cell's to say; here is only what could cost without end. A schema may refer
to itself (a tree of nodes does), as long as a value is read between: `{"$ref": "#"}` alone reads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from strongroom.openai.problems import refusal, shown

MOST_BYTES = 64 * 1024
MOST_DEPTH = 32
MOST_NODES = 4096  # objects and lists
MOST_REFERENCES = 256
MOST_HOPS = 64
MOST_EXPANDED = 10_000  # schemas that apply to one value, through references and alternatives
REMOTE = ("$dynamicRef", "$recursiveRef")
ALTERNATIVES = ("allOf", "anyOf", "oneOf")
BRANCHES = ("not", "if", "then", "else")
Schema = dict[str, Any]


def check(given: Any) -> Schema:
    """The schema as it was given, or a refusal."""
    if type(given) is not dict:
        raise refusal("invalid_type", f"must be an object, is {shown(given)}")
    try:
        size = len(orjson.dumps(given))
    except TypeError:  # orjson writes no more than 254 levels, and no number over 64 bits
        raise refusal("invalid_json_schema", f"must be JSON, nested at most {MOST_DEPTH} deep") from None
    if size > MOST_BYTES:
        raise refusal("invalid_json_schema", f"must have at most {MOST_BYTES} bytes as JSON, has {size}")
    referring = _walk(given)
    if len(referring) > MOST_REFERENCES:
        raise refusal("invalid_json_schema", f"must have at most {MOST_REFERENCES} references, has {len(referring)}")
    known: dict[int, int] = {}
    for node in referring:
        _weight(given, node, known)
    return given


def _walk(schema: Schema) -> list[Schema]:
    """The nodes that refer to others."""
    referring: list[Schema] = []
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    seen = 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if depth > MOST_DEPTH:
            raise refusal("invalid_json_schema", f"must be nested at most {MOST_DEPTH} deep")
        if seen > MOST_NODES:
            raise refusal("invalid_json_schema", f"must have at most {MOST_NODES} objects and lists")
        if type(node) is dict:
            _check_references(node)
            if type(node.get("$ref")) is str:
                referring.append(node)
            node = node.values()
        waiting.extend([(value, depth + 1) for value in node if type(value) in (dict, list)])
    return referring


def _check_references(node: Schema) -> None:
    for name in REMOTE:
        if type(node.get(name)) is str:
            raise refusal("invalid_json_schema", f"must not have a {name}", hint="use $ref")


def _weight(root: Schema, node: Schema, known: dict[int, int], hops: int = 0) -> int:
    """How many schemas apply to the very value that `node` applies to; refuses what has no end, or fans out."""
    if id(node) not in known:
        if hops > MOST_HOPS:
            said = f"has a reference that leads back to itself, or on through {MOST_HOPS} schemas"
            raise refusal("invalid_json_schema", f"{said}, without a value being read between")
        known[id(node)] = 1 + sum(_weight(root, one, known, hops + 1) for one in _beside(root, node))
        if known[id(node)] > MOST_EXPANDED:
            raise refusal("invalid_json_schema", f"must not unfold into more than {MOST_EXPANDED} schemas of one value")
    return known[id(node)]


def _beside(root: Schema, node: Schema) -> Iterator[Schema]:
    """The schemas that apply to the very value that `node` applies to."""
    if type(node.get("$ref")) is str:
        yield _resolved(root, node["$ref"])
    for name in ALTERNATIVES:
        alternatives = node.get(name)
        if type(alternatives) is list:
            yield from (one for one in alternatives if type(one) is dict)
    for name in BRANCHES:
        if type(node.get(name)) is dict:
            yield node[name]


def _resolved(root: Schema, reference: str) -> Schema:
    if not reference.startswith("#"):
        said = f"has the reference {shown(reference)}, which is not in the schema itself: nothing is fetched"
        raise refusal("invalid_json_schema", said, hint="put it under $defs and refer to '#/$defs/…'")
    found: Any = root
    for key in reference.removeprefix("#").split("/")[1:]:
        name = key.replace("~1", "/").replace("~0", "~")
        if type(found) is list and name.isascii() and name.isdigit() and len(name) < 6 and int(name) < len(found):
            found = found[int(name)]
        else:
            found = found.get(name) if type(found) is dict else None
    if type(found) is not dict:
        raise refusal("invalid_json_schema", f"has the reference {shown(reference)}, which leads nowhere")
    return found
