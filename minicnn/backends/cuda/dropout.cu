// Dropout on a GPU: the lesson functional/dropout.py. The mask is not stored but drawn again
// whenever it is wanted, because a counter-based generator can begin anywhere. It is Philox 4×64
// with 10 rounds (Salmon et al. 2011), and the numbers are those of NumPy's
// Generator(Philox(key)).random(dtype=float32), so the mask is the same on both devices.

using Words = Pack<unsigned long long>;

// Block number `counter` of the numbers that a key stands for.
__device__ Words philox(unsigned long long counter, unsigned long long key0, unsigned long long key1) {
    const unsigned long long m0 = 0xD2E7470EE14C6C93ull, m1 = 0xCA5A826395121157ull;
    Words x = {{counter, 0, 0, 0}};
    for (int round = 0; round < 10; ++round) {
        unsigned long long high0 = __umul64hi(m0, x.at[0]), low0 = m0 * x.at[0];
        unsigned long long high1 = __umul64hi(m1, x.at[2]), low1 = m1 * x.at[2];
        x = {{high1 ^ x.at[1] ^ key0, low1, high0 ^ x.at[3] ^ key1, low0}};
        key0 += 0x9E3779B97F4A7C15ull;
        key1 += 0xBB67AE8584CAA73Bull;
    }
    return x;
}

// Whether the element at place u is kept, one of the eight that a block of the generator decides
// on. The upper 24 bits of each half of a word, the lower half first, are a number from 0 to 1, and
// it must be p or more.
__device__ bool keeps(const Words& random, int u, float p) {
    unsigned half = unsigned(random.at[u / 2] >> u % 2 * 32);
    return (half >> 8) / 16777216.0f >= p;
}

// y = x · s where m is 1, else 0: one thread for each element. Element 0 takes number `first` of
// the generator, as the rows that a process holds may lie anywhere in a batch.
extern "C" __global__ void drop_naive(const real* x, real* y, Index count, float p, real s,
                                      unsigned long long seed, unsigned long long draw,
                                      unsigned long long first) {
    Index i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    unsigned long long number = first + i;
    Words random = philox(number / 8 + 1, seed, draw);  // NumPy's first block is number 1
    y[i] = keeps(random, number % 8, p) ? x[i] * s : 0;
}

// What changes: one thread for the eight elements of a block. Why: the naive kernel draws a block
// in each thread and uses an eighth of it; seven other threads draw the same again. It also asks
// for word i % 8 / 2, which is known only when it runs, so the words must lie in memory. Here the
// loops are unrolled, and each word has a register of its own. If element 0 stands inside a block,
// the block's numbers before it are skipped, and PACK is 1.
//
// A CUDA graph launches this again and again with the same arguments. So that its masks differ, the
// number of the draw is the sum of two: `since` lies in memory, and the host counts it up.
KERNEL void drop(const real* __restrict__ x, real* __restrict__ y, Index count, float p, real s,
                 unsigned long long seed, unsigned long long draw, const unsigned long long* since,
                 unsigned long long first) {
    const int skip = first % 8;
    FOR_EACH(i, (skip + count + 7) / 8) {  // equivalent (7, /): threads that are too many have nothing to do
        Words random = philox(first / 8 + i + 1, seed, draw + *since);
        for (int j = 0; j < 8; j += PACK) {
            if (i == 0 && j < skip) continue;
            Index element = i * 8 + j - skip;
            if (element >= count) break;
            Pack<real> a = load(x + element);
            for (int u = 0; u < PACK; ++u) a.at[u] = keeps(random, j + u, p) ? a.at[u] * s : 0;
            store(y + element, a);
        }
    }
}
