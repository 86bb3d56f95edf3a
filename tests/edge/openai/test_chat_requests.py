"""The body of a chat completion: what is taken and how the engine is asked, what is refused and in which words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from inference.language.requests import Constraint, Generate, Sampling
from strongroom.openai import requests
from strongroom.openai.chat import ChatRequest
from tests.edge.openai import asked
from tests.edge.openai.asked import WEATHER, chat, saying, schema, tool

LARGE_TOOLS = [tool(f"f{number}", parameters={"description": "d" * 60_000}) for number in range(5)]


def read(document: Any) -> ChatRequest:
    return requests.read(ChatRequest, document)


def generate(document: Any) -> Generate:
    made = read(document).generate()
    assert Generate.from_json(made.to_json()) == made  # what the edge writes is what the cell reads
    return made


def refused(document: Any) -> tuple[str | None, str, str]:
    error = asked.refused(ChatRequest, document)
    return error["param"], error["code"], error["message"]


def test_a_plain_request_asks_for_one_answer_to_its_messages() -> None:
    assert generate(chat()) == Generate(messages=({"role": "user", "content": "hello"},))


def test_every_way_of_choosing_tokens_reaches_the_engine() -> None:
    made = generate(
        chat(
            n=3,
            temperature=0,
            top_p=0.5,
            top_k=40,
            min_p=0.1,
            repetition_penalty=1.1,
            presence_penalty=-1,
            frequency_penalty=2,
            logit_bias={"50256": -100, "7": 1.5},
            max_completion_tokens=5,
            seed=-7,
            stop=["a", "\n"],
            logprobs=True,
            top_logprobs=4,
            ignore_eos=True,
        )
    )
    assert made.n == 3
    assert made.sampling == Sampling(
        max_tokens=5,
        temperature=0,
        top_p=0.5,
        top_k=40,
        min_p=0.1,
        seed=-7,
        stop=("a", "\n"),
        presence_penalty=-1,
        frequency_penalty=2,
        repetition_penalty=1.1,
        logit_bias={50256: -100, 7: 1.5},
        logprobs=4,
        ignore_eos=True,
    )


def test_what_the_request_does_not_say_is_the_engines_default() -> None:
    assert generate(chat()).sampling == generate(chat(top_k=-1)).sampling == Sampling()
    assert generate(chat(max_tokens=3, stop="x")).sampling == Sampling(max_tokens=3, stop=("x",))


def test_a_null_is_as_good_as_nothing() -> None:
    nulls = dict.fromkeys(ChatRequest.names - {"model", "messages"}) | {
        "audio": None,
        "store": None,
        "unheard_of": None,
    }
    assert generate(chat(**nulls)) == generate(chat())
    assert refused(chat(model=None))[:2] == ("model", "missing_required_parameter")


def test_what_has_no_effect_is_accepted_and_the_cache_key_is_kept() -> None:
    found = read(
        chat(
            user="u",
            safety_identifier="s",
            metadata={"a": "b"},
            service_tier="auto",
            prompt_cache_key="scope",
            store=False,
            modalities=["text"],
        )
    )
    assert found.prompt_cache_key == "scope"
    assert found.generate() == generate(chat())


def test_logprobs_without_a_number_are_of_the_chosen_tokens_only() -> None:
    assert generate(chat(logprobs=True)).sampling.logprobs == 0
    assert generate(chat(logprobs=False)).sampling.logprobs is None
    assert refused(chat(top_logprobs=2))[0] == "top_logprobs"


def test_both_names_of_the_most_tokens_are_taken_where_they_agree() -> None:
    assert generate(chat(max_tokens=4)).sampling.max_tokens == 4
    assert generate(chat(max_tokens=4, max_completion_tokens=4)).sampling.max_tokens == 4
    param, _, message = refused(chat(max_tokens=4, max_completion_tokens=5))
    assert param == "max_completion_tokens"
    assert "says 5 where 'max_tokens' says 4" in message


def test_the_streams_options_are_for_streams() -> None:
    found = read(chat(stream=True, stream_options={"include_usage": True, "include_obfuscation": True}))
    assert (found.with_usage, found.is_padded) == (True, True)
    assert not read(chat(stream=True)).with_usage
    assert refused(chat(stream_options={"include_usage": True}))[0] == "stream_options"


# --- messages


def test_every_role_is_said_as_the_chat_template_reads_it() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
    made = generate(
        saying(
            {"role": "developer", "content": "be brief"},
            {"role": "system", "content": [{"type": "text", "text": "and"}, {"type": "text", "text": "kind"}]},
            {"role": "user", "content": "weather?", "name": "ada"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            {"role": "assistant", "refusal": "no"},
        )
    )
    assert made.messages == (
        {"role": "system", "content": "be brief"},
        {"role": "system", "content": "and\nkind"},
        {"role": "user", "content": "weather?", "name": "ada"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "no"},
    )


def test_the_sdks_own_message_is_taken_back_as_it_dumps_it() -> None:
    from openai.types.chat import ChatCompletionMessage

    message = ChatCompletionMessage(role="assistant", content="hi", annotations=[]).model_dump()
    assert {"audio", "function_call", "refusal"} <= message.keys()
    assert generate(saying({"role": "user", "content": "a"}, message)).messages[1:] == (  # type: ignore[index]  # there
        {"role": "assistant", "content": "hi"},
    )


def test_there_is_at_least_one_message_and_at_most_2048() -> None:
    assert refused(saying()) == ("messages", "empty_array", "messages must have at least 1 entries, has 0")
    many = [{"role": "user", "content": "x"}] * 2048
    assert len(generate(saying(*many)).messages or ()) == 2048
    assert refused(saying(*many * 2))[2] == "messages must have at most 2048 entries, has 4096"


@pytest.mark.parametrize(
    ("message", "param", "code", "said"),
    [
        ({"role": "alien", "content": "x"}, "messages[0].role", "invalid_value", "'user', 'assistant', 'tool', is 'al"),
        ({"content": "x"}, "messages[0].role", "missing_required_parameter", "is missing"),
        ({"role": ["user"], "content": "x"}, "messages[0].role", "invalid_value", "is a list"),
        ("hello", "messages[0]", "invalid_type", "must be an object, is 'hello'"),
        ({"role": "user"}, "messages[0].content", "missing_required_parameter", "is missing"),
        ({"role": "user", "content": 7}, "messages[0].content", "invalid_type", "a text or a list of parts, is 7"),
        ({"role": "user", "content": []}, "messages[0].content", "empty_array", "at least 1 part"),
        ({"role": "user", "content": ["x"]}, "messages[0].content[0]", "invalid_type", "an object"),
        ({"role": "user", "content": [{"type": "txet"}]}, "messages[0].content[0].type", "invalid_value", "'txet'"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text", "invalid_type", "is null"),
        ({"role": "user", "content": "x", "nmae": "a"}, "messages[0].nmae", "unknown_parameter", "did you mean 'name'"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id", "missing_required_parameter", "is missing"),
        ({"role": "assistant"}, "messages[0].content", "missing_required_parameter", "or give 'tool_calls'"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "messages[0].audio", "unsupported_parameter", ""),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f"}}]},
            "messages[0].tool_calls[0].function.arguments",
            "missing_required_parameter",
            "is missing",
        ),
    ],
)
def test_a_wrong_message_is_named_with_what_is_wrong(message: Any, param: str, code: str, said: str) -> None:
    assert refused(saying(message))[:2] == (param, code)
    assert said in refused(saying(message))[2]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%not base64%%%"}},
        {"type": "input_audio", "input_audio": {"data": "!!!!", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:;base64,="}},
    ],
)
def test_images_audio_and_files_are_refused_by_name_whatever_their_bytes_are(part: dict[str, Any]) -> None:
    param, code, message = refused(saying({"role": "user", "content": [{"type": "text", "text": "look"}, part]}))
    assert (param, code) == ("messages[0].content[1].type", "unsupported_value")
    assert part["type"] in message
    assert "not taken" in message


# --- numbers and lists


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"temperature": 9}, "integer_above_max_value", "temperature must be at most 2, is 9"),
        ({"temperature": -0.5}, "decimal_below_min_value", "temperature must be at least 0, is -0.5"),
        ({"temperature": "hot"}, "invalid_type", "temperature must be a number, is 'hot'"),
        ({"temperature": True}, "invalid_type", "temperature must be a number, is true or false"),
        ({"temperature": float("nan")}, "invalid_value", "finite"),
        ({"top_p": float("inf")}, "invalid_value", "finite"),
        ({"top_p": 0}, "integer_below_min_value", "top_p must be greater than 0, is 0"),
        ({"top_p": 1.1}, "decimal_above_max_value", "top_p must be at most 1, is 1.1"),
        ({"presence_penalty": 2.5}, "decimal_above_max_value", "at most 2"),
        ({"frequency_penalty": -2.5}, "decimal_below_min_value", "at least -2"),
        ({"repetition_penalty": 0}, "integer_below_min_value", "greater than 0"),
        ({"min_p": 1.5}, "decimal_above_max_value", "at most 1"),
        ({"top_k": -2}, "integer_below_min_value", "at least -1"),
        ({"n": 0}, "integer_below_min_value", "n must be at least 1, is 0"),
        ({"n": 17}, "integer_above_max_value", "n must be at most 16, is 17"),
        ({"n": 1.5}, "invalid_type", "n must be a whole number, is 1.5"),
        ({"max_tokens": 0}, "integer_below_min_value", "at least 1"),
        ({"seed": 2**63}, "integer_above_max_value", "seed"),
        ({"seed": "1"}, "invalid_type", "a whole number, is '1'"),
        ({"logprobs": True, "top_logprobs": 21}, "integer_above_max_value", "at most 20"),
        ({"logprobs": 5}, "invalid_type", "logprobs must be true or false, is 5"),
        ({"stream": "yes"}, "invalid_type", "stream must be true or false"),
        ({"model": ""}, "empty_string", "model must have at least 1 characters, has 0"),
        ({"model": "x" * 300}, "string_above_max_length", "at most 200 characters, has 300"),
        ({"stop": ["x"] * 1000}, "array_above_max_length", "stop must have at most 16 entries, has 1000"),
        ({"stop": 5}, "invalid_type", "stop must be a text or a list of texts"),
        ({"service_tier": "priority"}, "invalid_value", "'auto' or 'default', is 'priority'"),
        ({"user": "x" * 513}, "string_above_max_length", "at most 512"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "object_above_max_properties", "at most 16"),
    ],
)
def test_a_value_out_of_its_range_is_refused_with_both(changes: dict[str, Any], code: str, said: str) -> None:
    param, found, message = refused(chat(**changes))
    assert param in changes
    assert found == code
    assert said in message


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"stop": ["a", ""]}, "stop[1]", "1 to 256 bytes, has 0"),
        ({"stop": ["é" * 129]}, "stop[0]", "1 to 256 bytes, has 258"),
        ({"stop": [1]}, "stop[0]", "must be a text, is 1"),
        ({"logit_bias": {"the": 1}}, "logit_bias.the", "is not a token id"),
        ({"logit_bias": {"99999999999": 1}}, "logit_bias[99999999999]", "is not a token id"),
        ({"logit_bias": {"7": 101}}, "logit_bias[7]", "from -100 to 100, is 101"),
        ({"logit_bias": {"7": float("nan")}}, "logit_bias[7]", "from -100 to 100, is nan"),
        ({"logit_bias": {str(number): 1 for number in range(1025)}}, "logit_bias", "at most 1024 tokens, has 1025"),
        ({"metadata": {"a": 1}}, "metadata.a", "a text of at most 512 characters"),
        (
            {"stream": True, "stream_options": {"include_usge": True}},
            "stream_options.include_usge",
            "did you mean 'include_usage'",
        ),
    ],
)
def test_what_is_wrong_inside_a_value_is_named_by_its_path(changes: dict[str, Any], param: str, said: str) -> None:
    found, _, message = refused(chat(**changes))
    assert found == param
    assert said in message


def test_several_problems_are_one_refusal_that_names_the_first_and_counts_the_others() -> None:
    _, _, message = refused(chat(temperature=9, n=0, top_p=3))
    assert message.startswith("temperature must be at most 2, is 9")
    assert message.endswith("(and 2 more, at top_p, n)")


# --- formats and tools


def test_json_forms_constrain_the_answer() -> None:
    assert generate(chat(response_format={"type": "text"})).sampling.constraint is None
    assert generate(chat(response_format={"type": "json_object"})).sampling.constraint == Constraint("json_object")
    found = generate(schema(WEATHER)).sampling.constraint
    assert found is not None
    assert (found.kind, orjson.loads(found.text)) == ("json_schema", WEATHER)


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"type": "xml"}, "response_format.type"),
        ({}, "response_format.type"),
        ("json", "response_format"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": 1}}, "response_format.json_schema.schema"),
        ({"type": "text", "json_schema": {"name": "a", "schema": {}}}, "response_format.json_schema"),
    ],
)
def test_a_form_that_is_not_one_is_refused(form: Any, param: str) -> None:
    assert refused(chat(response_format=form))[0] == param


def test_tools_are_offered_and_the_model_chooses() -> None:
    made = generate(chat(tools=[tool(description="d", strict=True)], parallel_tool_calls=False))
    said = {"name": "weather", "description": "d", "parameters": WEATHER, "strict": True}
    assert made.tools == ({"type": "function", "function": said},)
    assert made.sampling.constraint is None


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    made = generate(chat(tools=[{"type": "function", "function": {"name": "now"}}]))
    assert made.tools[0]["function"]["parameters"] == {"type": "object", "properties": {}}


def test_no_tool_is_told_of_where_none_may_be_called() -> None:
    assert generate(chat(tools=[tool()], tool_choice="none")) == generate(chat())


def test_a_required_call_is_a_constraint_of_the_tools_to_choose_from() -> None:
    both = [tool("weather"), tool("time")]
    every = generate(chat(tools=both, tool_choice="required"))
    named = generate(chat(tools=both, tool_choice={"type": "function", "function": {"name": "time"}}))
    for made, names in ((every, ["weather", "time"]), (named, ["time"])):
        assert made.sampling.constraint is not None
        assert made.sampling.constraint.kind == "tool"
        chosen = orjson.loads(made.sampling.constraint.text)
        assert chosen == [{"name": name, "parameters": WEATHER} for name in names]
        assert [one["function"]["name"] for one in made.tools] == ["weather", "time"]


def test_a_required_call_wins_over_the_form_of_a_text() -> None:
    made = generate(chat(tools=[tool()], tool_choice="required", response_format={"type": "json_object"}))
    assert made.sampling.constraint is not None
    assert made.sampling.constraint.kind == "tool"


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools[0].custom", "not a known parameter"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type", "must be 'function', is 'retrieval'"),
        ({"tools": [tool("a b")]}, "tools[0].function.name", "is not of the form"),
        ({"tools": [tool(parameters=[])]}, "tools[0].function.parameters", "must be an object, is a list"),
        ({"tools": [tool(), tool()]}, "tools", "twice"),
        ({"tools": [tool(f"f{number}") for number in range(129)]}, "tools", "at most 128 entries, has 129"),
        ({"tool_choice": "required"}, "tool_choice", "only with tools"),
        ({"tools": [tool()], "tool_choice": "always"}, "tool_choice", "'required' or a function, is 'always'"),
        ({"tools": [tool()], "tool_choice": 1}, "tool_choice", "must be a text or an object"),
        ({"tools": [tool()], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type", "is 'allowed_tools'"),
        ({"tools": [tool()], "tool_choice": {"type": "function"}}, "tool_choice.function.name", "the name of a"),
        (
            {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "time"}}},
            "tool_choice",
            "names 'time', which is not one of the tools",
        ),
        ({"tools": [tool()], "response_format": {"type": "json_object"}}, "response_format", "could never call one"),
        (
            {
                "tools": LARGE_TOOLS,
                "tool_choice": "required",
            },
            "tools",
            "at most 262144 bytes",
        ),
    ],
)
def test_tools_that_cannot_be_are_refused(changes: dict[str, Any], param: str, said: str) -> None:
    found, _, message = refused(chat(**changes))
    assert found == param
    assert said in message


def test_log_probabilities_that_a_stream_would_leave_out_are_refused() -> None:
    given: dict[str, Any] = {"stream": True, "logprobs": True, "tools": [tool()]}
    assert refused(chat(**given))[0] == "logprobs"
    changes: list[dict[str, Any]] = [{"stream": False}, {"tool_choice": "none"}, {"tools": []}]
    for change in changes:
        requests.read(ChatRequest, chat(**given | change))
