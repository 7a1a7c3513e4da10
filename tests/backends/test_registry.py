"""minicnn/backends/__init__.py: which version of a kernel runs, and how that is chosen."""

import importlib
import threading

import loops
import numpy as np
import pytest
from networks import OPTIMIZERS, small_network, train
from reference import at_once, refuses
from threadpoolctl import threadpool_info, threadpool_limits

import minicnn
import minicnn.functional as F
from minicnn import DeviceError, Tensor, backends, optim, use_backend
from minicnn.backends import Backend, backend_of, chosen_backend, devices, kernel, kernel_of_many, missed, table
from minicnn.backends import numpy as fast
from minicnn.functional.activation import rectify, where_positive

X = np.array([-1.0, 2.0])
USUAL = backend_of("cpu")  # native where there is a C compiler, else numpy


@pytest.fixture(autouse=True)
def no_backends_left():
    """Each test forgets the backends that it makes."""
    before = dict(backends._backends)
    yield
    assert backends._backends == before, "a test left a backend"


@pytest.fixture
def sevens():
    """A backend by which ReLU is 7 everywhere; it has nothing else."""
    backend = Backend("sevens", device="cpu", kernels={"activation.rectify": lambda x: np.full(x.shape, 7.0)})
    yield backend
    backend.remove()


def running():
    """Which backend computes ReLU: 7 or 2."""
    return float(F.relu(Tensor(X)).data[1])


# ------------------------------------------------------------------------------------- choosing
def test_a_backend_runs_inside_a_with_statement(sevens):
    assert running() == 2
    with use_backend("sevens"):
        assert running() == 7 and rectify(X).tolist() == [7, 7] and chosen_backend() == "sevens"
    assert running() == 2 and chosen_backend() is None


def test_a_backend_runs_from_a_call_on(sevens):
    with use_backend(None):  # which puts everything back
        use_backend("sevens")
        assert running() == 7
        use_backend("reference")
        assert running() == 2 and chosen_backend() == "reference"
        use_backend(None)
        assert running() == 2 and chosen_backend() is None
        use_backend("sevens")
    assert running() == 2


def test_with_statements_may_be_nested_and_left_by_an_error(sevens):
    with use_backend("sevens"):
        with use_backend("numpy"):
            assert running() == 2
            with use_backend("sevens"):
                assert running() == 7
            assert running() == 2 and chosen_backend() == "numpy"
        with pytest.raises(KeyError), use_backend("reference"):
            raise KeyError
        assert running() == 7 and chosen_backend() == "sevens"


def test_each_thread_has_its_own(sevens):
    met = threading.Barrier(2)

    def chooses():
        use_backend("sevens")
        met.wait(30)
        return running()

    def does_not():
        met.wait(30)
        return running(), chosen_backend()

    assert at_once(chooses, does_not) == [7, (2, None)]
    with use_backend("sevens"):
        assert at_once(running) == [2] and running() == 7


def test_a_backward_pass_runs_by_what_is_chosen_then(monkeypatch):
    ran = []
    kernels = {"activation.where_positive": lambda dy, y: ran.append(1) or dy * (y > 0)}
    backend = Backend("noted", device="cpu", kernels=kernels)
    try:
        x = Tensor(X, requires_grad=True)
        y = F.relu(x).sum()
        with use_backend("noted"):
            y.backward()
    finally:
        backend.remove()
    assert ran == [1] and x.grad.data.tolist() == [0, 1]


# ------------------------------------------------------------------------------ what is not there
@pytest.mark.parametrize("name", ["nothing", "", "gpu", "NumPy", 0, ("numpy",)])
def test_a_name_that_is_not_there_is_one_line(name, sevens):
    with use_backend("sevens"):
        with refuses(DeviceError, f"no backend {name!r}", "'reference'", "'numpy'", "'cuda'", "'sevens'"):
            use_backend(name)
        assert running() == 7  # nothing has changed


