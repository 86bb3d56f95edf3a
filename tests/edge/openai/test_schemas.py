"""Schemas from callers: bounded in size, depth and references before an engine compiles them."""

from __future__ import annotations

from typing import Any

import pytest

from strongroom.openai import requests, schemas
from strongroom.openai.chat import ChatRequest
from tests.edge.openai import asked
from tests.edge.openai.asked import chat, schema, tool

TREE = {
    "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {}]}}}},
    "$ref": "#/$defs/node",
}


def refused(definition: Any) -> str:
    error = asked.refused(ChatRequest, schema(definition))
    assert (error["param"], error["code"]) == ("response_format.json_schema.schema", "invalid_json_schema")
    return str(error["message"]).removeprefix("response_format.json_schema.schema ")


def deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(levels - 1):
        found = {"not": found}
    return found


@pytest.mark.parametrize(
    "definition",
    [
        {},
        TREE,
        {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}},
        {"properties": {"$ref": {"type": "string"}}},  # a property of that name
        {"$defs": {"a/b~c": {}}, "anyOf": [{"$ref": "#/$defs/a~1b~0c"}, {"$ref": "#/anyOf/2"}, {"type": "null"}]},
        {"$defs": {"a": {}, "b": {"$ref": "#/$defs/a"}}, "allOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/a"}]},
    ],
)
def test_a_schema_that_ends_is_taken_as_it_is(definition: dict[str, Any]) -> None:
    found = requests.read(ChatRequest, schema(definition)).response_format
    assert found is not None
    assert found.json_schema is not None
    assert found.json_schema.definition == definition


@pytest.mark.parametrize(
    "definition",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{}, {"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
        {"properties": {"x": {"$defs": {"y": {"not": {"$ref": "#/properties/x"}}}, "$ref": "#/properties/x/$defs/y"}}},
        {"$defs": {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(99)} | {"a99": {}}, "$ref": "#/$defs/a0"},
    ],
)
def test_a_schema_that_leads_back_to_itself_without_reading_anything_is_refused(definition: dict[str, Any]) -> None:
    assert "without a value being read between" in refused(definition)


def test_references_that_double_at_each_step_are_refused() -> None:
    steps: dict[str, Any] = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(30)}
    said = refused({"$defs": steps | {"a30": {}}, "$ref": "#/$defs/a0"})
    assert said == "must not unfold into more than 10000 schemas of one value"


def test_the_depth_is_bounded() -> None:
    requests.read(ChatRequest, schema(deep(32)))
    assert refused(deep(33)) == "must be nested at most 32 deep"
    assert "nested at most 32 deep" in refused(deep(5000))


def test_the_size_is_bounded_and_both_numbers_are_told() -> None:
    requests.read(ChatRequest, schema({"description": "x" * 65_000}))
    assert refused({"description": "x" * 65_536}) == "must have at most 65536 bytes as JSON, has 65554"
    assert refused({"enum": [[]] * 10_000}) == "must have at most 4096 objects and lists"
    assert "at most 256 references, has 257" in refused({"oneOf": [{"$ref": "#/$defs/a"}] * 257, "$defs": {"a": {}}})


@pytest.mark.parametrize(
    "reference",
    ["https://example.com/schema.json", "other.json#/a", "file:///etc/passwd", "#/$defs/none", "#/enum/0", "#/enum/9"],
)
def test_a_reference_that_leads_out_or_nowhere_is_refused(reference: str) -> None:
    said = refused({"anyOf": [{"$ref": reference}], "enum": [1]})
    assert repr(reference) in said
    assert "leads nowhere" in said or "nothing is fetched, put it under $defs" in said


def test_references_that_depend_on_where_they_are_read_are_refused() -> None:
    assert refused({"items": {"$dynamicRef": "#x"}}) == "must not have a $dynamicRef, use $ref"


def test_the_parameters_of_a_tool_are_bounded_alike() -> None:
    error = asked.refused(ChatRequest, chat(tools=[tool(parameters={"$ref": "#"})]))
    assert (error["param"], error["code"]) == ("tools[0].function.parameters", "invalid_json_schema")


def test_a_schema_is_looked_at_no_further_than_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500,000 distinct alternatives none is visited; of 8,000 that all refer on, each is weighed once."""
    visited = 0
    beside = schemas._beside

    def counted(root: Any, node: Any) -> Any:
        nonlocal visited
        visited += 1
        return beside(root, node)

    monkeypatch.setattr(schemas, "_beside", counted)
    refused({"anyOf": [{"n": number} for number in range(500_000)]})
    assert visited == 0
    wide: dict[str, Any] = {"anyOf": [{} for _ in range(4000)]}
    references = [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]
    requests.read(ChatRequest, schema({"$defs": {"a": wide}, "oneOf": references}))
    assert visited == 4003
