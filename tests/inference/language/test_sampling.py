"""How tokens are chosen, against a plain reference in float64: distributions, letters of penalties, seeds, extremes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inference.language.requests import Sampling
from inference.language.sampling import Sampler, choose, logprob
from tests.depth import examples

VOCABULARY = 600  # two blocks and a part of one
DRAWS = 1500
Row = npt.NDArray[np.float32]
Shares = npt.NDArray[np.float64]


def row(seed: int = 0, size: int = VOCABULARY, spread: float = 3.0) -> Row:
    return np.random.default_rng(seed).normal(0, spread, size).astype("f4")


class Allowed:
    """A mask that stays as it is."""

    def __init__(self, allowed: Sequence[bool] | npt.NDArray[np.bool_]) -> None:
        self._allowed = np.array(allowed, dtype=np.bool_)
        self.accepted: list[int] = []

    def allowed(self) -> npt.NDArray[np.bool_]:
        return self._allowed

    def accept(self, token: int) -> None:
        self.accepted.append(token)


def reference(
    logits: Row,
    sampling: Sampling,
    *,
    prompt: Sequence[int] = (),
    made: Sequence[int] = (),
    allowed: npt.NDArray[np.bool_] | None = None,
    slack: float = 0.0,
) -> Shares:
    """The distribution, one rule after the other as they are documented; `slack` widens every cut a little."""
    scores = logits.astype("f8")
    for token, bias in sampling.logit_bias.items():
        if token < len(scores):
            scores[token] += bias
    for token in {*prompt, *made}:
        penalty = sampling.repetition_penalty
        scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
    for token in set(made):
        scores[token] -= sampling.frequency_penalty * made.count(token) + sampling.presence_penalty
    if allowed is not None:
        scores[~allowed] = -math.inf
    shares = np.exp((scores - scores.max()) / sampling.temperature)
    if sampling.top_k:
        shares[shares < np.sort(shares)[-min(sampling.top_k, len(shares))] * (1 - slack)] = 0
    if sampling.top_p < 1:
        order = np.argsort(-shares, kind="stable")
        before = np.cumsum(shares[order]) - shares[order]
        shares[order[1:][before[1:] >= (sampling.top_p + slack) * shares.sum()]] = 0
    shares[shares < sampling.min_p * shares.max() * (1 - slack)] = 0
    return shares / shares.sum()


def drawn(sampler: Sampler, logits: Row, count: int = DRAWS) -> npt.NDArray[np.int64]:
    """So many first tokens, each drawn by its own next random number."""
    return np.array(choose([sampler] * count, np.tile(logits, (count, 1))))


def assert_distributed(tokens: npt.NDArray[np.int64], shares: Shares) -> None:
    """Pearson's chi-square, cells of fewer than five expected joined; four sigmas by Wilson and Hilferty."""
    counts = np.bincount(tokens, minlength=len(shares))
    assert not counts[shares == 0].any()
    expected = shares * len(tokens)
    rare = expected < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    if freedom == 0:
        return
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 4 * math.sqrt(2 / (9 * freedom))) ** 3


