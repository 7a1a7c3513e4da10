"""What the tests of the kernels share: the question whether a kernel agrees with its lesson. Inputs to draw are in
kernel_table.py."""

import contextlib
import os

import host
import numpy as np
import standin
from hypothesis import strategies as st
from kernel_table import CHANNELS, alike, awkward, mapped, normal, results, windows

from minicnn import use_backend
from minicnn.backends.cuda import launch

__all__ = ["CHANNELS", "DTYPES", "LAYOUTS", "agrees", "awkward", "naive", "normal", "there", "wide_index", "windows"]

# Under the address sanitizer one type is enough, for each takes g++ a while.
DTYPES = (np.float32,) if host.ADDRESS in os.environ else (np.float64, np.float32)


def there(gpu, array, layout="contiguous"):
    """The array on the GPU: by itself; as every second number of a larger one; or beginning beside a multiple of 16
    bytes."""
    if not isinstance(array, np.ndarray):
        return array
    if layout == "gaps" and array.ndim:
        wide = gpu.asarray(np.repeat(array, 2, axis=-1))
        return wide[..., ::2]
    if layout == "shifted":
        flat = gpu.asarray(np.concatenate([array.ravel()[:1], array.ravel()]))
        return flat[min(1, array.size) :].reshape(array.shape)
    return gpu.asarray(array)


LAYOUTS = st.sampled_from(["contiguous", "gaps", "shifted"])


@contextlib.contextmanager
def wide_index():
    """Inside, kernels count as for arrays of more than 2³¹ numbers."""
    run = launch._run

    def wide(kernel, blocks, count, args, real, types, constants):
        run(kernel, blocks, count, args, real, {**(types or {}), "Index": "unsigned long long"}, constants)

    launch._run = wide
    try:
        yield
    finally:
        launch._run = run


@contextlib.contextmanager
def naive(kernel):
    """Inside, a kernel's naive version runs in its place, one thread for each number that is written. Of
    the kernel's arguments it takes those that it declares. Yields a list of what has been launched."""
    run, (file, _, name), launched = launch._run, kernel.partition("."), []
    declared = launch.declarations(file)

    def one_thread_each(called, blocks, count, args, real, types, constants):
        if called != kernel:
            return run(called, blocks, count, args, real, types, constants)
        given = dict(zip([text.split()[-1] for text in declared[name]], args, strict=True))
        parameters = {text.split()[-1]: text for text in declared[f"{name}_naive"]}
        (written,) = [key for key, text in parameters.items() if "*" in text and "const" not in text]
        out = given[written]
        guarded = launch.empty((out.size + 1,), out.dtype)
        guarded[-1] = 7
        given |= {written: guarded[:-1], "count": out.size}
        args, constants = [given[key] for key in parameters], {**constants, "PACK": 1}
        run(f"{kernel}_naive", -(-out.size // launch.BLOCK), out.size, args, real, types, constants)
        assert guarded[-1] == 7, "it writes beyond the end"
        out[...] = guarded[:-1].reshape(out.shape)
        launched.append(kernel)

    launch._run = one_thread_each
    try:
        yield launched
    finally:
        launch._run = run


def on_the_host(value):
    return value.get() if hasattr(value, "get") else value


def agrees(
    gpu, kernel, lesson, *args, exactly=False, single=1e-5, layout="contiguous", wide=False, in_place="contiguous"
):
    """kernel has the results of lesson, as it is written, in float64; in float32, those rounded; and the same bits in
    whatever order its threads run, and if `wide`, however they count. Arrays of float64 among args are given in either
    type. NaN equals NaN. What is changed in place lies as `in_place` says.

    To count in 64 bits takes another build of the kernel, and in that a GPU's compiler may contract other products and
    sums into one operation, which rounds once: on an H200, 2 of 12 numbers of LRN's gradient were 1 ulp off. g++, told
    not to contract, has no such choice, so on the stand-in these are the same bits too."""
    counting = 0 if exactly or gpu is standin.cupy else 1e-14
    with np.errstate(all="ignore"), use_backend("reference"):
        expected = results(lesson, mapped(args, np.array))
    for dtype in DTYPES:
        cast = mapped(args, lambda a, dtype=dtype: a.astype(dtype) if a.dtype == np.float64 else np.array(a))

        def run(cast=cast):
            if type(cast[0]) is list:  # an optimizer's parameters
                first = [(there(gpu, w, in_place), there(gpu, g, layout), *(there(gpu, a, in_place) for a in state))
                         for w, g, *state in cast[0]]  # fmt: skip
            else:
                first = there(gpu, cast[0], layout)
            moved = [first, *(there(gpu, a, layout) if on_device(kernel, i) else a for i, a in enumerate(cast[1:], 1))]
            return [on_the_host(result) for result in results(kernel, moved)]

        found = run()
        for result, wanted in zip(found, expected, strict=True):
            kind = dtype if wanted.dtype == np.float64 else wanted.dtype
            alike(result, wanted, kind, 0 if exactly else 1e-12 if kind == np.float64 else single)
        with host.backwards():
            for again, result in zip(run(), found, strict=True):
                np.testing.assert_array_equal(again, result)
        if wide and dtype == np.float64:
            with wide_index():
                for again, result in zip(run(), found, strict=True):
                    largest = np.abs(result[np.isfinite(result)]).max(initial=1)
                    np.testing.assert_allclose(again, result, rtol=counting, atol=counting * largest)


def on_device(kernel, place):
    """Whether that argument of a kernel is to be on the GPU if it is an array: all are, but the scale and the shift of
    images."""
    return not kernel.__module__.endswith("pixels")
