"""Constrained answers of a model that says anything: only JSON of the schema, only sentences of the grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are another package
import llguidance
import pytest

from inference.errors import InputRefused
from inference.language.closed import closed
from inference.language.constraint import KEPT, LARGEST_MULTIPLE, MOST_USES, Grammars, Matcher
from inference.language.llama import Weights
from inference.language.requests import Constraint, ConstraintKind, Sampling
from tests.inference.language.driving import LONG, Drive, driven

WORD = {"type": "string", "maxLength": 6}
POINT = {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"], "additionalProperties": False}
TREE = {
    "type": "object",
    "properties": {"value": {"type": "integer", "minimum": 0, "maximum": 99}, "next": {"$ref": "#/$defs/node"}},
    "required": ["value"],
    "additionalProperties": False,
    "$defs": {"node": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
}
SCHEMAS: dict[str, Any] = {
    "object": {"type": "object", "properties": {"a": WORD, "b": {"type": "boolean"}}, "additionalProperties": False},
    "required": {
        "type": "object",
        "properties": {"a": WORD, "b": {"type": "null"}, "c": {"type": "boolean"}},
        "required": ["c", "a"],
        "additionalProperties": False,
    },
    "additional": {"type": "object", "properties": {"a": WORD}, "additionalProperties": {"type": "boolean"}},
    "one of": {"oneOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0, "maximum": 99}]},
    "enum": {"enum": ["red", "green", 7, None, {"deep": [1, 2]}]},
    "const": {"const": {"a": [True, "x", 1.5]}},
    "number": {"type": "number", "minimum": -2.5, "maximum": 10},
    "exclusive": {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 1000},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 10_000},
    "string": {"type": "string", "minLength": 3, "maxLength": 8},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"},
    "array": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2, "maxItems": 5},
    "tuple": {
        "type": "array",
        "prefixItems": [WORD, {"type": "boolean"}],
        "items": False,
        "minItems": 2,
    },
    "types": {"type": ["boolean", "null", "integer"], "maximum": 50, "minimum": 0},
    "any of": {"anyOf": [WORD, {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}]},
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": WORD}, "required": ["a"]},
            {"properties": {"b": {"type": "boolean"}}, "required": ["b"]},
        ],
        "additionalProperties": False,
        "properties": {"a": {}, "b": {}},
    },
    "references": {
        "type": "object",
        "properties": {"from": {"$ref": "#/$defs/place"}, "to": {"$ref": "#/$defs/place"}},
        "required": ["from", "to"],
        "additionalProperties": False,
        "$defs": {"place": POINT},
    },
    "recursive": TREE,
    "formats": {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date"},
            "id": {"type": "string", "format": "uuid"},
            "at": {"type": "string", "format": "ipv4"},
        },
        "required": ["day", "id", "at"],
        "additionalProperties": False,
    },
    "nested": {
        "type": "object",
        "properties": {
            "list": {"type": "array", "items": {"type": "object", "properties": {"point": POINT}}, "maxItems": 3},
        },
        "required": ["list"],
        "additionalProperties": False,
    },
    "unicode": {"enum": ["é", "🙂", '\n\t"\\', "\u2028"]},
}


@pytest.fixture(scope="module")
def grammars(small: Weights) -> Grammars:
    return Grammars(small.vocabulary)


@pytest.fixture
def drive(small: Weights) -> Iterator[Drive]:
    with driven(small, slots=8, cells=2048) as made:
        yield made


def matcher(grammars: Grammars, kind: ConstraintKind, text: Any) -> Matcher:
    return grammars.matcher(Constraint(kind, text if isinstance(text, str) else json.dumps(text)))


def said(drive: Drive, grammars: Grammars, kind: ConstraintKind, text: Any, count: int = 6) -> list[str]:
    """So many answers, none of which may end but by itself."""
    choices = []
    for seed in range(count):
        mask = matcher(grammars, kind, text)
        sampling = Sampling(temperature=6.0, seed=seed)
        choices.append(drive.put(LONG[:20], 600, sampling=sampling, mask=mask, matcher=mask, ignore_end=False))
    drive.run(*choices)
    assert [drive.came[choice].end for choice in choices] == ["stop"] * count
    return [drive.came[choice].text for choice in choices]


@pytest.mark.parametrize("name", SCHEMAS)
def test_only_json_of_the_schema_is_said(drive: Drive, grammars: Grammars, name: str) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMAS[name], format_checker=jsonschema.FormatChecker())
    answers = said(drive, grammars, "json_schema", SCHEMAS[name])
    for answer in answers:
        validator.validate(json.loads(answer))
    if name not in ("const",):
        assert len(set(answers)) > 1


def test_a_json_object_is_any(drive: Drive, grammars: Grammars) -> None:
    for seed in range(4):
        mask = matcher(grammars, "json_object", "")
        sampling = Sampling(
            temperature=2.0, seed=seed, logit_bias={drive.tokens('"')[0]: 4.0, drive.tokens("}")[0]: 6.0}
        )
        choice = drive.put(LONG[:20], 900, sampling=sampling, mask=mask, matcher=mask, ignore_end=False)
        drive.run()
        assert drive.came[choice].end == "stop"
        assert isinstance(json.loads(drive.came[choice].text), dict)


def test_answers_are_compact(drive: Drive, grammars: Grammars) -> None:
    for answer in said(drive, grammars, "json_schema", SCHEMAS["references"]):
        assert answer == json.dumps(json.loads(answer), separators=(",", ":"))


NAMED = {"enum": ["a", "b"]}


def tool(name: str, inner: Any) -> dict[str, Any]:
    """One whose parameters refer to definitions of their own, under the same names as every other's."""
    more = {"type": "array", "items": {"$ref": "#/$defs/list/items"}, "maxItems": 2}
    parameters = {
        "type": "object",
        "properties": {"one": {"$ref": "#/$defs/inner"}, "more": more},
        "required": ["one", "more"],
        "additionalProperties": False,
        "$defs": {"inner": inner, "list": {"type": "array", "items": {"$ref": "#/$defs/inner"}}},
    }
    return {"name": name, "parameters": parameters}


