// The rig's device: what stands where CUDA's runtime and driver would be. rig.py puts each function
// runtime_NAME or driver_NAME below in the place of CuPy's own NAME, and compares the declarations.
//
// There are two GPUs of 80 GiB, of compute capability 9.0. Their memory is the host's, 0 where it is
// fresh. Whatever is asked for is done at once, but for kernels and copies on a GPU, which do nothing. A launch, a
// module or a block of memory that CUDA would refuse is refused here as well.
#define _GNU_SOURCE
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { GPUS = 2, PAGE = 4096 };
enum { MEMORY_ALLOCATION = 2, INVALID_VALUE = 1, INVALID_CONFIGURATION = 9, INVALID_DEVICE = 101 };
enum { CAPTURE_UNSUPPORTED = 900, CAPTURE_IMPLICIT = 906, HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2 };
static const size_t TOTAL = (size_t)80 << 30;

// How often each was asked for; rig.counts() reads them.
long count_launches, count_copies, count_waits, count_blocks, count_pinned, count_modules;
long count_captured, count_graphs;  // launches and products put into graphs, and graphs launched

// CuPy's runtime.check_status, which raises a CUDARuntimeError; rig.py sets it.
PyObject *(*check_status)(int, int);

static _Thread_local int current;  // the number of this thread's GPU
static size_t used[GPUS];
static intptr_t handles = 1 << 20;  // streams and functions are numbers that nobody else has

static int failed(int status) {
    PyObject *answer = check_status(status, 0);
    Py_XDECREF(answer);
    return answer == NULL;
}

static PyObject *none(void) { Py_RETURN_NONE; }

static PyObject *counted(long *what) {
    ++*what;
    return none();
}

static _Thread_local intptr_t capturing;  // the stream that this thread captures, if it does

// A copy or a wait, which cannot be captured.
static PyObject *at_once(long *what) {
    return capturing ? check_status(CAPTURE_UNSUPPORTED, 0) : counted(what);
}

// A launch on a stream; the default one must not be used beside a capture.
static PyObject *launched(intptr_t stream) {
    if (capturing && stream != capturing) return check_status(CAPTURE_IMPLICIT, 0);
    return counted(capturing ? &count_captured : &count_launches);
}

// ----------------------------------------------------------------------------------------- devices
int runtime_driverGetVersion(int skip) { return 13020; }
int runtime_getDevice(int skip) { return current; }
int runtime_getDeviceCount(int skip) { return GPUS; }
int runtime_deviceCanAccessPeer(int device, int peer, int skip) { return 1; }
PyObject *runtime__deviceEnsurePeerAccess(int peer, int skip) { return none(); }
PyObject *runtime__ensure_context(void) { return none(); }
PyObject *runtime_deviceSynchronize(int skip) { return at_once(&count_waits); }
intptr_t driver_ctxGetCurrent(int skip) { return 1; }

PyObject *runtime_setDevice(int device, int skip) {
    if (device < 0 || device >= GPUS) return check_status(INVALID_DEVICE, 0);
    current = device;
    return none();
}

