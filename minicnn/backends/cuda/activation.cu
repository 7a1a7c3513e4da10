// ReLU on a GPU: the lesson functional/activation.py. The simplest kernels there are: each number comes, is looked at
// and goes, so all that counts is how fast memory is. One thread for PACK numbers.

// y = max(x, 0); a NaN stays one.
KERNEL void rectify(const real* __restrict__ x, real* __restrict__ y, Index count) {
    FOR_EACH(i, count / PACK) {
        Pack<real> a = load(x + i * PACK);
        // equivalent (<): zero is zero, whatever its sign
        for (real& number : a.at) number = number < 0 ? 0 : number;
        store(y + i * PACK, a);
    }
}

// dx = dy where y > 0, else 0
KERNEL void where_positive(const real* __restrict__ dy, const real* __restrict__ y, real* __restrict__ dx,
                           Index count) {
    FOR_EACH(i, count / PACK) {
        Pack<real> a = load(y + i * PACK), b = load(dy + i * PACK);
        for (int u = 0; u < PACK; ++u) b.at[u] = a.at[u] > 0 ? b.at[u] : 0;
        store(dx + i * PACK, b);
    }
}
