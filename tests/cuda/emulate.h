// Runs CUDA C++ on the host: blocks one after the other, each thread of a block a fiber.
//
// Barriers and warp shuffles are where fibers change, so what a kernel computes is what a device would
// compute, in the same order of additions. The fibers of a block can run in either order: a kernel whose
// result depends on it has a race. A barrier or shuffle that not all threads reach ends the program.

#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <vector>

#define __global__
#define __device__
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(threads)

struct Dim {
    unsigned x, y, z;
};
static Dim threadIdx, blockIdx, blockDim, gridDim;

struct float2 {
    float x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline int __float_as_int(float value) {
    int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

namespace emulation {

typedef void (*Kernel)(unsigned char* arena);
enum class At { Running, Barrier, Shuffle, End };

struct Fiber {
    ucontext_t context;
    At at;
    float value;    // given to a shuffle
    unsigned lane;  // from which a shuffle takes its result
    float result;
};

const size_t STACK = 64 * 1024;
static std::vector<Fiber> fibers(1024);
static std::vector<char> stacks(1024 * STACK);
static ucontext_t scheduler;
static unsigned current;
static Kernel kernel;
static unsigned char* arena;

static void yield(At at) {
    fibers[current].at = at;
    swapcontext(&fibers[current].context, &scheduler);
}

static void entry() {
    kernel(arena);
    yield(At::End);
}

static void resume(unsigned thread) {
    current = thread;
    threadIdx = {thread, 0, 0};
    fibers[thread].at = At::Running;
    swapcontext(&scheduler, &fibers[thread].context);
}

// Whether all of some threads are at one place.
static bool all_at(At at, unsigned first, unsigned count) {
    for (unsigned t = first; t < first + count; ++t) {
        if (fibers[t].at != at) return false;
    }
    return true;
}

static void run_block(unsigned threads, bool backwards) {
    for (unsigned t = 0; t < threads; ++t) {
        Fiber& fiber = fibers[t];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = &stacks[t * STACK];
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, entry, 0);
        fiber.at = At::Running;
    }
    while (true) {
        for (unsigned i = 0; i < threads; ++i) {
            const unsigned t = backwards ? threads - 1 - i : i;
            if (fibers[t].at == At::Running) resume(t);
        }
        if (all_at(At::End, 0, threads)) return;
        bool moved = all_at(At::Barrier, 0, threads);
        if (moved) {
            for (unsigned t = 0; t < threads; ++t) fibers[t].at = At::Running;
            continue;
        }
        for (unsigned first = 0; first + 32 <= threads; first += 32) {
            if (!all_at(At::Shuffle, first, 32)) continue;
            for (unsigned t = first; t < first + 32; ++t) fibers[t].result = fibers[first + fibers[t].lane].value;
            for (unsigned t = first; t < first + 32; ++t) fibers[t].at = At::Running;
            moved = true;
        }
        if (!moved) {
            fprintf(stderr, "some threads of block %u wait for others that do not come\n", blockIdx.x);
            exit(3);
        }
    }
}

static void launch(Kernel function, unsigned grid, unsigned block, unsigned char* memory, bool backwards) {
    kernel = function;
    arena = memory;
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    for (unsigned b = 0; b < grid; ++b) {
        blockIdx = {backwards ? grid - 1 - b : b, 0, 0};
        run_block(block, backwards);
    }
}

// Reads `bytes` of an arena from a file, or writes them.
static void transfer(FILE* file, unsigned char* memory, size_t bytes, bool write) {
    const size_t done = write ? fwrite(memory, 1, bytes, file) : fread(memory, 1, bytes, file);
    if (done != bytes) {
        fprintf(stderr, "%zu of %zu bytes\n", done, bytes);
        exit(4);
    }
}

}  // namespace emulation

static inline void __syncthreads() { emulation::yield(emulation::At::Barrier); }

static inline float __shfl_xor_sync(unsigned, float value, int distance) {
    emulation::Fiber& fiber = emulation::fibers[emulation::current];
    fiber.value = value;
    fiber.lane = (emulation::current % 32) ^ (unsigned)distance;
    emulation::yield(emulation::At::Shuffle);
    return emulation::fibers[emulation::current].result;
}