def test_cuda_without_a_gpu_is_one_line(monkeypatch):
    def missing(name, *args, real=importlib.import_module):
        if name != "cupy":
            return real(name, *args)
        raise ModuleNotFoundError("No module named 'cupy'", name="cupy")

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr(devices, "opened", set())
    with refuses(DeviceError, "'gpu'", "CuPy, which is not installed: pip install"):
        use_backend("cuda")
    assert chosen_backend() is None and running() == 2


def test_no_two_backends_have_one_name(sevens):
    for name in ("sevens", "numpy", "reference"):
        with refuses(ValueError, f"there is a backend {name!r} already"):
            Backend(name, device="cpu", kernels={})


def test_mistakes_in_a_backend_are_said(sevens):
    for device in ("cud", "gpu:1", ""):
        with refuses(ValueError, f"no kind of device {device!r}"):
            Backend("mine", device=device, kernels={})
    backend = Backend("mine", device="cpu", kernels={"activation.rectfy": len})
    try:
        with refuses(ValueError, "'activation.rectfy', which is not a kernel"):
            use_backend("mine")
        assert running() == 2
    finally:
        backend.remove()


def test_one_object_may_be_entered_again_and_decorates_functions(sevens):
    again = use_backend("sevens")
    with again:
        assert running() == 7
    assert running() == 2
    with use_backend("reference"), again:
        assert running() == 7
    assert running() == 2

    @use_backend("sevens")
    def decorated():
        """Seven."""
        return running()

    assert running() == 2 and decorated() == decorated() == 7 and running() == 2 and decorated.__doc__ == "Seven."


def test_what_is_registered_later_holds_at_once():
    def double(x):
        return 2 * x

    double.__module__ = "mine.lesson"
    first = kernel(double)

    def triple(x):
        return 3 * x

    triple.__module__, triple.__name__ = "mine.lesson", "double"
    try:
        assert first(X).tolist() == (2 * X).tolist()
        second = kernel(triple)  # as a notebook's cell that runs again
        assert second(X).tolist() == (3 * X).tolist()
        with refuses(ValueError, "mine.lesson has a kernel 'lesson.double'"):
            kernel(another_file("yours.lesson"))
    finally:
        backends._lessons.pop("lesson.double")


def another_file(module):
    def double(x):
        return x

    double.__module__ = module
    return double


def test_a_backend_that_is_removed_while_it_is_in_use():
    backend = Backend("sevens", "cpu", {"activation.rectify": lambda x: np.full(x.shape, 7.0)})
    with use_backend("sevens"):
        assert running() == 7
        backend.remove()
        assert running() == 2 and chosen_backend() is None and backend_of("cpu") == USUAL


def test_the_reference_limits_blas_to_one_thread():
    with threadpool_limits(limits=2, user_api="blas"), use_backend("reference"):
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}


# --------------------------------------------------------------------------- which version it is
def test_what_a_backend_lacks_runs_as_the_lesson_is_written(sevens, monkeypatch):
    def never(*args):
        raise AssertionError("another backend took part")

    monkeypatch.setattr(fast.backend, "kernels", dict.fromkeys(fast.backend.kernels, never))
    with use_backend("sevens"):
        y = F.max_pool2d(Tensor(np.arange(4.0).reshape(1, 2, 2, 1)), 2)
    assert y.item() == 3


def test_a_default_takes_the_place_of_the_one_before_until_it_is_removed():
    assert running() == 2 and backend_of("cpu") == USUAL
    backend = Backend("sevens", "cpu", {"activation.rectify": lambda x: np.full(x.shape, 7.0)}, default=True)
    try:
        assert running() == 7 and backend_of("cpu") == "sevens"
        with use_backend("numpy"):
            assert running() == 2 and backend_of("cpu") == "numpy"
    finally:
        backend.remove()
    assert running() == 2 and backend_of("cpu") == USUAL


