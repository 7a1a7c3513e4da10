// Local response normalization on a GPU: the lesson functional/lrn.py. The C channels of a pixel
// lie side by side, and a window looks along them.
//
//     C channels   BEFORE AFTER   how many channels before and after its own a window sees

// s = k + α Σ x² over the window of channel c of a pixel
__device__ real base_naive(const real* pixel, int c, real k, real alpha) {
    real sum = 0;
    for (int j = max(c - BEFORE, 0); j <= min(c + AFTER, C - 1); ++j) sum += pixel[j] * pixel[j];
    return k + alpha * sum;
}

// y = x s^−β: (P, C) -> (P, C). One thread for each element.
extern "C" __global__ void normalize_naive(const real* x, real* y, Index count, real k, real alpha,
                                           real beta) {
    Index i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = x[i] * pow(base_naive(x + i / C * C, i % C, k, alpha), -beta);
}

// dx = dy s^−β − 2αβ x Sᵀ(dy x s^(−β−1)): (P, C), (P, C) -> (P, C). Sᵀ adds up over the channels j
// in whose windows c is: from c − AFTER to c + BEFORE. One thread for each element.
extern "C" __global__ void normalize_backward_naive(const real* dy, const real* x, real* dx,
                                                    Index count, real k, real alpha, real beta) {
    Index i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const real *grad = dy + i / C * C, *pixel = x + i / C * C;
    int c = i % C;
    real sum = 0;
    for (int j = max(c - AFTER, 0); j <= min(c + BEFORE, C - 1); ++j)
        sum += grad[j] * pixel[j] * pow(base_naive(pixel, j, k, alpha), -beta - 1);
    real s = base_naive(pixel, c, k, alpha);
    dx[i] = grad[c] * pow(s, -beta) - 2 * alpha * beta * pixel[c] * sum;
}

// What changes: one thread for PACK channels of a pixel, and a quicker power. Why: neighboring
// windows share most of what they see. The naive kernels read each element once for each window
// that holds it; backward, they even add up the squares of a window once for each channel in it.
// Here a thread keeps what it has read in registers, and the cache has what a neighbor has just
// read, so memory is read and written once. On an H200, at AlexNet's conv1 with 128 images, it is
// at 93% of its speed forward and at 97% backward (benchmarks/results/gpu.md).

// Channel c + j of a pixel, where a thread's own channels begin at c; 0 if there is none. It is
// read with its whole pack. For c = 96, PACK = 4 and windows of 5:
//
//     channel   92  93  94  95 |  96  97  98  99 | 100 101 102 103
//     j         −4  −3  −2  −1 |   0   1   2   3 |   4   5   6   7
//               pack −4        |  the thread's   |  pack 4
//                       [———— window of 0 ———]
//                                   [———— window of 3 ———]
//
// The loops below ask for the same channels again and again: once they are written out, the
// compiler sees that, and reads each of the three packs once. Beyond the last channel, the thread's
// own pack is read in vain: a branch around the reading would make each read wait for the
// one before.
__device__ real channel(const real* own, int c, int j) {
    int pack = (j < 0 ? (j + 1) / PACK - 1 : j / PACK) * PACK;  // where its pack begins
    bool inside = 0 <= c + pack && c + pack < C;
    Pack<real> numbers = load(own + (inside ? pack : 0));
    return inside ? numbers.at[j - pack] : 0;
}

// The same as base_naive, for channel c + j
__device__ real base(const real* own, int c, int j, real k, real alpha) {
    real sum = 0;
    UNROLL(4 * PACK)
    for (int near = j - BEFORE; near <= j + AFTER; ++near) sum += channel(own, c, near) * channel(own, c, near);
    return k + alpha * sum;
}

// 2^(exponent · log₂ number): a GPU has instructions for both, exact to six digits unless the power
// is enormous. For the seventh, pow() takes some ten times as many.
__device__ float power(float number, float exponent) { return __powf(number, exponent); }
__device__ double power(double number, double exponent) { return pow(number, exponent); }

// (P, C) -> (P, C)
KERNEL void normalize(const real* __restrict__ x, real* __restrict__ y, Index count, real k, real alpha, real beta) {
    FOR_EACH(i, count / PACK) {
        const real* own = x + i * PACK;
        int c = i * PACK % C;
        Pack<real> out = {};
        for (int u = 0; u < PACK; ++u) out.at[u] = channel(own, c, u) * power(base(own, c, u, k, alpha), -beta);
        store(y + i * PACK, out);
    }
}

// (P, C), (P, C) -> (P, C). A thread goes once through all the channels c + j whose windows hold
// one of its own: with windows of 5, four results take eight sums, not twenty.
KERNEL void normalize_backward(const real* __restrict__ dy, const real* __restrict__ x, real* __restrict__ dx,
                               Index count, real k, real alpha, real beta) {
    FOR_EACH(i, count / PACK) {
        const real *own = x + i * PACK, *grad = dy + i * PACK;
        int c = i * PACK % C;
        Pack<real> out = {}, sum = {};
        UNROLL(4 * PACK)
        for (int j = -AFTER; j < PACK + BEFORE; ++j) {  // equivalent (<): no window holds one more
            real s = base(own, c, j, k, alpha), gradient = channel(grad, c, j);
            real share = c + j < 0 || c + j >= C ? 0 : gradient * channel(own, c, j) * power(s, -beta - 1);
            for (int u = 0; u < PACK; ++u) {
                if (u == j) out.at[u] = gradient * power(s, -beta);
                if (j - BEFORE <= u && u <= j + AFTER) sum.at[u] += share;
            }
        }
        for (int u = 0; u < PACK; ++u) out.at[u] -= 2 * alpha * beta * channel(own, c, u) * sum.at[u];
        store(dx + i * PACK, out);
    }
}

// The sum over each window: (P, C) -> (P, C)
KERNEL void sum_window(const real* __restrict__ x, real* __restrict__ y, Index count) {
    FOR_EACH(i, count / PACK) {
        int c = i * PACK % C;
        Pack<real> sum = {};
        for (int j = -BEFORE; j < PACK + AFTER; ++j) {  // equivalent (<): no window holds one more
            real value = channel(x + i * PACK, c, j);
            for (int u = 0; u < PACK; ++u)
                if (u - BEFORE <= j && j <= u + AFTER) sum.at[u] += value;
        }
        store(y + i * PACK, sum);
    }
}
