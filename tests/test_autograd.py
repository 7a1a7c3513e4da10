"""The engine: what is accumulated, when hooks run, what is computed, kept and freed, and the error for each misuse."""

import gc
import traceback
import weakref

import numpy as np
import pytest
from reference import fails

from minicnn import Tensor, grad, nn, no_grad, ops, optim
from minicnn import functional as F
from minicnn.autograd import Copy, Function, backward_pass, is_recording
from minicnn.tensor import apply


def leaf(*numbers):
    return Tensor(np.array(numbers, float), requires_grad=True)


class Probe(Function):
    """2x, which notes every backward call and what flowed in."""

    def __init__(self, calls, name):
        self.calls, self.label = calls, name

    def forward(self, x):
        return 2 * x

    def backward(self, grad):
        self.calls.append((self.label, grad.data.copy()))
        return grad * 2


class Recipe(Function):
    """A copy of the first input, with a backward pass that is given."""

    def __init__(self, backward):
        self.recipe = backward

    def forward(self, *arrays):
        return arrays[0].copy()

    def backward(self, grad):
        return self.recipe(grad)


# --------------------------------------------------------------------------------------------------------- accumulation
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


def test_only_leaves_that_want_it_get_a_gradient():
    x, c = leaf(1.0), Tensor(np.array([2.0]))
    y = x * c
    z = y * 2
    z.backward()
    assert c.grad is y.grad is z.grad is None and x.grad.item() == 4
    x.backward(np.array([3.0]))  # a leaf may be its own output
    assert x.grad.item() == 7


def test_several_outputs_at_once():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = x * w
    gx, gw = grad([y.sum(), y, x], [x, w], [None, np.array([10.0, 20.0]), Tensor(np.array([100.0, 200.0]))])
    np.testing.assert_array_equal(gx.data, [133, 284])
    np.testing.assert_array_equal(gw.data, [11, 42])


def test_nodes_are_visited_once_and_from_the_newest_to_the_oldest():
    calls, x = [], leaf(1.0)
    a = apply(Probe(calls, "a"), x)
    b = apply(Probe(calls, "b"), a)
    c = apply(Probe(calls, "c"), a + b)
    d = apply(Probe(calls, "d"), a * 3 + c)
    d.sum().backward()
    assert calls == [("d", 1), ("c", 2), ("b", 4), ("a", 2 * 3 + 4 + 4 * 2)] and x.grad.item() == 36


# -------------------------------------------------------------------------------------------------- keeping and freeing
def test_a_graph_serves_once_unless_it_is_retained():
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    grad(y, x, retain_graph=True)
    y.backward()
    for again in (y.backward, (y + 1).backward, lambda: grad(y, x), lambda: grad(y * x, x)):
        fails(RuntimeError, "Mul was freed.*retain_graph=True", again)
    assert x.grad.item() == 12
    h = x * x
    a, b = h * 2, h * 3
    a.backward()
    fails(RuntimeError, "freed", b.backward)  # they share h


def test_grad_keeps_the_graph_if_it_creates_one_or_is_told_to():
    x = leaf(3.0)
    for created, retained, kept in [
        (False, None, False),
        (True, None, True),
        (True, False, False),
        (False, True, True),
    ]:
        y = x * x
        grad(y, x, create_graph=created, retain_graph=retained)
        if kept:
            grad(y, x)
        fails(RuntimeError, "freed", grad, y, x)


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive():
    return sum(isinstance(thing, (Function, Tensor)) for thing in gc.get_objects())


def network():
    """A small one, and two images for it."""
    x = Tensor(np.random.default_rng(0).standard_normal((2, 6, 6, 2), np.float32))
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 4), nn.Dropout()
    ), x


