// Kernels that measure what a GPU can do at most: bytes and multiply-adds a second, and the time of a launch. They wait for those
// before them, as all kernels do. The host defines, in front of this text:
//   FLOATS   elements of each of the three arrays of `triad`
//   CACHED   floats that `reading` reads again and again, as many as fit the second-level cache
//   READS    how many times each thread reads 16 bytes of them: a multiple of 4
//   CHAINS   multiply-adds of each of a thread's chains in `arithmetic`
//   PIECES   how many pieces of operands, 128 bytes deep, the products by tensor cores multiply
//   MICROS   roughly for how many microseconds `pause` holds the device

// a = b + s * c, four elements a thread.
extern "C" __global__ void triad(unsigned char* arena) {
    await_predecessors();
    float4* a = (float4*)arena;
    const float4* b = (const float4*)(arena + 4ull * FLOATS);
    const float4* c = (const float4*)(arena + 8ull * FLOATS);
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    const float4 x = b[i], y = c[i];
    a[i] = make_float4(x.x + 0.5f * y.x, x.y + 0.5f * y.y, x.z + 0.5f * y.z, x.w + 0.5f * y.w);
}

// Reads what is in the second-level cache: past the first-level one, as asynchronous copies do. All threads together go
// through the floats from the start to the end, and again.
extern "C" __global__ void reading(unsigned char* arena) {
    await_predecessors();
    const float4* const floats = (const float4*)arena;
    const unsigned threads = gridDim.x * blockDim.x;
    unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    float total = 0.0f;
    for (unsigned read = 0; read < READS; read += 4) {
        float4 x[4];
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) x[i] = __ldcg(floats + (at + i * threads) % (CACHED / 4));
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) total += x[i].x + x[i].y + x[i].z + x[i].w;
        at = (at + 4 * threads) % (CACHED / 4);
    }
    if (total == 0.1f) *(float*)arena = total;
}

// Eight chains of multiply-adds a thread, so that one need not wait for the other. They stay finite, and what they come to
// is stored under a condition that no compiler can decide.
extern "C" __global__ void arithmetic(unsigned char* arena) {
    await_predecessors();
    float sums[8];
    const float x = threadIdx.x;
    for (int i = 0; i < 8; ++i) sums[i] = x + i;
    for (int step = 0; step < CHAINS; ++step) {
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[i] = fmaf(sums[i], 0.5f, x);
    }
    float total = 0.0f;
    for (int i = 0; i < 8; ++i) total += sums[i];
    if (total == 0.1f) *(float*)arena = total;
}

// Its time is that of a launch.
extern "C" __global__ void nothing(unsigned char*) { await_predecessors(); }

// Products by tensor cores of operands that are there already, as the fastest kernels here multiply: by warpgroups where there
// are some. A block has 64 x 256 results. What they come to is stored as above.
#if MEASURES_TENSOR_CORES
// A sum after the wait for it, before which the compiler could move an addition.
static __device__ __forceinline__ float there(float sum) {
#ifndef GCC_GAN_HOST
    asm volatile("" : "+f"(sum)::"memory");
#endif
    return sum;
}

template <class Element>
static __device__ __forceinline__ void multiply_pieces(unsigned char* arena) {
    float total = 0.0f;
#if MEASURES_WARPGROUPS
    using A = Lines<Element, 64, true, 128>;
    using B = Lines<Element, 256, true, 128>;
    unsigned char* const lines = shared_lines();
    for (unsigned i = threadIdx.x; i < (A::BYTES + B::BYTES) / 4; i += blockDim.x) ((float*)lines)[i] = 0.125f * (float)(i % 7);
    show_copies();
    __syncthreads();
    float sums[128] = {};
#pragma unroll 1
    for (unsigned piece = 0; piece < PIECES; ++piece) {
        begin_multiplying();
#pragma unroll
        for (unsigned part = 0; part < 4; ++part) {
            multiply_lines<true, true>(sums, A::part_at(lines, 0, part), B::part_at(lines + A::BYTES, 0, part), Element());
        }
        end_multiplying();
        await_products<1>();
    }
    await_products<0>();
#pragma unroll
    for (unsigned i = 0; i < 128; ++i) total += there(sums[i]);
#else
    // Each of four warps has 64 x 64.
    float sums[4][8][4] = {};
    unsigned a[4][4], b[8][2];
#pragma unroll
    for (unsigned i = 0; i < 32; ++i) {
        const unsigned x = (unsigned)__float_as_int(0.125f * (float)((threadIdx.x + i) % 7));
        if (i < 16) a[i / 4][i % 4] = x;
        if (i >= 16) b[i / 2 % 8][i % 2] = x;
    }
#pragma unroll 1
    for (unsigned part = 0; part < 4 * PIECES; ++part) {
#pragma unroll
        for (unsigned i = 0; i < 32; ++i) {
            float(&own)[4] = sums[i / 8][i % 8];
            if constexpr (sizeof(Element) == 4) {
                multiply_tf32(own, a[i / 8], b[i % 8][0], b[i % 8][1]);
            } else {
                multiply_bf16(own, a[i / 8], b[i % 8][0], b[i % 8][1]);
            }
        }
    }
#pragma unroll
    for (unsigned i = 0; i < 128; ++i) total += sums[i / 32][i / 4 % 8][i % 4];
#endif
    if (total == 0.1f) *(float*)arena = total;
}

extern "C" __global__ void __launch_bounds__(128) products_of_tf32(unsigned char* arena) {
    await_predecessors();
    multiply_pieces<float>(arena);
}

extern "C" __global__ void __launch_bounds__(128) products_of_bf16(unsigned char* arena) {
    await_predecessors();
    multiply_pieces<unsigned short>(arena);
}
#endif

// Holds the device while the host hands over what is to be measured, so that nothing waits for the host.
extern "C" __global__ void pause(unsigned char*) {
    await_predecessors();
    for (int i = 0; i < MICROS; ++i) __nanosleep(1000);
}
