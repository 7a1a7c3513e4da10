// The threads that share a kernel's units. They are C's own, because handing work to a thread of
// Python's takes 5 to 10 µs, and a layer of a small network takes no longer; here it takes 1 to 2.
//
// A thread that has nothing to do watches for work for a while, and gives its core away meanwhile
// to whoever wants it; then it sleeps until it is woken, which takes 5 to 50 µs.

#define _POSIX_C_SOURCE 200809L
#include "native.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

enum {
    MOST = 1023,    // threads besides the caller's, as in numpy/threads.py
    WATCH = 50000,  // nanoseconds before a thread sleeps: longer than Python needs between two layers
    LOOKS = 32,     // how often it looks before it gives its core away
};

// ---------------------------------------------------------------------------- one waits, one rings
typedef struct {
    _Alignas(64) atomic_int rung;  // in a line of the cache by itself: two threads watch it
    atomic_int asleep;
    pthread_mutex_t lock;
    pthread_cond_t woken;
} Bell;

static void make_bell(Bell *bell) {
    bell->rung = bell->asleep = 0;
    pthread_mutex_init(&bell->lock, NULL);
    pthread_cond_init(&bell->woken, NULL);
}

static int has_rung(Bell *bell) {
    return atomic_load_explicit(&bell->rung, memory_order_relaxed) && atomic_exchange(&bell->rung, 0);
}

static void ring(Bell *bell) {
    atomic_store(&bell->rung, 1);
    if (!atomic_load(&bell->asleep)) return;
    pthread_mutex_lock(&bell->lock);
    pthread_cond_signal(&bell->woken);
    pthread_mutex_unlock(&bell->lock);
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void rest(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static void await(Bell *bell) {
    for (;;) {
        for (int64_t end = nanoseconds() + WATCH; nanoseconds() < end; sched_yield())
            for (int look = 0; look < LOOKS; ++look, rest())
                if (has_rung(bell)) return;
        pthread_mutex_lock(&bell->lock);
        atomic_store(&bell->asleep, 1);  // before it looks again: whoever rings then sees one of the two
        if (!atomic_load(&bell->rung)) pthread_cond_wait(&bell->woken, &bell->lock);
        atomic_store(&bell->asleep, 0);
        pthread_mutex_unlock(&bell->lock);
    }
}

// -------------------------------------------------------------------------------- work and workers
// What launch.py asks for: a kernel for the units [0, count), `step` at a time, on so many threads,
// each of which has `bytes` of `room`; and after these the kernel's own arguments.
typedef struct {
    void (*kernel)(Index first, Index last, const char *given, uint8_t *room);
    Index count, step;
    uint8_t *room;
    Index bytes, threads;
    char given[];
} Call;

static struct {
    const Call *call;
    _Alignas(64) atomic_ptrdiff_t next;  // the first unit that no thread has taken
    atomic_int busy;                     // workers that have not ended
} work;

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;  // whose work it is
static Bell done, begin[MOST];
static int workers, most_workers = MOST;  // so many have been started; there can be no more

static void take_pieces(int thread) {
    const Call *call = work.call;
    Index first;
    while ((first = atomic_fetch_add(&work.next, call->step)) < call->count)
        call->kernel(first, least(first + call->step, call->count), call->given, call->room + thread * call->bytes);
}

static void *serve(void *number) {
    int worker = (int)(intptr_t)number;
    for (;;) {
        await(&begin[worker]);
        take_pieces(worker + 1);
        if (atomic_fetch_sub(&work.busy, 1) == 1) ring(&done);
    }
    return NULL;
}

// Start workers until there are so many, or the system has no more of them.
static void start(int wanted) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};  // a thread's own mistakes
    sigset_t others, before;
    sigfillset(&others);
    for (int i = 0; i < 4; ++i) sigdelset(&others, own[i]);
    pthread_sigmask(SIG_BLOCK, &others, &before);  // these are for Python's threads
    for (pthread_t thread; workers < least(wanted, most_workers); ++workers) {
        make_bell(&begin[workers]);
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)workers)) {
            most_workers = workers;
            break;
        }
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

// A forked child has none of its parent's threads, and they may have held locks.
static void forget(void) {
    workers = 0, most_workers = MOST;
    pthread_mutex_init(&turn, NULL);
    make_bell(&done);
}

__attribute__((constructor)) static void open_library(void) {
    make_bell(&done);
    pthread_atfork(NULL, NULL, forget);
}

// Run the kernel on the caller's thread and others that take the pieces as they come; all have
// ended when this returns. The caller's does all of it where one thread is asked for, or the
// workers have another's work. It waits for none that has not begun: one whose core another program
// uses begins milliseconds later.
EXPORTED void share(const Call *call) {
    if (call->threads == 1 || pthread_mutex_trylock(&turn)) {
        for (Index first = 0; first < call->count; first += call->step)
            call->kernel(first, least(first + call->step, call->count), call->given, call->room);
        return;
    }
    int wanted = (int)least(call->threads, (call->count + call->step - 1) / call->step) - 1;
    if (wanted > workers) start(wanted);
    wanted = (int)least(wanted, workers);
    work.call = call;
    work.next = 0;
    work.busy = wanted;
    for (int worker = 0; worker < wanted; ++worker) ring(&begin[worker]);
    take_pieces(0);
    int late = 0;  // workers that have not begun, and now will not
    for (int worker = 0; worker < wanted; ++worker) late += has_rung(&begin[worker]);
    if (late < wanted && !(late && atomic_fetch_sub(&work.busy, late) == late)) await(&done);
    pthread_mutex_unlock(&turn);
}