def test_what_a_backend_lacks_another_may_have(sevens):
    """The one that it names, and so on; the lesson's where none has it."""
    eights = {"activation.rectify": lambda x: np.full(x.shape, 8.0), "activation.where_positive": lambda dy, y: dy + 8}
    second = Backend("second", "cpu", eights, otherwise=sevens)
    third = Backend("third", "cpu", {"activation.where_positive": lambda dy, y: dy + 9}, otherwise=second)
    try:
        assert third.otherwise is second and second.otherwise is sevens and sevens.otherwise is None
        with use_backend("third"):
            assert running() == 8 and where_positive(X, X).tolist() == [8, 11]
            assert F.max_pool2d(Tensor(np.arange(4.0).reshape(1, 2, 2, 1)), 2).item() == 3
        assert third.version("activation.where_positive") is third.kernels["activation.where_positive"]
        assert third.version("activation.rectify") is eights["activation.rectify"]
        assert third.version("pooling.winners") is backends._lessons["pooling.winners"]
    finally:
        third.remove()
        second.remove()


@pytest.fixture
def shut():
    """Makes a backend by which ReLU is 7; opening it appends to a list, and fails if there is a problem."""
    made = []

    def make(problem=None, **options):
        opened = []

        def opens():
            opened.append(1)
            if problem is not None:
                raise problem

        backend = Backend(
            "shut", "cpu", {"activation.rectify": lambda x: np.full(x.shape, 7.0)}, opens=opens, **options
        )
        made.append(backend)
        return backend, opened

    yield make
    for backend in made:
        backend.remove()


def test_a_backend_is_opened_once_before_its_first_use(shut):
    backend, opened = shut(default=True)
    assert not opened
    assert running() == 7 and len(opened) == 1
    with use_backend("shut"):
        assert running() == 7
    backend.open()
    assert backend.problem() is None and missed("cpu") is None and missed("cpu:0") is None and len(opened) == 1


def test_a_backend_that_is_not_in_use_is_not_opened(shut):
    before = backend_of("cpu"), missed("cpu")
    _, opened = shut()
    assert running() == 2 and (backend_of("cpu"), missed("cpu")) == before and not opened
    with use_backend("shut"):
        assert running() == 7 and len(opened) == 1


def test_a_backend_that_cannot_be_used(shut):
    """By name it is an error; a default gives way to the one before, and missed() says why."""
    before = backend_of("cpu"), missed("cpu")
    backend, opened = shut(DeviceError("there is no loom: buy one"), default=True)
    assert running() == 2 and backend_of("cpu") == before[0]
    for device in ("cpu", "cpu:0"):
        assert missed(device) == f"there is no loom: buy one; without the shut backend, {before[0]} computes, slower"
    assert missed("nothing") is None
    for use in (backend.open, lambda: use_backend("shut")):
        with refuses(DeviceError, "backend 'shut': there is no loom: buy one"):
            use()
    assert chosen_backend() is None and running() == 2 and len(opened) == 1
    backend.remove()
    assert (backend_of("cpu"), missed("cpu")) == before


def test_a_mistake_in_opening_is_no_lack_of_a_device(shut):
    backend, _ = shut(KeyError("a mistake"), default=True)
    with pytest.raises(KeyError):
        rectify(X)
    with pytest.raises(KeyError):
        backend.open()
    backend.remove()
    assert running() == 2


def test_opening_a_backend_checks_its_kernels():
    backend = Backend("mine", "cpu", {"activation.rectfy": len})
    try:
        with refuses(ValueError, "'activation.rectfy', which is not a kernel"):
            backend.open()
    finally:
        backend.remove()


class Beads:
    """An array of a device that there is not."""

    def __init__(self, numbers):
        self.numbers = numbers


class Abacus(devices.Device):
    def owns(self, kind):
        return kind is Beads

    def open(self, number):
        if number:
            raise DeviceError("there is one abacus")


@pytest.fixture
def abacus():
    devices.Device.register("abacus", Abacus())
    yield
    del devices._kinds["abacus"]
    devices.opened.discard(("abacus", 0))


