"""The engine: what is accumulated, when hooks run, what is computed, kept and freed, and the error for each misuse."""

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

from minicnn import Tensor, grad, nn, no_grad, optim
from minicnn import functional as F
from minicnn.autograd import Copy, Function, is_recording, set_grad_enabled
from minicnn.tensor import apply


def leaf(*numbers, shape=None):
    return Tensor(np.array(numbers, float).reshape(shape or len(numbers)), requires_grad=True)


class Probe(Function):
    """2x, which notes every backward call. Its saved array and the gradients it is handed can be watched."""

    def __init__(self, calls, name):
        self.calls, self.label = calls, name

    def forward(self, x):
        return 2 * x

    def backward(self, grad):
        self.calls.append((self.label, grad))
        return grad * 2


class Recipe(Function):
    """x, with a backward pass that is given."""

    def __init__(self, backward):
        self.recipe = backward

    def forward(self, *arrays):
        return arrays[0].copy()

    def backward(self, grad):
        return self.recipe(grad)


def fails(error, pattern, f, *args, **kwargs):
    """f raises this error, in one line."""
    with pytest.raises(error, match=pattern) as caught:
        f(*args, **kwargs)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------------------------
# accumulation
def test_all_paths_to_a_leaf_are_added():
    x = leaf(1.0, 2.0)
    y = x * 3
    z = y * x + y + x  # 3x² + 4x
    z.backward(np.array([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad.data, [10, 160])


def test_gradients_accumulate_over_backward_passes_in_new_tensors():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [5, 7])
    np.testing.assert_array_equal(first.data, [2, 4])
    x.grad = None
    x.sum().backward()
    np.testing.assert_array_equal(x.grad.data, [1, 1])


def test_only_leaves_that_want_it_get_a_gradient():
    x, c = leaf(1.0), Tensor([2.0], dtype=np.float64)
    y = x * c
    z = y * 2
    z.backward()
    assert c.grad is y.grad is z.grad is None and x.grad.item() == 4


def test_a_leaf_may_be_its_own_output():
    x = leaf(1.0, 2.0)
    g = Tensor(np.array([3.0, 4.0]))
    x.backward(g)
    np.testing.assert_array_equal(x.grad.data, g.data)
    assert not np.shares_memory(x.grad.data, g.data)


def test_several_outputs_at_once():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = x * w
    gx, gw = grad([y.sum(), y, x], [x, w], [None, np.array([10.0, 20.0]), Tensor(np.array([100.0, 200.0]))])
    np.testing.assert_array_equal(gx.data, [133, 284])
    np.testing.assert_array_equal(gw.data, [11, 42])


def test_nodes_are_visited_once_and_from_the_newest_to_the_oldest():
    calls = []
    x = leaf(1.0)
    a = apply(Probe(calls, "a"), x)
    b = apply(Probe(calls, "b"), a)
    c = apply(Probe(calls, "c"), a + b)
    d = apply(Probe(calls, "d"), a * 3 + c)
    d.sum().backward()
    assert [name for name, _ in calls] == ["d", "c", "b", "a"]
    assert [g.item() for _, g in calls] == [1, 2, 4, 2 * 3 + 4 + 4 * 2]
    assert x.grad.item() == 36


# ----------------------------------------------------------------------------------------------------------------------
# keeping and freeing the graph
def test_a_graph_serves_once_unless_it_is_retained():
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    grad(y, x, retain_graph=True)
    y.backward()
    assert x.grad.item() == 12
    for again in (y.backward, (y + 1).backward, lambda: grad(y, x), lambda: grad(y * x, x)):
        fails(RuntimeError, "Mul was freed.*retain_graph=True", again)
    assert x.grad.item() == 12


def test_grad_frees_the_graph_by_default_and_keeps_it_with_create_graph():
    x = leaf(3.0)
    y = x * x
    grad(y, x, create_graph=True)
    grad(y, x)
    fails(RuntimeError, "freed", grad, y, x)
    y = x * x
    grad(y, x, create_graph=True, retain_graph=False)
    fails(RuntimeError, "freed", grad, y, x)


def test_two_outputs_can_share_a_graph_only_if_the_first_retains_it():
    x = leaf(3.0)
    h = x * x
    a, b = h * 2, h * 3
    a.backward()
    fails(RuntimeError, "freed", b.backward)


def alive():
    return sum(isinstance(thing, (Function, Tensor)) for thing in gc.get_objects())


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def network():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(147, 4), nn.Dropout())


