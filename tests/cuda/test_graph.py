"""CUDA graphs (backends/cuda/graph.py) and Captured, on the stand-in and on a real GPU."""

import contextlib
import gc
import threading
import weakref

import numpy as np
import pytest

import minicnn
from minicnn import Captured, Tensor, nn
from minicnn import functional as F
from minicnn.backends.cuda import conv, graph
from minicnn.backends.cuda.cublas import WORKSPACE
from minicnn.backends.cuda.graph import Graph, Memory
from minicnn.backends.cuda.kept import Kept
from minicnn.optim import SGD

RNG = np.random.default_rng(1)
IMAGES = RNG.standard_normal((6, 8, 8, 3)).astype(np.float32)
LABELS = RNG.integers(0, 5, 6)


def network():
    minicnn.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU(), nn.LocalResponseNorm(), nn.Flatten(),
        nn.Linear(72, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5), nn.Dropout(0.1),
    ).to("gpu")  # fmt: skip


def passes_of(net):
    def passes(images, labels):
        logits = net(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        return loss, logits

    return passes


def trained(steps, capture, between=lambda step, net: None):
    """The losses and logits of some steps, and all weights and running averages after them."""
    net = network()
    optimizer, passes = SGD(net.parameters(), 0.1, momentum=0.9), passes_of(net)
    passes = Captured(passes, net) if capture else passes
    seen = []
    for step in range(steps):
        order = np.random.default_rng(step).permutation(6)
        net.zero_grad()
        results = passes(Tensor(IMAGES[order], device="gpu"), Tensor(LABELS[order], device="gpu"))
        seen += [result.numpy() for result in results]
        optimizer.lr = 0.1 / (step + 1)
        optimizer.step()
        between(step, net)
    return seen + [Tensor(array).numpy() for array in net.state_dict().values()], minicnn.random.random_state()


def test_repeated_steps_are_the_steps_themselves(gpu):
    """Bit for bit: losses, logits, weights, running averages, and the state of the random numbers."""
    (plain, state), (captured, after) = trained(6, False), trained(6, True)
    assert after == state
    for a, b in zip(plain, captured, strict=True):
        np.testing.assert_array_equal(a, b)


def batch(n=6, device="gpu"):
    return Tensor(IMAGES[:n], device=device), Tensor(LABELS[:n], device=device)


class Counting:
    """A function, and how often it ran."""

    def __init__(self, function):
        self.function, self.runs = function, 0

    def __call__(self, *args):
        self.runs += 1
        return self.function(*args)


def counted(net):
    counting = Counting(passes_of(net))
    return counting, Captured(counting, net)


def test_the_function_runs_once_plainly_and_once_to_be_captured(gpu):
    counting, captured = counted(network())
    runs = []
    for n in (6, 6, 6, 4, 6, 4, 4, 4, 6):  # as with a last batch that is smaller
        captured(*batch(n))
        runs.append(counting.runs)
    assert runs == [1, 2, 2, 3, 3, 4, 4, 4, 4]


def test_the_host_asks_for_a_graph_and_a_few_more_things(standin):
    _, captured = counted(network())
    for _ in range(3):
        inputs = batch()
        standin.log.clear()
        captured(*inputs)
    place = [entry.kind for entry in standin.log].index("graph")
    asked = [entry.name for entry in standin.log[:place]]
    assert asked == ["setitem", "setitem", "fill"] and not standin.log.transfers and not standin.log.waits
    assert [entry.name for entry in standin.log[-2:]] == ["copy", "copy"]  # loss and logits


def test_results_are_the_callers_and_gradients_are_overwritten(gpu):
    net = network()
    _, captured = counted(net)
    for _ in range(2):
        captured(*batch())
    loss, _ = captured(*batch())
    first, kept, gradient = loss.item(), net[0].weight.grad.numpy(), net[0].weight.grad
    other, _ = captured(Tensor(IMAGES[::-1].copy(), device="gpu"), batch()[1])
    assert loss.item() == first != other.item()
    assert net[0].weight.grad is gradient and (gradient.numpy() != kept).any()
    assert not loss.requires_grad and loss.grad_fn is None


def test_inputs_are_left_alone(gpu):
    _, captured = counted(network())
    images, labels = batch()
    for _ in range(2):
        captured(images, labels)
    captured(Tensor(-IMAGES, device="gpu"), Tensor(LABELS * 0, device="gpu"))
    assert (images.numpy() == IMAGES).all() and (labels.numpy() == LABELS).all()


def test_draws_may_begin_again(gpu):
    """A state from before the capture, with the same seed."""
    net, found = network(), []
    _, captured = counted(net)
    for draws in (10, 12, 14, 4, 2**64 - 2):
        minicnn.random.set_random_state((3, draws))
        found.append(captured(*batch())[1].numpy())
        minicnn.random.set_random_state((3, draws))
        np.testing.assert_array_equal(passes_of(net)(*batch())[1].numpy(), found[-1])


def test_arrays_that_a_graph_reads_are_kept(gpu):
    """Their ids, by which it is found, cannot be those of others."""
    net = network()
    _, captured = counted(net)
    for _ in range(2):
        captured(*batch())
    array = weakref.ref(net[0].weight.data)
    net[0].weight.data = net[0].weight.data * 2
    gc.collect()
    assert array() is not None


def test_gradients_from_before_are_forgotten(gpu):
    found = []
    for before in (False, True):
        net = network().eval()
        _, captured = counted(net)
        for _ in range(3):
            if before:
                for p in net.parameters():
                    p.grad = Tensor(np.ones(p.shape, np.float32), device="gpu")
            captured(*batch())
        found.append([p.grad.numpy() for p in net.parameters()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def changes():
    """What decides what a function computes: by a name, how to change it."""

    def module(net):
        setattr(net, "1", nn.Sigmoid())

    def parameter(net):
        net[0].weight = nn.Parameter(net[0].weight.data)

    def setting(net):
        net[10].p = 0.0

    def hook(net):
        net[0].weight.register_post_accumulate_grad_hook(lambda w: setattr(w, "grad", w.grad * 2))

    def seed(net):
        minicnn.manual_seed(8)

    def evaluation(net):
        net.eval()

    def part(net):
        net[10].eval()

    def weight(net):
        net[0].weight.data = net[0].weight.data * 2

    def running_mean(net):
        net[2].running_mean = net[2].running_mean + 1

    def frozen(net):
        net[0].weight.requires_grad = False

    def precision(net):
        minicnn.set_matmul_precision("tf32")

    return [module, parameter, setting, hook, seed, evaluation, part, weight, running_mean, frozen, precision]


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.__name__)
def test_a_change_is_noticed(gpu, change):
    """What comes after it is what comes without Captured, and the function runs again."""

    def between(step, net):
        if step == 3:
            change(net)

    found = []
    for capture in (False, True):
        minicnn.set_matmul_precision("fp32")
        if change.__name__ in (
            "weight",
            "frozen",
            "parameter",
        ):  # an optimizer of the parameters as they are at the end
            net = network()
            _, captured = counted(net)
            passes = captured if capture else passes_of(net)
            seen = []
            for step in range(7):
                net.zero_grad()
                seen += [result.numpy() for result in passes(*batch())]
                seen += [p.grad.numpy() for p in net.parameters() if p.grad is not None]
                between(step, net)
            found.append(seen)
        else:
            found.append(trained(7, capture, between)[0])
    minicnn.set_matmul_precision("fp32")
    assert len(found[0]) == len(found[1])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_on_and_off_are_told_apart(gpu):
    net = network().eval()
    counting = Counting(net)
    predict = Captured(counting, net)
    images, _ = batch()
    with minicnn.no_grad():
        plain = net(images).numpy()
        for _ in range(3):
            np.testing.assert_array_equal(predict(images).numpy(), plain)
    assert counting.runs == 2
    predict(images)
    assert counting.runs == 3


def test_rows_before_and_backends_are_told_apart(gpu):
    counting, captured = counted(network())
    for _ in range(3):
        captured(*batch())
    with minicnn.random.rows_before(6):
        captured(*batch())
    assert counting.runs == 3
    with minicnn.use_backend("cuda"):
        captured(*batch())
    assert counting.runs == 4


def test_who_looks_on_sees_every_step(gpu):
    net = network()
    counting, captured = counted(net)
    for _ in range(2):
        captured(*batch())
    seen = []
    remove = net[0].register_forward_hook(lambda module, inputs, y: seen.append(y.shape))
    for _ in range(3):
        captured(*batch())
    assert len(seen) == 3 and counting.runs == 5
    remove()
    captured(*batch())
    assert counting.runs == 5 and len(seen) == 3
    with minicnn.detect_anomaly():
        captured(*batch())
    assert counting.runs == 6


def test_only_some_graphs_are_kept(gpu):
    """Those that were used last."""
    counting, captured = counted(network())
    for n in (2, 3, 4, 5, 2, 3, 4, 5):  # the second of each is captured
        captured(*batch(n))
    assert len(captured.steps) == 4 and counting.runs == 8
    captured(*batch(2))
    for n in (6, 6):
        captured(*batch(n))
    assert len(captured.steps) == 4 and counting.runs == 10
    for n in (2, 4, 5, 6):
        captured(*batch(n))
    assert counting.runs == 10
    captured(*batch(3))  # it is gone, and captured again
    assert counting.runs == 11


def test_calls_are_remembered_for_a_while(gpu):
    counting, captured = counted(network().eval())
    for seed in (1, *range(2, 18), 1, 1):  # 1 is forgotten after 16 others
        minicnn.manual_seed(seed)
        captured(*batch())
    assert counting.runs == 19 and len(captured.steps) == 1
    for seed in (1, *range(18, 34), 1):  # what is captured is not forgotten with it
        minicnn.manual_seed(seed)
        captured(*batch())
    assert counting.runs == 19 + 16


def test_a_call_that_failed_is_no_first_one(gpu):
    net, errors = network(), iter([KeyError("mine"), None, None, None])
    runs = []

    def passes(images, labels):
        runs.append(len(images))
        if error := next(errors):
            raise error
        return net(images)

    captured = Captured(passes, net)
    with pytest.raises(KeyError):
        captured(*batch())
    for _ in range(3):
        captured(*batch())
    assert len(runs) == 3 and len(captured.steps) == 1


def test_graphs_share_one_workspace(standin):
    _, captured = counted(network())
    for n in (4, 5, 6):
        for _ in range(2):
            captured(*batch(n))
    assert standin.gpus[0].used < 1.2 * WORKSPACE


def test_columns_of_a_graph_are_not_kept_beyond_it(gpu, monkeypatch):
    fresh = Kept()
    for module in (conv, graph):
        monkeypatch.setattr(module, "kept", fresh)
    net = network().eval()
    predict = Captured(net, net)
    with minicnn.no_grad():
        for _ in range(2):
            images, _ = batch()
            predict(images)
    del images
    gc.collect()
    assert not fresh.made


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda loss, optimizer: loss.item(), lambda loss, optimizer: loss.numpy(),
        lambda loss, optimizer: bool(loss > 0), lambda loss, optimizer: optimizer.step(),
        lambda loss, optimizer: loss * Tensor(np.ones(3, np.float32), device="gpu"),
        lambda loss, optimizer: minicnn.synchronize(),
    ],
)  # fmt: skip
def test_what_cannot_be_captured(standin, forbidden):
    net = network()
    optimizer = SGD(net.parameters(), 0.0)
    after = iter([False, True, False])

    def passes(images, labels):
        loss, logits = passes_of(net)(images, labels)
        if next(after):
            forbidden(loss, optimizer)
        return loss, logits

    captured = Captured(passes, net)
    captured(*batch())
    state = minicnn.random.random_state()
    with pytest.raises(RuntimeError, match=r"^this cannot be captured: .*; inside, do not read results"):
        captured(*batch())
    assert minicnn.random.random_state() == state
    assert all(p.grad is None for p in net.parameters())  # they were not computed
    loss, _ = captured(*batch())  # the next capture is as good as any
    assert loss.item() == passes_plain(net, state).item()


