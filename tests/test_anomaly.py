"""detect_anomaly: the first result, or gradient, that is not finite is an error that names its place."""

import gc
import threading

import numpy as np
import pytest

import minicnn
from minicnn import AnomalyError, Tensor, anomaly, autograd, detect_anomaly, nn
from minicnn import functional as F

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own, of a division by zero

HUGE = np.float32(3e38)


class Log(nn.Module):
    def forward(self, x):
        return x.log()


class Root(nn.Module):
    def forward(self, x):
        return (x * x).sqrt()


class Net(nn.Module):
    """fc is all zeros; then comes what is given."""

    def __init__(self, *after):
        self.fc = nn.Linear(3, 2, weight_init=nn.init.constant(0.0))
        self.after = nn.ModuleList(after)

    def forward(self, x):
        x = self.fc(x)
        for module in self.after:
            x = module(x)
        return x


def ones(*shape):
    return Tensor(np.ones(shape, np.float32))


def message(function):
    with pytest.raises(AnomalyError) as caught, detect_anomaly():
        function()
    path, text = caught.value.path, str(caught.value)
    assert text.startswith(f"{path} (") if path else " of Net: " not in text
    return text


# -- forward ----------------------------------------------------------------------------------------------------------


def test_the_first_operation_and_its_layer():
    net = Net(nn.Sequential(act=nn.ReLU(), log=Log()), nn.Linear(2, 2))
    assert message(lambda: net(ones(4, 3))) == (
        "after.0.log (Log) of Net: forward pass: the output of Log, of shape (4, 2), has 8 of 8 elements infinite; "
        "its input 0, of shape (4, 2), is 0"
    )


def test_a_module_that_is_the_network_itself_and_an_operation_outside_of_any():
    x = Tensor([[0.0, 1.0], [-1.0, np.e**2]])
    counts = "has 1 of 4 elements NaN and 1 of 4 elements infinite; its input 0, of shape (2, 2), is from -1 to 7.389"
    assert message(lambda: Log()(x)) == f"Log: forward pass: the output of Log, of shape (2, 2), {counts}"
    assert message(x.log) == f"forward pass: the output of Log, of shape (2, 2), {counts}"


def test_a_module_that_its_caller_does_not_own():
    """It has no path, but those above it and below it have theirs."""
    inner = nn.Sequential(log=Log())

    class Caller(nn.Module):
        def __init__(self):
            self.part = type("Part", (nn.Module,), {"forward": lambda _, x: inner(x)})()

        def forward(self, x):
            return self.part(x)

    assert message(lambda: Caller()(Tensor(0.0))).startswith("part.log (Log) of Caller: forward pass: ")


def test_a_module_of_two_names():
    net = nn.Sequential(first=nn.ReLU(), log=Log())
    net.again = net.log
    assert message(lambda: net(Tensor(0.0))).startswith("log (Log) of Sequential: ")


def test_all_inputs_have_their_ranges():
    x, y = Tensor([1.0, 2.0, HUGE]), Tensor(np.float32(HUGE))
    assert message(lambda: x * y).endswith(
        "the output of Mul, of shape (3,), has 2 of 3 elements infinite; its input 0, of shape (3,), is from 1 to "
        "3e+38, its input 1, of shape (), is 3e+38"
    )
    assert message(lambda: Tensor(np.ones((0, 2))).mean()).endswith("its input 0, of shape (), is 0")


def test_of_nothing_there_is_no_range():
    class Sums(minicnn.Function):
        def forward(self, x):
            return np.full(2, np.nan)

    assert message(lambda: minicnn.apply(Sums(), Tensor(np.ones((0, 2))))).endswith("of shape (0, 2), is empty")


def test_a_parameter_that_was_not_finite_before():
    net = Net(Log())
    net.fc.weight.data[1] = np.nan, np.inf
    assert message(lambda: net(ones(1, 3))) == (
        "fc (Linear) of Net: forward pass: the output of MatMul, of shape (1, 2), has 1 of 2 elements NaN and 1 of 2 "
        "elements infinite; it was computed from what was not finite before: the parameter fc.weight, of shape (3, 2), "
        "has 1 of 6 elements NaN and 1 of 6 elements infinite"
    )


