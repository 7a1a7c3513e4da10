// Cross-entropy on a GPU: the lesson functional/loss.py.
//
//     K classes

// The loss of a label that is out of range: nobody would see an error, but everybody sees NaN.
__device__ real no_number() { return sqrt(real(-1)); }

struct Softmax {
    real largest, sum;  // max z, and Σ e^(z − max z)
};

// log Σ e^z − z_label, of one sample
__device__ real loss_of(const real* z, Softmax of, long long label) {
    return 0 <= label && label < K ? log(of.sum) - (z[label] - of.largest) : no_number();
}

// The loss of each sample: (N, K), (N,) -> (N,). One thread for each.
extern "C" __global__ void negative_log_likelihood_naive(const real* z, const long long* labels,
                                                         real* losses, Index samples) {
    Index n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= samples) return;
    Softmax of = {log(real(0)), 0};  // −∞
    for (int c = 0; c < K; ++c) of.largest = max(of.largest, z[n * K + c]);
    for (int c = 0; c < K; ++c) of.sum += exp(z[n * K + c] - of.largest);
    losses[n] = loss_of(z + n * K, of, labels[n]);
}

// What changes: one block for each sample. A thread takes every BLOCK-th class, and what the
// threads have found is combined in pairs, pairs of pairs, and so on:
//
//     threads   0    1    2    3    4    5    6    7      of BLOCK = 8, for example
//               0+4  1+5  2+6  3+7                        half = 4
//               …+2  …+3                                  half = 2
//               …+1                                       half = 1: thread 0 has the sum of all
//
// Why: for a batch of 128 the naive kernel has 128 threads, and an H200 has room for 270,336. What
// they read at the same time also lies K elements apart. Here neighboring threads read neighboring
// elements, which memory delivers together.
__device__ Softmax softmax(const real* z) {
    __shared__ real largest[BLOCK], sums[BLOCK];  // two, because some threads may read one while others write
    TOGETHER(t) {
        real most = log(real(0));  // −∞
        for (int c = t; c < K; c += BLOCK) most = max(most, z[c]);
        largest[t] = most;
    }
    for (int half = BLOCK / 2; half; half /= 2)
        TOGETHER(t) if (t < half) largest[t] = max(largest[t], largest[t + half]);
    TOGETHER(t) {
        real sum = 0;
        for (int c = t; c < K; c += BLOCK) sum += exp(z[c] - largest[0]);  // NaN, if there is one among them
        sums[t] = sum;
    }
    for (int half = BLOCK / 2; half; half /= 2)
        TOGETHER(t) if (t < half) sums[t] += sums[t + half];
    return {largest[0], sums[0]};
}

// The loss of each sample, as above: (N, K), (N,) -> (N,)
KERNEL void negative_log_likelihood(const real* __restrict__ z, const long long* __restrict__ labels,
                                    real* __restrict__ losses, Index samples) {
    FOR_EACH_BLOCK(n, samples) {
        Softmax of = softmax(z + n * K);
        TOGETHER(t) if (t == 0) {  // equivalent (==, 0): any thread may write, or several the same
            losses[n] = loss_of(z + n * K, of, labels[n]);
        }
    }
}

// dz = (softmax(z) − onehot(label)) dy: (N,), (N, K), (N,) -> (N, K)
// `step` is the stride of dy: 0 where all have the same, as in a mean.
KERNEL void negative_log_likelihood_backward(const strided real* __restrict__ dy, long long step,
                                             const real* __restrict__ z, const long long* __restrict__ labels,
                                             real* __restrict__ dz, Index samples) {
    FOR_EACH_BLOCK(n, samples) {
        Softmax of = softmax(z + n * K);
        TOGETHER(t) {
            long long label = labels[n];
            real by = 0 <= label && label < K ? dy[n * step] : no_number();
            for (int c = t; c < K; c += BLOCK)
                dz[n * K + c] = (exp(z[n * K + c] - of.largest) / of.sum - (c == label)) * by;
        }
    }
}

// (N,) -> (N, K): true at the label. One thread for each of N·K.
KERNEL void onehot(const long long* __restrict__ labels, bool* __restrict__ out, Index count) {
    FOR_EACH(i, count) out[i] = labels[i / K] == (long long)(i % K);
}
