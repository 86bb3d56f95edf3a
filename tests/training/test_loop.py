"""The loop: what it learns, in which order, when it ends, what it tells and what it does when it is asked to end."""

from __future__ import annotations

import io
import re
from itertools import chain
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.given import Json, document
from tests.training.loops import Witness, made_loop
from training import checkpoint
from training.errors import Cancelled, Diverged, Drained, TimedOut
from training.loop import SLICE_ROWS, Loop, Parts
from training.spec import TrainSpec, load

pytestmark = pytest.mark.slow

ORIGIN = checkpoint.Origin("spec", "2.13.0", 1)


def spec_of(**changes: Any) -> TrainSpec:
    spec = load(document(model={"kind": "catalogue", "name": "mlp"}, **changes))
    assert isinstance(spec, TrainSpec)
    return spec


SPEC = spec_of()


def clusters(rows: int = 40, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows around one corner for each class: easy to learn."""
    random = torch.Generator().manual_seed(5)
    target = torch.arange(rows) % classes
    return 2 * torch.eye(classes)[target] + 0.3 * torch.randn(rows, classes, generator=random), target


def body(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 4))


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def trained(**train: Any) -> torch.Tensor:
    made = body()
    made_loop(SPEC, made, *clusters(), classes=4, **{"batch_size": 7, "epochs": 2, **train}).run()
    return weights(made)


# ---- learning


def test_the_same_seed_gives_the_same_weights_and_another_seed_another_order() -> None:
    assert torch.equal(trained(seed=0), trained(seed=0))
    assert not torch.equal(trained(seed=0), trained(seed=1))


def test_every_epoch_has_an_order_of_its_own_and_takes_every_row_once() -> None:
    seen: list[list[int]] = []
    inputs, target = clusters()
    made = body()
    made.register_forward_pre_hook(lambda net, args: seen.append(args[0][:, 0].tolist()) if net.training else None)
    made_loop(SPEC, made, inputs, target, classes=4, batch_size=7, epochs=2).run()
    epochs = [list(chain(*seen[:6])), list(chain(*seen[6:]))]
    assert [len(batch) for batch in seen[:6]] == [7, 7, 7, 7, 7, 5]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(inputs[:, 0].tolist())


def test_a_batch_larger_than_the_rows_takes_them_all() -> None:
    witness = Witness()
    made_loop(SPEC, body(), *clusters(), classes=4, witness=witness, batch_size=1000, epochs=3).run()
    assert [(news.step, news.steps) for news in witness.news if news.metrics] == [(1, 3), (2, 3), (3, 3)]


def test_a_batch_of_several_slices_is_one_step_on_the_gradient_of_the_whole() -> None:
    inputs, target = clusters(2 * SLICE_ROWS + 100)
    made, plain = body(), body()
    made_loop(SPEC, made, inputs, target, classes=4, batch_size=len(target), epochs=1).run()
    nn.functional.cross_entropy(plain(inputs), target).backward()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter -= 0.001 * parameter.grad
    assert torch.allclose(weights(made), weights(plain), rtol=0, atol=1e-6)


def test_gradients_are_clipped_to_the_norm_asked_for() -> None:
    optimizer = SPEC.train.optimizer.model_copy(update={"lr": 1.0, "momentum": 0.0, "clip_norm": 0.01})
    moved = trained(optimizer=optimizer, batch_size=40, epochs=1) - weights(body())
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_weight_decay_and_adamw_reach_torch() -> None:
    adamw = SPEC.train.optimizer.model_copy(
        update={"name": "adamw", "lr": 0.01, "momentum": 0.0, "betas": [0.8, 0.95], "weight_decay": 0.1}
    )
    inputs, target = clusters()
    plain = body()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, betas=(0.8, 0.95), weight_decay=0.1)
    nn.functional.cross_entropy(plain(inputs), target).backward()
    optimizer.step()
    assert torch.allclose(trained(optimizer=adamw, batch_size=40, epochs=1), weights(plain), rtol=0, atol=1e-6)


@pytest.mark.parametrize("lr", [1e18, 1e30])
def test_a_loss_that_leaves_the_numbers_ends_the_job_with_place_and_remedy(lr: float) -> None:
    optimizer = SPEC.train.optimizer.model_copy(update={"lr": lr})
    with pytest.raises(Diverged) as caught:
        trained(optimizer=optimizer, epochs=50)
    assert caught.value.code == "diverged"
    assert re.fullmatch(r"the loss became (NaN|infinite) at epoch 1, step [1-6]", caught.value.message)
    assert caught.value.hint == f"lower train.optimizer.lr, now {lr:g}"


# ---- what it tells


def test_each_epoch_ends_with_its_metrics_and_the_place_in_the_run() -> None:
    witness = Witness()
    made_loop(SPEC, body(), *clusters(), classes=4, witness=witness, batch_size=7, epochs=3).run()
    ends = [news for news in witness.news if news.metrics]
    assert [(news.epoch, news.step, news.steps, round(news.fraction, 2)) for news in ends] == [
        (1, 6, 18, 0.33),
        (2, 12, 18, 0.67),
        (3, 18, 18, 1.0),
    ]
    assert ends[0].metrics.keys() == {"train/loss", "validation/loss", "validation/accuracy", "validation/f1"}
    assert ends[-1].eta_seconds == 0
    assert ends[2].metrics["train/loss"] < ends[0].metrics["train/loss"]


# ---- early stop


class Scripted(nn.Module):
    """Metrics to order: its one weight goes down by one each step, and after step n it answers by margins[n - 1]."""

    def __init__(self, margins: list[float]) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.zeros(()))
        self.margins = torch.tensor(margins)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            return self.at.expand(len(inputs), 2)
        margin = self.margins[round(-self.at.item()) - 1].expand(len(inputs))
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


def scripted_run(margins: list[float], **early_stop: Any) -> tuple[Loop, Witness]:
    """Whole-batch steps, one an epoch; after epoch n every row is answered by margins[n - 1]."""
    spec = spec_of(
        train={
            "loss": {"name": "cross_entropy"},
            "optimizer": {"name": "sgd", "lr": 1.0},
            "early_stop": {"patience": 2, **early_stop},
            "batch_size": 1000,
            "epochs": len(margins),
        }
    )
    witness = Witness()
    inputs, target = torch.zeros(4, 1), torch.tensor([0, 0, 0, 1])
    made = made_loop(spec, Scripted(margins), inputs, target, classes=2, witness=witness)
    # In training the loss is the weight itself, so that each step moves it by the learning rate, which is one.
    made.criterion = lambda scores, wanted: (
        scores[:, 0].mean() if made.body.training else nn.functional.cross_entropy(scores, wanted)
    )
    made.run()
    return made, witness


def kept_epoch(loop: Loop) -> int:
    return round(-loop.body.at.item())  # type: ignore[union-attr, operator]  # Scripted's weight counts the steps


def test_training_ends_when_the_metric_stands_still_and_the_best_weights_come_back() -> None:
    loop, witness = scripted_run([0.1, 1.0, 5.0, 6.0, 7.0, 8.0], metric="validation/loss")
    assert loop.epoch == 4  # best at 2, two epochs of patience
    assert kept_epoch(loop) == 2
    assert any("ends early" in line for line in witness.lines)


def test_without_restore_best_the_last_weights_are_kept() -> None:
    loop, _ = scripted_run([0.1, 1.0, 5.0, 6.0, 7.0], metric="validation/loss", restore_best=False)
    assert (loop.epoch, kept_epoch(loop)) == (4, 4)


def test_ties_of_the_metric_go_to_the_lower_validation_loss() -> None:
    loop, _ = scripted_run([5.0, 1.0, 2.0, 3.0], metric="validation/accuracy")  # accuracy is 3/4 in each
    assert (loop.epoch, kept_epoch(loop)) == (4, 2)


def test_full_ties_go_to_the_later_epoch_and_do_not_count_as_progress() -> None:
    loop, _ = scripted_run([1.0, 1.0, 1.0, 1.0, 1.0], metric="validation/accuracy")
    assert (loop.epoch, kept_epoch(loop)) == (3, 3)


# ---- being asked to end


def test_a_cancel_ends_it_at_the_next_step_and_nothing_is_saved() -> None:
    witness = Witness(wants=lambda asked: "cancel" if asked > 3 else None)
    loop = made_loop(SPEC, body(), *clusters(), classes=4, witness=witness, batch_size=7, epochs=3)
    with pytest.raises(Cancelled):
        loop.run()
    assert loop.done == 4
    assert witness.saved == []


def test_a_cancel_is_seen_between_the_slices_of_a_large_batch() -> None:
    inputs, target = clusters(4 * SLICE_ROWS)
    witness = Witness(wants=lambda asked: "cancel" if asked > 1 else None)
    loop = made_loop(SPEC, body(), inputs, target, classes=4, witness=witness, batch_size=len(target), epochs=3)
    with pytest.raises(Cancelled):
        loop.run()
    assert loop.done == 0


def test_time_used_up_is_said_with_the_place_reached() -> None:
    loop = made_loop(SPEC, body(), *clusters(), classes=4, max_seconds=0.0, batch_size=7, epochs=3)
    with pytest.raises(TimedOut) as caught:
        loop.run()
    assert "step 1 of 18" in caught.value.message


def packed(state: dict[str, Any]) -> dict[str, Any]:
    return {"bytes": bytes(checkpoint.pack(state, ORIGIN))}


def resumable(witness: Witness, dropout: float, early_stop: Json | None) -> Loop:
    spec = spec_of(
        train={
            "early_stop": early_stop,
            "batch_size": 7,
            "epochs": 3,
            "optimizer": {"name": "adamw", "lr": 1.0},
        }
    )
    inputs, target = clusters()
    rows = torch.arange(40)
    parts = Parts(rows[:30], rows[30:], rows[30:])
    return made_loop(spec, body(dropout), inputs, target, classes=4, witness=witness, parts=parts)


@pytest.mark.parametrize(("dropout", "early_stop"), [(0.0, None), (0.3, {"metric": "validation/accuracy"})])
def test_a_run_broken_off_anywhere_goes_on_bit_for_bit(dropout: float, early_stop: Json | None) -> None:
    unbroken_witness = Witness()
    unbroken = resumable(unbroken_witness, dropout, early_stop)
    unbroken.run()
    asked = unbroken_witness.asked
    assert asked > 15
    assert unbroken.best is None or unbroken.best.epoch < unbroken.epoch, "else no weights come back"
    for moment in range(1, asked + 1):
        witness = Witness(wants=lambda count, moment=moment: "drain" if count == moment else None, keep=packed)
        with pytest.raises(Drained):
            resumable(witness, dropout, early_stop).run()
        later = Witness()
        resumed = resumable(later, dropout, early_stop)
        torch.manual_seed(99)  # another process has another random state
        state, difference = checkpoint.unpack(witness.saved[0]["bytes"], ORIGIN)
        assert state is not None, difference
        resumed.restore(state)
        resumed.run()
        assert torch.equal(weights(resumed.body), weights(unbroken.body)), moment
        assert later.news[-1].metrics == unbroken_witness.news[-1].metrics


@pytest.mark.parametrize(
    "other",
    [
        checkpoint.Origin("another", "2.13.0", 1),
        checkpoint.Origin("spec", "2.14.0", 1),
        checkpoint.Origin("spec", "2.13.0", 2),
    ],
)
def test_a_checkpoint_of_another_run_is_told_apart_and_changes_nothing(other: checkpoint.Origin) -> None:
    blob = bytes(checkpoint.pack({"at": [0, 1]}, ORIGIN))
    torch.manual_seed(4)
    before = torch.get_rng_state()
    state, difference = checkpoint.unpack(blob, other)
    assert state is None
    assert difference
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_is_never_code() -> None:
    buffer = io.BytesIO()
    torch.save({"format": 1, "state": io.BytesIO}, buffer)  # a class: loading it would import by name
    with pytest.raises(Exception, match=r"weights_only|WeightsUnpickler"):
        checkpoint.unpack(buffer.getvalue(), ORIGIN)