// By the numbers of cudaDeviceAttr: an H100's. What is not here is an error, so that it is noticed.
int runtime_deviceGetAttribute(int attribute, int device, int skip) {
    static const int known[][2] = {
        {1, 1024}, {8, 49152}, {10, 32}, {16, 132}, {39, 2048}, {75, 9}, {76, 0}, {81, 233472},
        {83, 0}, {88, 0}, {89, 0}, {97, 232448}, {100, 0}, {115, 1},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
        if (known[i][0] == attribute) return known[i][1];
    failed(INVALID_VALUE);
    return -1;
}

PyObject *runtime_getDeviceProperties(int device, int skip) {
    if (device < 0 || device >= GPUS) return check_status(INVALID_DEVICE, 0);
    return Py_BuildValue(
        "{sysnsisisisisisisisisi}", "name", "rig, no GPU", "totalGlobalMem", (Py_ssize_t)TOTAL,
        "major", 9, "minor", 0, "multiProcessorCount", 132, "memoryBusWidth", 5120, "warpSize", 32,
        "l2CacheSize", 50 << 20, "regsPerBlock", 65536, "sharedMemPerBlock", 49152,
        "maxThreadsPerBlock", 1024);
}

// ------------------------------------------------------------------------------------------ memory
// A page before each block says how large it is and whose.
typedef struct {
    size_t size;
    int gpu;  // -1 for the host's
} Block;

static intptr_t take(size_t size, int gpu) {
    if (gpu >= 0 && used[gpu] + size > TOTAL) return failed(MEMORY_ALLOCATION), 0;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *page = mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (page == MAP_FAILED) return failed(MEMORY_ALLOCATION), 0;
    *(Block *)page = (Block){size, gpu};
    if (gpu >= 0) used[gpu] += size;
    return (intptr_t)(page + PAGE);
}

static PyObject *give_back(intptr_t block) {
    if (!block) return none();
    Block *page = (Block *)(block - PAGE);
    if (page->gpu >= 0) used[page->gpu] -= page->size;
    munmap(page, page->size + PAGE);
    return none();
}

static PyObject *copy(intptr_t target, intptr_t source, size_t size) {
    if (!capturing) memmove((void *)target, (void *)source, size);
    return at_once(&count_copies);
}

static PyObject *fill(intptr_t target, int value, size_t size) {
    if (!capturing) memset((void *)target, value, size);
    return none();
}

PyObject *runtime_memGetInfo(int skip) {
    return Py_BuildValue("(nn)", (Py_ssize_t)(TOTAL - used[current]), (Py_ssize_t)TOTAL);
}
intptr_t runtime_malloc(size_t size, int skip) { return ++count_blocks, take(size, current); }
PyObject *runtime_free(intptr_t block, int skip) { return give_back(block); }
intptr_t runtime_hostAlloc(size_t size, unsigned int flags, int skip) {
    return ++count_pinned, take(size, -1);
}
PyObject *runtime_freeHost(intptr_t block, int skip) { return give_back(block); }
PyObject *runtime_memcpy(intptr_t target, intptr_t source, size_t size, int kind, int skip) {
    return copy(target, source, size);
}
PyObject *runtime_memcpyAsync(
    intptr_t target, intptr_t source, size_t size, int kind, intptr_t stream, int skip) {
    if (kind == HOST_TO_DEVICE || kind == DEVICE_TO_HOST) return copy(target, source, size);
    return counted(capturing ? &count_captured : &count_copies);  // the GPU's work, like a kernel
}
PyObject *runtime_memcpyPeer(
    intptr_t target, int there, intptr_t source, int here, size_t size, int skip) {
    return copy(target, source, size);
}
PyObject *runtime_memcpyPeerAsync(
    intptr_t target, int there, intptr_t source, int here, size_t size, intptr_t stream, int skip) {
    return copy(target, source, size);
}
PyObject *runtime_memset(intptr_t target, int value, size_t size, int skip) {
    return fill(target, value, size);
}
PyObject *runtime_memsetAsync(
    intptr_t target, int value, size_t size, intptr_t stream, int skip) {
    return fill(target, value, size);
}
int runtime_pointerGetMemoryType(intptr_t address, int skip) { return 2; }  // a device's
PyObject *runtime_pointerGetAttributes(intptr_t address, int skip) {
    PyObject *runtime = PyImport_ImportModule("cupy_backends.cuda.api.runtime"), *found = NULL;
    if (runtime)
        found = PyObject_CallMethod(
            runtime, "PointerAttributes", "inni", current, (Py_ssize_t)address, (Py_ssize_t)0, 2);
    Py_XDECREF(runtime);
    return found;
}

// ------------------------------------------------------------------------------ streams and events
// An event is the time at which it was recorded, in ms.
intptr_t runtime_streamCreate(int skip) { return ++handles; }
intptr_t runtime_streamCreateWithFlags(unsigned int flags, int skip) { return ++handles; }
intptr_t runtime_streamCreateWithPriority(unsigned int flags, int priority, int skip) {
    return ++handles;
}
unsigned int runtime_streamGetFlags(intptr_t stream, int skip) { return 1; }
int runtime_streamIsCapturing(intptr_t stream, int skip) { return capturing && stream == capturing; }
PyObject *runtime_streamQuery(intptr_t stream, int skip) { return PyLong_FromLong(0); }
PyObject *runtime_streamDestroy(intptr_t stream, int skip) { return none(); }
PyObject *runtime_streamSynchronize(intptr_t stream, int skip) { return at_once(&count_waits); }
PyObject *runtime_streamWaitEvent(intptr_t stream, intptr_t event, int skip, void *optional) {
    return none();
}
intptr_t runtime_eventCreateWithFlags(unsigned int flags, int skip) {
    return (intptr_t)calloc(1, sizeof(double));
}
intptr_t runtime_eventCreate(int skip) { return runtime_eventCreateWithFlags(0, skip); }
PyObject *runtime_eventDestroy(intptr_t event, int skip) { return free((void *)event), none(); }
PyObject *runtime_eventRecord(intptr_t event, intptr_t stream, int skip) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *(double *)event = 1e3 * now.tv_sec + 1e-6 * now.tv_nsec;
    return none();
}
PyObject *runtime_eventQuery(intptr_t event, int skip) { return PyLong_FromLong(0); }
PyObject *runtime_eventSynchronize(intptr_t event, int skip) { return at_once(&count_waits); }
float runtime_eventElapsedTime(intptr_t begin, intptr_t end, int skip) {
    return (float)(*(double *)end - *(double *)begin);
}