def test_graphs_are_freed_by_counting_alone(no_collector):
    net, x = network()
    before = alive()
    loss = F.cross_entropy(net(x), [1, 3])
    assert alive() > before + 6
    del loss  # a graph that was never walked
    assert alive() == before
    loss = F.cross_entropy(net(x), [1, 3])
    loss.backward()
    assert not vars(loss.grad_fn)  # all that is left is the loss, an empty node, and the parameters' gradients
    assert alive() == before + 2 + len(list(net.parameters()))
    net.zero_grad()
    del loss
    t = leaf(1.0)
    y = t.exp() * t
    (g,) = grad(y, t, create_graph=True)
    (h,) = grad(g, t, create_graph=True)
    del y, g, h
    assert alive() == before + 1


def test_an_intermediate_goes_with_the_last_that_reads_it():
    x = leaf(-1.0, 2.0)
    for f, kept in [(lambda h: h * h, True), (F.relu, False)]:  # a ReLU does not keep its input alive
        h = x * 2
        array = weakref.ref(h.data)
        y = f(h)
        del h
        assert (array() is not None) is kept
        y.sum().backward()
        assert array() is None
    np.testing.assert_array_equal(x.grad.data, [-8, 16 + 2])


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

    y = leaf(1.0, 2.0)
    for _ in range(4):
        y = apply(Watch(), y)
    y = y.sum()
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
    y = x = leaf(1.0)
    for _ in range(100_000):
        y = -y
    assert grad(y * y, x, retain_graph=True)[0].item() == 2
    del y  # what was retained is dropped without recursion, too


# ------------------------------------------------------------------------------------------- derivatives of derivatives
def test_third_derivatives():
    x = leaf(0.5, -2.0)
    t, tanh = x.data, np.tanh(x.data)
    functions = x**4, (2 * x).exp(), 1 / x, F.tanh(x)
    thirds = 24 * t, 8 * np.exp(2 * t), -6 / t**4, -2 * (1 - tanh**2) * (1 - 3 * tanh**2)
    for y, expected in zip(functions, thirds, strict=True):
        for _ in range(3):
            (y,) = grad(y.sum(), x, create_graph=True)
        np.testing.assert_allclose(y.data, expected, rtol=1e-12)


def test_backward_with_create_graph_makes_gradients_that_can_be_differentiated():
    x, y = leaf(2.0), leaf(3.0)
    (x * x * y).backward(create_graph=True)
    gx, x.grad, y.grad = x.grad, None, None
    gx.backward()  # 2xy
    assert (x.grad.item(), y.grad.item()) == (6, 4)


def test_gradients_are_recorded_only_if_asked_for():
    x, g = leaf(2.0), leaf(1.0)
    y = x * x * x
    assert not grad(y, x, retain_graph=True)[0].requires_grad
    assert not grad(y, x, g, retain_graph=True)[0].requires_grad
    y.backward(g, retain_graph=True)
    assert not x.grad.requires_grad and is_recording()
    with no_grad():  # create_graph counts for more
        (gx,) = grad(y, x, create_graph=True)
        assert not is_recording()
    assert grad(gx, x)[0].item() == 12
    (gx,) = grad(x * x, x, g, create_graph=True)
    assert grad(gx, g)[0].item() == 4  # 2xg, and what flowed in is a variable, too


# ----------------------------------------------------------------------------------------------------- what is computed
def test_gradients_of_intermediates_outputs_and_what_is_unreachable():
    x, other = leaf(2.0), leaf(1.0)
    h = x * 3
    y = h * h
    gh, gx, gy, nothing = grad(y * h, [h, x, y, other])  # the two intermediates lie on one path
    assert (gh.item(), gx.item(), gy.item(), nothing) == (3 * 36, 9 * 36, 6, None)
    assert x.grad is h.grad is y.grad is other.grad is None
    assert grad(x * 2, other * 1) == (None,) and grad(x, x)[0].item() == 1


