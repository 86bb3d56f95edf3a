"""Who is next: nobody waits for ever, nobody saves up turns, and two that both wait are served alike."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from inference.language.lanes import Lanes


@dataclass(eq=False)
class One:
    lane: Hashable
    tokens: int = 1


def anybody(_: One) -> bool:
    return True


def serve(lanes: Lanes[One]) -> One:
    """The next one, from its slot to its end."""
    one = lanes.next(anybody)
    assert one is not None
    lanes.take(one)
    lanes.charge(one.lane, one.tokens)
    lanes.leave(one)
    return one


def filled(*many: tuple[str, int, int]) -> Lanes[One]:
    """(lane, how many, tokens each)"""
    lanes: Lanes[One] = Lanes()
    for lane, count, tokens in many:
        for _ in range(count):
            lanes.enter(One(lane, tokens))
    return lanes


def test_one_request_does_not_wait_behind_a_hundred_of_another() -> None:
    lanes = filled(("many", 100, 50), ("one", 1, 50))
    assert "one" in [serve(lanes).lane for _ in range(2)]


def test_one_that_comes_while_a_hundred_wait_is_served_before_two_more_of_them() -> None:
    lanes = filled(("many", 100, 50))
    for _ in range(30):
        serve(lanes)
    lanes.enter(One("late", 50))
    assert "late" in [serve(lanes).lane for _ in range(2)]


def test_requests_of_one_lane_keep_their_order() -> None:
    lanes = filled(("a", 5, 1))
    waiting = list(lanes)
    assert [serve(lanes) for _ in waiting] == waiting


def test_one_that_had_to_make_way_is_the_first_of_its_lane_again() -> None:
    lanes = filled(("a", 3, 1))
    first = lanes.next(anybody)
    assert first is not None
    lanes.take(first)
    lanes.back(first)
    assert lanes.next(anybody) is first
    assert lanes.count == 3


def test_one_that_is_not_able_holds_up_nobody() -> None:
    lanes = filled(("a", 2, 1), ("b", 1, 1))
    first, second, other = lanes
    assert lanes.next(lambda one: one is not first) is second
    assert lanes.next(lambda one: one.lane == "b") is other
    assert lanes.next(lambda _: False) is None


def test_a_lane_that_was_away_has_saved_up_nothing() -> None:
    lanes = filled(("busy", 100, 10))
    for _ in range(50):
        serve(lanes)
    for _ in range(50):
        lanes.enter(One("rested", 10))
    order = [serve(lanes).lane for _ in range(20)]
    assert order.count("rested") == order.count("busy") == 10


def test_a_lane_that_finds_nobody_starts_level_with_the_last_that_left() -> None:
    """Else one that was served much would wait until the other had caught up on all of it."""
    lanes = filled(("busy", 100, 10))
    while lanes.count:
        serve(lanes)
    for lane in ("rested", "busy"):
        for _ in range(50):
            lanes.enter(One(lane, 10))
    order = [serve(lanes).lane for _ in range(20)]
    assert order.count("rested") == order.count("busy") == 10


def test_what_a_lane_was_served_is_not_forgiven_while_it_is_away() -> None:
    lanes = filled(("greedy", 1, 1000), ("modest", 3, 10))
    while lanes.count > 1:
        serve(lanes)
    lanes.enter(One("greedy", 1000))
    lanes.enter(One("modest", 10))
    assert [serve(lanes).lane for _ in range(3)] == ["modest", "modest", "greedy"]


def test_thousands_of_lanes_that_came_once_are_not_remembered_for_ever() -> None:
    lanes: Lanes[One] = Lanes()
    for number in range(20_000):
        lanes.enter(One(str(number)))
        serve(lanes)
    assert sum(lanes.served(str(number)) > 0 for number in range(20_000)) < 10_000


@given(
    sizes=st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=5), min_size=2, max_size=5),
    others=st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 30)), max_size=30),
)
def test_what_two_that_always_wait_are_served_never_differs_by_more_than_one_request_of_each(
    sizes: Sequence[Sequence[int]], others: Sequence[tuple[str, int]]
) -> None:
    lanes: Lanes[One] = Lanes()
    for lane in [lane for lane, at in others if at == 0]:
        lanes.enter(One(lane, 100))
        serve(lanes)
    got = dict.fromkeys((str(number) for number in range(len(sizes))), 0)
    turns = dict.fromkeys(got, 0)

    def ask(lane: str) -> None:
        queue = sizes[int(lane)]
        lanes.enter(One(lane, queue[turns[lane] % len(queue)]))
        turns[lane] += 1

    for lane in got:
        ask(lane)
        ask(lane)  # one is always left while another is served
    largest = max(map(max, sizes))
    for step in range(1, 31):
        for lane, at in others:
            if at == step:
                lanes.enter(One(lane, 100))
        one = serve(lanes)
        if one.lane in got:
            got[one.lane] += one.tokens
            ask(one.lane)
        assert max(got.values()) - min(got.values()) <= 2 * largest
