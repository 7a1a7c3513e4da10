// A convolution's weights on a GPU, made as long as the rows of columns that they are multiplied
// with (conv.py). The kernel has no naive version, for it is one but for the packs, as rectify in
// activation.cu.

// x and then zeros: `size` numbers -> `count`, both whole numbers of packs. One thread for PACK
// numbers.
KERNEL void followed_by_zeros(const real* __restrict__ x, Index size, real* __restrict__ y, Index count) {
    FOR_EACH(i, count / PACK) {
        Pack<real> numbers = {};
        if (i * PACK < size) numbers = load(x + i * PACK);
        store(y + i * PACK, numbers);
    }
}