def test_an_error_that_the_function_hides(standin):
    net = network()

    def passes(images, labels):
        loss, _ = passes_of(net)(images, labels)
        with contextlib.suppress(RuntimeError):
            loss.item()
        return loss

    captured = Captured(passes, net)
    captured(*batch())
    with pytest.raises(RuntimeError, match=r"^this cannot be captured: .*; inside, do not read results"):
        captured(*batch())


def test_another_thread_may_not_draw_meanwhile(gpu):
    net = network()

    def passes(images, labels):
        loss, _ = passes_of(net)(images, labels)
        if runs:
            thread = threading.Thread(target=minicnn.random.draw)
            thread.start()
            thread.join()
        runs.append(loss)
        return loss

    runs, captured = [], Captured(passes, net)
    captured(*batch())
    draws = minicnn.random.random_state()[1]
    with pytest.raises(RuntimeError, match=r"^Captured: another thread has drawn random numbers meanwhile"):
        captured(*batch())
    assert minicnn.random.random_state()[1] == draws + 3  # none is given out twice


def passes_plain(net, state):
    minicnn.random.set_random_state(state)
    return passes_of(net)(*batch())[0]


@pytest.mark.parametrize("error", [KeyError, minicnn.DeviceError])
def test_an_error_of_the_function_passes(gpu, error):
    net, errors = network(), iter([None, error("mine"), None])

    def passes(images, labels):
        if error := next(errors):
            raise error
        return net(images)

    captured = Captured(passes, net)
    captured(*batch())
    with pytest.raises(error, match=r"^'?mine'?$"):
        captured(*batch())
    assert captured(*batch()).shape == (6, 5)