def test_only_what_leads_to_the_inputs_is_computed():
    calls, wanted = [], []
    x, w = leaf(1.0), leaf(1.0)
    below = apply(Probe(calls, "below"), x)
    beside = apply(Probe(calls, "beside"), w)
    above = apply(Probe(calls, "above"), below)
    node = Recipe(
        lambda grad: wanted.append(node.needs_input_grad) or (grad, grad if node.needs_input_grad[1] else None)
    )
    y = apply(node, above, beside)
    assert grad(y, below, retain_graph=True)[0].item() == 2
    assert (
        [name for name, _ in calls] == ["above"] and wanted == [(True, False)] and node.needs_input_grad == (True, True)
    )
    grad(y, [x, w])
    assert [name for name, _ in calls[1:]] == ["above", "beside", "below"] and wanted[1] == (True, True)


def test_constants_need_no_gradient():
    wanted = []
    node = Recipe(lambda grad: wanted.append(node.needs_input_grad) or (None, grad, None))
    x = leaf(1.0)
    apply(node, np.ones(1), x, 2.0).backward()
    assert wanted == [(False, True, False)] and x.grad.item() == 1


@pytest.mark.parametrize(("wanted", "kept"), [("100", "011"), ("010", "000"), ("001", "001"), ("111", "011")])
def test_inputs_are_kept_only_if_a_wanted_gradient_reads_them(wanted, kept):
    class Reader(Recipe):
        saves = ((1, 2), (), (2,))

    seen = []
    node = Reader(
        lambda grad: seen.extend("01"[isinstance(x, Tensor)] for x in node.saved_inputs) or (grad, grad, grad)
    )
    apply(node, *[Tensor(np.ones(1), requires_grad=w == "1") for w in wanted]).backward()
    assert "".join(seen) == kept


# ---------------------------------------------------------------------------------------------------------------- hooks
def test_a_leafs_hook_runs_once_when_its_last_gradient_is_there_and_the_walk_goes_on():
    events = []
    x, w = leaf(2.0), leaf(3.0)
    y = apply(Probe(events, "below"), x) * w + w  # w receives two gradients
    w.register_post_accumulate_grad_hook(lambda t: events.append(("w", t, t.grad.item())))
    x.register_post_accumulate_grad_hook(lambda t: events.append(("x", t, t.grad.item())))
    y.backward()
    assert [e[0] for e in events] == ["w", "below", "x"]
    assert events[0][1] is w and events[0][2] == 5 and events[2][2] == 6


def test_what_a_hook_writes_to_its_gradient_reaches_no_other():
    """As an all-reduce in place does, while the walk goes on."""
    x, b = leaf(2.0, 3.0), leaf(0.0, 0.0)
    b.register_post_accumulate_grad_hook(lambda t: t.grad.data.fill(100))
    for y in (x * x + b, b.reshape(2) + x * x):
        x.grad = None
        (y * 3).sum().backward()
        np.testing.assert_array_equal(x.grad.data, 6 * x.data)


# ------------------------------------------------------------------------------------------------ whose memory is whose
def test_no_two_gradients_share_memory():
    a, b, c = (leaf([0.0, 1.0, 2.0], [3.0, 4.0, 5.0]) for _ in range(3))
    v, s = leaf(1.0, 2.0, 3.0), Tensor(np.array(2.0), requires_grad=True)
    given = Tensor(np.ones((2, 3)))
    outputs = [
        a + b + c, a + b.reshape(3, 2).reshape(2, 3), a - (-b), F.concatenate([a[:1], b[1:]]), F.stack([a, b])[0] + c,
        F.where(True, a, b) + c, (a.T + b.T).T, v + a, a + v.broadcast_to(2, 3), a.sum(1, keepdims=True) + b, a + s,
        F.pad(a[:, 1:], ((0, 0), (1, 0))) + b, a * 1.0, a[:] + b[:], a.astype(np.float64) + b, F.concatenate([a, b])[:2] + c,
    ]  # fmt: skip
    for y in [*outputs, *[y * 2 for y in outputs]]:
        for t in (a, b, c, v, s):
            t.grad = None
        y.backward(given, retain_graph=True)
        gradients = [t.grad.data for t in (a, b, c, v, s) if t.grad is not None]
        arrays = [given.data, y.data, a.data, b.data, c.data, v.data, s.data, *gradients]
        for i, array in enumerate(arrays):
            assert not any(np.shares_memory(array, other) for other in arrays[:i])
        assert all(g.flags.writeable for g in gradients)
    y = a + 1.0
    for gradients in (grad(y, [y, a], given), grad(a, a, given)):
        arrays = [given.data, *[g.data for g in gradients]]
        assert not any(np.shares_memory(array, other) for i, array in enumerate(arrays) for other in arrays[:i])


