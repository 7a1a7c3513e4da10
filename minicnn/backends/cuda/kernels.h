// What the kernels are written with. launch.py puts this file in front of every .cu file, and
// before it the types and the constants of one use of a kernel, such as
//
//     typedef float real;           the type of the elements
//     typedef unsigned Index;       an integer type wide enough to count them
//     constexpr int BLOCK = 256;    threads to a block
//     constexpr int PACK = 4;       how many neighboring elements a thread takes at once: see Pack
//     constexpr int KH = 3;         the geometry. The compiler knows it, so it unrolls loops and
//                                   turns divisions into multiplications
//
// `python -m minicnn.backends.cuda lrn` prints all of it for lrn.cu, and how to compile it.
//
// The naive kernel. CUDA calls a kernel once for each thread of a grid: of gridDim.x blocks with
// blockDim.x threads each. A thread learns from blockIdx.x and threadIdx.x which one it is:
//
//     extern "C" __global__ void twice_naive(const real* x, real* y, Index count) {
//         Index i = blockIdx.x * blockDim.x + threadIdx.x;
//         if (i < count) y[i] = 2 * x[i];  // the last block may have threads to spare
//     }
//
// A .cu file begins with such a kernel, one thread for one result, unless the one that is used is
// as simple. The naive kernel is tested, but not used in training, and it counts in 32 bits. After
// it come the kernel that is used, what it changes, and why.
//
// The words. The kernels that are used are written with these, which stand for CUDA's:
//
//     KERNEL                       extern "C" __global__: a function that the host launches
//     FOR_EACH(i, n) { … }         i = blockIdx.x * blockDim.x + threadIdx.x as above, and if
//                                  the grid has fewer threads than n, on in steps of the grid
//     FOR_EACH_BLOCK(b, n) { … }   b = blockIdx.x and on: one block for one result
//     TOGETHER(t) { … }            t = threadIdx.x, and at the end __syncthreads(): the threads
//                                  of a block wait until all have come so far, and then may
//                                  read what others wrote
//     Own<T> v;   v[t]             a variable T v of thread t, kept from one TOGETHER to the next
//     UNROLL(n)                    #pragma unroll n: write the next loop out n times
//     strided                      nothing. It tells launch.py that rows may lie apart in memory
//
// Neighboring threads take neighboring i and t, 32 of them in step (a warp). What they read or
// write at the same time goes through memory together if it lies side by side, so i and t should
// run along memory.
//
// What is __shared__ belongs to all threads of a block:
//
//     FOR_EACH_BLOCK(b, n) {
//         __shared__ real part[BLOCK];
//         TOGETHER(t) { part[t] = … }
//         TOGETHER(t) { … part[BLOCK - 1 - t] … }
//     }
//
// Why words of our own: g++ compiles the same source for the tests, so they need no GPU. To g++ a
// kernel is a function, called once for each thread; and a function cannot stop at __syncthreads()
// until the other threads have come there. But a loop over t can run one TOGETHER for all threads
// and then the next, and that is how tests/cuda/host.h defines the word. The tests run the threads
// forwards and backwards, and find indices out of bounds and all else that is undefined, which a
// GPU does not report. So nothing in a kernel may depend on which thread runs when, and outside of
// TOGETHER all threads of a block do the same.
//
// CuPy compiles with -ftz=true: in sums, products and comparisons a float below 2⁻¹²⁶ counts as
// 0, as it does not on a CPU.
#define FOR_EACH(i, n) \
    for (Index i = Index(blockIdx.x) * BLOCK + threadIdx.x; i < (n); i += Index(gridDim.x) * BLOCK)
#ifndef TOGETHER
#define FOR_EACH_BLOCK(b, n) for (Index b = blockIdx.x; b < (n); b += gridDim.x)
#define TOGETHER(t) for (int t = threadIdx.x, turn = 0; turn < 1; ++turn, __syncthreads())
#define OWNERS 1  // an Own holds the variable of one thread; on the host, those of a block
#endif

#define KERNEL extern "C" __global__

#ifdef __CUDACC__
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(n) PRAGMA(unroll(n))
#else
#define UNROLL(n)
#endif

#define strided

template <class T>
struct Own {
    T of[OWNERS];
    __device__ T& operator[](int t) { return of[t % OWNERS]; }
};

// PACK neighboring elements, which a thread reads or writes in one access to memory of 16 bytes
// (two of them, if they are doubles; one of 4, if they are bytes):
//
//     Pack<real> a = load(x + i * PACK);     x[i * PACK], … in a.at[0], a.at[1], …
//     for (int u = 0; u < PACK; ++u) a.at[u] *= 2;
//     store(y + i * PACK, a);
//
// PACK is 4 where rows are whole numbers of packs and begin at multiples of that size. A quarter
// of the threads and of the accesses then move the same bytes, and a thread finds out once where
// four elements belong. Elsewhere PACK is 1, and at[1] to at[3] mean nothing.
template <class T>
struct alignas(sizeof(T) == 1 ? 4 : 16) Pack {
    T at[4];
};

__device__ bool packed() { return PACK == 4; }

template <class T>
__device__ Pack<T> load(const T* from) {
    if (packed()) return *reinterpret_cast<const Pack<T>*>(from);
    return {{*from}};
}

template <class T>
__device__ void store(T* to, const Pack<T>& numbers) {
    if (packed()) *reinterpret_cast<Pack<T>*>(to) = numbers;
    else *to = numbers.at[0];
}

// Along one axis, the windows that may see place `at` of a padded image: the first and the last, of
// `count`.
struct Windows {
    int first, last;
};

__device__ Windows windows_at(int at, int size, int stride, int dilation, int count) {
    int reach = dilation * (size - 1);
    return {max(at - reach + stride - 1, 0) / stride, min(at / stride, count - 1)};
}
