// The bias of a layer, and if a ReLU follows, the maximum with 0. The kernel has no naive version:
// except for the packs, which activation.cu explains, it is one itself.
//
//     C           outputs, which lie side by side
//     RECTIFIED   whether a ReLU follows

// y = x + b: (…, C) and (C,). y may be x, so neither is __restrict__. One thread for PACK elements;
// b stays in the cache.
KERNEL void add_bias(const real* x, const real* __restrict__ bias, real* y, Index count) {
    FOR_EACH(i, count / PACK) {
        Pack<real> sum = load(x + i * PACK), b = load(bias + i * PACK % C);
        for (int u = 0; u < PACK; ++u) {
            sum.at[u] += b.at[u];
            // equivalent (<): zero is zero, whatever its sign
            if (RECTIFIED && sum.at[u] < 0) sum.at[u] = 0;
        }
        store(y + i * PACK, sum);
    }
}