def test_a_full_gpu_is_an_error_of_one_line(standin):
    net = network()
    captured = Captured(passes_of(net), net)
    captured(*batch())
    inputs = batch()
    standin.gpus[0].total = standin.gpus[0].used + 20_000
    with pytest.raises(minicnn.DeviceError, match=r"^gpu:0 is out of memory"):
        captured(*inputs)
    standin.gpus[0].total = 1 << 34
    captured(*inputs)


def test_a_second_gpu(standin):
    net = network().to("gpu:1")
    plain = network().to("gpu:1")
    captured = Captured(passes_of(net), net)
    minicnn.manual_seed(0)
    found = [captured(*batch(device="gpu:1"))[0].item() for _ in range(3)]
    minicnn.manual_seed(0)
    assert found == [passes_of(plain)(*batch(device="gpu:1"))[0].item() for _ in range(3)]
    assert {entry.device for entry in standin.log if entry.kind == "graph"} == {1}


def test_unused_memory_is_given_back_before_a_capture(standin):
    Tensor(np.ones(1 << 20, np.float32), device="gpu")
    assert standin.gpus[0].reserved >= standin.gpus[0].used + (1 << 22)
    memory = Memory()
    Tensor(np.ones(1 << 20, np.float32), device="gpu")
    captured = Graph(lambda: None, memory)
    captured.launch(0)
    assert standin.gpus[0].reserved == standin.gpus[0].used


def test_memory_of_graphs_is_counted(standin):
    net = network()
    captured = Captured(passes_of(net), net)
    before = minicnn.memory_stats()
    for _ in range(2):
        captured(*batch())
    stats = minicnn.memory_stats()
    assert stats["used"] == standin.gpus[0].used > before["used"] + (1 << 15)
    del captured
    net.zero_grad()
    gc.collect()
    assert minicnn.memory_stats()["used"] <= before["used"]


def test_a_graph_needs_its_pool(standin):
    """The stand-in notices if a graph does not keep it, or what it reads is gone."""
    arrays = [Tensor(np.ones(4, np.float32), device="gpu").data]
    captured = Graph(lambda: arrays[0] + 1, Memory())
    captured.launch(0)
    memory, captured.memory = captured.memory, None
    captured.launch(0)
    del memory
    with pytest.raises(RuntimeError, match="illegal memory access"):
        captured.launch(0)
    captured = Graph(lambda: arrays[0] + 1, Memory())
    arrays.clear()
    with pytest.raises(RuntimeError, match="illegal memory access"):
        captured.launch(0)