def training_step(net, optimizer=None):
    x = Tensor(np.random.default_rng(0).standard_normal((4, 16, 16, 2)).astype(np.float32))  # 8 kB
    loss = F.cross_entropy(net(x), np.array([1, 3, 0, 2]))
    if optimizer:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss


def test_graphs_are_freed_by_counting_alone(no_collector):
    net = network()
    before = alive()
    loss = training_step(net)
    assert alive() > before
    del loss  # a graph that was never walked
    assert alive() == before
    optimizer = optim.SGD(net.parameters(), 0.1)
    loss = training_step(net, optimizer)
    assert not vars(loss.node)
    optimizer.zero_grad()
    del loss
    x = leaf(1.0)
    before += 1
    assert alive() == before
    y = x.exp() * x
    (g,) = grad(y, x, create_graph=True)
    (h,) = grad(g, x, create_graph=True)
    del y, g, h
    with pytest.raises(ValueError):
        (x * 2).reshape(7)
    assert alive() == before


def test_memory_does_not_grow_over_training_steps(no_collector):
    net = network()
    optimizer = optim.SGD(net.parameters(), 0.1, momentum=0.9)
    training_step(net, optimizer)
    tracemalloc.start()
    training_step(net, optimizer)
    objects, memory = alive(), tracemalloc.get_traced_memory()[0]
    for _ in range(50):
        training_step(net, optimizer)
    grown = tracemalloc.get_traced_memory()[0] - memory
    tracemalloc.stop()
    assert alive() == objects and grown < 50 * 2000  # Python keeps some tuples and numbers for reuse


def test_the_array_of_an_intermediate_goes_with_the_last_that_reads_it():
    x = leaf(1.0, 2.0)
    h = x * 2
    array = weakref.ref(h.data)
    y = h * h
    del h
    assert array() is not None  # Mul reads it
    y.sum().backward()
    assert array() is None


def test_a_relu_does_not_keep_its_input_alive():
    x = leaf(-1.0, 2.0)
    h = x * 2
    array = weakref.ref(h.data)
    y = F.relu(h)
    del h
    assert array() is None
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.data, [0, 2])


def test_what_was_used_is_gone_before_the_walk_goes_on():
    """At each step down only the gradient just handed over is alive, and nothing of the nodes above."""
    gradients, saved, seen = [], [], []

    class Watch(Function):
        def forward(self, x):
            self.y = x + 1.0
            saved.append(weakref.ref(self.y))
            return self.y

        def backward(self, grad):
            seen.append((sum(ref() is not None for ref in gradients), sum(ref() is not None for ref in saved)))
            new = grad * 2.0
            gradients.append(weakref.ref(new.data))
            return new

    x = leaf(1.0, 2.0)
    y = x
    for _ in range(4):
        y = apply(Watch(), y)
    y = y.sum()
    assert sum(ref() is not None for ref in saved) == 4
    y.backward()
    assert seen == [(0, 4), (1, 3), (1, 2), (1, 1)]


def test_gradients_that_were_added_up_are_gone_as_well():
    parts, seen = [], []

    def halves(grad):
        both = grad * 0.25, grad * 0.75
        parts.extend(weakref.ref(g.data) for g in both)
        return both

    x = leaf(1.0, 2.0)
    h = apply(Recipe(lambda grad: seen.append([ref() for ref in parts]) or grad), x)
    apply(Recipe(halves), h, h).sum().backward()
    assert seen == [[None, None]] and x.grad.data.tolist() == [1, 1]