def test_other_inputs_that_were_not_finite_before():
    x = Tensor([np.inf, 0.0])
    assert message(lambda: x + nn.Parameter(np.array([1.0, np.nan], np.float32))).endswith(
        "it was computed from what was not finite before: its input 0, of shape (2,), has 1 of 2 elements infinite, "
        "and its input 1, of shape (2,), has 1 of 2 elements NaN"
    )
    mask = Tensor([True, False])
    assert "Where, of shape (2,), has 1 of 2 elements infinite" in message(lambda: F.where(mask, ones(2), -np.inf))


def test_what_is_not_a_result_does_not_count():
    """Infinities inside of an operation, inputs that leave no trace, and what has no infinities."""
    with detect_anomaly():
        x = Tensor(-np.ones((1, 4, 4, 1), np.float32), requires_grad=True)
        F.max_pool2d(x, 3, 2, padding=1).sum().backward()
        assert Tensor([np.inf, 1.0]).clip(0, 2).numpy().tolist() == [2, 1]
        assert (Tensor(np.array([2, 3])) * 2).numpy().tolist() == [4, 6]
        assert F.softmax(Tensor([[1000.0, -1000.0]])).numpy().tolist() == [[1, 0]]


# -- backward ---------------------------------------------------------------------------------------------------------


def test_the_operation_whose_gradient_went_wrong_and_the_layer_of_its_forward_pass():
    net = Net(nn.Sequential(root=Root()))
    gradient = [[2.0, 3.0]]
    rest = "the gradient of its output, of shape (1, 2), is from 2 to 3, its output, of shape (1, 2), is 0"
    assert message(lambda: net(ones(1, 3)).backward(gradient)) == (
        "after.0.root (Root) of Net: backward pass: Sqrt's gradient of shape (1, 2) for its input 0 has 2 of 2 "
        f"elements infinite; {rest}"
    )
    y = net(ones(1, 3))
    assert message(lambda: y.backward(gradient)) == (
        "backward pass: Sqrt's gradient of shape (1, 2) for its input 0 has 2 of 2 elements infinite (in which layer "
        f"is not known: its forward pass ran outside detect_anomaly); {rest}"
    )
    with detect_anomaly():
        y = net(ones(1, 3)).sum()
    assert message(y.backward).startswith("after.0.root (Root) of Net: backward pass: Sqrt's")


def test_an_operation_outside_of_any_layer_and_the_inputs_that_its_gradient_reads():
    x, y = Tensor([1.0, 2.0], requires_grad=True), Tensor([1e30, 5.0], requires_grad=True)
    assert message(lambda: (x * y).backward([HUGE, 2.0])) == (
        "backward pass: Mul's gradient of shape (2,) for its input 0 has 1 of 2 elements infinite; the gradient of its "
        "output, of shape (2,), is from 2 to 3e+38, its input 0, of shape (2,), is from 1 to 2, its input 1, of shape "
        "(2,), is from 5 to 1e+30"
    )
    large = Tensor([1e30, 1.0])
    assert message(lambda: (large * x).backward([HUGE, 2.0])) == (  # input 1 is not kept: it needs no gradient of 0
        "backward pass: Mul's gradient of shape (2,) for its input 1 has 1 of 2 elements infinite; the gradient of its "
        "output, of shape (2,), is from 2 to 3e+38, its input 0, of shape (2,), is from 1 to 1e+30"
    )


def test_a_gradient_that_began_so():
    x = Tensor([1.0, 2.0], requires_grad=True)
    assert message(lambda: (x * 3).backward([1.0, np.nan])) == (
        "backward pass: Mul's gradient of shape (2,) for its input 0 has 1 of 2 elements NaN; it was computed from "
        "what was not finite before: the gradient of its output, of shape (2,), has 1 of 2 elements NaN"
    )


