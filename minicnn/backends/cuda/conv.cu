// A convolution's weights on a GPU, made as long as the rows of columns that they are multiplied
// with (conv.py). The kernel has no naive version: except for the packs, which activation.cu
// explains, it is one itself.

// x and then zeros: `size` elements -> `count`, both whole numbers of packs. One thread for PACK
// elements.
KERNEL void followed_by_zeros(const real* __restrict__ x, Index size, real* __restrict__ y, Index count) {
    FOR_EACH(i, count / PACK) {
        Pack<real> numbers = {};
        if (i * PACK < size) numbers = load(x + i * PACK);
        store(y + i * PACK, numbers);
    }
}