def test_a_chain_of_100_000_nodes():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = -y
    assert grad(y * y, x, retain_graph=True)[0].item() == 2
    del y  # what was retained is dropped without recursion, too
    y = x
    for _ in range(1000):
        y = y * 1.0
    (g,) = grad(y * y, x, create_graph=True)
    assert grad(g, x)[0].item() == 2


# ----------------------------------------------------------------------------------------------------------------------
# derivatives of derivatives
def test_third_derivatives():
    x = leaf(0.5, -2.0)
    expected = {
        "x⁴": (lambda x: x**4, lambda x: 24 * x),
        "exp 2x": (lambda x: (2 * x).exp(), lambda x: 8 * np.exp(2 * x)),
        "1/x": (lambda x: 1 / x, lambda x: -6 / x**4),
        "tanh": (F.tanh, lambda x: -2 * (1 - np.tanh(x) ** 2) * (1 - 3 * np.tanh(x) ** 2)),
    }
    for f, third in expected.values():
        y = f(x)
        for _ in range(3):
            (y,) = grad(y.sum(), x, create_graph=True)
        np.testing.assert_allclose(y.data, third(x.data), rtol=1e-12)


def test_backward_with_create_graph_makes_gradients_that_can_be_differentiated():
    x, y = leaf(2.0), leaf(3.0)
    (x * x * y).backward(create_graph=True)
    gx, x.grad, y.grad = x.grad, None, None
    gx.backward()  # 2xy
    assert (x.grad.item(), y.grad.item()) == (6, 4)


def test_gradients_are_not_recorded_unless_asked_for():
    x = leaf(2.0)
    y = x * x * x
    assert not grad(y, x, retain_graph=True)[0].requires_grad
    g = Tensor(np.ones(1), requires_grad=True)
    assert not grad(y, x, g, retain_graph=True)[0].requires_grad
    y.backward(retain_graph=True)
    assert not x.grad.requires_grad
    assert grad(y, x, create_graph=True)[0].requires_grad
    assert is_recording()


def test_the_derivative_with_respect_to_what_flows_in():
    x, g = leaf(2.0, 3.0), leaf(5.0, 7.0)
    (gx,) = grad(x * x, x, g, create_graph=True)  # 2xg
    np.testing.assert_array_equal(grad(gx.sum(), g)[0].data, 2 * x.data)


def test_no_grad_around_a_pass_that_creates_a_graph():
    x = leaf(2.0)
    y = x**3
    with no_grad():
        (g,) = grad(y, x, create_graph=True)
        assert not is_recording()
    assert grad(g, x)[0].item() == 12


# ----------------------------------------------------------------------------------------------------------------------
# grad computes what was asked for
def test_gradients_of_intermediates_outputs_and_what_is_unreachable():
    x, other = leaf(2.0), leaf(1.0)
    h = x * 3
    y = h * h
    gh, gx, gy, nothing = grad(y, [h, x, y, other])
    assert (gh.item(), gx.item(), gy.item(), nothing) == (12, 36, 1, None)
    assert x.grad is h.grad is y.grad is other.grad is None
    h = other * 1
    assert grad(x * 2, h) == (None,)


def test_an_intermediate_on_the_way_to_another():
    x = leaf(2.0)
    a = x * 3
    b = a * a
    for order in ([a, b], [b, a]):
        found = dict(zip("ab" if order[0] is a else "ba", grad(b * a, order, retain_graph=True), strict=True))
        assert found["a"].item() == 3 * 36 and found["b"].item() == 6


