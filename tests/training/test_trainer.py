"""The loop: it learns, repeats itself, and stops when the loss is no number."""

import itertools
from dataclasses import replace

import pytest
import torch

from alexnet.errors import TrainingError
from alexnet.network import build
from alexnet.recipes import PAPER
from alexnet.spec import DropoutSpec
from alexnet.training.monitor import check_loss
from alexnet.training.optimizer import learning_rates_at, make_optimizer
from alexnet.training.state import History
from alexnet.training.trainer import LocalBatch, MicroBatch, Replica, probe_batch_size, train
from alexnet.variants import CIFAR_QUICK

SPEC = replace(CIFAR_QUICK, dropout=DropoutSpec(rate=0.5)).with_layers("conv1", std=0.01)
RECIPE = PAPER.with_(lr=1e-3, batch_size=8)


def batches(wrong_at=None):
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(8) % 4
    images = torch.randn(8, 3, 32, 32, generator=draws) * 60
    for number in itertools.count(1):
        yield LocalBatch(images * float("nan") if number == wrong_at else images, labels, 0, 8)


def run(done=0, total=12, network=None, wrong_at=None, kind=torch.float32, micro=None):
    network = network or build(SPEC)
    optimizer = make_optimizer(network, RECIPE)
    steps = train(
        Replica(network, network),
        optimizer,
        batches(wrong_at),
        RECIPE,
        lambda step: learning_rates_at(RECIPE, 0.0),
        done=done,
        total=total,
        dtype=kind,
        micro=MicroBatch(micro),
    )
    return network, steps


@pytest.mark.parametrize(
    "kind", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
)
def test_it_learns_a_batch_by_heart(kind):
    """In bfloat16 it takes half a minute where the processor has to emulate its products."""
    losses = [step.loss for step in run(total=150, kind=kind)[1]]
    assert losses[0] == pytest.approx(2.303, abs=0.8)  # ln 10, and what the first weights add
    assert losses[-1] < 0.5


def test_the_same_seed_gives_the_same_losses_bit_for_bit():
    assert [s.loss for s in run()[1]] == [s.loss for s in run()[1]]


def test_a_loss_that_is_no_number_changes_nothing_and_is_refused():
    network, steps = run(wrong_at=3)
    list(itertools.islice(steps, 2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert next(steps).refused == "is nan"
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not next(steps).refused


@pytest.mark.parametrize("micro", [1, 3, 4])
def test_micro_batches_train_as_the_whole_batch_does(micro):
    """In float64: 12 steps of a sum of gradients differ by rounding alone; dropout is on."""
    nets = []
    for size in (None, micro):
        network = build(SPEC).double()
        shares = (LocalBatch(s.pixels.double(), s.labels, s.first, s.batch_size) for s in batches())
        optimizer = make_optimizer(network, RECIPE)
        steps = train(
            Replica(network, network),
            optimizer,
            shares,
            RECIPE,
            lambda n: learning_rates_at(RECIPE, 0.0),
            done=0,
            total=12,
            dtype=torch.float64,
            micro=MicroBatch(size),
        )
        nets.append((network.state_dict(), [step.loss for step in steps]))
    (whole, losses), (pieces, again) = nets
    assert again == pytest.approx(losses, rel=1e-11)
    for name, tensor in whole.items():
        torch.testing.assert_close(pieces[name], tensor, rtol=0, atol=1e-10)


class Small:
    """A network on a device whose memory holds so many images."""

    def __init__(self, network, images):
        self.network, self.images, self.seen = network, images, []

    def __call__(self, pixels):
        self.seen.append(len(pixels))
        if len(pixels) > self.images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return self.network(pixels)


def trained(network, forward, micro):
    steps = train(
        Replica(network, forward),
        make_optimizer(network, RECIPE),
        batches(),
        RECIPE,
        lambda step: learning_rates_at(RECIPE, 0.0),
        done=0,
        total=6,
        dtype=torch.float32,
        micro=micro,
    )
    return [step.loss for step in steps]


def test_when_memory_is_short_the_micro_batch_is_halved_and_the_curve_stays():
    """Scenario 12: 8 images, of which 3 fit: two halvings, no step lost, the batch the same."""
    one, other, micro = build(SPEC), build(SPEC), MicroBatch()
    small = Small(other, 3)
    assert trained(other, small, micro) == pytest.approx(trained(one, one, None), rel=1e-5)
    assert small.seen == [8, 4, *[2] * 24]
    assert (
        micro.take_report() == "Memory is short: 2 images are taken at once, the batch is the same."
    )
    assert not micro.take_report()


@pytest.mark.parametrize(
    ("fits", "fixed", "told"),
    [(0, False, "not enough memory for a single image"), (3, True, "--micro-batch 4")],
)
def test_where_fewer_images_do_not_help_it_says_so(fits, fixed, told):
    network, micro = build(SPEC), MicroBatch()
    micro.fixed = fixed
    with pytest.raises(TrainingError, match=told):
        trained(network, Small(network, fits), micro)


def test_another_error_is_not_taken_for_want_of_memory():
    network = build(SPEC)

    def broken(pixels):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        trained(network, broken, MicroBatch())


def test_the_totals_are_added_between_the_last_forward_and_its_backward_pass():
    """So that the host can have them while a GPU is at the gradients."""
    network, order = build(SPEC), []
    network.fc10.weight.register_hook(lambda grad: order.append("backward"))

    def forward(pixels):
        order.append("forward")
        return network(pixels)

    def added(totals):
        order.append("added")
        return totals

    steps = train(
        Replica(network, forward, all_reduce_sum=added),
        make_optimizer(network, RECIPE),
        batches(),
        RECIPE,
        lambda step: learning_rates_at(RECIPE, 0.0),
        done=0,
        total=2,
        dtype=torch.float32,
        micro=MicroBatch(4),
    )
    list(steps)
    assert order == ["forward", "backward", "forward", "added", "backward"] * 2


def test_a_rehearsal_says_no_word_to_other_processes_and_leaves_no_gradient():
    network = build(SPEC)

    def added(totals):
        raise AssertionError("the others are not listening")

    replica = Replica(network, network, all_reduce_sum=added)
    probe_batch_size(replica, next(batches()), MicroBatch(), RECIPE, torch.float32)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_usual_loss_is_the_median_of_the_last_200():
    history = History()
    assert not any(check_loss(history, None, float(loss)) for loss in range(250))
    assert history.losses == [float(loss) for loss in range(50, 250)]
    assert check_loss(history, 2.0, 299.0) == ""  # 2 times 149.5
    assert check_loss(history, 2.0, 302.5) == "is 302, more than 2 times its usual 150,"
    assert check_loss(history, None, float("nan")) == "is nan"
    assert history.losses[-1] == 299.0


def test_no_batch_is_drawn_for_a_step_that_is_not_taken():
    drawn = []
    source = ((drawn.append(1), batch)[1] for batch in batches())
    network = build(SPEC)
    list(
        train(
            Replica(network, network),
            make_optimizer(network, RECIPE),
            source,
            RECIPE,
            lambda step: learning_rates_at(RECIPE, 0.0),
            done=0,
            total=3,
            dtype=torch.float32,
        )
    )
    assert len(drawn) == 3
