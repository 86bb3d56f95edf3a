"""A language model served: frames as documented, exact usage, refusals in words, an end for everybody."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped]  # it ships no types
import pytest

from inference.errors import LoadFailed
from inference.language.base_model import Base, Room
from inference.language.requests import Constraint, Generate, Sampling
from inference.language.serving import MOST_REQUESTS, fingerprint
from inference.protocol import COUNT, COUNTED, DONE, TOKENS
from tests.inference.language import tiny
from tests.inference.language.driving import LONG
from tests.inference.language.talking import Link, Talk, talking
from tests.inference.language.words import Said, greedy

ROOM = Room(slots=4, cells=1024, threads=1)
PROMPT = tuple(LONG)
USER = ({"role": "user", "content": "Tell me of the sea."},)
FOREVER = Generate(prompt=PROMPT, sampling=Sampling(temperature=0, ignore_eos=True))


def chat(made: int = 12, *, n: int = 1, **changes: Any) -> Generate:
    return Generate(messages=USER, sampling=greedy(made, ignore_eos=True, **changes), n=n)


@pytest.fixture
def talk() -> Iterator[Talk]:
    with talking() as made:
        yield made
        assert not made.failures


class TestFrames:
    def test_a_stream_is_pieces_and_then_its_end(self, talk: Talk) -> None:
        said = talk.say(chat())
        assert said.text == "".join(said.pieces)
        assert len(said.pieces) > 3
        done = said.done[0]
        assert {key: done[key] for key in ("index", "reason", "completion_tokens", "cached_tokens", "last")} == {
            "index": 0,
            "reason": "length",
            "completion_tokens": 12,
            "cached_tokens": 0,
            "last": True,
        }
        assert set(done) - {"prompt_tokens", "queue_ms", "prefill_ms", "decode_ms", "fingerprint"} == {
            *("index", "reason", "completion_tokens", "cached_tokens", "last")
        }
        assert all(done[key] >= 0 for key in ("queue_ms", "prefill_ms", "decode_ms"))

    def test_without_a_stream_each_choice_is_one_frame(self, talk: Talk) -> None:
        streamed = talk.say(chat(n=3, seed=1))
        talk.link.frames.clear()
        whole = talk.say(chat(n=3, seed=1), stream=False)
        kinds = [frame.kind for frame in talk.link.frames]
        assert sorted(kinds) == [TOKENS] * 3 + [DONE] * 3
        assert set(whole.texts) == {0, 1, 2}
        assert whole.texts == streamed.texts

    def test_the_prompt_is_counted_with_the_first_choice_only(self, talk: Talk) -> None:
        done = talk.say(chat(n=3)).done
        assert [done[index]["prompt_tokens"] > 0 for index in range(3)] == [True, False, False]
        assert [done[index]["last"] for index in sorted(done, key=lambda index: done[index]["last"])][-1]
        assert sum(end["last"] for end in done.values()) == 1
        assert all(end["completion_tokens"] == 12 for end in done.values())

    def test_logprobs_come_with_each_token(self, talk: Talk) -> None:
        said = talk.say(Generate(prompt=PROMPT, sampling=greedy(5, ignore_eos=True, logprobs=3)))
        assert len(said.logprobs) == 5
        for token, text, logprob, top in said.logprobs:
            assert (token, text, logprob) == tuple(top[0])
            assert len(top) == 3
            assert isinstance(text, bytes)

    def test_long_texts_and_logprobs_come_in_the_body(self, talk: Talk) -> None:
        number = talk.ask(chat(600), stream=False)
        talk.hear(number)
        frame = next(frame for frame in talk.link.frames if frame.kind == TOKENS)
        if len(frame.body):
            assert set(msgpack.unpackb(frame.body)) == {"text", "logprobs"}

    def test_an_answer_without_text_has_no_piece(self, talk: Talk) -> None:
        said = talk.say(Generate(prompt="a", sampling=greedy(5, logit_bias={2: 100.0})))
        assert (said.pieces, said.done[0]["reason"], said.done[0]["completion_tokens"]) == ([], "stop", 1)

    def test_a_count_is_the_prompts_tokens(self, talk: Talk) -> None:
        number = talk.ask(chat(), kind=COUNT)
        talk.until(lambda: bool(talk.link.frames))
        frame = talk.link.frames[0]
        assert (frame.kind, frame.request) == (COUNTED, number)
        assert frame.fields() == {"prompt_tokens": talk.say(chat()).done[0]["prompt_tokens"]}

    def test_an_echo_is_the_prompt_and_then_the_answer(self, talk: Talk) -> None:
        for prompt in ("the sea <|im_start|>", tuple(talk.base.vocabulary.tokens("the sea", special=False))):
            sampling = Sampling(max_tokens=6, seed=1, ignore_eos=True)
            plain = talk.say(Generate(prompt=prompt, sampling=sampling, n=2))
            for stream in (True, False):
                echoed = talk.say(Generate(prompt=prompt, sampling=sampling, n=2, echo=True), stream=stream)
                said = prompt if isinstance(prompt, str) else "the sea"
                assert echoed.texts == {index: said + text for index, text in plain.texts.items()}

    def test_the_times_are_those_that_passed(self, talk: Talk) -> None:
        number = talk.ask(chat(100))
        done = talk.hear(number)[0].done[0]
        assert done["decode_ms"] > done["prefill_ms"] / 10 >= 0


class TestUsage:
    def test_a_conversation_that_goes_on_is_cached(self, talk: Talk) -> None:
        first = talk.say(Generate(prompt=PROMPT, sampling=greedy(5, ignore_eos=True)))
        second = talk.say(Generate(prompt=(*PROMPT, 5, 6), sampling=greedy(5, ignore_eos=True)))
        assert (first.done[0]["cached_tokens"], second.done[0]["cached_tokens"]) == (0, 100)

    def test_nothing_is_cached_for_another_scope(self, talk: Talk) -> None:
        generate = Generate(prompt=PROMPT, sampling=greedy(5))
        cached = [talk.say(generate, scope=scope).done[0]["cached_tokens"] for scope in ("a", "b", "a")]
        assert cached == [0, 0, 99]

    def test_what_was_cancelled_is_counted_to_the_token(self, talk: Talk) -> None:
        number = talk.ask(Generate(prompt=PROMPT, sampling=greedy(None, ignore_eos=True, logprobs=0)))
        talk.until(lambda: len(talk.said(number).logprobs) > 5)
        talk.link.generating[number].cancel()
        said = talk.hear(number)[0]
        assert (said.done[0]["reason"], said.done[0]["prompt_tokens"]) == ("cancelled", 100)
        assert said.done[0]["completion_tokens"] == len(said.logprobs)

    def test_what_is_cancelled_before_it_began_still_has_its_end(self, talk: Talk) -> None:
        number = talk.ask(FOREVER)
        talk.link.generating[number].cancel()
        said = talk.hear(number)[0]
        assert (said.done[0]["reason"], said.done[0]["completion_tokens"]) == ("cancelled", 0)

    def test_a_prompt_that_was_never_computed_costs_nothing(self, talk: Talk) -> None:
        mates = [talk.ask(FOREVER) for _ in range(4)]  # all the slots
        talk.until(lambda: all(talk.said(number).pieces for number in mates))
        with talk.held():
            waiting = talk.ask(FOREVER)
            talk.until(lambda: bool(talk.link.generating[waiting].sequences))
            talk.link.generating[waiting].cancel()
        done = talk.hear(waiting)[0].done[0]
        assert (done["reason"], done["prompt_tokens"], done["completion_tokens"]) == ("cancelled", 0, 0)
        for number in mates:
            talk.link.generating[number].cancel()
        assert [said.done[0]["prompt_tokens"] for said in talk.hear(*mates)] == [100] * 4

    def test_each_choice_of_what_is_cancelled_has_its_end(self, talk: Talk) -> None:
        number = talk.ask(Generate(prompt=PROMPT, sampling=greedy(None, ignore_eos=True), n=3))
        talk.until(lambda: len(talk.said(number).pieces) > 5)
        talk.link.generating[number].cancel()
        said = talk.hear(number)[0]
        assert [said.done[index]["reason"] for index in range(3)] == ["cancelled"] * 3

    def test_where_the_connection_is_gone_nothing_is_sent_and_all_is_free(self, talk: Talk) -> None:
        link = Link()
        numbers = [talk.ask(FOREVER, link=link) for _ in range(6)]
        talk.until(lambda: len(link.frames) > 10)
        late = talk.ask(FOREVER, link=link)
        for generation in list(link.generating.values()):
            generation.cancel(silently=True)
        told = len(link.frames)
        talk.until(lambda: not talk.model.waiting)
        assert len(link.frames) == told
        assert not link.generating
        assert late not in numbers
        assert talk.base.engine.scheduler.running == 0

    def test_a_deadline_that_passes_ends_it_with_what_was_said(self, talk: Talk) -> None:
        number = talk.ask(Generate(prompt=(5,), sampling=Sampling(temperature=0, ignore_eos=True)), deadline_ms=1)
        said = talk.hear(number)[0]
        assert said.done[0]["reason"] in ("deadline", "length")
        assert said.done[0]["completion_tokens"] < 1024 or said.done[0]["reason"] == "length"


class TestWindows:
    def test_no_more_pieces_come_than_were_asked_for(self, talk: Talk) -> None:
        number = talk.ask(chat(30), window=4)
        talk.until(lambda: len(talk.said(number).pieces) == 4)
        mate = talk.say(chat(30))
        assert len(talk.said(number).pieces) == 4
        generation = talk.link.generating[number]
        talk.model.widen(generation, 1000)
        assert talk.hear(number)[0].done[0]["completion_tokens"] == 30
        assert mate.done[0]["completion_tokens"] == 30

    def test_a_reader_that_asks_for_as_much_as_it_got_hears_it_all(self, talk: Talk) -> None:
        """What this model says is mostly parts of characters: many tokens have no text of their own."""
        number = talk.ask(chat(200), window=4)
        generation, taken = talk.link.generating[number], [0]

        def heard() -> bool:
            said = talk.said(number)
            if len(said.pieces) > taken[0]:
                talk.model.widen(generation, len(said.pieces) - taken[0])
                taken[0] = len(said.pieces)
            return number in talk.link.ended

        talk.until(heard)
        assert talk.said(number).done[0]["completion_tokens"] == 200


class TestRefusals:
    def problem(self, said: Said) -> list[Any]:
        assert said.error is not None
        assert said.code == "invalid_field"
        problem: list[Any] = said.error["problems"][0]
        return problem

    def test_a_prompt_that_is_too_long(self, talk: Talk) -> None:
        path, code, message, hint = self.problem(talk.say(Generate(prompt=(5,) * 1100)))
        assert (path, code) == ("/prompt", "context_length")
        assert message == "need 1101 tokens (1100 in the prompt)"
        assert hint == "the context has 1024; send a shorter prompt or a lower max_tokens"

    def test_messages_that_are_too_long_with_their_answer(self, talk: Talk) -> None:
        path, code, message, _ = self.problem(talk.say(chat(1020)))
        assert (path, code) == ("/messages", "context_length")
        assert re.fullmatch(r"need \d+ tokens \(\d+ in the prompt and 1020 for the answer\)", message)

    def test_an_empty_prompt(self, talk: Talk) -> None:
        assert self.problem(talk.say(Generate(prompt="")))[:2] == ["/prompt", "empty"]

    @pytest.mark.parametrize(
        ("constraint", "path"),
        [
            (Constraint("grammar", "start: nothing"), "/grammar"),
            (Constraint("json_schema", '{"type": "none"}'), "/response_format/json_schema/schema"),
            (Constraint("tool", '[{"name": "a", "parameters": {"type": "none"}}]'), "/tools"),
        ],
    )
    def test_a_constraint_that_cannot_be_followed(self, talk: Talk, constraint: Constraint, path: str) -> None:
        assert self.problem(talk.say(chat(constraint=constraint)))[:2] == [path, "constraint"]

    @pytest.mark.parametrize("body", [b"", b"null", b"{}", b"[" * 5000, b'"\xff'])
    def test_a_body_that_is_no_request_is_refused_and_the_next_one_answered(self, talk: Talk, body: bytes) -> None:
        said = talk.say(body)
        assert said.code == "internal"
        assert talk.say(chat()).done[0]["reason"] == "length"

    @pytest.mark.parametrize("principal", [[1], {"a": 1}, None, "x", 1.5, True, 2**63])
    def test_a_principal_that_is_no_number_hurts_nobody(self, talk: Talk, principal: Any) -> None:
        assert talk.say(chat(), principal=principal).done[0]["completion_tokens"] == 12

    @pytest.mark.parametrize("window", [0, -1, "a", None, 1.5, [1]])
    def test_a_window_that_is_no_number_is_none(self, talk: Talk, window: Any) -> None:
        assert talk.say(chat(), window=window).done[0]["completion_tokens"] == 12

    def test_more_than_it_takes_are_refused_at_once(self, talk: Talk) -> None:
        numbers = [talk.ask(chat(1)) for _ in range(MOST_REQUESTS + 3)]
        said = talk.hear(*numbers)
        assert [one.code for one in said if one.code] == ["queue_full"] * 3
        assert all(one.done for one in said[:MOST_REQUESTS])

    def test_counts_wait_in_the_same_queue(self, talk: Talk) -> None:
        for _ in range(MOST_REQUESTS + 2):
            talk.ask(chat(), kind=COUNT)
        talk.until(lambda: len(talk.link.frames) == MOST_REQUESTS + 2)
        assert sum(frame.kind == COUNTED for frame in talk.link.frames) == MOST_REQUESTS

    def test_the_bytes_of_what_waits_are_bounded(self, talk: Talk) -> None:
        numbers = [talk.ask(b"no request" * (2 << 20)) for _ in range(4)]
        assert [talk.said(number).code for number in numbers] == [None, None, None, "queue_full"]
        assert [said.code for said in talk.hear(*numbers[:3])] == ["internal"] * 3


class TestUnloading:
    def test_what_was_taken_in_is_answered_first(self) -> None:
        with talking() as talk:
            number = talk.ask(chat(100))
            talk.until(lambda: bool(talk.said(number).pieces))
            freed: list[bool] = []
            talk.unload(lambda: freed.append(True))
            refused = talk.ask(chat())
            assert talk.said(refused).code == "model_loading"
            talk.until(lambda: bool(freed))
            assert talk.said(number).done[0]["completion_tokens"] == 100
            assert talk.ended

    def test_a_count_is_answered_before_what_it_counts_with_is_freed(self) -> None:
        with talking() as talk:
            for _ in range(5):
                talk.ask(Generate(prompt="the sea " * 10_000), kind=COUNT)
            counted: list[int] = []
            talk.unload(lambda: counted.append(len(talk.link.frames)))
            talk.until(lambda: bool(counted))
            assert counted == [5]


class TestDefects:
    def test_a_step_that_fails_ends_what_is_there_and_the_next_is_answered(self, talk: Talk) -> None:
        mates = [talk.ask(FOREVER) for _ in range(6)]
        talk.until(lambda: len(talk.link.frames) > 10)
        sequence = talk.link.generating[mates[0]].sequences[0]
        talk.base.engine.order(lambda: setattr(sequence, "adapter", "none of that name"))
        for said in talk.hear(*mates):
            assert said.done[0]["reason"] == "error"
        assert [type(failure["exception"]) for failure in talk.failures] == [KeyError]
        talk.failures.clear()
        again = talk.say(Generate(prompt=PROMPT, sampling=greedy(5)))
        assert (again.done[0]["reason"], again.done[0]["cached_tokens"]) == ("length", 0)

    def test_those_that_ended_in_the_step_that_failed_have_their_ends(self, talk: Talk) -> None:
        cancelled, broken = talk.ask(FOREVER), talk.ask(FOREVER)
        talk.until(lambda: len(talk.link.frames) > 10)
        first, second = (talk.link.generating[number].sequences[0] for number in (cancelled, broken))

        def both() -> None:
            first.cancelled, second.adapter = True, "none of that name"

        talk.base.engine.order(both)
        assert [said.done[0]["reason"] for said in talk.hear(cancelled, broken)] == ["cancelled", "error"]
        talk.failures.clear()

    def test_an_order_that_fails_leaves_the_engine_at_work(self, talk: Talk) -> None:
        talk.base.engine.order([].pop)
        assert talk.say(chat()).done[0]["reason"] == "length"
        assert [type(failure["exception"]) for failure in talk.failures] == [IndexError]
        talk.failures.clear()


class TestBases:
    def attach(self, talk: Talk, name: str, content: bytes) -> None:
        """As the loading thread does it, while the loop does not turn."""
        with tiny.memory(content) as descriptor:
            talk.base.attach(name, descriptor)

    def test_an_adapter_that_two_deployments_use_stays_until_both_are_gone(self, talk: Talk) -> None:
        self.attach(talk, "version", tiny.adapter(1))
        self.attach(talk, "version", b"not read: it is here already")
        talk.base.detach("version")
        assert self.said_with(talk, "version") != self.said_with(talk, "")
        talk.base.detach("version")
        self.attach(talk, "version", tiny.adapter(2))
        self.said_with(talk, "version")
        talk.base.detach("version")

    def said_with(self, talk: Talk, adapter: str) -> str:
        talk.model._adapter, before = adapter, talk.model._adapter
        try:
            said = talk.say(Generate(prompt=PROMPT, sampling=greedy(20, ignore_eos=True)))
        finally:
            talk.model._adapter = before
        assert said.done[0]["reason"] == "length"
        return said.text

    def test_a_file_that_is_no_adapter_of_the_base_is_refused(self, talk: Talk) -> None:
        with pytest.raises(LoadFailed):
            self.attach(talk, "version", b"GGUF" + bytes(100))
        assert talk.say(chat()).done[0]["reason"] == "length"

    def test_a_template_that_is_none_is_a_failure_to_load_that_says_so(self) -> None:
        weights = tiny.weights(tiny.gguf(template="{% if %}"))
        loop = asyncio.new_event_loop()
        with pytest.raises(LoadFailed, match="chat template"):
            Base(weights, ROOM, loop, on_end=lambda: None)
        loop.close()


class TestFingerprints:
    def test_it_is_that_of_weights_and_threads_and_stays(self, talk: Talk) -> None:
        first, second = (talk.say(chat()).done[0]["fingerprint"] for _ in range(2))
        assert first == second == fingerprint("00", 1)
        assert re.fullmatch(r"fp_[0-9a-f]{16}", first)

    def test_other_weights_and_other_threads_have_another(self) -> None:
        assert len({fingerprint(*of) for of in (("00", 1), ("01", 1), ("00", 2), (None, 1))}) == 4

    def test_a_seed_repeats_on_an_engine_that_is_new(self) -> None:
        texts = []
        for _ in range(2):
            with talking() as talk:
                texts.append(talk.say(Generate(messages=USER, sampling=Sampling(max_tokens=60, seed=11))).text)
        assert texts[0] == texts[1]


def test_principals_are_served_by_turns() -> None:
    with talking(slots=2) as talk:
        with talk.held():
            many = [talk.ask(chat(40), principal=1) for _ in range(40)]
            one = talk.ask(chat(40), principal=2)
        talk.hear(one)
        assert len(talk.link.ended.intersection(many)) < 8
        talk.hear(*many)


def test_two_hundred_at_once_are_each_answered_with_their_own() -> None:
    with talking(slots=16, cells=1024) as talk:
        scripts = [f"number {place}" for place in range(200)]
        asked: dict[int, str] = {}
        for script in scripts:
            grammar = Constraint("grammar", f'start: "{script}"')
            asked[
                talk.ask(Generate(prompt=PROMPT, sampling=Sampling(constraint=grammar)), principal=len(asked) % 7)
            ] = script
        for said, script in zip(talk.hear(*asked), asked.values(), strict=True):
            assert (said.text, said.done[0]["reason"]) == (script, "stop")


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_sent_for_one_link_in_a_step_is_read_as_frames(talk: Talk, stream: bool) -> None:
    generate = chat(20, n=2, constraint=Constraint("grammar", 'start: "the same for all"'))
    numbers = [talk.ask(generate, stream=stream) for _ in range(6)]
    assert all(said.texts == dict.fromkeys(range(2), "the same for all") for said in talk.hear(*numbers))