def test_only_what_leads_to_the_inputs_is_computed():
    calls, wanted = [], []
    x, w = leaf(1.0), leaf(1.0)
    below = apply(Probe(calls, "below"), x)
    beside = apply(Probe(calls, "beside"), w)
    above = apply(Probe(calls, "above"), below)

    class Both(Function):
        def forward(self, a, b):
            return a + b

        def backward(self, grad):
            wanted.append(self.needs)
            return grad, grad if self.needs[1] else None

    y = apply(Both(), above, beside)
    assert grad(y, below, retain_graph=True)[0].item() == 2
    assert [name for name, _ in calls] == ["above"] and wanted == [(True, False)] and y.node.needs == (True, True)
    grad(y, [x, w])
    assert [name for name, _ in calls[1:]] == ["above", "beside", "below"] and wanted[1] == (True, True)


def test_a_constant_input_needs_nothing():
    wanted = []
    node = Recipe(lambda grad: wanted.append(node.needs) or (None, grad, None))
    x = leaf(1.0)
    apply(node, np.ones(1), x, 2.0).backward()
    assert wanted == [(False, True, False)] and x.grad.item() == 1


def test_inputs_are_kept_only_if_a_wanted_gradient_reads_them():
    class Reader(Function):
        reads = ((1, 2), (), (2,))

        def forward(self, a, b, c):
            return a + b + c

        def backward(self, grad):
            seen.append([x is not None for x in self.inputs])
            return grad, grad, grad

    for wanted, kept in [
        ((1, 0, 0), [0, 1, 1]),
        ((0, 1, 0), [0, 0, 0]),
        ((0, 0, 1), [0, 0, 1]),
        ((1, 1, 1), [0, 1, 1]),
    ]:
        seen = []
        apply(Reader(), *[Tensor(np.ones(1), requires_grad=bool(w)) for w in wanted]).backward()
        assert seen == [kept]


# ----------------------------------------------------------------------------------------------------------------------
# grad mode
def test_no_grad_nests_and_survives_exceptions():
    x = leaf(1.0)
    with no_grad():
        with set_grad_enabled(True):
            assert (x * 2).requires_grad
            with no_grad():
                assert not is_recording()
        with pytest.raises(KeyError), no_grad():
            raise KeyError
        assert not is_recording() and not (x * 2).requires_grad
    assert is_recording() and (x * 2).requires_grad
    switch = no_grad()
    with switch, switch:
        assert not is_recording()
    assert is_recording()


def test_no_grad_decorates_functions_also_recursive_ones():
    @no_grad()
    def countdown(n):
        """Down to nothing."""
        assert not is_recording()
        if n:
            countdown(n - 1)
        assert not is_recording()
        return n

    assert countdown(3) == 3 and is_recording() and countdown.__doc__ == "Down to nothing."


def in_thread(f):
    results = []
    thread = threading.Thread(target=lambda: results.append(f()))
    thread.start()
    thread.join()
    return results[0]


def test_grad_mode_is_per_thread():
    with no_grad():
        assert in_thread(is_recording) is True
    assert in_thread(lambda: no_grad().__enter__()) is None and is_recording()


def test_a_decorated_function_in_two_threads_at_once():
    """The first thread records, the second does not; whoever leaves first must find its own mode again."""
    inside, leave = [threading.Event() for _ in range(2)], [threading.Event() for _ in range(2)]
    after = {}

    @no_grad()
    def work(t):
        inside[t].set()
        leave[t].wait(10)

    def run(t):
        with set_grad_enabled(t == 0):
            work(t)
            after[t] = is_recording()

    threads = [threading.Thread(target=run, args=(t,)) for t in range(2)]
    for t in range(2):
        threads[t].start()
        inside[t].wait(10)
    for t in range(2):
        leave[t].set()
        threads[t].join()
    assert after == {0: True, 1: False}


def test_graphs_can_be_walked_in_several_threads():
    def work():
        x = leaf(2.0)
        y = x
        for _ in range(200):
            y = y * 1.01
        y.backward()
        return x.grad.item()

    threads, results = [threading.Thread(target=lambda: results.append(work())) for _ in range(4)], []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(results, [1.01**200] * 4)


