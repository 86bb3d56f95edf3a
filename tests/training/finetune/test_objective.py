"""What is made small: the loss of answers as cross entropy has it, and that of preferences as its paper has it."""

from __future__ import annotations

from array import array

import pytest
import torch
import torch.nn.functional as F

from tests.training.finetune.test_llama import BASE, TOKENS
from tests.training.finetune.test_lora import adapter
from tests.training.language.making import TINY, watch
from training.errors import Cancelled
from training.finetune import objective
from training.finetune.llama import Llama, Ragged, Weights
from training.finetune.lora import Adapter
from training.finetune.objective import Preference, Supervised, log_probabilities
from training.finetune.rows import Example, Row
from training.spec.finetune import Lora

pytestmark = pytest.mark.slow


def network(taught: Adapter) -> Llama:
    return Llama(BASE, Weights(BASE, torch.float32, keep=True), taught, watch)


def row(tokens: list[int], prompt: int) -> Row:
    return Row(array("i", tokens), array("i", range(prompt, len(tokens))), prompt)


ROWS = [
    Example(1, (row(TOKENS[:12], 5),)),
    Example(2, (Row(array("i", TOKENS[10:30]), array("i", [3, 4, 11, 12, 19]), 19),)),
]
PAIRS = [
    Example(7, (row(TOKENS[:12], 5), row([*TOKENS[:5], *TOKENS[20:24]], 5))),
    Example(9, (row(TOKENS[20:31], 3), row(TOKENS[20:28], 3))),
]


def plain(llama: Llama, one: Row) -> torch.Tensor:
    """Log-probabilities of a row's places, by all logits at once."""
    logits = llama(Ragged.of([one.tokens])) @ llama.head.T
    targets = torch.tensor(one.tokens.tolist())
    found = -F.cross_entropy(logits[:-1], targets[1:], reduction="none")
    return found[torch.tensor(one.places.tolist()) - 1]


def gradients(taught: Adapter) -> list[torch.Tensor]:
    found = [parameter.grad.clone() for parameter in taught.parameters() if parameter.grad is not None]
    taught.zero_grad()
    return found


@pytest.mark.parametrize("at_once", [64, 3])
def test_log_probabilities_and_their_gradients_are_those_of_cross_entropy(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "HEAD_TOKENS", at_once)
    taught = adapter()
    llama = network(taught)
    found, lengths = log_probabilities(llama, ROWS)
    expected = torch.cat([plain(llama, one) for example in ROWS for one in example.rows])
    assert lengths == [7, 5]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = torch.linspace(-1, 2, len(found))
    (found * weights).sum().backward()
    ours = gradients(taught)
    (expected * weights).sum().backward()
    for one, other in zip(ours, gradients(taught), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_supervised_is_the_mean_over_all_tokens_of_the_answers() -> None:
    llama = network(adapter())
    tally = Supervised().tally(llama, ROWS, recompute=False)
    expected = -torch.cat([plain(llama, one) for example in ROWS for one in example.rows])
    assert tally.count == Supervised().count(ROWS) == 12
    torch.testing.assert_close(tally.total, expected.sum())
    loss = expected.mean().item()
    assert Supervised().metrics(tally.total.item(), tally.count, {}) == pytest.approx(
        {"loss": loss, "perplexity": torch.tensor(loss).exp().item()}, rel=1e-4
    )


def test_a_perplexity_beyond_all_numbers_is_the_largest() -> None:
    assert Supervised().metrics(1e9, 1, {})["perplexity"] > 1e300


def test_preference_is_the_loss_of_rafailov_et_al() -> None:
    taught = adapter()
    llama = network(taught)
    preference = Preference(beta=0.3)
    preference.refer(llama, PAIRS)
    tally = preference.tally(llama, PAIRS, recompute=False)
    margins = []
    for example in PAIRS:
        policy = [plain(llama, one).sum() for one in example.rows]
        untaught = Llama(BASE, Weights(BASE, torch.float32, keep=True), None, watch)
        with torch.no_grad():
            base = [plain(untaught, one).sum() for one in example.rows]
        margins.append(0.3 * ((policy[0] - base[0]) - (policy[1] - base[1])))
    expected = [-torch.log(torch.sigmoid(margin)) for margin in margins]
    torch.testing.assert_close(tally.total, torch.stack(expected).sum(), atol=1e-4, rtol=1e-4)
    assert tally.count == 2
    assert tally.others["accuracy"] == sum(margin.item() > 0 for margin in margins)
    assert tally.others["margin"] == pytest.approx(sum(margins).item(), abs=1e-4)
    assert preference.metrics(1.0, 2, tally.others) == {
        "loss": 0.5,
        "accuracy": tally.others["accuracy"] / 2,
        "margin": tally.others["margin"] / 2,
    }


def test_before_anything_is_learned_every_preference_is_even() -> None:
    llama = network(Adapter(Lora(), TINY, seed=0))
    preference = Preference(beta=0.1)
    preference.refer(llama, PAIRS)
    tally = preference.tally(llama, PAIRS, recompute=False)
    assert tally.total.item() / tally.count == pytest.approx(0.693147, abs=1e-5)


def test_the_head_is_looked_up_from_too() -> None:
    asked = 0

    def look() -> None:
        nonlocal asked
        asked += 1
        if asked > 7 * TINY.blocks:  # every matrix is behind it
            raise Cancelled

    llama = Llama(BASE, Weights(BASE, torch.float32, keep=True), Adapter(Lora(), TINY, 0), look)
    with pytest.raises(Cancelled):
        log_probabilities(llama, ROWS)