// ------------------------------------------------------------------------------------------ graphs
// Nothing is in them: what is captured is counted.
PyObject *runtime_streamBeginCapture(intptr_t stream, int skip, void *optional) {
    if (!stream || capturing) return check_status(CAPTURE_UNSUPPORTED, 0);
    capturing = stream;
    return none();
}
intptr_t runtime_streamEndCapture(intptr_t stream, int skip) {
    if (stream != capturing) return failed(CAPTURE_UNSUPPORTED), 0;
    capturing = 0;
    return ++handles;
}
intptr_t runtime_graphInstantiate(intptr_t graph, int skip) { return ++handles; }
PyObject *runtime_graphLaunch(intptr_t graph, intptr_t stream, int skip) { return at_once(&count_graphs); }
PyObject *runtime_graphExecDestroy(intptr_t graph, int skip) { return none(); }
PyObject *runtime_graphDestroy(intptr_t graph, int skip) { return none(); }

// ----------------------------------------------------------------------------------------- kernels
// A module is the bytes that NVRTC made: machine code in ELF, with a section for each kernel.
intptr_t driver_moduleLoadData(PyObject *image, int skip) {
    if (PyBytes_GET_SIZE(image) < 4 || memcmp(PyBytes_AS_STRING(image), "\177ELF", 4))
        return PyErr_SetString(PyExc_RuntimeError, "CUDA_ERROR_INVALID_IMAGE: no machine code"), 0;
    Py_INCREF(image);
    return ++count_modules, (intptr_t)image;
}
PyObject *driver_moduleUnload(intptr_t module, int skip) {
    Py_DECREF((PyObject *)module);
    return none();
}
intptr_t driver_moduleGetFunction(intptr_t module, PyObject *name, int skip) {
    PyObject *image = (PyObject *)module, *section = PyUnicode_FromFormat(".text.%U", name);
    Py_ssize_t length;
    const char *wanted = section ? PyUnicode_AsUTF8AndSize(section, &length) : NULL;
    if (!wanted) return Py_XDECREF(section), 0;
    int there = !!memmem(PyBytes_AS_STRING(image), PyBytes_GET_SIZE(image), wanted, length + 1);
    Py_DECREF(section);
    if (!there) PyErr_Format(PyExc_RuntimeError, "CUDA_ERROR_NOT_FOUND: no kernel %U", name);
    return there ? ++handles : 0;
}
PyObject *driver_launchKernel(
    intptr_t function, unsigned int x, unsigned int y, unsigned int z, unsigned int bx,
    unsigned int by, unsigned int bz, unsigned int shared, intptr_t stream, intptr_t args,
    intptr_t extra, int skip) {
    if (!x || !y || !z || y > 65535 || z > 65535 || !bx || !by || !bz || bx * by * bz > 1024)
        return check_status(INVALID_CONFIGURATION, 0);
    return launched(stream);
}
int driver_funcGetAttribute(int attribute, intptr_t function, int skip) { return 1024; }
PyObject *driver_funcSetAttribute(intptr_t function, int attribute, int value, int skip) {
    return none();
}
int driver_occupancyMaxActiveBlocksPerMultiprocessor(
    intptr_t function, int threads, size_t shared, int skip) {
    return 8;
}