# ----------------------------------------------------------------------------------------------------------------------
# hooks
def test_a_leafs_hook_runs_once_when_its_last_gradient_is_there_and_the_walk_goes_on():
    events = []
    x, w = leaf(2.0), leaf(3.0)
    h = apply(Probe(events, "below"), x)
    y = h * w + w  # w receives two gradients
    w.register_post_accumulate_grad_hook(lambda t: events.append(("w", t, t.grad.item())))
    x.register_post_accumulate_grad_hook(lambda t: events.append(("x", t, t.grad.item())))
    y.backward()
    assert [e[0] for e in events] == ["w", "below", "x"]
    assert events[0][1] is w and events[0][2] == 5 and events[2][2] == 6


def test_hooks_see_the_accumulated_gradient_of_each_pass_and_can_be_removed():
    seen = []
    x = leaf(1.0)
    remove = x.register_post_accumulate_grad_hook(lambda t: seen.append(("a", t.grad.item())))
    x.register_post_accumulate_grad_hook(lambda t: seen.append(("b", t.grad.item())))
    (x * 2).backward()
    grad(x * 2, x)  # touches no .grad, so no hook
    remove()
    (x * 3 + x).backward()
    remove()
    assert seen == [("a", 2), ("b", 2), ("b", 6)]


def test_each_registration_of_a_hook_is_removed_by_itself():
    seen = []
    x = leaf(1.0)
    hook = seen.append
    remove, _ = x.register_post_accumulate_grad_hook(hook), x.register_post_accumulate_grad_hook(hook)
    remove()
    x.backward()
    assert len(seen) == 1


def test_hooks_run_unrecorded_and_may_take_the_gradient_away():
    modes = []

    def hook(t):
        modes.append(is_recording())
        t.grad = None

    x = leaf(1.0)
    x.register_post_accumulate_grad_hook(hook)
    (x * 2).backward()
    assert modes == [False] and x.grad is None


def test_what_a_hook_writes_to_its_gradient_reaches_no_other():
    """As an all-reduce in place does, while the walk goes on."""
    x, b = leaf(2.0, 3.0), leaf(0.0, 0.0)

    def hook(t):
        t.grad.data[...] = 100

    b.register_post_accumulate_grad_hook(hook)
    ((x * x + b) * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.data, 6 * x.data)


def test_hooks_belong_to_leaves():
    x = leaf(1.0)
    for t in (x * 2, Tensor([1.0])):
        fails(RuntimeError, "leaf", t.register_post_accumulate_grad_hook, print)


# ----------------------------------------------------------------------------------------------------------------------
# whose memory is whose
def test_no_two_gradients_share_memory():
    a, b, c = (leaf(*range(6), shape=(2, 3)) for _ in range(3))
    v, s = leaf(1.0, 2.0, 3.0), Tensor(np.array(2.0), requires_grad=True)
    given = Tensor(np.ones((2, 3)))
    outputs = [
        a + b + c, a + b.reshape(3, 2).reshape(2, 3), a - (-b), F.concatenate([a[:1], b[1:]]), F.stack([a, b])[0] + c, F.where(True, a, b) + c,
        (a.T + b.T).T, v + a, a + v.broadcast_to(2, 3), a.sum(1, keepdims=True) + b, a + s, F.pad(a[:, 1:], ((0, 0), (1, 0))) + b, a, a[:] + b[:],
        a.astype(np.float64) + b, F.concatenate([a, b])[:2] + c,
    ]  # fmt: skip
    leaves = a, b, c, v, s
    for y in [*outputs, *[y * 2 for y in outputs]]:
        for t in leaves:
            t.grad = None
        y.backward(given, retain_graph=True)
        arrays = [given.data, y.data] + [
            array for t in leaves for array in (t.data, None if t.grad is None else t.grad.data) if array is not None
        ]
        for i, one in enumerate(arrays):
            assert i < 2 or one.flags.writeable
            assert not any(
                np.shares_memory(one, other) for other in arrays[:i] if (one is not a.data or other is not y.data)
            )
    x = leaf(1.0, 2.0)
    y = x + 1.0
    gy, gx = grad(y, [y, x], given := Tensor(np.ones(2)))
    assert not any(
        np.shares_memory(*pair) for pair in [(gy.data, gx.data), (gy.data, given.data), (gx.data, given.data)]
    )


