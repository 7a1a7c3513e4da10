// Pixels become floats: x·scale − shift, with a scale and a shift for each of the three channels,
// as in data/pixels.py. The kernel has no naive version: except for the packs, which activation.cu
// explains, it is one itself.

__device__ real of_channel(Index c, real red, real green, real blue) { return c == 0 ? red : c == 1 ? green : blue; }

// (…, 3), bytes -> (…, 3). One thread for PACK elements.
KERNEL void normalize(const unsigned char* __restrict__ images, real* __restrict__ out, Index count, real scale0,
                      real scale1, real scale2, real shift0, real shift1, real shift2) {
    FOR_EACH(i, count / PACK) {
        Pack<unsigned char> x = load(images + i * PACK);
        Pack<real> y = {};
        for (int u = 0; u < PACK; ++u) {
            Index c = (i * PACK + u) % 3;
            y.at[u] = x.at[u] * of_channel(c, scale0, scale1, scale2) - of_channel(c, shift0, shift1, shift2);
        }
        store(out + i * PACK, y);
    }
}
