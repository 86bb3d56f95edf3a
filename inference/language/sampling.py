"""How the next token is chosen from a row of logits: exact sampling in numpy, one Sampler a sequence.

Order, as vLLM's and Hugging Face's: bias, penalties, constraint; temperature; top-k, top-p, min-p; then one draw by
inverse transform from the sequence's own random numbers, so that the same seed and logits give the same token. Greedy
rows cost one argmax for the whole batch, plain temperature some 70 µs a row at 49,152 tokens. Knows no llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from inference.language.requests import Logprob, Sampling

Row = npt.NDArray[np.float32]

BLOCK: Final = 256  # entries summed at once; the draw looks into one block only
NUCLEI: Final = (256, 4096)  # as many of the likeliest are sorted for top-p before all are
LARGEST: Final = float(np.finfo(np.float32).max)
COLDEST: Final = 1e-6  # of temperatures: the likeliest is as good as certain there, and nothing overflows


class Mask(Protocol):
    """What may come next, by a grammar or a schema (constraint.py)."""

    def allowed(self) -> npt.NDArray[np.bool_] | None:
        """One flag a token; None where anything may come."""

    def accept(self, token: int) -> None: ...


class Pieces(Protocol):
    """What a Logprob tells of a token."""

    def piece(self, token: int, *, special: bool = False) -> bytes: ...


class Sampler:
    """The choices of one sequence. One thread's."""

    def __init__(
        self,
        sampling: Sampling,
        vocabulary: int,
        prompt: Sequence[int] = (),
        *,
        choice: int = 0,
        mask: Mask | None = None,
    ) -> None:
        self._sampling, self._mask = sampling, mask
        seed = None if sampling.seed is None else [sampling.seed & (1 << 64) - 1, choice]
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._bias: tuple[npt.NDArray[np.int64], Row] | None = None
        if sampling.logit_bias:
            known = {token: bias for token, bias in sampling.logit_bias.items() if 0 <= token < vocabulary}
            self._bias = (np.array(list(known), dtype=np.int64), np.array(list(known.values()), dtype=np.float32))
        self._counts: npt.NDArray[np.int32] | None = None
        if sampling.presence_penalty or sampling.frequency_penalty:
            self._counts = np.zeros(vocabulary, dtype=np.int32)
        self._seen: npt.NDArray[np.bool_] | None = None
        if sampling.repetition_penalty != 1.0:
            self._seen = np.zeros(vocabulary, dtype=np.bool_)
            self._seen[np.array(prompt, dtype=np.int64)] = True
        adjusted = self._bias is not None or self._counts is not None or self._seen is not None or mask is not None
        self.greedy = not adjusted and sampling.temperature == 0
        cut = sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0
        self.plain = not adjusted and not cut and sampling.temperature > 0
        self.temperature = np.float32(max(sampling.temperature, COLDEST))

    def draw(self) -> float:
        return float(self._random.random())

    def choose(self, row: Row) -> int:
        """Any case, one row at a time; the row is left as it is."""
        scores = self._adjusted(row)
        if self._sampling.temperature == 0:
            return int(scores.argmax())
        return self._sampled(scores)

    def accept(self, token: int) -> None:
        """The token was chosen, by whichever way."""
        if self._counts is not None:
            self._counts[token] += 1
        if self._seen is not None:
            self._seen[token] = True
        if self._mask is not None:
            self._mask.accept(token)

    def _adjusted(self, row: Row) -> Row:
        scores = row.copy()
        if self._bias is not None:
            scores[self._bias[0]] += self._bias[1]
        if self._seen is not None:  # CTRL's penalty (Keskar et al., 2019): towards less likely on either side of zero
            penalty = np.float32(self._sampling.repetition_penalty)
            known = scores[self._seen]
            scores[self._seen] = np.where(known > 0, known / penalty, known * penalty)
        if self._counts is not None:
            scores -= self._sampling.frequency_penalty * self._counts.astype(np.float32)
            scores -= self._sampling.presence_penalty * (self._counts > 0).astype(np.float32)
        if self._mask is not None and (allowed := self._mask.allowed()) is not None:
            scores[: len(allowed)][~allowed] = -np.inf
            scores[len(allowed) :] = -np.inf
        return scores

    def _sampled(self, scores: Row) -> int:
        sampling = self._sampling
        tokens: npt.NDArray[np.int64] | None = None  # None: all, in their own order
        if 0 < sampling.top_k < len(scores):
            tokens = np.argpartition(scores, -sampling.top_k)[-sampling.top_k :]
            scores = scores[tokens]
        shares = _shares(scores, self.temperature)
        if sampling.top_p < 1:
            chosen = _nucleus(shares, sampling.top_p)
            shares = shares[chosen]
            tokens = chosen if tokens is None else tokens[chosen]
        if sampling.min_p > 0:
            likely = np.flatnonzero(shares >= sampling.min_p * shares.max())
            shares, tokens = shares[likely], likely if tokens is None else tokens[likely]
        place = _place(np.cumsum(shares, dtype=np.float64), self.draw())
        return place if tokens is None else int(tokens[place])