def test_what_the_user_holds_does_not_change_while_training_goes_on():
    net, x = network()
    optimizer = optim.SGD(net.parameters(), 0.1, momentum=0.9)
    h = net(x)
    F.cross_entropy(h, [1, 3]).backward()
    held = [x, h, *[p.grad for p in net.parameters()]]
    before = [t.data.copy() for t in held]
    for _ in range(10):
        optimizer.step()
        optimizer.zero_grad()
        F.cross_entropy(net(x), [1, 3]).backward()
    for t, old in zip(held, before, strict=True):
        np.testing.assert_array_equal(t.data, old)


# --------------------------------------------------------------------------------------------------------------- misuse
def overwrite(w):
    w.grad = Tensor(np.ones(w.shape))
    optim.SGD([w], 0.1).step()
    w.grad = None


def test_an_overwritten_parameter_is_an_error_also_as_a_constant():
    w, x = nn.Parameter(np.ones((2, 2))), leaf(1.0, 1.0)
    with no_grad():
        view = w.T
    outputs = [(t * x).sum() for t in (w, w.detach(), view)]
    overwrite(w)
    for y in outputs:
        fails(RuntimeError, "Mul.*overwritten", y.backward)


def test_overwriting_what_no_gradient_reads_is_fine():
    w, x = nn.Parameter(np.ones((2, 2))), leaf(1.0, 1.0)
    y = ((w + x).exp() + (w + x) * x + w[[0, 1]] * 2).sum()
    overwrite(w)
    y.backward()
    np.testing.assert_allclose(w.grad.data, np.exp(2) + 1 + 2)


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
    (backward, pattern), x = WRONG[what], leaf(1.0, 2.0)
    for f in (lambda y: y.backward(), lambda y: grad(y, x)):
        fails((RuntimeError, TypeError), f"Recipe.backward.*{pattern}", f, apply(Recipe(backward), x).sum())
    second = apply(Recipe(lambda g: (None, g.sum())), np.ones(2), x)
    fails(RuntimeError, r"shape \(\).*input 1", second.sum().backward)
    assert x.grad is None


def test_functions_that_are_not_as_they_should_be():
    x, integers = leaf(1.0), Tensor([1, 2])
    half = type("Half", (Function,), {"forward": lambda self, x: x})()
    fails(NotImplementedError, "Half does not define backward", apply(half, x).backward)
    fails(NotImplementedError, "Function does not define forward", apply, Function(), x)
    node = Copy()
    apply(node, x)
    fails(RuntimeError, "Copy.*new one", apply, node, x)  # an object records one call
    integers.requires_grad = True
    fails(TypeError, "int64", apply, Copy(), integers)
    assert apply(Copy(), Tensor([1, 2])).dtype == int


def test_a_failed_pass_leaves_modes_as_they_were():
    calls = []
    node = Recipe(lambda grad: calls.append(node.needs_input_grad) or grad.nonsense)
    y = apply(node, leaf(1.0), 1.0)
    for _ in range(2):  # the graph is still there
        with pytest.raises(AttributeError):
            y.backward()
    assert is_recording() and calls == [(True, False)] * 2


def test_a_copied_gradient_can_be_differentiated():
    """Of two gradients with one memory the second is a copy, which is part of the graph as well."""
    a, b, x = leaf(1.0), leaf(2.0), leaf(3.0)
    ga, gb = grad(((a + b) * x).sum(), [a, b], create_graph=True)
    for g in (ga, gb):
        np.testing.assert_array_equal(grad(g.sum(), x, retain_graph=True)[0].data, [1])