SAMPLINGS = {
    "temperature": Sampling(temperature=1.0, seed=1),
    "hot": Sampling(temperature=2.5, seed=2),
    "cold": Sampling(temperature=0.3, seed=3),
    "top-k": Sampling(top_k=7, seed=4),
    "top-p": Sampling(top_p=0.8, seed=5),
    "min-p": Sampling(min_p=0.1, seed=6),
    "top-p and min-p": Sampling(top_p=0.7, min_p=0.12, temperature=1.5, seed=7),
    "all cuts": Sampling(temperature=1.7, top_k=40, top_p=0.85, min_p=0.05, seed=8),
    "bias": Sampling(logit_bias={1: 9.0, 2: -100.0, 5: 3.5, VOCABULARY + 5: 100.0}, seed=9),
    "penalties": Sampling(presence_penalty=1.5, frequency_penalty=0.7, repetition_penalty=1.3, seed=10),
    "everything": Sampling(
        temperature=1.4,
        top_k=60,
        top_p=0.9,
        min_p=0.01,
        presence_penalty=-1.0,
        frequency_penalty=0.4,
        repetition_penalty=1.2,
        logit_bias={3: 6.0, 4: -2.0},
        seed=11,
    ),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_tokens_come_as_often_as_the_reference_says(name: str) -> None:
    sampling, logits = SAMPLINGS[name], row()
    likely = [int(token) for token in np.argsort(-logits)[:6]]
    prompt, made = likely[2:5], [likely[0], likely[0], likely[3]]
    allowed = np.random.default_rng(1).random(VOCABULARY) < 0.5
    allowed[likely[0]] = True
    for mask in (None, allowed):
        tokens = []
        for seed in range(DRAWS if name in ("penalties", "everything") else 1):  # these change as tokens are chosen
            one = Sampling(**{key: getattr(sampling, key) for key in sampling.__slots__} | {"seed": seed})
            sampler = Sampler(one, VOCABULARY, prompt, mask=None if mask is None else Allowed(mask))
            for token in made:
                sampler.accept(token)
            tokens.append(drawn(sampler, logits, 1) if name in ("penalties", "everything") else drawn(sampler, logits))
        assert_distributed(np.concatenate(tokens), reference(logits, sampling, prompt=prompt, made=made, allowed=mask))


def test_rows_of_a_batch_are_distributed_each_by_its_own_sampling() -> None:
    names = ["temperature", "cold", "top-k", "hot"]
    samplers = [Sampler(SAMPLINGS[name], VOCABULARY) for name in names]
    rows = np.stack([row(seed) for seed in range(len(names))])
    taken = np.array([choose(samplers, rows) for _ in range(2000)])
    for place, name in enumerate(names):
        assert_distributed(taken[:, place], reference(rows[place], SAMPLINGS[name]))


def test_a_batch_draws_what_each_row_would_draw_alone() -> None:
    samplings = [*SAMPLINGS.values(), Sampling(temperature=0), Sampling(temperature=0, logit_bias={1: 50.0})]
    rows = np.stack([row(seed) for seed in range(len(samplings))])
    together = choose([Sampler(sampling, VOCABULARY) for sampling in samplings], rows.copy())
    alone = [choose([Sampler(s, VOCABULARY)], rows[at : at + 1].copy())[0] for at, s in enumerate(samplings)]
    assert together == alone


class TestSeeds:
    def tokens(self, seed: int | None, choice: int = 0, **changes: Any) -> list[int]:
        sampler = Sampler(Sampling(temperature=2.0, seed=seed, **changes), VOCABULARY, choice=choice)
        return [int(token) for token in drawn(sampler, row(), 20)]

    @pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63)])
    def test_a_seed_repeats(self, seed: int) -> None:
        assert self.tokens(seed) == self.tokens(seed)
        assert self.tokens(seed, top_p=0.99) == self.tokens(seed, top_p=0.99)

    def test_other_seeds_and_other_choices_of_one_request_differ(self) -> None:
        drawn_by = [self.tokens(seed, choice) for seed in (1, 2, -1) for choice in (0, 1)]
        assert len({tuple(tokens) for tokens in drawn_by}) == len(drawn_by)

    def test_without_a_seed_nothing_repeats(self) -> None:
        assert self.tokens(None) != self.tokens(None)


class TestGreedy:
    def test_the_likeliest_is_taken_and_the_first_of_equals(self) -> None:
        logits = np.zeros((3, VOCABULARY), dtype="f4")
        logits[0, [7, 300]] = 2
        logits[1, 599] = 1
        assert choose([Sampler(Sampling(temperature=0), VOCABULARY) for _ in range(3)], logits) == [7, 599, 0]

    def test_equals_are_decided_alike_with_and_without_a_mask(self) -> None:
        logits = np.zeros((1, VOCABULARY), dtype="f4")
        logits[0, [7, 300]] = 2
        everything = Allowed(np.ones(VOCABULARY, dtype=np.bool_))
        assert choose([Sampler(Sampling(temperature=0), VOCABULARY, mask=everything)], logits) == [7]

    def test_among_others_that_are_drawn_it_still_takes_the_likeliest(self) -> None:
        rows = np.stack([row(seed) for seed in range(5)])
        samplings = [Sampling(temperature=0 if place % 2 else 1.0, seed=1) for place in range(5)]
        chosen = choose([Sampler(sampling, VOCABULARY) for sampling in samplings], rows.copy())
        assert [chosen[1], chosen[3]] == rows[[1, 3]].argmax(axis=1).tolist()


