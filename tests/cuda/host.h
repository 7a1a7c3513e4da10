// What a kernel needs in order to run on the CPU, compiled by g++: host.py puts this in front of the source that NVRTC
// would be given.
#include <cmath>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <type_traits>
#include <utility>

#define __global__
#define __device__ inline
#define __host__
#define __forceinline__
#define __launch_bounds__(...)
#define __shared__  // a variable of the block's turn; not zero to begin with (host.py)
#define __constant__ static
#pragma GCC diagnostic ignored "-Wsign-compare"  // int against Index, which the constants make safe

// --------------------------------------------------------------------------- threads (see kernels.h)
// A kernel is called once for each thread of the grid. Its blocks and threads come in turn, or all of
// them backwards: whoever relies on their order gets another result then. No two threads run at the
// same time, so none can wait for another: the first of a block runs each TOGETHER for all of them.
struct Dim3 {
    unsigned x;
};
static Dim3 gridDim, blockDim, blockIdx, threadIdx;
namespace host {
int backwards = 0;
inline unsigned at(unsigned turn, unsigned n) { return backwards ? n - 1 - turn : turn; }
}  // namespace host

#define FOR_EACH_BLOCK(b, n) for (Index b = threadIdx.x ? (n) : blockIdx.x; b < (n); b += gridDim.x)
#define TOGETHER(t)                                                    \
    for (unsigned host_turn = 0; host_turn < blockDim.x; ++host_turn) \
        if ([[maybe_unused]] int t = int(host::at(host_turn, blockDim.x)); true)
#define OWNERS BLOCK

// --------------------------------------------------------------------------------------------------- functions of CUDA
using std::exp, std::fabs, std::floor, std::fma, std::isfinite, std::isinf, std::isnan, std::log, std::log1p, std::pow;
using std::abs, std::exp2, std::expm1, std::fmax, std::fmin, std::log2, std::sqrt, std::tanh;
#define __expf(x) std::exp(float(x))  // the quick ones, less exact on a GPU
#define __exp2f(x) std::exp2(float(x))
#define __logf(x) std::log(float(x))
#define __log2f(x) std::log2(float(x))
#define __powf(x, y) std::pow(float(x), float(y))
#define __fdividef(x, y) (float(x) / float(y))
#define __ldg(p) (*(p))

template <class A, class B, class C = std::common_type_t<A, B>>
C max(A a, B b) {
    if constexpr (std::is_floating_point_v<C>) return std::fmax(C(a), C(b));  // passes over NaN, as on a GPU
    else return C(a) < C(b) ? C(b) : C(a);
}
template <class A, class B, class C = std::common_type_t<A, B>>
C min(A a, B b) {
    if constexpr (std::is_floating_point_v<C>) return std::fmin(C(a), C(b));
    else return C(b) < C(a) ? C(b) : C(a);
}
inline float rsqrt(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}

// --------------------------------------------------------------------------------------- what host.py asks of a kernel
#define EXPORTED extern "C" __attribute__((visibility("default")))  // nothing else: a kernel may be called `times`
namespace host {
template <class T>
struct Kind {  // 'p' for a pointer, else NumPy's letters, 'V' for a struct
    static constexpr char of(bool number) {
        if (std::is_pointer_v<T>) return 'p';
        if (std::is_same_v<T, bool>) return 'b';
        if (!number) return 'V';
        return std::is_floating_point_v<T> ? 'f' : std::is_signed_v<T> ? 'i' : 'u';
    }
    static constexpr char value = of(std::is_arithmetic_v<T>);
};

// For each parameter of the kernel: its kind and size, then the kind and size of what it points to.
template <class... P>
int declared(void (*)(P...), [[maybe_unused]] int* out) {
    [[maybe_unused]] auto tell = [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        using To = std::remove_cv_t<std::remove_pointer_t<T>>;
        for (int number : {int(Kind<T>::value), int(sizeof(T)), int(Kind<To>::value), int(sizeof(To))}) *out++ = number;
    };
    (tell((P*)nullptr), ...);
    return sizeof...(P);
}

jmp_buf gave_up;
char complaint[400];

template <class... P, std::size_t... I>
void call(void (*kernel)(P...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<P>*>(args[I])...);
}

// Runs the kernel; returns nullptr, or what was undefined in it.
template <class... P>
const char* run(void (*kernel)(P...), void** args, unsigned blocks, unsigned threads) {
    if (setjmp(gave_up)) return complaint;
    gridDim = {blocks}, blockDim = {threads};
    for (unsigned block = 0; block < blocks; ++block)
        for (unsigned thread = 0; thread < threads; ++thread) {
            blockIdx = {at(block, blocks)}, threadIdx = {at(thread, threads)};
            call(kernel, args, std::index_sequence_for<P...>());
        }
    return nullptr;
}

// ----------------------------------------------------------------------- what -fsanitize=undefined calls (as libubsan)
struct Place {
    const char* file;
    unsigned line, column;
};

// Kernels have no destructors, so a jump out of one leaves nothing undone; the test that called it goes on and fails.
[[noreturn, gnu::noinline]] void undefined(const char* what, const Place* place) {
    std::snprintf(complaint, sizeof complaint, "%s:%u:%u: %s", place->file ? place->file : "?", place->line,
                  place->column, what);
    longjmp(gave_up, 1);
}
}  // namespace host

#define UNDEFINED(name, what)                                                                        \
    extern "C" [[noreturn]] void __ubsan_handle_##name##_abort(void* place, ...);                    \
    extern "C" [[noreturn]] void __ubsan_handle_##name##_abort(void* place, ...) {                   \
        host::undefined(what, static_cast<host::Place*>(place));                                     \
    }
UNDEFINED(add_overflow, "a signed sum overflows")
UNDEFINED(sub_overflow, "a signed difference overflows")
UNDEFINED(mul_overflow, "a signed product overflows")
UNDEFINED(negate_overflow, "a negation overflows")
UNDEFINED(divrem_overflow, "a division by zero, or one that overflows")
UNDEFINED(shift_out_of_bounds, "a shift by too much, or of a negative number")
UNDEFINED(out_of_bounds, "an index beyond the bounds of a local array")
UNDEFINED(type_mismatch_v1, "a pointer that is null, misaligned or to too small an object")
UNDEFINED(pointer_overflow, "pointer arithmetic that overflows")
UNDEFINED(load_invalid_value, "a value that its type cannot have, such as a bool of 85")
UNDEFINED(float_cast_overflow, "a float that does not fit the integer it is converted to")
UNDEFINED(vla_bound_not_positive, "an array of no length")
UNDEFINED(invalid_builtin, "a builtin function of an argument it does not take")
UNDEFINED(nonnull_arg, "a null argument")
#undef UNDEFINED
extern "C" [[noreturn]] void __ubsan_handle_builtin_unreachable(host::Place* place);
extern "C" [[noreturn]] void __ubsan_handle_builtin_unreachable(host::Place* place) {
    host::undefined("a place that cannot be reached", place);
}
extern "C" [[noreturn]] void __ubsan_handle_missing_return(host::Place* place);
extern "C" [[noreturn]] void __ubsan_handle_missing_return(host::Place* place) {
    host::undefined("the end of a function that returns something", place);
}
