// The bias of a convolution: y + b, in place. The kernel has no naive version: except for the
// packs, which activation.cu explains, it is one itself.
//
//     C outputs, which lie side by side

// (…, C) and (C,). One thread for PACK elements of y; b stays in the cache.
KERNEL void add_bias(real* __restrict__ y, const real* __restrict__ bias, Index count) {
    FOR_EACH(i, count / PACK) {
        Pack<real> sum = load(y + i * PACK), b = load(bias + i * PACK % C);
        for (int u = 0; u < PACK; ++u) sum.at[u] += b.at[u];
        store(y + i * PACK, sum);
    }
}