def test_a_sum_of_gradients():
    """Of a value that was used twice, and of two backward passes."""
    x, g = Tensor(np.float32([1.0]), requires_grad=True), np.float32([HUGE])
    expected = (
        "backward pass, adding up gradients or in a hook: the output of Add, of shape (1,), has 1 of 1 elements "
        "infinite; its input 0, of shape (1,), is 3e+38, its input 1, of shape (1,), is 3e+38"
    )
    assert message(lambda: (x * 1 + x * 1).backward(g)) == expected
    x.grad = None
    assert message(lambda: [x.copy().backward(g) for _ in range(2)]) == expected


def test_what_a_backward_computes_on_the_way_does_not_count():
    class Masked(minicnn.Function):
        saves = ((0,),)

        def forward(self, x):
            return np.maximum(x, 0)

        def backward(self, dy):
            (x,) = self.saved_inputs
            return F.where(x > 0, dy * (x / x), 0.0)  # 0 / 0, where the gradient is 0

    x = Tensor([0.0, 2.0], requires_grad=True)
    with detect_anomaly():
        minicnn.apply(Masked(), x).sum().backward()
    assert x.grad.numpy().tolist() == [0, 1]


def test_gradients_of_gradients_belong_to_the_layer_of_the_first_forward_pass():
    x = Tensor([0.0, 1.0], requires_grad=True)

    class Power(nn.Module):
        def forward(self, x):
            return x**1.5

    def second():
        (first,) = minicnn.grad(nn.Sequential(power=Power())(x).sum(), x, create_graph=True)
        first.sum().backward()

    assert message(second).startswith("power (Power) of Sequential: backward pass: PowScalar's gradient of shape (2,)")


def test_a_gradient_that_is_not_wanted_is_not_looked_at():
    x, y = Tensor([0.0], requires_grad=True), Tensor([1.0], requires_grad=True)
    with detect_anomaly():
        (gradient,) = minicnn.grad(x.sqrt() + y, y)
        (y + F.where(Tensor([True]), x, x.sqrt()).detach()).backward()
    assert gradient.item() == y.grad.item() == 1


# -- where and how long -----------------------------------------------------------------------------------------------


def test_it_ends_nests_decorates_and_survives_exceptions():
    zero = Tensor(0.0)

    @detect_anomaly()
    def log(x):
        """Logarithm."""
        return x.log()

    assert zero.log().item() == -np.inf and log.__doc__ == "Logarithm."
    for _ in range(2):
        with pytest.raises(AnomalyError):
            log(zero)
    switch = detect_anomaly()
    with switch:
        with switch, detect_anomaly():
            pass
        with pytest.raises(AnomalyError):
            zero.log()
        with pytest.raises(KeyError), detect_anomaly():
            raise KeyError
        with pytest.raises(AnomalyError):
            zero.log()
    assert zero.log().item() == -np.inf and not autograd.observers


def test_it_is_of_one_thread():
    zero, results = Tensor(0.0, requires_grad=True), []

    def work():
        results.append(zero.sqrt().log().item())
        zero.sqrt().backward()

    def never_leaves():
        detect_anomaly().__enter__()

    def run(target):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()

    run(never_leaves)
    with detect_anomaly():
        run(work)
        run(work)
        assert results == [-np.inf, -np.inf] and zero.grad.item() == np.inf
        assert len(autograd.observers) == 2
        with pytest.raises(AnomalyError):
            zero.log()
    left = autograd.observers.pop()
    assert zero.log().item() == -np.inf and not left.thread.is_alive() and left != left.thread


def test_results_are_the_same_and_nothing_is_kept():
    def train():
        minicnn.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2))
        loss = F.cross_entropy(net(ones(5, 3)), np.arange(5) % 2)
        loss.backward()
        return [loss.numpy(), *[p.grad.numpy() for p in net.parameters()]]

    plain = train()
    with detect_anomaly():
        for a, b in zip(plain, train(), strict=True):
            np.testing.assert_array_equal(a, b)
    gc.collect()
    assert not anomaly._modules
