"""What is computed in which step, and that none of it changes what a sequence says: every token is the reference's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.language.llama import Weights
from inference.language.requests import Sampling
from inference.language.scheduler import PATIENCE_STEPS, Flow
from tests.depth import examples
from tests.inference.language import tiny
from tests.inference.language.driving import LONG, Drive, Scripted, driven, words


@pytest.fixture
def drive(exact: Weights) -> Iterator[Drive]:
    with driven(exact) as made:
        yield made


class TestOneText:
    def test_greedy_tokens_are_the_references(self, drive: Drive) -> None:
        choices = [drive.put(words(seed, count), 40) for seed, count in enumerate((1, 2, 17, 64, 65, 130))]
        for choice in choices:
            drive.run(choice)
            drive.check(choice)

    def test_a_prompt_is_computed_in_chunks_and_nothing_comes_before_its_end(self, drive: Drive) -> None:
        choice = drive.put(words(1, 150), 5)
        drive.run()
        assert drive.came[choice].steps == [3, 4, 5, 6, 7]
        assert drive.scheduler.tokens_in == 150 + 4
        drive.check(choice)

    @pytest.mark.parametrize("chunk", [1, 7, 64, 512])
    def test_the_size_of_a_chunk_changes_nothing(self, exact: Weights, chunk: int) -> None:
        with driven(exact, chunk=chunk) as drive:
            choice = drive.put(LONG, 20)
            drive.run()
            drive.check(choice)

    def test_it_ends_by_length_at_the_most_tokens_that_it_may_have(self, drive: Drive) -> None:
        choice = drive.put(LONG, 3)
        drive.run()
        assert (drive.came[choice].end, choice.made, len(choice.tokens)) == ("length", 3, 103)

    def test_the_whole_context_is_used_to_its_last_cell(self, exact: Weights) -> None:
        with driven(exact, cells=256) as drive:
            assert drive.context.cells == 256
            choice = drive.put(LONG, 156)
            drive.run()
            assert len(choice.tokens) == 256
            drive.check(choice)

    def test_the_same_on_an_engine_that_is_new_is_the_same_to_the_last_bit(self, small: Weights) -> None:
        """Not beyond that: where llama.cpp puts a token, and beside which, changes the order of its sums."""
        told = []
        for _ in range(2):
            with driven(small) as drive:
                choice = drive.put(LONG, 30, sampling=Sampling(temperature=1.0, seed=5))
                drive.run()
                told.append(drive.came[choice].logprobs)
        assert told[0] == told[1]


class TestEnds:
    def end(self, drive: Drive) -> int:
        return drive.weights.vocabulary.eos

    def test_an_end_token_ends_it_and_is_counted_but_has_no_text(self, drive: Drive) -> None:
        choice = drive.put(LONG, 9, mask=Scripted([*drive.tokens("the end"), self.end(drive)]), ignore_end=False)
        drive.run()
        assert (drive.came[choice].end, drive.came[choice].text) == ("stop", "the end")
        assert choice.made == len(drive.tokens("the end")) + 1
        assert drive.came[choice].tokens == list(drive.tokens("the end"))  # log-probabilities are of what is said

    def test_where_ends_are_ignored_it_goes_on_to_its_length(self, drive: Drive) -> None:
        choice = drive.put(LONG, 9, sampling=Sampling(temperature=0, logit_bias={self.end(drive): 100.0}))
        drive.run()
        assert (drive.came[choice].end, drive.made(choice)) == ("length", [self.end(drive)] * 9)
        assert drive.came[choice].text == ""

    def test_a_bias_makes_its_token_come(self, drive: Drive) -> None:
        choice = drive.put(LONG, 3, sampling=Sampling(temperature=0, logit_bias={280: 100.0}))
        drive.run()
        assert drive.made(choice) == [280] * 3

    @pytest.mark.parametrize(("stops", "text"), [(["lo wo"], "hel"), (["d", "world"], "hello "), (["l"], "he")])
    def test_a_stop_string_ends_it_across_tokens(self, drive: Drive, stops: list[str], text: str) -> None:
        script = drive.tokens("hello world, and more")
        choice = drive.put(LONG, 30, stops=stops, mask=Scripted(script))
        drive.run()
        assert (drive.came[choice].end, drive.came[choice].text) == ("stop", text)
        assert choice.made < len(script)

    def test_what_may_have_begun_a_stop_string_is_sent_at_the_end(self, drive: Drive) -> None:
        script = drive.tokens("hello")
        choice = drive.put(LONG, len(script), stops=["low"], mask=Scripted(script))
        drive.run()
        assert (drive.came[choice].end, drive.came[choice].text) == ("length", "hello")

    def test_characters_of_several_tokens_come_whole(self, drive: Drive) -> None:
        script = drive.tokens("a€🙂b")
        assert len(script) == 9
        choice = drive.put(LONG, 9, mask=Scripted(script))
        drive.run()
        assert [event.text for event in drive.events] == ["a", "", "", "€", "", "", "", "🙂", "b"]
        assert drive.came[choice].text == "a€🙂b"


class TestMates:
    @pytest.mark.parametrize(("slots", "cells", "chunk"), [(8, 1024, 64), (3, 1024, 64), (8, 1024, 16), (8, 512, 512)])
    def test_mates_change_nothing(self, exact: Weights, slots: int, cells: int, chunk: int) -> None:
        with driven(exact, slots=slots, cells=cells, chunk=chunk) as drive:
            choices = [drive.put(words(seed, 5 + 13 * seed), 20 + seed, lane=seed % 3) for seed in range(8)]
            drive.run()
            for choice in choices:
                drive.check(choice)

    def test_those_that_decode_lose_no_step_to_a_long_prompt(self, exact: Weights) -> None:
        with driven(exact, chunk=16) as drive:
            decoding = [drive.put(words(seed, 5), 40) for seed in range(2)]
            drive.run(until=lambda: all(choice.made for choice in decoding))
            late = drive.put(LONG, 5)
            start = drive.scheduler.steps
            drive.run(late)
            first = drive.came[late].steps[0]
            assert first == start + 8  # of 16 places two are taken by the others: 100 in parts of 14
            for choice in decoding:
                assert set(drive.came[choice].steps) >= set(range(start + 1, first + 1))
                drive.run()
                drive.check(choice)

    def test_those_that_decode_come_before_a_prompt_of_a_lane_that_was_served_less(self, exact: Weights) -> None:
        with driven(exact, chunk=16) as drive:
            drive.put(words(9, 5), 5, lane="modest", flow=Flow(0))  # waits, so that its lane stays where it is
            decoding = [drive.put(words(seed, 5), 40, lane="busy") for seed in range(2)]
            drive.run(until=lambda: all(choice.made > 5 for choice in decoding))
            late, start = drive.put(LONG, 5, lane="modest"), drive.scheduler.steps
            drive.run(late)
            for choice in decoding:
                assert set(drive.came[choice].steps) >= set(range(start + 1, drive.came[late].steps[0] + 1))

    def test_of_two_prompts_the_one_of_the_lane_that_was_served_less_comes_first(self, exact: Weights) -> None:
        with driven(exact, chunk=64) as drive:
            drive.put(words(9, 5), 5, lane="modest", flow=Flow(0))
            busy = drive.put(words(8, 250), 20, lane="busy")
            drive.step()
            modest, start = drive.put(words(0, 60), 5, lane="modest"), drive.scheduler.steps
            drive.run(busy, modest)
            assert drive.came[modest].steps[0] == start + 1
            assert drive.came[busy].steps[0] > start + 2

    def test_a_step_of_many_is_one_call_of_the_context(self, drive: Drive) -> None:
        for seed in range(4):
            drive.put(words(seed, 10), 10)
        drive.run()
        assert drive.scheduler.steps == 10
        assert drive.scheduler.tokens_in == 4 * (10 + 9)
        assert drive.scheduler.tokens_out == 40

    def test_with_nothing_to_do_nothing_is_computed(self, drive: Drive) -> None:
        assert drive.step() == []
        assert not drive.scheduler.computed


class TestPrefixes:
    def said(self, drive: Drive, prompt: list[int], made: int = 6, **fields: Any) -> Any:
        choice = drive.put(prompt, made, **fields)
        drive.run()
        drive.check(choice)
        return choice

    def test_the_next_turn_of_a_conversation_computes_what_is_new(self, drive: Drive) -> None:
        first = self.said(drive, LONG)
        computed = drive.scheduler.tokens_in
        second = self.said(drive, [*first.tokens, *words(9, 10)])
        assert (first.cached_tokens, second.cached_tokens) == (0, 105)  # the last token was chosen, not computed
        assert drive.scheduler.tokens_in - computed == 11 + 5

    def test_the_same_prompt_again_computes_its_last_token(self, drive: Drive) -> None:
        assert [self.said(drive, LONG).cached_tokens for _ in range(3)] == [0, 99, 99]

    def test_a_common_beginning_is_computed_once_for_those_that_run_together(self, drive: Drive) -> None:
        first = drive.put([*LONG, *words(1, 5)], 30)
        drive.run(until=lambda: first.made > 0)
        others = [drive.put([*LONG, *words(seed, 5)], 30) for seed in (2, 3)]
        drive.run()
        assert [choice.cached_tokens for choice in (first, *others)] == [0, 100, 100]
        for choice in (first, *others):
            drive.check(choice)

    def test_nothing_is_taken_from_another_scope(self, drive: Drive) -> None:
        cached = [self.said(drive, LONG, scope=scope).cached_tokens for scope in ("alice/", "bob/", "alice/")]
        assert cached == [0, 0, 99]

    def test_every_prompt_is_found_again_until_its_room_is_needed(self, exact: Weights) -> None:
        with driven(exact, slots=4, cells=256) as drive:
            prompts = [words(seed, 90) for seed in range(3)]
            assert [self.said(drive, prompt).cached_tokens for prompt in prompts] == [0, 0, 0]
            assert self.said(drive, prompts[2]).cached_tokens == 89
            assert self.said(drive, prompts[1]).cached_tokens == 89
            assert self.said(drive, prompts[0]).cached_tokens == 0  # the longest unused made room for the third


class TestLittleRoom:
    def test_all_are_answered_though_together_they_need_thrice_the_room(self, exact: Weights) -> None:
        with driven(exact, slots=6, cells=256) as drive:
            choices = [drive.put(words(seed, 60), 70, lane=seed % 2) for seed in range(6)]
            gave_way = set()
            while not all(drive.came[choice].end for choice in choices):
                drive.step()
                gave_way |= {choice for choice in choices if choice.made and choice.slot is None and not choice.ended}
                assert drive.scheduler.steps < 2000
            assert gave_way
            for choice in choices:
                assert choice.made == 70
                drive.check(choice)

    def test_one_that_gave_way_says_on_what_it_had_begun(self, exact: Weights) -> None:
        with driven(exact, slots=2, cells=256) as drive:
            choices = [drive.put(words(seed, 100), 100) for seed in range(2)]
            drive.run(until=lambda: any(choice.made and choice.slot is None for choice in choices))
            assert sum(choice.slot is None for choice in choices) == 1
            drive.run()
            for choice in choices:
                assert drive.came[choice].tokens == drive.made(choice)
                drive.check(choice)

    def test_the_one_that_came_first_goes_on(self, exact: Weights) -> None:
        with driven(exact, slots=2, cells=256) as drive:
            first, second = (drive.put(words(seed, 100), 100) for seed in range(2))
            drive.run()
            assert drive.came[first].steps == list(range(drive.came[first].steps[0], drive.came[first].steps[0] + 100))
            assert drive.came[second].steps[-1] > drive.came[first].steps[-1]

    def test_the_youngest_makes_room_first(self, exact: Weights) -> None:
        with driven(exact, slots=3, cells=256, chunk=256) as drive:
            choices = [drive.put(words(seed, 76 - (seed > 0)), 60) for seed in range(3)]  # 30 cells left, 3 a step
            drive.run(until=lambda: any(choice.made and choice.slot is None for choice in choices))
            assert [choice.slot is None for choice in choices] == [False, False, True]
            drive.run()

    def test_a_prompt_waits_until_there_is_room_for_all_of_it(self, exact: Weights) -> None:
        with driven(exact, slots=4, cells=256) as drive:
            first = drive.put(words(0, 150), 20)
            drive.run(until=lambda: first.made > 0)
            second = drive.put(words(1, 120), 20)
            drive.run()
            assert drive.came[second].steps[0] > drive.came[first].steps[-1]
            drive.check(second)


class TestFairness:
    def test_one_request_gets_a_slot_while_another_principal_has_a_hundred(self, exact: Weights) -> None:
        with driven(exact, slots=2) as drive:
            for seed in range(100):
                drive.put(words(seed, 20), 40, lane="many")
            drive.run(until=lambda: drive.scheduler.steps == 10)
            one = drive.put(words(1000, 20), 40, lane="one")
            drive.run(one)
            assert drive.came[one].steps[0] <= 10 + PATIENCE_STEPS + 2
            drive.check(one)

    def test_one_that_had_to_make_way_for_another_principal_says_on(self, exact: Weights) -> None:
        with driven(exact, slots=2) as drive:
            two = [drive.put(words(seed, 20), 60, lane="many") for seed in range(2)]
            drive.run(until=lambda: all(choice.made for choice in two))
            drive.put(words(9, 20), 10, lane="one")
            drive.run(until=lambda: two[1].slot is None)
            assert two[0].slot is not None
            drive.run()
            for choice in two:
                drive.check(choice)

    def test_two_that_always_wait_are_served_alike(self, exact: Weights) -> None:
        with driven(exact, slots=3, cells=512) as drive:
            for seed in range(60):
                drive.put(words(seed, 10 if seed % 2 else 40), 10, lane="short" if seed % 2 else "long")
            drive.run(until=lambda: drive.scheduler.tokens_in > 800)
            served = {"short": 0, "long": 0}
            for choice in drive.came:
                served[str(choice.lane)] += choice.computed if not choice.ended else len(choice.tokens) - 1
            assert abs(served["short"] - served["long"]) < 3 * 50

    def test_a_lane_whose_request_was_cancelled_waits_as_patiently_the_next_time(self, exact: Weights) -> None:
        with driven(exact, slots=2) as drive:
            two = [drive.put(words(seed, 20), 200, lane="many") for seed in range(2)]
            drive.run(until=lambda: all(choice.made for choice in two))
            impatient = drive.put(words(8, 20), 5, lane="one")
            drive.step()
            impatient.cancelled = True
            for _ in range(PATIENCE_STEPS):
                drive.step()
            again, start = drive.put(words(9, 20), 5, lane="one"), drive.scheduler.steps
            drive.run(again)
            assert drive.came[again].steps[0] >= start + PATIENCE_STEPS


class TestChoices:
    def choices(self, drive: Drive, prompt: list[int], count: int = 4, made: int = 8) -> list[Any]:
        found: list[Any] = []
        flow = Flow()
        for index in range(count):
            leader = found[0] if found else None
            sampling = Sampling(temperature=1.0, seed=3)
            found.append(drive.put(prompt, made, index=index, leader=leader, flow=flow, sampling=sampling))
        return found

    def test_they_share_the_prompt(self, drive: Drive) -> None:
        choices = self.choices(drive, LONG)
        drive.run()
        assert [choice.cached_tokens for choice in choices] == [0, 99, 99, 99]
        assert drive.scheduler.tokens_in == 100 + 3 + 4 * 7
        assert len({tuple(drive.made(choice)) for choice in choices}) == 4

    def test_a_short_prompt_is_computed_for_each(self, drive: Drive) -> None:
        choices = self.choices(drive, LONG[:10])
        drive.run()
        assert [choice.cached_tokens for choice in choices] == [0] * 4
        assert all(choice.made == 8 for choice in choices)

    @pytest.mark.parametrize("steps", [0, 1, 2])
    def test_a_leader_that_is_cancelled_leaves_the_others_to_go_on(self, drive: Drive, steps: int) -> None:
        choices = self.choices(drive, LONG)
        for _ in range(steps):
            drive.step()
        choices[0].cancelled = True
        drive.run()
        assert [drive.came[choice].end for choice in choices] == ["cancelled", "length", "length", "length"]

    def test_they_share_it_with_one_slot_too(self, exact: Weights) -> None:
        with driven(exact, slots=1) as drive:
            choices = self.choices(drive, LONG)
            drive.run()
            assert [choice.cached_tokens for choice in choices] == [0, 99, 99, 99]


class TestGivingUp:
    def test_while_it_waits(self, exact: Weights) -> None:
        with driven(exact, slots=1) as drive:
            drive.put(LONG, 20)
            drive.step()
            waiting = drive.put(LONG, 20)
            drive.step()
            waiting.cancelled = True
            drive.step()
            assert (drive.came[waiting].end, waiting.made, drive.scheduler.waiting) == ("cancelled", 0, 0)

    def test_while_its_prompt_is_computed(self, exact: Weights) -> None:
        with driven(exact, slots=1, chunk=16) as drive:
            gone = drive.put(LONG, 20)
            drive.step()
            assert gone.computed == 16
            gone.cancelled = True
            drive.step()
            assert (drive.came[gone].end, gone.made) == ("cancelled", 0)
            assert (drive.scheduler.running, drive.scheduler.cache.idle_slots) == (0, 1)

    def test_while_it_speaks(self, exact: Weights) -> None:
        with driven(exact, slots=2) as drive:
            gone, mate = drive.put(LONG, 50, mask=Scripted([76, 77, 78])), drive.put(words(1, 10), 50)
            drive.run(until=lambda: gone.made == 3)
            gone.cancelled = True
            drive.step()
            assert (drive.came[gone].end, gone.made, len(drive.came[gone].logprobs)) == ("cancelled", 3, 3)
            assert drive.scheduler.cache.idle_slots == 1
            drive.run(mate)
            drive.check(mate)

    def test_what_was_held_back_is_told_with_the_end(self, drive: Drive) -> None:
        script = drive.tokens("hello")
        gone = drive.put(LONG, 50, stops=["llow"], mask=Scripted(script))
        drive.run(until=lambda: gone.made == len(script))
        assert drive.came[gone].text == "he"
        gone.cancelled = True
        drive.step()
        assert drive.came[gone].text == "hello"

    def test_its_slot_is_another_ones_in_the_same_step(self, exact: Weights) -> None:
        with driven(exact, slots=1) as drive:
            gone, next_one = drive.put(LONG, 50), drive.put(words(1, 10), 5)
            drive.run(until=lambda: gone.made == 3)
            gone.cancelled = True
            drive.step()
            assert next_one.made == 1

    def test_what_it_computed_is_of_use_to_the_next(self, drive: Drive) -> None:
        gone = drive.put(LONG, 50)
        drive.run(until=lambda: gone.made == 3)
        gone.cancelled = True
        drive.step()
        again = drive.put(LONG, 10)
        drive.run(again)
        assert again.cached_tokens == 99
        drive.check(again)

    def test_a_deadline_ends_it_where_it_stands(self, exact: Weights) -> None:
        with driven(exact, slots=1) as drive:
            late, waiting = drive.put(LONG, 50), drive.put(LONG, 50)
            drive.run(until=lambda: late.made == 3)
            late.deadline = waiting.deadline = time.monotonic()
            drive.step()
            assert drive.came[late].end == drive.came[waiting].end == "late"
            assert (late.made, waiting.made, drive.scheduler.cache.idle_slots) == (3, 0, 1)


class TestSlowReaders:
    def test_a_reader_that_is_behind_holds_up_its_own_sequence_only(self, drive: Drive) -> None:
        slow, quick = drive.put(LONG, 30, flow=Flow(5)), drive.put(words(1, 10), 30)
        drive.run(quick)
        assert (slow.made, drive.came[slow].end) == (5, None)
        drive.step()
        assert not drive.scheduler.computed
        slow.flow.left += 100
        drive.run()
        drive.check(slow)
        drive.check(quick)

    def test_it_is_sent_no_more_than_it_asked_for(self, drive: Drive) -> None:
        slow = drive.put(LONG, 30, flow=Flow(3))
        for asked in (3, 4, 8, 30):
            for _ in range(40):
                drive.step()
            assert slow.made == asked
            slow.flow.left += {3: 1, 4: 4, 8: 100, 30: 0}[asked]
        drive.check(slow)

    def test_only_what_is_sent_counts(self, drive: Drive) -> None:
        """Its reader counts what it gets, and asks for more by that: tokens without text would be lost to it."""
        script = drive.tokens("€" * 5 + "no stop")
        slow = drive.put(LONG, len(script), flow=Flow(5), mask=Scripted(script), logprobs=None, stops=["op!"])
        for _ in range(60):
            drive.step()
        assert drive.came[slow].text == "€" * 5
        slow.flow.left += 5
        for _ in range(60):
            drive.step()
        assert drive.came[slow].text.startswith("€" * 5 + "no s")
        slow.flow.left += 5
        drive.run()
        assert drive.came[slow].text == "€" * 5 + "no stop"

    def test_it_gives_its_slot_to_one_that_waits_and_says_on_later(self, exact: Weights) -> None:
        with driven(exact, slots=1) as drive:
            slow = drive.put(LONG, 30, flow=Flow(5))
            drive.run(until=lambda: slow.made == 5)
            quick = drive.put(words(1, 10), 10)
            drive.run(quick)
            assert (slow.slot, slow.made) == (None, 5)
            slow.flow.left += 100
            drive.run()
            for choice in (slow, quick):
                drive.check(choice)

    def test_it_gives_its_room_to_one_that_waits(self, exact: Weights) -> None:
        with driven(exact, slots=4, cells=256) as drive:
            slow = drive.put(words(0, 150), 30, flow=Flow(5))
            drive.run(until=lambda: slow.made == 5)
            quick = drive.put(words(1, 150), 10)
            drive.run(quick)
            slow.flow.left += 100
            drive.run()
            for choice in (slow, quick):
                drive.check(choice)

    def test_choices_of_one_request_share_what_was_asked_for(self, drive: Drive) -> None:
        flow = Flow(10)
        first = drive.put(LONG, 30, flow=flow)
        second = drive.put(LONG, 30, flow=flow, leader=first, index=1)
        for _ in range(60):
            drive.step()
        assert first.made + second.made in (10, 11)  # both had begun a step with one left
        flow.left += 100
        drive.run()

    def test_one_whose_reader_is_behind_can_be_cancelled(self, drive: Drive) -> None:
        slow = drive.put(LONG, 30, flow=Flow(5))
        drive.run(until=lambda: slow.made == 5)
        slow.cancelled = True
        drive.step()
        assert (drive.came[slow].end, slow.made) == ("cancelled", 5)


class TestAdapters:
    @pytest.fixture
    def adapted(self, drive: Drive) -> Drive:
        for name, seed in (("law", 1), ("sea", 2)):
            with tiny.memory(tiny.adapter(seed)) as descriptor:
                drive.scheduler.attach(name, drive.weights.adapter(descriptor))
        return drive

    def test_each_says_what_it_would_say_alone(self, adapted: Drive) -> None:
        files = {"": None, "law": tiny.adapter(1), "sea": tiny.adapter(2)}
        choices = [adapted.put(words(seed, 40), 20, adapter=name) for seed in range(2) for name in files]
        adapted.run()
        for choice in choices:
            adapted.check(choice, files[choice.adapter])

    def test_they_take_turns_and_none_waits_longer_than_the_others(self, adapted: Drive) -> None:
        choices = [adapted.put(words(seed, 10), 10, adapter=name) for seed, name in enumerate(("", "law", "sea"))]
        adapted.run()
        steps = [adapted.came[choice].steps for choice in choices]
        assert all(after - before == 3 for came in steps for before, after in pairwise(came))

    def test_nothing_computed_with_one_is_taken_for_another(self, adapted: Drive) -> None:
        cached = []
        for name in ("", "law", "sea", "law", ""):
            choice = adapted.put(LONG, 5, adapter=name)
            adapted.run()
            cached.append(choice.cached_tokens)
        assert cached == [0, 0, 0, 99, 99]

    def test_another_adapter_of_the_same_name_finds_nothing_of_the_one_before(self, adapted: Drive) -> None:
        adapted.put(LONG, 5, adapter="law", scope="alice/")
        adapted.run()
        adapted.weights.free_adapter(adapted.scheduler.detach("law"))
        with tiny.memory(tiny.adapter(3)) as descriptor:
            adapted.scheduler.attach("law", adapted.weights.adapter(descriptor))
        choice = adapted.put(LONG, 5, adapter="law", scope="alice/")
        adapted.run()
        assert choice.cached_tokens == 0
        adapted.check(choice, tiny.adapter(3))

    def test_one_for_which_there_is_no_room_pushes_out_none_of_another(self, exact: Weights) -> None:
        with driven(exact, cells=256) as drive:
            with tiny.memory(tiny.adapter()) as descriptor:
                drive.scheduler.attach("law", exact.adapter(descriptor))
            first = drive.put(words(0, 150), 20, adapter="law")
            drive.run(until=lambda: first.made > 0)
            drive.put(words(1, 150), 5)
            start = drive.scheduler.steps
            drive.run()
            assert drive.came[first].steps == list(range(start, start + 20))

    def test_it_is_known_which_are_in_use(self, adapted: Drive) -> None:
        adapted.put(LONG, 5, adapter="law")
        assert (adapted.scheduler.uses("law"), adapted.scheduler.uses("sea")) == (True, False)
        adapted.run()
        assert not adapted.scheduler.uses("law")


class TestFailures:
    def test_a_step_that_llama_cpp_refuses_ends_those_that_run_and_the_next_are_right(self, drive: Drive) -> None:
        mate = drive.put(LONG, 30)
        drive.run(until=lambda: mate.made == 3)
        broken = drive.put([*LONG, 1 << 20], 5)  # no such token
        drive.run()
        assert drive.came[mate].end == drive.came[broken].end == "failed"
        assert drive.scheduler.running == 0
        for prompt in (LONG, words(5, 60)):
            choice = drive.put(prompt, 10)
            drive.run()
            drive.check(choice)

    def test_nothing_that_was_not_computed_is_taken_for_computed(self, drive: Drive) -> None:
        drive.put([*LONG, 1 << 20, *words(1, 30)], 5)
        drive.run()
        choice = drive.put([*LONG, *words(2, 5)], 10)
        drive.run()
        assert choice.cached_tokens == 0
        drive.check(choice)


REQUESTS = st.fixed_dictionaries(
    {
        "at": st.integers(0, 60),
        "beginning": st.sampled_from((0, 20, 60)),
        "rest": st.integers(1, 60),
        "made": st.integers(1, 60),
        "lane": st.integers(0, 2),
        "scope": st.sampled_from(("", "other")),
        "window": st.sampled_from((3, 1000)),
        "cancelled_at": st.sampled_from((None, None, 10, 40, 80)),
    }
)


@settings(max_examples=examples(6))
@given(requests=st.lists(REQUESTS, min_size=1, max_size=8), slots=st.integers(1, 5), chunk=st.sampled_from((8, 64)))
def test_whatever_comes_all_are_answered_and_every_token_is_the_references(
    exact: Weights, requests: list[dict[str, Any]], slots: int, chunk: int
) -> None:
    with driven(exact, slots=slots, cells=256, chunk=chunk) as drive:
        choices: dict[int, Any] = {}
        step = 0
        while len(choices) < len(requests) or not all(drive.came[choice].end for choice in choices.values()):
            for number, request in enumerate(requests):
                if request["at"] == step:
                    prompt = LONG[: request["beginning"]] + words(number, request["rest"])
                    flow = Flow(request["window"])
                    fields = {"lane": request["lane"], "scope": request["scope"], "flow": flow}
                    choices[number] = drive.put(prompt, request["made"], **fields)
                if request["cancelled_at"] == step and number in choices:
                    choices[number].cancelled = True
            drive.step()
            if step % 5 == 0:
                for choice in choices.values():
                    choice.flow.left += 3
            step += 1
            assert step < 2500
        for number, choice in choices.items():
            came = drive.came[choice]
            assert came.end == "length" or (came.end == "cancelled" and requests[number]["cancelled_at"] is not None)
            assert choice.made == requests[number]["made"] or came.end == "cancelled"
            if choice.made:
                drive.check(choice)
        assert (drive.scheduler.running, drive.scheduler.waiting) == (0, 0)
        assert drive.scheduler.cache.room() == 256