def test_what_the_user_holds_does_not_change_while_training_goes_on():
    net = network()
    optimizer = optim.SGD(net.parameters(), 0.1, momentum=0.9)
    x = Tensor(np.random.default_rng(0).standard_normal((4, 16, 16, 2)).astype(np.float32))
    h = net(x)
    loss = F.cross_entropy(h, np.array([1, 3, 0, 2]))
    loss.backward()
    held = [x, h, loss, *[p.grad for p in net.parameters()]]
    before = [t.data.copy() for t in held]
    optimizer.step()
    for _ in range(10):
        training_step(net, optimizer)
    for t, old in zip(held, before, strict=True):
        np.testing.assert_array_equal(t.data, old)


# ----------------------------------------------------------------------------------------------------------------------
# overwritten parameters
VIEWS = {
    "itself": lambda w: w, "reshape": lambda w: w.reshape(4), "transpose": lambda w: w.transpose(1, 0), "T": lambda w: w.T,
    "swapaxes": lambda w: w.swapaxes(0, 1), "row": lambda w: w[0], "NumPy integer": lambda w: w[np.int64(0)], "slice": lambda w: w[:, ::-1],
    "new axis": lambda w: w[None], "iteration": lambda w: list(w)[1], "broadcast_to": lambda w: w.broadcast_to(3, 2, 2),
    "view of a view": lambda w: w.T[1:].reshape(2),
}  # fmt: skip


def sgd_step(w):
    w.grad = Tensor(np.ones((2, 2)))
    optim.SGD([w], 0.1).step()


def adam_step(w):
    w.grad = Tensor(np.ones((2, 2)))
    optim.Adam([w], 0.1).step()


def load(w):
    module = nn.Module()
    module.w = w
    module.load_state_dict({"w": np.zeros((2, 2))})


@pytest.mark.parametrize("write", [sgd_step, adam_step, load])
@pytest.mark.parametrize("view", VIEWS)
def test_an_overwritten_parameter_is_an_error_that_names_the_operation(view, write):
    w = nn.Parameter(np.arange(4.0).reshape(2, 2))
    v = VIEWS[view](w)
    x = leaf(1.0)
    y, z = (v * x).sum(), (v * x).sum()
    write(w)
    fails(RuntimeError, "Mul.*overwritten", y.backward)
    fails(RuntimeError, "Mul.*overwritten", lambda: grad(z, x))
    (VIEWS[view](w) * x).sum().backward()  # the new value is fine


def test_detached_parameters_and_constants_are_watched_too():
    w, x = nn.Parameter(np.ones((2, 2))), leaf(1.0)
    y = (w.detach() * x).sum()
    with no_grad():
        z = w.T
    z = (z * x).sum()
    sgd_step(w)
    for output in (y, z):
        fails(RuntimeError, "overwritten", output.backward)


def test_overwriting_a_value_that_no_gradient_reads_is_fine():
    w, x = nn.Parameter(np.ones((2, 2))), leaf(1.0)
    y = ((w + x).exp() + (w + x) * x + w[[0, 1]] * 2).sum()
    w.grad = Tensor(np.zeros((2, 2)))
    optim.SGD([w], 0.1).step()
    w.grad = None
    y.backward()
    np.testing.assert_allclose(w.grad.data, np.exp(2) + 1 + 2)


