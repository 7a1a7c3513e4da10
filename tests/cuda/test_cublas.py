"""minicnn/backends/cuda/cublas.py: products in a graph."""

import ctypes
import importlib

import numpy as np
import pytest
from agreement import normal, there

from minicnn.backends.cuda import cublas, products
from minicnn.backends.cuda.graph import Graph, new_pool

LIBRARY = cublas.library  # the real one


@pytest.mark.parametrize("stack", [(), (2,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_in_a_graph(gpu, dtype, stack):
    """It is computed at each launch, from what the arrays hold then."""
    a, b = (there(gpu, normal(*stack, *shape).astype(dtype)) for shape in ((5, 7), (7, 3)))
    out = gpu.zeros((*stack, 5, 3), dtype)
    plain = [products.product(factor * a, b, gpu.zeros_like(out)).get() for factor in (1, 4)]
    graph = Graph(lambda: [products.product(a, b, out) for _ in range(2)], new_pool())
    for expected in plain:
        graph.launch(0)
        np.testing.assert_array_equal(out.get(), expected)
        a *= 4
    np.testing.assert_array_equal(products.product(a / 16, b, out).get(), plain[0])  # and CuPy's again


def test_a_stream_is_set_once(standin):
    a = there(standin_cupy(), normal(4, 4))
    Graph(lambda: [products.matmul(a, a) for _ in range(3)], new_pool())
    assert cublas.library(13).set == 1


def test_what_cublas_refuses(standin):
    a = there(standin_cupy(), normal(4, 4))
    cublas.library(13).status = 7
    with pytest.raises(RuntimeError, match="cuBLAS returned status 7"):
        Graph(lambda: products.matmul(a, a), new_pool())


def test_the_version_is_that_of_cupys_cuda(standin, monkeypatch):
    there(standin_cupy(), normal(1))  # opens the GPU
    asked = []
    monkeypatch.setattr(cublas, "library", asked.append)
    standin.runtime = 12000
    Graph(lambda: None, new_pool())
    assert asked == [12]


def standin_cupy():
    return importlib.import_module("cupy")


@pytest.mark.parametrize("name, found", [("posix", "libcublas.so.12"), ("nt", "cublas64_12.dll")])
def test_the_library_is_that_of_cupy(monkeypatch, name, found):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: name)
    monkeypatch.setattr(cublas.os, "name", name)
    assert LIBRARY.__wrapped__(12) == found