class TestPenaltiesToTheLetter:
    """Token 0 leads by some margin and was made twice; a penalty turns greedy's choice exactly beyond the margin."""

    def first(self, margin: float, made: Sequence[int] = (0, 0), prompt: Sequence[int] = (), **penalty: Any) -> int:
        logits = np.full((1, 4), -9.0, dtype="f4")
        logits[0, :2] = 2 + margin, 2
        sampler = Sampler(Sampling(temperature=0, **penalty), 4, prompt)
        for token in made:
            sampler.accept(token)
        return choose([sampler], logits)[0]

    def test_presence_counts_once(self) -> None:
        assert self.first(1.01, presence_penalty=1.0) == 0
        assert self.first(0.99, presence_penalty=1.0) == 1

    def test_frequency_counts_each_time(self) -> None:
        assert self.first(2.01, frequency_penalty=1.0) == 0
        assert self.first(1.99, frequency_penalty=1.0) == 1

    def test_neither_counts_the_prompt(self) -> None:
        penalties = {"presence_penalty": 2.0, "frequency_penalty": 2.0}
        assert self.first(0.01, made=(), prompt=(0, 0), **penalties) == 0

    @pytest.mark.parametrize("where", [{"made": (0,)}, {"made": (), "prompt": (0,)}, {"prompt": (0,)}])
    def test_repetition_divides_what_was_in_prompt_or_answer_once(self, where: dict[str, Sequence[int]]) -> None:
        made, prompt = where.get("made", ()), where.get("prompt", ())
        assert self.first(2.01, made, prompt, repetition_penalty=2.0) == 0
        assert self.first(1.99, made, prompt, repetition_penalty=2.0) == 1

    def test_repetition_makes_what_is_below_zero_less_likely_too(self) -> None:
        logits = np.array([[-1.0, -1.5]], dtype="f4")
        sampler = Sampler(Sampling(temperature=0, repetition_penalty=2.0), 2, (0,))
        assert choose([sampler], logits) == [1]

    def test_a_bias_is_added_and_a_token_that_is_none_is_passed_over(self) -> None:
        assert self.first(1.01, logit_bias={1: 1.0}) == 0
        assert self.first(0.99, logit_bias={1: 1.0, 4: 100.0}) == 1

    def test_the_logits_are_left_as_they_are(self) -> None:
        rows = np.stack([row(), row()])
        before = rows.copy()
        samplers = [Sampler(SAMPLINGS["everything"], VOCABULARY, (1, 2)), Sampler(SAMPLINGS["hot"], VOCABULARY)]
        choose(samplers, rows)
        np.testing.assert_array_equal(rows, before)


EXTREMES = st.one_of(
    st.floats(-50, 50, width=32),
    st.sampled_from((-math.inf, 0.0, 3e38, -3e38, 1e-40, 88.0, -200.0)),
)
SAMPLED = st.builds(
    Sampling,
    temperature=st.sampled_from((0.0, 5e-324, 1e-42, 1e-10, 0.01, 0.7, 1.0, 2.0)),
    top_k=st.sampled_from((0, 1, 3, 1000)),
    top_p=st.sampled_from((0.0, 1e-9, 0.5, 0.99, 1.0)),
    min_p=st.sampled_from((0.0, 0.1, 1.0)),
    seed=st.integers(0, 5),
    repetition_penalty=st.sampled_from((1.0, 1.5)),
    logit_bias=st.dictionaries(st.integers(0, 9), st.sampled_from((-100.0, 100.0)), max_size=2),
)


@settings(max_examples=examples(60))
@given(
    logits=hnp.arrays("f4", st.integers(2, 8), elements=EXTREMES).filter(lambda row: np.isfinite(row).any()),
    sampling=SAMPLED,
    data=st.data(),
)
def test_whatever_the_logits_a_token_is_chosen_that_may_come(
    logits: Row, sampling: Sampling, data: st.DataObject
) -> None:
    able = [token for token, logit in enumerate(logits) if logit > -math.inf]
    wanted = data.draw(st.none() | st.sets(st.sampled_from(able), min_size=1))
    allowed = np.array([wanted is None or token in wanted for token in range(len(logits))])
    mask = None if wanted is None else Allowed(allowed)
    sampler = Sampler(sampling, len(logits), mask=mask)
    token = choose([sampler], logits.reshape(1, -1).copy())[0]
    assert allowed[token]
    assert logits[token] > -math.inf