def choose(samplers: Sequence[Sampler], logits: npt.NDArray[np.float32]) -> list[int]:
    """The next token of each sequence, from its row."""
    chosen = [-1] * len(samplers)
    greedy = [place for place, sampler in enumerate(samplers) if sampler.greedy]
    if greedy:
        rows = logits if len(greedy) == len(samplers) else logits[greedy]
        for place, token in zip(greedy, rows.argmax(axis=1).tolist(), strict=True):
            chosen[place] = token
    plain = [place for place, sampler in enumerate(samplers) if sampler.plain]
    if plain:
        for place, token in zip(plain, _drawn([samplers[place] for place in plain], logits[plain]), strict=True):
            chosen[place] = token
    for place, sampler in enumerate(samplers):
        if chosen[place] < 0:
            chosen[place] = sampler.choose(logits[place])
        sampler.accept(chosen[place])
    return chosen


def _drawn(samplers: Sequence[Sampler], rows: npt.NDArray[np.float32]) -> list[int]:
    """Plain temperature for many rows at once: sums of blocks first, so that no long running sum is needed."""
    shares = _shares(rows, np.array([[sampler.temperature] for sampler in samplers], dtype=np.float32))
    count, width = shares.shape
    whole = width - width % BLOCK
    sums = np.add.reduce(shares[:, :whole].reshape(count, -1, BLOCK), axis=2, dtype=np.float64)
    rest = np.add.reduce(shares[:, whole:], axis=1, dtype=np.float64)
    ends = np.cumsum(np.column_stack([sums, rest]), axis=1)
    drawn = []
    for row, sampler in enumerate(samplers):
        target = sampler.draw() * ends[row, -1]
        block = min(int(np.searchsorted(ends[row], target, side="right")), ends.shape[1] - 1)
        before = ends[row, block - 1] if block else 0.0
        start = block * BLOCK
        inside = np.cumsum(shares[row, start : start + BLOCK], dtype=np.float64)
        if not len(inside) or inside[-1] <= 0:  # rounding led into an empty block
            drawn.append(int(rows[row].argmax()))
            continue
        drawn.append(start + min(int(np.searchsorted(inside, target - before, side="right")), len(inside) - 1))
    return drawn


def _shares(scores: Row, temperature: np.float32 | Row) -> Row:
    """Softmax without its denominator: the likeliest has 1, whatever the logits are."""
    highest = scores.max(axis=-1, keepdims=True)
    if not np.isfinite(highest).all():
        scores = np.nan_to_num(scores, nan=-np.inf, posinf=LARGEST, neginf=-np.inf)
        highest = np.maximum(scores.max(axis=-1, keepdims=True), -LARGEST)
    shares: Row
    with np.errstate(over="ignore"):  # what lies that far below has no share
        shares = scores - highest
        shares /= temperature
    return np.exp(shares, out=shares)


def _nucleus(shares: npt.NDArray[np.float32], top_p: float) -> npt.NDArray[np.int64]:
    """The fewest tokens that together have `top_p`, the likeliest first (Holtzman et al., 2020)."""
    wanted = top_p * float(shares.sum(dtype=np.float64))
    for size in (*NUCLEI, len(shares)):
        order = np.argpartition(shares, -size)[-size:] if size < len(shares) else np.arange(len(shares))
        order = order[np.argsort(-shares[order], kind="stable")]
        ends = np.cumsum(shares[order], dtype=np.float64)
        if ends[-1] >= wanted:
            break
    return order[: int(np.searchsorted(ends, wanted)) + 1]


def _place(ends: npt.NDArray[np.float64], draw: float) -> int:
    return min(int(np.searchsorted(ends, draw * ends[-1], side="right")), len(ends) - 1)


def logprob(row: Row, token: int, top: int, pieces: Pieces) -> Logprob:
    """The token's log-probability under the model itself, before temperature and all else, and the `top` likeliest."""
    highest = row.max()
    normal = float(highest) + float(np.log(np.exp(row - highest).sum(dtype=np.float64)))
    likeliest: tuple[tuple[int, bytes, float], ...] = ()
    if top := min(top, len(row)):
        found = np.argpartition(row, -top)[-top:]
        found = found[np.argsort(-row[found], kind="stable")]
        likeliest = tuple(
            (other, pieces.piece(other, special=True), float(row[other]) - normal) for other in found.tolist()
        )
    return Logprob(token, pieces.piece(token, special=True), float(row[token]) - normal, likeliest)
