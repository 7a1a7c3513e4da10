"""Threads through the public API: layers compute the same whoever calls them, from wherever, and whatever went wrong
before."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from networks import OPTIMIZERS, small_network, train
from numpy.testing import assert_allclose, assert_array_equal
from reference import at_once, distinct, normal, step

import minicnn.functional as F
from minicnn import use_backend
from minicnn.backends import numpy as fast
from minicnn.backends.numpy import conv, lrn, pooling, winograd

CONV = normal(3, 3, 2, 6, seed=1), normal(6, seed=2)
LAYERS = {  # name: (function, its options, its other arguments)
    "conv2d": (F.conv2d, dict(stride=2, padding=1, groups=2), CONV),
    "conv2d by Winograd": (F.conv2d, dict(padding=1, groups=2), CONV),
    "conv_transpose2d": (F.conv_transpose2d, dict(stride=2), (normal(3, 2, 5, 4, seed=3), normal(5, seed=4))),
    "max_pool2d": (F.max_pool2d, dict(kernel_size=3, stride=2, padding=1), ()),
    "avg_pool2d": (F.avg_pool2d, dict(kernel_size=3, stride=2, padding=1), ()),
    "local_response_norm": (F.local_response_norm, dict(n=3, alpha=1.0), ()),
}


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    """A few numbers to each, so that small images are divided among threads, and their memory is recycled."""
    for module, name, value in (
        (fast.threads, "CACHE", 5000),
        (fast.threads, "BLOCK", 100),
        (fast.memory, "LARGE", 256),
        (winograd, "FEWEST_PIXELS", 48),
        (winograd, "FEWEST_CHANNELS", 2),
    ):
        monkeypatch.setattr(module, name, value)


@use_backend("numpy")
def run(name, seed=0, n=5):
    """[output, gradients …] of one forward and backward pass."""
    f, options, others = LAYERS[name]
    return step(f, [distinct(n, 9, 8, 4, seed=seed), *others], **options)


def same(results, expected):
    """Bit for bit."""
    return len(results) == len(expected) and all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))


def test_four_threads_at_once(threads):
    """Each with images of its own, two of them beginning with the same layer; with each other's scratch
    buffers they would compute nonsense."""
    threads(2)
    expected = [{name: run(name, seed) for name in LAYERS} for seed in range(4)]

    def work(seed):
        names = [*LAYERS][seed // 2 :] + [*LAYERS][: seed // 2]
        return all(same(run(name, seed), expected[seed][name]) for name in names * 6)

    assert at_once(*[lambda seed=seed: work(seed) for seed in range(4)]) == [True] * 4


def in_a_child(work):
    """What work() returns, some bytes, in a forked child; it must end well."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process that has threads
        child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            signal.alarm(50)  # ends the child, if it hangs
            os.close(read)
            with open(write, "wb") as file:
                file.write(work())
            status = 0
        os._exit(status)
    os.close(write)
    with open(read, "rb") as file:
        answer = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return answer


def test_a_forked_child_computes_the_same(threads):
    threads(2)
    expected = {name: run(name) for name in LAYERS}

    def work():
        workers = set()
        fast.threads.parallel(lambda meet: workers.add(meet.wait(20)), [(threading.Barrier(2),)] * 2)
        right = [same(run(name), expected[name]) for name in LAYERS]
        return b"%d %d" % (len(workers), sum(right))

    assert in_a_child(work) == b"2 %d" % len(LAYERS)
    assert all(same(run(name), expected[name]) for name in LAYERS)  # nor does the parent notice


def test_a_child_forked_while_others_compute(threads):
    threads(2)
    expected, stop = run("conv2d"), threading.Event()

    def busy():
        while not stop.is_set():
            run("conv2d", 1)
        return True

    def forks():
        try:
            return [in_a_child(lambda: b"%d" % same(run("conv2d"), expected)) for _ in range(3)]
        finally:
            stop.set()

    assert at_once(forks, busy) == [[b"1"] * 3, True]


def test_a_thread_may_compute_while_python_shuts_down():
    """Then there are no new threads; it does all the work itself."""
    program = (
        "import threading\n"
        "import numpy as np\n"
        "import minicnn; from minicnn import Tensor, functional as F\n"
        "minicnn.set_num_threads(2)\n"
        "x, w = Tensor(np.ones((4, 9, 9, 2)), requires_grad=True), Tensor(np.ones((5, 5, 2, 3)), requires_grad=True)\n"
        "F.conv2d(x, w).sum().backward()\n"
        "def late():\n"
        "    threading.main_thread().join()\n"
        "    y = F.conv2d(x, w)\n"
        "    y.sum().backward()\n"
        "    print(y.data.sum(), w.grad.data.sum(), flush=True)\n"
        "threading.Thread(target=late).start()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    y, dw = 4 * 25 * 3 * 50, 2 * 4 * 25 * 150
    assert [float(word) for word in done.stdout.split()] == [y, dw]


@pytest.mark.parametrize(
    "name, module, part",
    [
        ("conv2d", conv, "columns_of"),
        ("conv2d", conv, "col2im_into"),
        ("conv2d by Winograd", winograd, "_products"),
        ("max_pool2d", pooling, "padded"),
        ("local_response_norm", lrn, "_window_sum"),
    ],
)
@pytest.mark.parametrize("here", [True, False])
def test_after_an_error_in_a_slice_the_same_layer_computes_the_same(name, module, part, here, threads, monkeypatch):
    """In the caller's thread or in another. Each thread waits for the other first, so that both have a slice."""
    threads(2)
    expected, caller, real = run(name), threading.current_thread(), getattr(module, part)
    met, meet = threading.local(), threading.Barrier(2)

    def fails(*args, **options):
        if not hasattr(met, "already"):
            met.already = True
            meet.wait(30)
        if (threading.current_thread() is caller) is here:
            raise MemoryError("no more")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, part, fails)
        with pytest.raises(MemoryError, match="no more"):
            run(name)
    assert same(run(name), expected)


def test_training_repeats_bit_for_bit(threads):
    """A network of all these layers, twice from the same seed; with another number of threads, nearly so."""
    images, labels = normal(6, 15, 15, 3).astype(np.float32), np.arange(6) % 3

    def trained(count):
        threads(count)
        net = small_network()
        train(net, OPTIMIZERS["momentum"](net.parameters()), images, labels, 3)
        return [p.data for p in net.parameters()]

    alone = trained(1)
    for count in (1, 2, 3):
        first, second = trained(count), trained(count)
        for a, b, c in zip(first, second, alone, strict=True):
            assert_array_equal(a, b)
            assert_allclose(a, c, rtol=1e-4, atol=1e-5)