@pytest.mark.parametrize("temperature", [5e-324, 1e-45, 1e-38, 1e-20, 1e-7])
@pytest.mark.parametrize("cut", [{}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_next_to_no_temperature_takes_the_likeliest(temperature: float, cut: dict[str, Any]) -> None:
    logits = row()
    sampler = Sampler(Sampling(temperature=temperature, seed=1, **cut), VOCABULARY)
    assert set(drawn(sampler, logits, 20)) == {int(logits.argmax())}


@pytest.mark.parametrize("sampling", [Sampling(seed=1), Sampling(seed=1, top_p=0.9), Sampling(seed=1, min_p=0.5)])
def test_where_logits_are_infinite_one_of_these_is_taken(sampling: Sampling) -> None:
    logits = row()
    logits[[3, 400]] = math.inf
    assert set(drawn(Sampler(sampling, VOCABULARY), logits, 50)) == {3, 400}


UNCHANGING = SAMPLED.filter(lambda one: one.temperature >= 0.01 and one.repetition_penalty == 1.0)


@settings(max_examples=examples(50))
@given(sampling=UNCHANGING, seed=st.integers(0, 10_000))
@example(sampling=Sampling(temperature=0.7, top_p=0.5, min_p=0.1, seed=0), seed=3)
def test_nothing_is_drawn_that_the_reference_cuts_away(sampling: Sampling, seed: int) -> None:
    logits = row(seed, size=50)
    shares = reference(logits, sampling, slack=1e-4)
    assert all(shares[token] > 0 for token in drawn(Sampler(sampling, 50), logits, 30))


def test_top_p_keeps_the_fewest_that_reach_it_however_flat_the_row_is() -> None:
    flat = np.zeros(10_000, dtype="f4")  # beyond both sizes that are sorted first
    flat[::2] += 0.5
    sampling = Sampling(top_p=0.9, seed=1)
    shares = reference(flat, sampling)
    tokens = drawn(Sampler(sampling, len(flat)), flat, 300)
    assert (shares > 0).sum() == len(flat[::2]) + round(5000 * (0.9 * (1 + math.exp(0.5)) - math.exp(0.5)))
    assert len({int(token) for token in tokens}) > 250


def test_a_mask_that_is_shorter_than_the_row_allows_nothing_beyond_it() -> None:
    logits = row()
    logits[500:] = 99
    mask = Allowed(np.ones(500, dtype=np.bool_))
    assert drawn(Sampler(Sampling(seed=1), VOCABULARY, mask=mask), logits, 50).max() < 500


def test_a_mask_hears_of_every_token_that_was_chosen() -> None:
    mask = Allowed(np.arange(VOCABULARY) % 2 == 0)
    sampler = Sampler(Sampling(seed=1, temperature=3.0), VOCABULARY, mask=mask)
    tokens = [choose([sampler], row(seed).reshape(1, -1))[0] for seed in range(20)]
    assert mask.accepted == tokens
    assert not any(token % 2 for token in tokens)


class Pieces:
    def piece(self, token: int, *, special: bool = False) -> bytes:
        return b"<%d>" % token if special else b""


class TestLogprobs:
    def test_they_are_the_models_own_before_temperature_and_all_else(self) -> None:
        logits = row()
        expected = np.log(reference(logits, Sampling()))
        for token in (0, 5, int(logits.argmax())):
            told = logprob(logits, token, 3, Pieces())
            assert told.logprob == pytest.approx(expected[token], abs=1e-5)
            assert (told.token, told.text) == (token, b"<%d>" % token)
            assert [(one, text) for one, text, _ in told.top] == [
                (int(one), b"<%d>" % one) for one in np.argsort(-logits)[:3]
            ]
            assert [value for _, _, value in told.top] == pytest.approx(np.sort(expected)[:-4:-1], abs=1e-5)

    @pytest.mark.parametrize("spread", [0.01, 3.0, 1e4, 1e30])
    def test_all_together_they_make_one(self, spread: float) -> None:
        told = logprob(row(spread=spread), 0, VOCABULARY, Pieces())
        assert math.fsum(math.exp(value) for _, _, value in told.top) == pytest.approx(1, abs=1e-5)

    def test_none_but_the_tokens_own_where_no_others_are_asked_for(self) -> None:
        assert logprob(row(), 1, 0, Pieces()).top == ()

    def test_more_than_the_vocabulary_has_are_all_of_it(self) -> None:
        assert len(logprob(row(size=5), 1, 20, Pieces()).top) == 5

    def test_what_cannot_come_has_minus_infinity(self) -> None:
        logits = np.array([1.0, -math.inf, 1.0], dtype="f4")
        assert logprob(logits, 1, 0, Pieces()).logprob == -math.inf
        assert logprob(logits, 0, 0, Pieces()).logprob == pytest.approx(math.log(0.5))


def test_hundreds_of_rows_are_each_drawn_from_their_own() -> None:
    rows = np.full((examples(200), VOCABULARY), -30.0, dtype="f4")
    wanted = np.arange(len(rows)) * 7 % VOCABULARY
    rows[np.arange(len(rows)), wanted] = 30
    samplers = [Sampler(Sampling(seed=place), VOCABULARY) for place in range(len(rows))]
    assert choose(samplers, rows) == wanted.tolist()
