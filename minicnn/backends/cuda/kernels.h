// What the kernels are written with. launch.py puts this in front of every .cu file, and before it the types and the
// constants of one use of a kernel, as in
//
//     typedef float real;           what the numbers are
//     typedef unsigned Index;       wide enough to count them
//     constexpr int KH = 3;         the geometry, so that loops are unrolled and divisions become multiplications
//     constexpr int PACK = 4;       how many neighboring numbers a thread takes at once: see Pack
//
// A kernel is one loop, and nothing in it may depend on which thread runs what, or when. Most kernels are
//
//     FOR_EACH(i, n) { … }          every i from 0 to n − 1, whichever thread of the grid it falls to; neighboring i
//                                   go to neighboring threads, so i should run along memory
//
// and those in which the threads of a block work on one result together are
//
//     FOR_EACH_BLOCK(b, n) {        every b from 0 to n − 1, whichever block of the grid it falls to
//         __shared__ real part[BLOCK];
//         TOGETHER(t) { … }         every t from 0 to BLOCK − 1, one for each thread; then all wait for each other
//         TOGETHER(t) { … }         reads what others have left in `part`; outside of TOGETHER all threads do the same
//     }
//
// CuPy compiles with -ftz=true: in sums, products and comparisons a float below 2⁻¹²⁶ is 0, which on a CPU it is not.
#ifndef FOR_EACH
#define BLOCK 256
#define FOR_EACH(i, n) \
    for (Index i = Index(blockIdx.x) * BLOCK + threadIdx.x; i < (n); i += Index(gridDim.x) * BLOCK)
#define FOR_EACH_BLOCK(b, n) for (Index b = blockIdx.x; b < (n); b += gridDim.x)
#define TOGETHER(t) for (int t = threadIdx.x, turn = 0; turn < 1; ++turn, __syncthreads())
#endif

#define KERNEL extern "C" __global__

// The next loop is to be written out n times, where the compiler would not see by itself what that is good for.
#ifdef __CUDACC__
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(n) PRAGMA(unroll(n))
#else
#define UNROLL(n)
#endif

// A pointer to rows that may lie apart in memory: the kernel is told how far. All others point to contiguous arrays.
#define strided

// PACK neighboring numbers, read or written in one access to memory (two, if they are doubles). PACK is 4 where rows
// are whole numbers of packs and begin at multiples of 16 bytes, or of 4 if the numbers are bytes: memory is moved
// faster, and a thread finds out once where four numbers belong. Elsewhere it is 1, and the other three mean nothing.
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

// Along one axis, the windows that may see place `at` of a padded image: the first and the last, of `count`.
struct Windows {
    int first, last;
};

__device__ Windows windows_at(int at, int size, int stride, int dilation, int count) {
    int reach = dilation * (size - 1);
    return {max(at - reach + stride - 1, 0) / stride, min(at / stride, count - 1)};
}