class TestTools:
    def test_one_of_the_tools_is_called_with_arguments_of_its_own_schema(
        self, drive: Drive, grammars: Grammars
    ) -> None:
        tools = [tool("point", POINT), tool("name", NAMED)]
        parameters = {one["name"]: one["parameters"] for one in tools}
        called = [json.loads(answer) for answer in said(drive, grammars, "tool", tools, count=12)]
        assert {call["name"] for call in called} == {"point", "name"}
        for call in called:
            assert set(call) == {"name", "arguments"}
            jsonschema.validate(call["arguments"], parameters[call["name"]])

    def test_a_single_tool_with_references(self, drive: Drive, grammars: Grammars) -> None:
        for answer in said(drive, grammars, "tool", [tool("point", POINT)]):
            jsonschema.validate(json.loads(answer)["arguments"], tool("point", POINT)["parameters"])

    def test_a_recursive_one(self, drive: Drive, grammars: Grammars) -> None:
        for answer in said(drive, grammars, "tool", [{"name": "tree", "parameters": TREE}, tool("name", NAMED)]):
            call = json.loads(answer)
            if call["name"] == "tree":
                jsonschema.validate(call["arguments"], TREE)

    def test_an_id_of_its_own_does_not_hide_its_definitions(self, drive: Drive, grammars: Grammars) -> None:
        tools = [tool("point", POINT), tool("name", NAMED)]
        for one in tools:
            one["parameters"]["$id"] = "https://example.com/the-same"
        assert all(json.loads(answer)["name"] in ("point", "name") for answer in said(drive, grammars, "tool", tools))

    def test_one_without_parameters_takes_none(self, drive: Drive, grammars: Grammars) -> None:
        tools = [{"name": "now", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}]
        assert said(drive, grammars, "tool", tools, count=1) == ['{"name":"now","arguments":{}}']


class TestGrammars:
    def test_only_sentences_of_a_grammar_are_said(self, drive: Drive, grammars: Grammars) -> None:
        grammar = 'start: "the " ("sea" | "sun") NUMBER?\nNUMBER: /-[0-9]{1,3}/'
        answers = said(drive, grammars, "grammar", grammar)
        assert all(re.fullmatch(r"the (sea|sun)(-[0-9]{1,3})?", answer) for answer in answers)

    def test_a_recursive_one(self, drive: Drive, grammars: Grammars) -> None:
        grammar = 'start: item\nitem: "a" | "(" item ")"'
        for answer in said(drive, grammars, "grammar", grammar):
            depth = answer.index("a")
            assert answer == "(" * depth + "a" + ")" * depth

    def test_words_of_control_tokens_are_said_as_words(self, drive: Drive, grammars: Grammars) -> None:
        assert said(drive, grammars, "grammar", 'start: "<|im_end|>!"', count=1) == ["<|im_end|>!"]

    def test_greedy_follows_it_too(self, drive: Drive, grammars: Grammars) -> None:
        mask = matcher(grammars, "grammar", "start: /[0-9]{5}/")
        choice = drive.put(LONG, 30, mask=mask, matcher=mask, ignore_end=False)
        drive.run()
        assert re.fullmatch(r"[0-9]{5}", drive.came[choice].text)

    def test_where_ends_are_ignored_it_still_ends_with_its_sentence(self, drive: Drive, grammars: Grammars) -> None:
        mask = matcher(grammars, "grammar", 'start: "sea"')
        choice = drive.put(LONG, 30, mask=mask, matcher=mask)
        drive.run()
        assert (drive.came[choice].end, drive.came[choice].text) == ("stop", "sea")

    def test_what_has_no_room_ends_by_length(self, drive: Drive, grammars: Grammars) -> None:
        mask = matcher(grammars, "grammar", "start: /[0-9]{50}/")
        choice = drive.put(LONG, 30, mask=mask, matcher=mask)
        drive.run()
        assert drive.came[choice].end == "length"
        assert re.fullmatch(r"[0-9]+", drive.came[choice].text)


