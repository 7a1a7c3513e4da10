// Local response normalization on a GPU: the lesson functional/lrn.py. One thread for PACK channels of a pixel. What
// their windows see beyond them a neighboring thread has just read, so it comes from the cache: memory is read once
// and written once, forward and backward.
//
//     C channels   BEFORE AFTER   how many channels before and after its own a window sees

// Of a pixel, the channel c + j, where a thread's own channels begin at c; 0 if there is none. It is read with its
// whole pack, for the loops below ask for the same channels again and again: once they are written out, the compiler
// sees that, and reads each pack once. Where there is none, the thread's own pack is read in vain: a branch around the
// reading would make each one wait for the one before.
__device__ real channel(const real* own, int c, int j) {
    int pack = (j < 0 ? (j + 1) / PACK - 1 : j / PACK) * PACK;  // where its pack begins
    bool inside = 0 <= c + pack && c + pack < C;
    Pack<real> numbers = load(own + (inside ? pack : 0));
    return inside ? numbers.at[j - pack] : 0;
}

// s = k + α Σ a² over the window of that channel
__device__ real base(const real* own, int c, int j, real k, real alpha) {
    real sum = 0;
    UNROLL(4 * PACK)
    for (int near = j - BEFORE; near <= j + AFTER; ++near) sum += channel(own, c, near) * channel(own, c, near);
    return k + alpha * sum;
}

// 2^(exponent · log₂ number): a GPU has instructions for both, exact to six digits unless the power is enormous. For the
// seventh, pow() takes some ten times as many.
__device__ float power(float number, float exponent) { return __powf(number, exponent); }
__device__ double power(double number, double exponent) { return pow(number, exponent); }

// b = a s^−β: (P, C) -> (P, C)
KERNEL void normalize(const real* __restrict__ a, real* __restrict__ b, Index count, real k, real alpha, real beta) {
    FOR_EACH(i, count / PACK) {
        const real* own = a + i * PACK;
        int c = i * PACK % C;
        Pack<real> out = {};
        for (int u = 0; u < PACK; ++u) out.at[u] = channel(own, c, u) * power(base(own, c, u, k, alpha), -beta);
        store(b + i * PACK, out);
    }
}

// dL/da = g s^−β − 2αβ a Sᵀ(g a s^(−β−1)): (P, C), (P, C) -> (P, C). A thread goes once through all the channels c + j
// whose windows hold one of its own: with windows of 5, four results take eight sums, not twenty.
KERNEL void normalize_backward(const real* __restrict__ g, const real* __restrict__ a, real* __restrict__ da,
                               Index count, real k, real alpha, real beta) {
    FOR_EACH(i, count / PACK) {
        const real *own = a + i * PACK, *grad = g + i * PACK;
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
        store(da + i * PACK, out);
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