def test_the_type_of_the_first_array_decides(abacus, sevens):
    """A backend for one device leaves the arrays of others alone."""
    beads = Beads([3, 4])
    backend = Backend("beads", "abacus", {"activation.rectify": lambda x: x.numbers}, default=True)
    try:
        assert rectify(beads) == [3, 4] and rectify(X).tolist() == [0, 2]
        assert backend_of("abacus") == backend_of("abacus:0") == "beads"
        with use_backend("sevens"):
            assert rectify(beads) == [3, 4] and rectify(X).tolist() == [7, 7]
            assert backend_of("abacus") == "beads" and backend_of("cpu") == "sevens"
        with use_backend("beads"):
            assert rectify(beads) == [3, 4] and rectify(X).tolist() == [0, 2]
            assert backend_of("abacus") == "beads" and backend_of("cpu") == USUAL
        with use_backend("reference"), pytest.raises(TypeError):
            rectify(beads)
        assert devices.open_device("abacus:0") == "abacus:0"
        with refuses(DeviceError, "'abacus:1'", "there is one abacus"):
            devices.open_device("abacus:1")
    finally:
        backend.remove()


def test_a_kernel_is_named_after_its_file_and_itself():
    def scale(x, by, plus=0):
        """A lesson."""
        return x * by + plus

    def scale_list(parameters, by):
        for w, *_ in parameters:
            w *= by

    for function in (scale, scale_list):
        function.__module__ = "minicnn.functional.lesson"
    dispatching, of_lists = kernel(scale), kernel_of_many(scale_list)
    calls = []
    note = {f"lesson.{f.__name__}": lambda *args, **options: calls.append((args, options)) for f in (scale, scale_list)}
    backend = Backend("noted", device="cpu", kernels=note)
    try:
        assert dispatching(X, 3, 1).tolist() == [-2, 7] and not calls
        with use_backend("noted"):
            dispatching(X, 3, 1)
            of_lists([(X, X)], 3)
        assert calls[0] == ((X, 3, 1), {}) and calls[1] == (([(X, X)], 3), {})
        of_lists([(w := X.copy(), X)], 3)
        assert w.tolist() == [-3, 6]
        assert (dispatching.__name__, dispatching.__doc__) == ("scale", "A lesson.")
    finally:
        backend.remove()
        del backends._lessons["lesson.scale"], backends._lessons["lesson.scale_list"]


def test_numbers_without_axes_are_of_the_host():
    """NumPy makes scalars of them."""
    assert (F.relu(Tensor(-1.5)) + 1.0).item() == 1 and rectify(np.float64(-1)) == 0


def test_the_table_says_which_kernel_has_which_versions(sevens):
    head, line, *rows = table().splitlines()
    assert head.startswith("| kernel | reference |") and set(line) <= set("| -")
    names = [cell.strip() for cell in head.strip("|").split("|")][1:]
    assert {"reference", "numpy", "cuda", "sevens"} <= set(names)
    found = {cells[0]: cells[1:] for cells in ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)}
    assert list(found) == sorted(backends._lessons)
    for name, cells in found.items():
        for backend, cell in zip(names, cells, strict=True):
            there = backend == "reference" or name in backends._backends[backend].kernels
            assert cell == ("yes" if there else "")