class TestRefusals:
    @pytest.mark.parametrize(
        ("schema", "told"),
        [
            ({"type": "none"}, "Invalid type: none"),
            ({"enum": []}, "Unsatisfiable"),
            ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum (5) is greater than maximum (3)"),
            ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "incompatible types"),
            ({"$ref": "#/$defs/none"}, "does not exist"),
            ({"$ref": "https://example.com/schema"}, "does not fetch"),
            ({"$ref": "#"}, ""),
            ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "oneOf"),
            ({"not": {"type": "string"}}, "not"),
            ({"type": "array", "uniqueItems": True}, "uniqueItems"),
            ({"type": "string", "pattern": "(?=a)b"}, "regex"),
            ({"type": "string", "pattern": "^(ab?){5,300}$", "maxLength": 3000, "minLength": 500}, ""),
            ({"type": "integer", "multipleOf": 1_234_567}, "multipleOf is 1234567"),
            ({"items": {"anyOf": [{"type": "number", "multipleOf": 12345.678}]}}, "multipleOf is 12345.678"),
            ({"type": "integer", "allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}, "together"),
            (
                {"$ref": "#/$defs/a", "multipleOf": 9967, "$defs": {"a": {"type": "integer", "multipleOf": 9973}}},
                "together",
            ),
            (
                {
                    "type": "object",
                    "properties": {f"p{n}": {"type": "integer", "multipleOf": 99_000 + n} for n in range(40)},
                },
                "together",
            ),
            ({"type": "number", "multipleOf": True}, ""),
            ({"type": "number", "allOf": [{"multipleOf": 100_000}] * 62}, "together"),
            ({"type": "number", "allOf": [{"multipleOf": 99_999 + 0.1 * n} for n in range(5)] * 62}, ""),
            ({"type": "string", "allOf": [{"pattern": f"(a|b)*a(a|b){{{n}}}"} for n in range(10, 40)]}, "30 patterns"),
            ("[" * 5000, ""),
            ("{", ""),
            ("7", ""),
            ("null", ""),
        ],
    )
    def test_a_schema_that_cannot_be_followed(self, grammars: Grammars, schema: Any, told: str) -> None:
        with pytest.raises(InputRefused) as refusal:
            matcher(grammars, "json_schema", schema)
        assert (refusal.value.path, refusal.value.reason) == ("/response_format/json_schema/schema", "constraint")
        assert told in refusal.value.message
        assert "\n" not in refusal.value.message

    @pytest.mark.parametrize("multiple", [LARGEST_MULTIPLE, 0.01, 0.00001, 1.5, 7])
    def test_a_multiple_of_few_steps_is_followed(self, grammars: Grammars, multiple: float) -> None:
        matcher(grammars, "json_schema", {"type": "number", "multipleOf": multiple})

    @pytest.mark.parametrize(
        "grammar", ["", "start: nothing", "start: start", "start: /(/", 'start: "a', "\ud800", "x" * 10_000]
    )
    def test_a_grammar_that_is_none(self, grammars: Grammars, grammar: str) -> None:
        with pytest.raises(InputRefused) as refusal:
            matcher(grammars, "grammar", grammar)
        assert refusal.value.path == "/grammar"

    @pytest.mark.parametrize(
        "tools",
        [[], 7, None, [{}], [7], [{"name": "a", "parameters": [1]}], [{"name": "a", "parameters": {"type": "x"}}]],
    )
    def test_tools_that_are_none(self, grammars: Grammars, tools: Any) -> None:
        with pytest.raises(InputRefused) as refusal:
            matcher(grammars, "tool", tools)
        assert refusal.value.path == "/tools"

    def test_one_that_comes_upon_a_limit_while_it_speaks_fails_instead_of_ending_well(
        self, drive: Drive, grammars: Grammars
    ) -> None:
        """Else half of an object would be told as a whole answer."""
        schema = {"type": "object", "properties": {f"name{number}": {"type": "string"} for number in range(2000)}}
        mask = matcher(grammars, "json_schema", schema)
        choice, mate = drive.put(LONG, 100, mask=mask, matcher=mask, ignore_end=False), drive.put(LONG, 100)
        drive.run()
        assert drive.came[choice].end == "failed"
        assert drive.came[mate].end == "length"


