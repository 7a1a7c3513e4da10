// ReLU on a GPU: the lesson functional/activation.py. These are the simplest kernels there are: an
// element is read, compared and written, so only the speed of memory matters.

// y = max(x, 0), and a NaN stays one: one thread for each element.
extern "C" __global__ void rectify_naive(const real* x, real* y, Index count) {
    Index i = blockIdx.x * blockDim.x + threadIdx.x;
    // equivalent (<): zero is zero, whatever its sign
    if (i < count) y[i] = x[i] < 0 ? 0 : x[i];
}

// What changes: one thread for PACK elements side by side, with one load and one store of 16
// bytes instead of four of 4. __restrict__ promises that y is not x, so that loads need not wait
// for stores. Why: the bytes are the same, but a quarter of the threads ask for them. On an H200,
// at AlexNet's conv1 with 128 images, the memory is at 93% of its speed
// (benchmarks/results/gpu.md), and nothing else is left to gain.
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