# ----------------------------------------------------------------------------------------------------------------------
# misuse
def test_backward_of_what_cannot_be_differentiated():
    x = leaf(1.0, 2.0)
    fails(RuntimeError, r"shape \(2,\)", (x * 2).backward)
    fails(RuntimeError, r"shape \(2,\)", grad, x * 2, x)
    with no_grad():
        y = x * 2
    for t in (y, Tensor([1.0]), x.detach(), x > 1, x.argmax(), x.astype(int)):
        fails(RuntimeError, "nothing to differentiate", t.backward)
    fails(RuntimeError, "input 1 does not require a gradient", grad, (x * 2).sum(), [x, Tensor([1.0])])
    for output, inputs, gradients in [([], x, None), (x, [], None), (x, x, [None, None])]:
        fails(ValueError, "outputs", grad, output, inputs, gradients)


@pytest.mark.parametrize(
    "g", [np.ones(3), np.ones((2, 1)), 1.0, Tensor(np.ones(2, np.float32)), Tensor([1, 1]), Tensor(np.ones(1))]
)
def test_output_gradients_of_another_shape_or_dtype(g):
    x = leaf(1.0, 2.0)
    fails(ValueError, r"shape \(2,\) and dtype float64", (x * 2).backward, g)
    fails(ValueError, r"shape \(2,\) and dtype float64", grad, x * 2, x, [g])


def test_output_gradients_may_be_constants():
    x = leaf(1.0, 2.0)
    (x * 2).backward(np.ones(2, np.float32))
    assert x.grad.dtype == np.float64
    x.sum().backward(3)
    np.testing.assert_array_equal(x.grad.data, [5, 5])


WRONG = {
    "another shape": (lambda g: g.sum(), r"shape \(\).*input 0.*\(2,\)"),
    "broadcastable": (lambda g: g.reshape(1, 2), r"shape \(1, 2\).*input 0.*\(2,\)"),
    "another dtype": (lambda g: g.astype(np.float32), "float32.*input 0.*float64"),
    "None": (lambda g: None, "no gradient for input 0"),
    "None in a tuple": (lambda g: (None,), "no gradient for input 0"),
    "too many": (lambda g: (g, g), "2 gradients for 1 inputs"),
    "none at all": (lambda g: (), "0 gradients for 1 inputs"),
    "an array": (lambda g: g.data, "input 0"),
    "a number": (lambda g: 1.0, "input 0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_backward_pass_returns_is_checked(what):
    backward, pattern = WRONG[what]
    x = leaf(1.0, 2.0)
    for f in (lambda y: y.backward(), lambda y: grad(y, x)):
        fails((RuntimeError, TypeError), f"Recipe.backward.*{pattern}", f, apply(Recipe(backward), x).sum())
    assert x.grad is None


def test_what_a_backward_pass_returns_is_checked_for_each_input():
    x = leaf(1.0, 2.0)
    fails(RuntimeError, r"shape \(\).*input 1", apply(Recipe(lambda g: (None, g.sum())), np.ones(2), x).sum().backward)


def test_functions_that_lack_a_half():
    class Half(Function):
        def forward(self, x):
            return x

    fails(NotImplementedError, "Half does not define backward", apply(Half(), leaf(1.0)).backward)
    fails(NotImplementedError, "Function does not define forward", apply, Function(), leaf(1.0))


def test_a_function_records_one_call():
    node, x = Copy(), leaf(1.0)
    apply(node, x)
    fails(RuntimeError, "Copy.*new one", apply, node, x)


def test_integers_have_no_gradient():
    x = Tensor([1, 2])
    x.requires_grad = True
    fails(TypeError, "int64", lambda: x.reshape(2, 1))


def test_a_failed_pass_leaves_modes_as_they_were():
    calls = []
    node = Recipe(lambda grad: calls.append(node.needs) or grad.nonsense)
    x = leaf(1.0)
    y = apply(node, x, 1.0)
    for _ in range(2):  # the graph is still there
        with pytest.raises(AttributeError):
            y.backward()
    assert is_recording() and calls == [(True, False)] * 2 and node.needs == (True, False)


def test_copies_have_memory_of_their_own():
    x = leaf(1.0, 2.0)
    y = apply(Copy(), x)
    assert not np.shares_memory(x.data, y.data) and apply(Copy(), Tensor([1])).dtype == int
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.data, [1, 1])
