"""A JSON schema without what it only does not forbid: objects hold the properties that it names, and no others.

Where a schema says nothing of additional properties any name may follow, and a small model goes on making them up until
its tokens end. Whatever fits the closed schema fits the given one. One that puts schemas together (allOf, or properties
beside anyOf) may mean properties that another part names, and is left as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

TOGETHER: Final = frozenset(
    {"allOf", "not", "if", "then", "else", "dependentSchemas", "unevaluatedProperties", "$dynamicRef", "$recursiveRef"}
)
BESIDE: Final = frozenset({"anyOf", "oneOf", "$ref"})  # puts together what stands beside it
SAID: Final = frozenset({"additionalProperties", "patternProperties", "propertyNames", "minProperties"})
MANY: Final = ("properties", "$defs", "definitions")  # schemas by name
LISTS: Final = ("anyOf", "oneOf", "prefixItems")
ONE: Final = ("items", "contains", "additionalProperties")


def closed(schema: Any) -> Any:
    """The schema that is followed in its place."""
    made = copy.deepcopy(schema)
    nodes = list(_nodes(made))
    if any(node.keys() & TOGETHER or ("properties" in node and node.keys() & BESIDE) for node in nodes):
        return schema
    for node in nodes:
        properties = node.get("properties")
        if not isinstance(properties, dict) or node.keys() & SAID:
            continue
        if set(node.get("required", ())) <= properties.keys():
            node["additionalProperties"] = False
    return made


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all that are in it."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += _inner(node)


def _inner(node: dict[str, Any]) -> list[Any]:
    found: list[Any] = [node[name] for name in ONE if name in node]
    for name in MANY:
        if isinstance(inner := node.get(name), dict):
            found += inner.values()
    for name in LISTS:
        if isinstance(inner := node.get(name), list):
            found += inner
    return found