# ------------------------------------------------------------------------------------ everything by each of them
def losses(name, steps):
    """Of a few steps of training, and the parameters after them."""
    net = small_network().astype(np.float64)
    seen = train(
        net, OPTIMIZERS[name](net.parameters()), np.random.default_rng(0).standard_normal((2, 15, 15, 3)), [0, 2], steps
    )
    return seen, [p.data for p in net.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("backend", ["reference", "loops"])
def test_training_is_the_same_by_each_backend(name, backend):
    steps = 2 if backend == "loops" else 5
    expected, weights = losses(name, steps)
    with loops.registered(), use_backend(backend):
        found, others = losses(name, steps)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    for a, b in zip(others, weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    assert expected[0] != expected[-1]


def test_the_reference_runs_in_one_thread_and_on_memory_of_numpys(threads, monkeypatch):
    """Nothing of the fast backend takes part, with all its constants so small that it would."""
    threads(2)
    for module, name in ((fast.threads, "CACHE"), (fast.threads, "BLOCK"), (fast.memory, "LARGE")):
        monkeypatch.setattr(module, name, 1)

    def never(*args):
        raise AssertionError("the fast backend took part")

    monkeypatch.setattr(fast.threads._threads, "run", never)
    monkeypatch.setattr(fast.memory._memory, "take", never)
    with use_backend("reference"):
        for name in OPTIMIZERS:
            losses(name, 1)
    with pytest.raises(AssertionError, match="took part"):
        losses("momentum", 1)


@pytest.mark.slow
def test_the_first_small_network_and_alexnet_train_as_the_lessons_are_written():
    """20 steps of the one, and one of the other, have the losses that the default has."""
    import model
    import programs

    def run(net, size, steps, lr):
        minicnn.manual_seed(1)
        rng = np.random.default_rng(0)
        images, labels = rng.standard_normal((4, size, size, 3), np.float32), np.array([1, 2, 3, 4])
        return train(net, optim.SGD(net.parameters(), lr, momentum=0.9), images, labels, steps)

    for make, size, steps in (
        (lambda: programs.load_program("cuda_convnet/train.py").network("80sec"), 32, 20),
        (lambda: model.alexnet("2012", 10), model.INPUT_SIZE["2012"], 1),
    ):
        found = {}
        for name in ("numpy", "reference"):
            with use_backend(name):
                minicnn.manual_seed(0)
                found[name] = run(make(), size, steps, 0.001)
        np.testing.assert_allclose(found["reference"], found["numpy"], rtol=1e-5)


def test_one_object_in_two_threads_leaves_each_as_it_was():
    """And in the same thread several times, one inside the other, and as a decorator afterwards."""
    states, used = [], use_backend("reference")
    with used:
        pass

    def work():
        states.append(chosen_backend())
        with used:
            states.append(chosen_backend())
            with use_backend("numpy"), used:
                states.append(chosen_backend())
            states.append(chosen_backend())
        states.append(chosen_backend())

    with use_backend("numpy"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert chosen_backend() == "numpy"
    assert states == [None, "reference", "reference", "reference", None]
    assert used(chosen_backend)() == "reference" and chosen_backend() is None


def test_the_reference_gives_the_threads_of_blas_back():
    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before = threads()
    with use_backend("reference"):
        assert threads() == {1}
        with use_backend("numpy"), use_backend("reference"):
            assert threads() == {1}
        assert threads() == {1}
    assert threads() == before


def test_a_default_with_a_misspelt_kernel_is_refused_when_it_is_to_compute():
    backend = Backend("typo", "cpu", {"activation.rectfy": np.abs}, default=True)
    try:
        with pytest.raises(ValueError, match=r"'typo' has 'activation\.rectfy', which is not a kernel"):
            rectify(np.ones(2))
    finally:
        backend.remove()
    assert rectify(np.ones(2)).tolist() == [1, 1]


def test_a_backend_that_was_exchanged_for_another_of_its_name():
    first = Backend("sevens", "cpu", {"activation.rectify": lambda x: np.full_like(x, 7)})
    with use_backend("sevens"):
        first.remove()
        second = Backend("sevens", "cpu", {"activation.rectify": lambda x: np.full_like(x, 8)})
        assert rectify(np.ones(1))[0] == 1  # what was chosen is gone
        first.remove()  # it is not the one that is there
        with use_backend("sevens"):
            assert rectify(np.ones(1))[0] == 8
    second.remove()
    second.remove()


@pytest.mark.parametrize("name", [3, ["numpy"], {}, "cpu"])
def test_what_is_no_name_of_a_backend(name):
    with refuses(DeviceError, f"use_backend: there is no backend {name!r}: use one of 'reference', 'numpy'"):
        use_backend(name)