def test_a_gradient_on_the_way_and_its_view_below():
    x = leaf(1.0, 2.0)
    h = x.reshape(2, 1)
    gh, gx = grad((h * 3).sum(), [h, x])
    gh.data[...] = 100
    np.testing.assert_array_equal(gx.data, [3, 3])


def test_the_gradient_of_a_result_with_two_parents_that_nobody_wants():
    """The backward pass ends there: nothing below it is computed."""
    x, y = (Tensor(np.array([value]), requires_grad=True) for value in (3.0, 5.0))
    product = x * y
    (dproduct,) = grad((2 * product).sum(), product)
    assert dproduct.data.tolist() == [2.0] and x.grad is None and y.grad is None


def test_gradients_of_constants_are_dropped_whatever_their_shapes():
    """Addition returns one for each input, also where none is needed."""
    x = Tensor(np.ones(3), requires_grad=True)
    ((x + np.ones(3))[:2] + np.ones(2)).sum().backward()
    assert x.grad.data.tolist() == [1.0, 1.0, 0.0]


def test_an_operation_is_an_object():
    with pytest.raises(TypeError, match=r"minicnn.apply\(Add\(…\), x\)"):
        ops.Add.apply(Tensor(1.0), Tensor(2.0))


def test_each_input_that_was_not_saved_says_so():
    class Careless(Function):
        def forward(self, a, b):
            return a * b

        def backward(self, grad):
            assert len(self.saved_inputs) == 2
            return self.saved_inputs[1].exp(), None

    with pytest.raises(AttributeError, match="the Function's `saves` must name it"):
        apply(Careless(), Tensor([1.0], requires_grad=True), Tensor([2.0])).sum().backward()


def test_a_leaf_that_nobody_wants_receives_nothing():
    """Not even one with which the pass begins."""
    x, y, z = (Tensor([float(i)], requires_grad=True) for i in (1, 2, 3))
    delivered = []
    roots = [(z, Tensor([7.0])), (x, Tensor([3.0])), (y, Tensor([4.0])), (x * y, Tensor([5.0]))]
    backward_pass(roots, lambda tensor, gradient: delivered.append((tensor, gradient.item())), [y], False)
    assert delivered == [(y, 9.0)]


@pytest.mark.parametrize(
    "use", [lambda x: x.exp(), lambda x: 2 * x, lambda x: -x, lambda x: x > 0, lambda x: x**2, lambda x: x[0], abs]
)
def test_what_was_not_saved_says_so_when_it_is_used(use):
    class Careless(Function):
        def forward(self, x):
            return x * x

        def backward(self, grad):
            return use(self.saved_inputs[0])

    with pytest.raises(AttributeError, match="not kept for the backward pass: the Function's `saves` must name it"):
        apply(Careless(), Tensor(np.ones(2), requires_grad=True)).sum().backward()


def test_one_gradient_for_two_of_three_inputs_is_copied():
    """What a hook writes to the one does not reach the other, which is on its way still."""

    class AddThree(Function):
        def forward(self, a, b, c):
            return a + b + c

        def backward(self, grad):
            return grad, grad, grad

    def overwrite(leaf):
        leaf.grad.data[...] = 0

    a, b = (Tensor(np.ones(3), requires_grad=True) for _ in "ab")
    a.register_post_accumulate_grad_hook(overwrite)
    y = apply(AddThree(), a, b * 3.0, Tensor(np.ones(3))) * 2.0
    y.backward(np.ones(3))
    assert b.grad.data.tolist() == [6, 6, 6] and a.grad.data.tolist() == [0, 0, 0]