class TestKept:
    def test_a_compiled_grammar_serves_many_at_once_each_at_its_own_place(
        self, drive: Drive, grammars: Grammars
    ) -> None:
        assert set(said(drive, grammars, "grammar", 'start: "one two three four"', count=8)) == {"one two three four"}

    def test_more_than_are_kept_are_compiled_again(self, grammars: Grammars) -> None:
        for _ in range(2):
            for number in range(KEPT + 5):
                assert not matcher(grammars, "grammar", f'start: "{number}"').ended

    def test_one_that_came_upon_its_limit_is_compiled_anew_for_the_next(
        self, small: Weights, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its copies share one automaton, which grows with all that they say: they would all fail from then on."""
        monkeypatch.setattr(llguidance, "LLParserLimits", partial(llguidance.LLParserLimits, max_lexer_states=2000))
        grammars, random = Grammars(small.vocabulary), Random(0)
        constraint = Constraint("json_schema", json.dumps({"type": "string", "pattern": "^(.*a.{30}|.*b.{31})$"}))
        failed = 0
        for _ in range(20):
            mask = grammars.matcher(constraint)
            assert mask.allowed() is not None
            assert not mask.failed
            for letter in ['"', *random.choices("abc", k=60)]:
                mask.accept(small.vocabulary.tokens(letter, special=False)[-1])
                mask.allowed()
            failed += mask.failed
        assert failed > 1

    def test_what_many_have_said_does_not_add_up_for_ever(self, grammars: Grammars) -> None:
        constraint = Constraint("json_schema", json.dumps(WORD | {"pattern": "^[a-c]{1,5}$"}))
        kept = {id(grammars.matcher(constraint)._kept): None for _ in range(2 * MOST_USES)}
        assert len(kept) == 2

    def test_a_mask_has_a_flag_for_each_token(self, small: Weights, grammars: Grammars) -> None:
        allowed = matcher(grammars, "grammar", 'start: "the"').allowed()
        assert allowed is not None
        assert len(allowed) == small.vocabulary.size == 300
        pieces = {small.vocabulary.piece(token) for token in allowed.nonzero()[0].tolist()}
        assert pieces == {b"t", b"the"[:1], b"the"} - {b"the"}


PLACE = {"type": "object", "properties": {"x": {"enum": [1, 2]}, "at": {"type": "boolean"}}, "required": ["x"]}
UNSAID: dict[str, tuple[Any, set[str]]] = {
    "of an object": (PLACE, {"x", "at"}),
    "within": ({"type": "array", "items": PLACE, "minItems": 1, "maxItems": 3}, {"x", "at"}),
    "of a property": ({"type": "object", "properties": {"to": PLACE}, "required": ["to"]}, {"to", "x", "at"}),
    "of one of several": ({"anyOf": [PLACE, {"type": "object", "properties": {"y": {"const": 1}}}]}, {"x", "at", "y"}),
    "of a definition": ({"$ref": "#/$defs/place", "$defs": {"place": PLACE}}, {"x", "at"}),
}


@pytest.mark.parametrize("name", UNSAID)
def test_no_property_is_made_up_that_the_schema_does_not_name(drive: Drive, grammars: Grammars, name: str) -> None:
    schema, known = UNSAID[name]
    for answer in said(drive, grammars, "json_schema", schema):
        jsonschema.validate(json.loads(answer), schema)
        assert set(re.findall(r'"(\w+)":', answer)) <= known


BOTH_PARTS = {"properties": {"a": {"const": 1}}, "required": ["a"]}


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"type": "object", **BOTH_PARTS}, {"properties": {"b": {"const": 2}}, "required": ["b"]}]},
        {"type": "object", **BOTH_PARTS, "anyOf": [{"properties": {"b": {"const": 2}}, "required": ["b"]}]},
        {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a", "b"]},
        {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "minProperties": 2},
    ],
)
def test_what_a_schema_may_need_beside_what_it_names_is_left_open(schema: Any) -> None:
    assert closed(schema) == schema
