// Optimizers on a GPU. The formulas are in optim/optimizer.py.
//
//     MOST   parameters to a launch: a kernel's arguments are few and small

// Stochastic gradient descent with momentum and weight decay, of one parameter w with gradient g
// and velocity v: one thread for each element.
extern "C" __global__ void sgd_naive(real* w, const real* g, real* v, Index count, real lr,
                                     real momentum, real weight_decay) {
    Index i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    v[i] = momentum * v[i] + g[i] + weight_decay * w[i];
    w[i] -= lr * v[i];
}

// What changes: one launch moves every parameter of a network, and one thread takes PACK elements.
// Why: AlexNet has 16 parameters, and 8 of them are biases of at most 4,096 elements. Launching a
// kernel for each of these takes longer than the work. The one launch that is left moves 61 million
// elements in 288 µs on an H200, all that its memory allows (benchmarks/results/gpu.md).

// Where the arrays of each parameter are, and where its elements end if those of all parameters are
// numbered one after another.
struct Parameters {
    real* w[MOST];        // the parameter
    const real* g[MOST];  // its gradient
    real* a[MOST];        // its first and second array of state, if it has them
    real* b[MOST];
    long long end[MOST];
};

struct Place {
    int k;         // which parameter
    long long at;  // which of its elements
};

// Where element i is. The largest parameters come first, so most threads know at once, and
// neighbors find the same.
__device__ Place place_of(const Parameters& all, long long i) {
    int k = 0;
    while (i >= all.end[k]) ++k;
    return {k, k ? i - all.end[k - 1] : i};
}

// Stochastic gradient descent, with Nesterov's momentum as well, in PyTorch's form or the paper's.
KERNEL void sgd(Parameters all, long long count, real lr, real momentum, real weight_decay, bool nesterov,
                bool paper_update) {
    FOR_EACH(i, count / PACK) {
        auto [k, at] = place_of(all, (long long)i * PACK);
        Pack<real> w = load(all.w[k] + at), g = load(all.g[k] + at), v = {};
        if (momentum != 0) v = load(all.a[k] + at);
        for (int u = 0; u < PACK; ++u) {
            real step = g.at[u] + weight_decay * w.at[u];
            if (paper_update) step *= -lr;
            if (momentum != 0) {
                v.at[u] = momentum * v.at[u] + step;
                step = nesterov ? step + momentum * v.at[u] : v.at[u];
            }
            w.at[u] += paper_update ? step : -lr * step;
        }
        if (momentum != 0) store(all.a[k] + at, v);
        store(all.w[k] + at, w);
    }
}

// Adam, with the constants of AdamStep; `rest` is 1 − β, rounded once.
KERNEL void adam(Parameters all, long long count, real rate, real beta1, real rest1, real beta2, real rest2, real eps,
                 real weight_decay, real keep) {
    FOR_EACH(i, count / PACK) {
        auto [k, at] = place_of(all, (long long)i * PACK);
        Pack<real> w = load(all.w[k] + at), g = load(all.g[k] + at), m = load(all.a[k] + at), v = load(all.b[k] + at);
        for (int u = 0; u < PACK; ++u) {
            real step = g.at[u] + weight_decay * w.at[u];
            m.at[u] = beta1 * m.at[u] + rest1 * step;
            v.at[u] = beta2 * v.at[u] + rest2 * step * step;
            w.at[u] = keep * w.at[u] - rate * m.at[u] / (sqrt(v.at[u]) + eps);
        }
        store(all.a[k] + at, m);
        store(all.b[k] + at, v);
        store(all.w[k] + at, w);
    }
}