def test_an_error_inside_a_forward_keeps_its_cause():
    """Whoever breaks a lesson sees the line that did it."""

    class Broken(Function):
        def forward(self, x):
            return np.ones(2) + np.ones(3)  # the reader's own line

    with pytest.raises(ValueError, match=r"Broken of shape \(2,\)") as caught:
        apply(Broken(), Tensor(np.ones(2)))
    assert isinstance(caught.value.__cause__, ValueError)
    assert "the reader's own line" in "".join(traceback.format_exception(caught.value))


def wrong(**members):
    """A Function whose mistakes are these members, at work: forward and backward of a Tensor (2,)."""
    right = {"forward": lambda self, x: x * x, "backward": lambda self, grad: grad, "saves": ((0,),)}
    square = type("Square", (Function,), right | members)
    apply(square(), Tensor(np.ones(2), requires_grad=True)).backward(np.ones(2))


@pytest.mark.parametrize(
    "saves", [(0,), 0, "x", ("x",), (("x",),), [0], ((-1,),), ((True,),), None, (None,), ((0.0,),)]
)
def test_what_saves_may_be_is_said_when_the_class_is_made(saves):
    fails(
        TypeError,
        r"^Square.saves is .*: write a tuple for each input, .* such as \(\(0,\),\) for x²$",
        wrong,
        saves=saves,
    )


def test_what_saves_may_be():
    for saves in ((), ((),), [[0]], ((0,), (1,)), property(lambda self: ((0,),))):
        wrong(saves=saves)
    fails(
        TypeError, r"^Square.saves is \(\(0, 1\),\), but the indices of its inputs are 0 to 0$", wrong, saves=((0, 1),)
    )


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_static_methods_in_the_manner_of_pytorch(method):
    static = {method: staticmethod(lambda ctx, x: x)}
    fails(TypeError, rf"^Square.{method} is static: .* write def {method}\(self, ", wrong, **static)


@pytest.mark.parametrize(
    "backward, error, words",
    [
        (lambda self, grad: self.saved_output(grad), AttributeError, "that Square.forward keeps: write self.y = …"),
        (lambda self, grad: self.saved_tensors, AttributeError, "a Square has no saved_tensors: .*self.saved_inputs"),
        (lambda self, grad: self.saved_input, AttributeError, "no attribute 'saved_input'"),
        (lambda self, grad: self.saved_inputs[1], IndexError, "out of range"),
        (lambda self, grad: grad * Tensor(np.ones(2, np.float32)), TypeError, "Mul: dtypes float32 and float64"),
        (lambda self, grad: grad.reshape(3), ValueError, "Reshape of shape"),
        (lambda self: None, TypeError, "takes 1 positional argument"),
    ],
)
def test_an_error_in_a_backward_pass_names_the_operation(backward, error, words):
    fails(error, rf"^Square.backward: .*{words}", wrong, backward=backward)


def test_an_error_with_other_arguments_stays_as_it_is():
    def backward(self, grad):
        raise ValueError("a", 1)

    with pytest.raises(ValueError) as caught:
        wrong(backward=backward)
    assert caught.value.args == ("a", 1)


@pytest.mark.parametrize("gradients", [lambda grad: (grad, grad), lambda grad: [grad], lambda grad: ()])
def test_the_number_of_gradients(gradients):
    words = r"^Square.backward returned \d gradients for 1 inputs: return a tuple with one for each"
    many = {"backward": lambda self, grad: gradients(grad)}
    if type(gradients(1)) is list:
        words = "^Square.backward returned a list, not a Tensor, for input 0"
    fails(RuntimeError, words, wrong, **many)


def test_what_pytorch_calls_in_forward():
    words = "^a Square has no save_for_backward: name the inputs .* `saves`"
    fails(AttributeError, words, wrong, forward=lambda self, x: self.save_for_backward(x))


@pytest.mark.parametrize("base", [Function, nn.Module])
def test_classes_beside_it_get_their_options(base):
    class Labeled:
        def __init_subclass__(cls, label, **options):
            super().__init_subclass__(**options)
            cls.label = label

    class Mine(base, Labeled, label="mine"):
        pass

    assert Mine.label == "mine"
