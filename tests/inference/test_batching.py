"""What waits while the cell computes becomes the next batch; late, cancelled, bad and too many requests hurt nobody."""

from __future__ import annotations

import numpy as np
import pytest

from inference import protocol
from inference.requests import Model, Plan, Request, Waiting
from tests.inference import graphs
from tests.inference.cells import Cell, Connection, outputs_of

pytestmark = pytest.mark.slow

ITEM = {"x": np.ones((1, 1, 1), "f4")}


def test_requests_that_arrive_while_it_computes_form_the_next_batch(cell: Cell, edge: Connection) -> None:
    cell.load("slow", *graphs.slow())
    first = edge.infer("slow", ITEM)
    other = cell.connect()
    for connection in (edge, other):
        for _ in range(5):
            connection.infer("slow", ITEM)
    frames = [edge.frame() for _ in range(6)] + [other.frame() for _ in range(5)]
    batches = [frame.fields()["batch"] for frame in frames if frame.request != first or frame is not frames[0]]
    assert frames[0].request == first
    assert max(batches) > 1
    assert cell.stats()["batches"] < 11
    for frame in frames:
        np.testing.assert_allclose(outputs_of(frame)["out"], [[1.0]], rtol=1e-4)


def test_a_bad_request_in_a_batch_never_fails_its_neighbours(cell: Cell, edge: Connection) -> None:
    cell.load("lookup", *graphs.lookup())
    cell.load("slow", *graphs.slow())
    edge.infer("slow", ITEM)  # the ones below arrive while this computes, and are taken together
    numbers = {edge.infer("lookup", {"index": np.array([[i]], "i8")}): i for i in (1, 2, 99, 3)}
    frames = [edge.frame() for _ in range(5)]
    answers = {numbers[frame.request]: frame for frame in frames if frame.request in numbers}
    assert answers[99].fields()["code"] == "compute_failed"
    for index in (1, 2, 3):
        assert outputs_of(answers[index])["value"].tolist() == [[float(index)]]


def test_a_deadline_that_passes_while_waiting_is_answered_before_the_computation_ends(
    cell: Cell, edge: Connection
) -> None:
    cell.load("slow", *graphs.slow(times=40), max_batch=1)
    first = edge.infer("slow", ITEM)
    late = edge.infer("slow", ITEM, deadline_ms=1)
    frame = edge.frame()
    assert (frame.request, frame.fields()["code"]) == (late, "deadline_exceeded")
    assert edge.frame().request == first


def test_a_cancelled_request_is_not_computed(cell: Cell, edge: Connection) -> None:
    cell.load("slow", *graphs.slow(), max_batch=1)
    edge.infer("slow", ITEM)
    gone = edge.infer("slow", ITEM)
    edge.socket.sendall(protocol.encode(protocol.CANCEL, gone, {}))
    last = edge.infer("slow", ITEM)
    answered = [edge.frame().request, edge.frame().request]
    assert gone not in answered
    assert answered[-1] == last
    assert cell.stats()["requests"] == 2


def test_the_requests_of_a_closed_connection_are_not_computed(cell: Cell, edge: Connection) -> None:
    cell.load("slow", *graphs.slow())
    edge.infer("slow", ITEM)
    other = cell.connect()
    for _ in range(20):
        other.infer("slow", ITEM)
    other.send(protocol.DESCRIBE, {"model": "slow", "version": "1"})
    other.frame()  # everything before it has been taken in
    other.close()
    edge.frame()
    edge.infer("slow", ITEM)
    edge.frame()
    assert cell.stats()["requests"] < 22


def test_inputs_of_different_shapes_are_never_joined(cell: Cell, edge: Connection) -> None:
    cell.load("slow", *graphs.slow())
    cell.load("table", *graphs.table())
    edge.infer("slow", ITEM)
    for text in ("a", "bb", "ccc"):
        edge.infer("table", {"radius": np.ones((1, 1), "f4"), "texture": np.array([[text]], dtype=object)})
    edge.frame()
    assert sorted(outputs_of(edge.frame())["echo"][0, 0] for _ in range(3)) == [b"a", b"bb", b"ccc"]


def test_a_model_with_a_fixed_batch_runs_one_request_at_a_time(cell: Cell, edge: Connection) -> None:
    cell.load("fixed", *graphs.fixed())
    cell.load("slow", *graphs.slow())
    edge.infer("slow", ITEM)
    numbers = {edge.infer("fixed", {"x": np.full((1, 3), i, "f4")}): i for i in range(5)}
    edge.frame()
    for _ in range(5):
        frame = edge.frame()
        assert frame.fields()["batch"] == 1
        assert outputs_of(frame)["value"].tolist() == [[float(numbers[frame.request])] * 3]


def test_more_than_the_queue_takes_is_refused_at_once(cell: Cell, edge: Connection) -> None:
    cell.load("slow", *graphs.slow(), max_batch=1)
    numbers = [edge.infer("slow", ITEM) for _ in range(4200)]
    frame = edge.frame()
    while frame.kind == protocol.ANSWER:
        frame = edge.frame()
    assert frame.fields()["code"] == "queue_full"
    assert frame.request > numbers[4000]


class FakeLink:
    """Only a place for requests in tests of the order; nothing is answered here."""

    def __init__(self) -> None:
        self.waiting: dict[int, Request] = {}

    def answer(self, request: Request, parts: object) -> None:
        raise AssertionError

    def refuse(self, number: int, error: object) -> None:
        raise AssertionError


def waiting(*requests: tuple[int, int, int]) -> Waiting:
    """Requests as (number, principal, priority), one item each, all of one key."""
    queue = Waiting()
    model = Model.__new__(Model)
    for number, principal, priority in requests:
        plan = Plan(model, (), 0, 1, ("key",), ("out",), priority, principal)
        queue.put(Request(FakeLink(), number, plan, memoryview(b""), 0.0, 1.0))
    return queue


def taken(queue: Waiting, most: int) -> list[int]:
    return [request.number for request in queue.take(most)]


def test_principals_take_turns_however_many_requests_one_of_them_sends() -> None:
    queue = waiting(*[(number, 1, 0) for number in range(6)], (100, 2, 0), (200, 3, 0))
    assert taken(queue, 4) == [0, 100, 200, 1]
    assert taken(queue, 4) == [2, 3, 4, 5]
    assert queue.count == 0


@pytest.mark.parametrize("most", [1, 3])
def test_a_higher_priority_is_taken_first(most: int) -> None:
    queue = waiting((1, 1, 0), (2, 1, 5), (3, 2, 0))
    assert taken(queue, most)[0] == 2


def test_what_is_done_already_is_left_out() -> None:
    queue = waiting((1, 1, 0), (2, 1, 0))
    first = queue.all()[0]
    first.done = True
    assert taken(queue, 8) == [2]
    assert queue.count == 0
