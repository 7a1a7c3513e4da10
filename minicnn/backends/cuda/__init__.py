"""The lessons once more, in CUDA: for arrays on a GPU, each array function of a lesson gives way to the function of the
same name here, in the module of the same name (backend.device_kernel). The kernels themselves are in the .cu files,
channels last like everything else; launch.py is the one way to run them, products.py the way to cuBLAS.

Nothing here knows Tensor, and nothing imports CuPy: arrays bring it along.
"""
