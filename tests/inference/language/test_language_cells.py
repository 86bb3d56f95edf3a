"""Language models in real sandboxed cells: SmolLM2 says sensible things, a tiny one stands up to everything else."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are another package
import numpy as np
import pytest

from inference import protocol
from inference.language.requests import Constraint, Generate, Sampling
from sealing import new_data_key
from tests.inference import graphs
from tests.inference.cells import Cell, Connection, Zygote, outputs_of
from tests.inference.language import tiny, words
from tests.inference.language.driving import LONG
from tests.inference.language.words import FRANCE, ask, greedy, hear, say
from tests.sandbox.inside import inside

pytestmark = pytest.mark.slow

_numbers = itertools.count(1)
MEMORY = 2 << 30
PROMPT = tuple(LONG)
ENDLESS = Generate(prompt=PROMPT, sampling=greedy(None, ignore_eos=True))
BOTH = (("chat", "1"), ("other", "2"))
SHORT = Generate(prompt=PROMPT, sampling=greedy(5, ignore_eos=True))


def forked(zygote: Zygote, path: Path) -> Iterator[Cell]:
    cell = zygote.fork(path, memory_bytes=MEMORY)
    yield cell
    cell.agent.close()
    assert zygote.packet() == {"type": "ended", "pid": cell.pid, "code": 0}


@pytest.fixture(scope="module")
def smollm2_cell(zygote: Zygote, sockets: Path) -> Iterator[Cell]:
    for cell in forked(zygote, sockets / "smollm2.sock"):
        assert words.load(cell, words.smollm2()).fields()["loaded"]
        yield cell


@pytest.fixture
def smollm2(smollm2_cell: Cell) -> Iterator[Connection]:
    connection = smollm2_cell.connect()
    yield connection
    connection.close()


@pytest.fixture
def roomy(zygote: Zygote, sockets: Path) -> Iterator[Cell]:
    yield from forked(zygote, sockets / f"language-{next(_numbers)}.sock")


@pytest.fixture
def cell(roomy: Cell) -> Cell:
    assert words.load(roomy, tiny.gguf()).fields()["loaded"]
    return roomy


def closed(connection: Connection) -> bool:
    try:
        while True:
            connection.frame()
    except (EOFError, ConnectionResetError):
        return True


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def waiting(cell: Cell) -> int:
    return sum(model["waiting"] for model in cell.stats()["models"])


class TestSmolLM2:
    def test_it_knows_a_capital(self, smollm2: Connection) -> None:
        said = say(smollm2, Generate(prompt="The capital of France is", sampling=greedy(4)))
        assert said.text.startswith(" Paris")

    def test_it_answers_in_a_chat(self, smollm2: Connection) -> None:
        said = say(smollm2, Generate(messages=FRANCE, sampling=greedy()))
        assert len(said.pieces) > 3
        assert said.text.isprintable()
        done = said.done[0]
        assert done["reason"] in ("stop", "length")
        assert re.fullmatch("fp_[0-9a-f]{16}", done["fingerprint"])

    def test_a_count_is_what_the_answer_then_has_used(self, smollm2: Connection) -> None:
        generate = Generate(messages=FRANCE, sampling=greedy(1))
        number = smollm2.send(protocol.COUNT, {"model": "chat", "version": "1"}, [generate.to_json()])
        frame = smollm2.frame()
        assert (frame.kind, frame.request) == (protocol.COUNTED, number)
        assert frame.fields()["prompt_tokens"] == say(smollm2, generate).done[0]["prompt_tokens"]

    def test_the_next_turn_finds_the_conversation_computed(self, smollm2: Connection) -> None:
        messages = (*FRANCE, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Spain?"})
        say(smollm2, Generate(messages=FRANCE, sampling=greedy(4)), scope="turns")
        done = say(smollm2, Generate(messages=messages, sampling=greedy(4)), scope="turns").done[0]
        assert done["cached_tokens"] > 25
        assert done["cached_tokens"] < done["prompt_tokens"]

    def test_json_of_a_schema(self, smollm2: Connection) -> None:
        schema = {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
            "required": ["city", "large"],
            "additionalProperties": False,
        }
        constraint = Constraint("json_schema", json.dumps(schema))
        said = say(smollm2, Generate(messages=FRANCE, sampling=greedy(60, constraint=constraint)))
        assert said.done[0]["reason"] == "stop"
        jsonschema.validate(words.json_of(said), schema)

    def test_choices_with_a_seed_differ_and_share_the_prompt(self, smollm2: Connection) -> None:
        sampling = Sampling(max_tokens=12, temperature=1.5, seed=1, ignore_eos=True)
        said = say(smollm2, Generate(messages=FRANCE, sampling=sampling, n=3), scope="choices", stream=False)
        assert len(set(said.texts.values())) == 3
        assert [said.done[index]["prompt_tokens"] > 0 for index in range(3)] == [True, False, False]

    def test_a_stop_string_is_not_sent(self, smollm2: Connection) -> None:
        said = say(smollm2, Generate(prompt="1, 2, 3, 4, 5,", sampling=greedy(stop=("7,", ", 8"))))
        assert (said.text, said.done[0]["reason"]) == (" 6, ", "stop")

    def test_what_a_message_says_is_no_control_token(self, smollm2: Connection) -> None:
        counted = []
        for content in ("a <|im_end|> b", "a <|xx_xxx|> b"):
            generate = Generate(messages=({"role": "user", "content": content},))
            smollm2.send(protocol.COUNT, {"model": "chat", "version": "1"}, [generate.to_json()])
            counted.append(smollm2.frame().fields()["prompt_tokens"])
        assert counted[0] > 33  # as one token it would be four less


class TestWhatIsRefused:
    @pytest.fixture
    def edge(self, cell: Cell) -> Iterator[Connection]:
        connection = cell.connect()
        yield connection
        connection.close()

    def test_a_model_that_is_not_loaded(self, edge: Connection) -> None:
        for fields in ({"model": "other"}, {"version": "2"}, {"model": None}, {"model": [1]}):
            assert say(edge, SHORT, **fields).code == "model_loading"

    def test_arrays_for_a_language_model(self, edge: Connection) -> None:
        edge.infer("chat", {"x": np.zeros((1, 64), "f4")})
        fields = edge.frame().fields()
        assert fields["code"] == "invalid_field"
        assert fields["problems"][0][1:] == [
            "language_model",
            "is for a model of arrays; this one is asked in words",
            "use /v1",
        ]

    def test_words_for_a_model_of_arrays(self, cell: Cell, edge: Connection) -> None:
        cell.load("mlp", *graphs.mlp())
        for kind in (protocol.GENERATE, protocol.COUNT):
            edge.send(kind, {"model": "mlp", "version": "1"}, [SHORT.to_json()])
            fields = edge.frame().fields()
            assert fields["problems"][0] == ["/model", "no_language_model", "is no language model", "name one that is"]
        edge.infer("mlp", {"x": np.zeros((1, 64), "f4")})
        assert outputs_of(edge.frame())

    def test_a_request_number_that_is_in_flight_closes_the_connection(self, cell: Cell, edge: Connection) -> None:
        number = ask(edge, ENDLESS)
        edge.socket.sendall(
            protocol.encode(protocol.GENERATE, number, {"model": "chat", "version": "1"}, [SHORT.to_json()])
        )
        assert closed(edge)
        until(lambda: waiting(cell) == 0)

    @pytest.mark.parametrize("fields", [{}, {"tokens": 0}, {"tokens": -1}, {"tokens": "9"}, {"tokens": 1 << 31}])
    def test_a_window_without_its_tokens_closes_the_connection(self, edge: Connection, fields: dict[str, Any]) -> None:
        edge.send(protocol.WINDOW, fields)
        assert closed(edge)

    @pytest.mark.parametrize("kind", [protocol.TOKENS, protocol.DONE, protocol.COUNTED, protocol.LOAD])
    def test_what_only_a_cell_or_an_agent_says_closes_the_connection(self, edge: Connection, kind: int) -> None:
        edge.send(kind, {"model": "chat", "version": "1"})
        assert closed(edge)

    def test_a_window_or_a_cancel_of_what_is_not_there_is_passed_over(self, edge: Connection) -> None:
        edge.send(protocol.WINDOW, {"tokens": 5})
        edge.send(protocol.CANCEL, {})
        assert say(edge, SHORT).done[0]["reason"] == "length"

    def test_bodies_of_garbage_are_refused_and_the_cell_answers_on(self, edge: Connection) -> None:
        random = np.random.default_rng(0)
        document = SHORT.to_json()
        bodies = [b"", b"{}", b"null", b"\xff" * 1000, b"[" * 100_000, b"0" * (1 << 20), document[:-1], document * 2]
        bodies += [random.bytes(size) for size in (1, 100, 10_000)]
        bodies += [bytes([*document[:at], int(random.integers(256)), *document[at + 1 :]]) for at in range(0, 200, 7)]
        bodies.append(document.replace(b'"n":1', b'"n":1000000000'))
        bodies.append(
            document.replace(b'"temperature":0', b'"temperature":1e-42').replace(b'"min_p":0.0', b'"min_p":0.5')
        )
        numbers = [
            edge.send(kind, {"model": "chat", "version": "1"}, [body])
            for body in bodies
            for kind in (protocol.GENERATE, protocol.COUNT)
        ]
        ended: set[int] = set()
        while len(ended) < len(numbers):
            frame = edge.frame()
            if frame.kind in (protocol.ERROR, protocol.COUNTED, protocol.DONE):
                ended.add(frame.request)
        assert say(edge, SHORT).done[0]["completion_tokens"] == 5

    def test_headers_of_garbage_are_refused_or_close_and_the_cell_answers_on(self, cell: Cell) -> None:
        for fields in (
            {"principal": [1, 2]},
            {"principal": {"a": 1}},
            {"scope": [1]},
            {"stream": "yes", "window": "many"},
            {"window": 10**9, "adapter": "none"},
        ):
            connection = cell.connect()
            said = say(connection, SHORT, **fields)
            assert said.error is not None or said.done[0]["completion_tokens"] == 5, fields
            connection.close()
        connection = cell.connect()
        connection.socket.sendall(protocol.HEAD.pack(24, protocol.GENERATE, 0, 4, 1, 0) + b"\xc1\xc1\xc1\xc1")
        assert closed(connection)
        connection = cell.connect()
        assert say(connection, SHORT).done[0]["reason"] == "length"
        connection.close()

    def test_more_than_the_queue_takes_is_refused_at_once(self, edge: Connection) -> None:
        numbers = [ask(edge, SHORT) for _ in range(1300)]
        said = hear(edge, *numbers)
        refused = [number for number in numbers if said[number].code == "queue_full"]
        assert all(said[number].code in (None, "queue_full") for number in numbers)
        assert numbers[0] not in refused
        assert len(refused) < 1300 - 1024 + 1


class TestManyAtOnce:
    def test_two_hundred_are_each_answered_with_their_own(self, cell: Cell) -> None:
        connections = [cell.connect() for _ in range(4)]
        asked: list[tuple[Connection, int, str]] = []
        for place in range(200):
            text = f"answer {place}"
            constraint = Constraint("grammar", f'start: "{text}"')
            generate = Generate(prompt=PROMPT, sampling=greedy(40, constraint=constraint))
            connection = connections[place % 4]
            asked.append((connection, ask(connection, generate, principal=place % 7, stream=place % 2 == 0), text))
        for connection in connections:
            said = hear(connection, *[number for where, number, _ in asked if where is connection])
            for where, number, text in asked:
                if where is connection:
                    assert (said[number].text, said[number].done[0]["reason"]) == (text, "stop")
        assert cell.stats()["models"][0]["requests"] == 200

    def test_one_principal_with_a_hundred_requests_does_not_hold_up_another(self, cell: Cell) -> None:
        busy, other = cell.connect(), cell.connect()
        for _ in range(100):
            ask(busy, ENDLESS, principal=1)
        busy.frame()
        assert say(other, SHORT, principal=2).done[0]["reason"] == "length"
        assert waiting(cell) > 80
        busy.close()
        until(lambda: waiting(cell) == 0)
        other.close()

    def test_a_slow_reader_holds_up_nobody_and_hears_it_all(self, cell: Cell) -> None:
        slow, quick = cell.connect(), cell.connect()
        generate = Generate(prompt=PROMPT, sampling=greedy(100, ignore_eos=True))
        number = ask(slow, generate, window=5)
        for _ in range(12):
            say(quick, SHORT)
        pieces = 0
        while True:
            frame = slow.frame()
            if frame.kind == protocol.DONE:
                break
            pieces += 1
            if pieces % 5 == 0:
                slow.socket.sendall(protocol.encode(protocol.WINDOW, number, {"tokens": 5}))
        assert frame.fields()["completion_tokens"] == 100
        for connection in (slow, quick):
            connection.close()

    def test_a_connection_that_is_lost_ends_what_was_asked_on_it(self, cell: Cell) -> None:
        lost, kept = cell.connect(), cell.connect()
        for _ in range(20):
            ask(lost, ENDLESS)
        number = ask(kept, SHORT)
        lost.frame()
        lost.close()
        assert hear(kept, number)[number].done[0]["completion_tokens"] == 5
        until(lambda: waiting(cell) == 0)
        kept.close()

    def test_a_cancel_is_answered_with_what_was_used(self, cell: Cell) -> None:
        edge = cell.connect()
        numbers = [
            ask(edge, Generate(prompt=PROMPT, sampling=greedy(None, ignore_eos=True, logprobs=0))) for _ in range(3)
        ]
        for number in numbers:
            edge.socket.sendall(protocol.encode(protocol.CANCEL, number, {}))
        said = hear(edge, *numbers)
        for number in numbers:
            done = said[number].done[0]
            assert (done["reason"], done["completion_tokens"]) == ("cancelled", len(said[number].logprobs))
        edge.close()

    def test_a_deadline_ends_what_is_said_by_then(self, cell: Cell) -> None:
        edge = cell.connect()
        said = [say(edge, ENDLESS, deadline_ms=milliseconds) for milliseconds in (1, 30)]
        assert all(one.done[0]["reason"] in ("deadline", "length") for one in said)
        assert said[0].done[0]["reason"] == "deadline"
        edge.close()


class TestLoading:
    def test_two_models_in_one_cell(self, cell: Cell) -> None:
        assert words.load(cell, tiny.gguf("Q4_0", seed=8), "other", version="2").fields()["loaded"]
        cell.load("mlp", *graphs.mlp())
        edge = cell.connect()
        generate = Generate(prompt=PROMPT, sampling=greedy(1, logprobs=0))
        told = [say(edge, generate, model=model, version=version).logprobs for model, version in BOTH]
        assert told[0] != told[1]
        words.unload(cell, "other", "2")
        assert say(edge, SHORT, model="other", version="2").code == "model_loading"
        assert say(edge, SHORT).done[0]["reason"] == "length"
        edge.close()

    def test_an_adapter_beside_its_base(self, roomy: Cell) -> None:
        base, edge = tiny.gguf(), roomy.connect()
        assert words.load(roomy, base).fields()["loaded"]
        plain = say(edge, SHORT).text
        for name, seed in (("law", 1), ("sea", 2)):
            assert words.load_adapter(roomy, tiny.adapter(seed), base, name, version=name).fields()["loaded"]
        numbers = [
            ask(edge, SHORT, model=model, version=version)
            for model, version in (("chat", "1"), ("law", "law"), ("sea", "sea"))
        ]
        texts = [said.text for said in hear(edge, *numbers).values()]
        assert len(set(texts)) == 3
        assert texts[0] == plain
        words.unload(roomy, "law", "law")
        assert say(edge, SHORT, model="sea", version="sea").text == texts[2]
        words.unload(roomy)
        assert say(edge, SHORT, model="sea", version="sea").text == texts[2]
        words.unload(roomy, "sea", "sea")
        assert not weights_mapped(roomy)
        edge.close()

    def test_a_cell_that_prepares_one_text_without_end_ends(self, zygote: Zygote, sockets: Path) -> None:
        cell = zygote.fork(sockets / f"language-{next(_numbers)}.sock", memory_bytes=MEMORY)
        assert words.load(cell, tiny.gguf()).fields()["loaded"]
        endless = 'start: %json {"type":"integer","allOf":[{"multipleOf":9973},{"multipleOf":9967}]}'
        edge = cell.connect()
        ask(edge, Generate(prompt=PROMPT, sampling=greedy(5, constraint=Constraint("grammar", endless))))
        assert zygote.packet() == {"type": "ended", "pid": cell.pid, "code": 1}
        edge.close()
        cell.agent.close()

    def test_a_base_that_many_want_at_once_is_loaded_once(self, roomy: Cell) -> None:
        base = tiny.gguf()
        for seed in range(6):
            words.send_adapter(roomy, tiny.adapter(seed), base, f"adapted-{seed}", version=str(seed))
        assert all(roomy.agent.frame().fields()["loaded"] for _ in range(6))
        assert weights_mapped(roomy) < 2 * len(base)

    def test_an_adapter_that_two_deployments_use(self, roomy: Cell) -> None:
        base, edge = tiny.gguf(), roomy.connect()
        for name in ("one", "two"):
            assert words.load_adapter(roomy, tiny.adapter(1), base, name).fields()["loaded"]
        said = say(edge, SHORT, model="one", version="adapted").text
        words.unload(roomy, "one", "adapted")
        assert say(edge, SHORT, model="two", version="adapted").text == said
        edge.close()

    def test_loading_the_same_again_serves_on(self, cell: Cell) -> None:
        old, new = cell.connect(), cell.connect()
        number = ask(old, Generate(prompt=PROMPT, sampling=greedy(300, ignore_eos=True)))
        old.frame()
        assert words.load(cell, tiny.gguf()).fields()["loaded"]
        assert say(new, SHORT).done[0]["reason"] == "length"
        assert hear(old, number)[number].done[0]["completion_tokens"] == 300
        for connection in (old, new):
            connection.close()

    def test_an_unload_waits_for_what_was_taken_in(self, cell: Cell) -> None:
        edge = cell.connect()
        numbers = [ask(edge, Generate(prompt=PROMPT, sampling=greedy(300, ignore_eos=True))) for _ in range(12)]
        until(lambda: waiting(cell) > 0)
        cell.agent.send(protocol.UNLOAD, {"model": "chat", "version": "1"})
        said = hear(edge, *numbers)
        for one in said.values():
            assert one.code == "model_loading" or one.done[0]["completion_tokens"] == 300
        assert any(one.done for one in said.values())
        assert cell.agent.frame().fields() == {"unloaded": True}
        assert say(edge, SHORT).code == "model_loading"
        assert not weights_mapped(cell)
        edge.close()

    def test_counts_in_flight_survive_an_unload(self, cell: Cell) -> None:
        edge = cell.connect()
        generate = Generate(prompt="the sea " * 20_000).to_json()
        for _ in range(20):
            edge.send(protocol.COUNT, {"model": "chat", "version": "1"}, [generate])
        edge.frame()
        words.unload(cell)
        kinds = [edge.frame().kind for _ in range(19)]
        assert set(kinds) <= {protocol.COUNTED, protocol.ERROR}
        assert words.load(cell, tiny.gguf()).fields()["loaded"]
        assert say(edge, SHORT).done[0]["reason"] == "length"
        edge.close()

    @pytest.mark.parametrize("at", [70, -40])
    def test_a_sealed_file_that_was_changed_is_corrupt(
        self, roomy: Cell, monkeypatch: pytest.MonkeyPatch, at: int
    ) -> None:
        def changed(content: bytes, descriptor: int, *arguments: Any) -> Any:
            tag = seal(content, descriptor, *arguments)
            place = at if at >= 0 else os.fstat(descriptor).st_size + at
            byte = os.pread(descriptor, 1, place)[0]
            os.pwrite(descriptor, bytes([byte ^ 1]), place)
            return tag

        from tests.inference import cells

        seal = cells.seal_memory
        monkeypatch.setattr(cells, "seal_memory", changed)
        fields = words.load(roomy, tiny.gguf()).fields()
        assert fields["code"] == "artefact_corrupt"
        monkeypatch.undo()
        assert words.load(roomy, tiny.gguf()).fields()["loaded"]

    def test_the_wrong_key_opens_nothing(self, roomy: Cell) -> None:
        assert words.load(roomy, tiny.gguf(), key=new_data_key()).fields()["code"] == "artefact_corrupt"

    @pytest.mark.parametrize(
        "content", [b"", b"no GGUF", tiny.gguf()[:-2000], tiny.gguf()[:200], b"GGUF" + b"\xff" * 400], ids=len
    )
    def test_bytes_that_are_no_model_are_refused_and_the_cell_lives(self, roomy: Cell, content: bytes) -> None:
        assert words.load(roomy, content).fields()["code"] == "load_failed"
        assert not weights_mapped(roomy)
        assert words.load(roomy, tiny.gguf()).fields()["loaded"]

    def test_a_template_that_is_refused_says_why_and_leaves_nothing_behind(self, roomy: Cell) -> None:
        for _ in range(3):
            fields = words.load(roomy, tiny.gguf(template="{% include 'secret' %}")).fields()
            assert fields["code"] == "load_failed"
            assert fields["message"].startswith("the chat template was refused: line 1")
        assert not weights_mapped(roomy)


def mapped(cell: Cell) -> Iterator[tuple[str, str, int]]:
    """What the cell has mapped by a name: the name, what it may do with it, and how many bytes."""
    for line in Path(f"/proc/{cell.pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in fields[0].split("-"))
        if len(fields) == 6:
            yield fields[5], fields[1], end - start


def weights_mapped(cell: Cell) -> int:
    return sum(size for name, _, size in mapped(cell) if "memfd:weights" in name)


class TestWalls:
    def test_weights_are_mapped_from_memory_only_and_cannot_be_written(self, smollm2_cell: Cell) -> None:
        assert weights_mapped(smollm2_cell) > 90_000_000
        assert all("w" not in may for name, may, _ in mapped(smollm2_cell) if "memfd:" in name)
        files = [
            (name, size) for name, _, size in mapped(smollm2_cell) if name.startswith("/") and "memfd:" not in name
        ]
        no_code = [(name, size) for name, size in files if not re.search(r"\.so(\.[0-9]+)*$|/python[0-9.]*$", name)]
        assert sum(size for _, size in no_code) < 1 << 20, no_code

    def test_no_descriptor_of_plaintext_or_of_the_sealed_file_stays_open(self, smollm2_cell: Cell) -> None:
        links = [os.readlink(entry) for entry in Path(f"/proc/{smollm2_cell.pid}/fd").iterdir()]
        assert not [link for link in links if "memfd" in link or ".gguf" in link]

    def test_the_engine_works_where_no_file_can_be_opened(self) -> None:
        """In the cell's own profile, with every wall required: a model from memory speaks, and paths stay closed."""

        def speak_and_open(paths: list[str]) -> list[object]:
            import os

            from inference.language.llama import Weights

            weights = Weights(4)
            context = weights.context(sequences=1, cells=256, chunk=64, threads=2)
            context.add(0, weights.vocabulary.tokens("the sea", special=False), 0, wanted=True)
            token = int(context.decode()[0].argmax())
            refused = []
            for path in paths:
                for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT):
                    try:
                        os.close(os.open(path, flags))
                    except OSError as problem:
                        refused.append(problem.errno)
            return [token, refused]

        loaded = tiny.weights(tiny.gguf())
        context = loaded.context(sequences=1, cells=256, chunk=64, threads=2)
        context.add(0, loaded.vocabulary.tokens("the sea", special=False), 0, wanted=True)
        expected = int(context.decode()[0].argmax())
        paths = ["/etc/hostname", str(Path(__file__)), str(Path(__file__).parent)]
        with tiny.memory(tiny.gguf()) as descriptor:
            answer = inside(
                speak_and_open,
                profile="cell-cpu",
                before="import inference.language.llama",
                environment={"OPENBLAS_NUM_THREADS": "1"},  # one that started threads could not enter any more
                facts={"paths": paths},
                descriptors=[descriptor],
                memory_bytes=1 << 30,
            )
        assert answer.error is None, answer
        token, refused = answer.value
        assert token == expected
        assert len(refused) == 9
        assert set(refused) <= {errno.EPERM, errno.EACCES}

    def test_memory_comes_back_after_an_unload(self, roomy: Cell) -> None:
        words.load(roomy, tiny.gguf())
        words.unload(roomy)
        before = roomy.stats()["resident_bytes"]
        for _ in range(3):
            edge = roomy.connect()
            assert words.load(roomy, words.smollm2()).fields()["loaded"]
            say(edge, Generate(messages=FRANCE, sampling=greedy(2)))
            assert roomy.stats()["resident_bytes"] > before + (90 << 20)
            edge.close()
            words.unload(roomy)
        assert roomy.stats()["resident_bytes"] < before + (45 << 20)  # what the allocator keeps, however often
        assert not weights_mapped(roomy)

    def test_the_sandbox_is_entered_before_a_model_is_read(self, smollm2_cell: Cell) -> None:
        status = Path(f"/proc/{smollm2_cell.pid}/status").read_text()
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status
