// Kernels that measure what a GPU can do at most: bytes and multiply-adds a second, and the time of a launch. The host defines, in front of this text:
//   FLOATS   elements of each of the three arrays of `triad`
//   CHAINS   multiply-adds of each of a thread's chains in `arithmetic`
//   MICROS   roughly for how many microseconds `pause` holds the device

// a = b + s * c, four elements a thread.
extern "C" __global__ void triad(unsigned char* arena) {
    float4* a = (float4*)arena;
    const float4* b = (const float4*)(arena + 4ull * FLOATS);
    const float4* c = (const float4*)(arena + 8ull * FLOATS);
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    const float4 x = b[i], y = c[i];
    a[i] = make_float4(x.x + 0.5f * y.x, x.y + 0.5f * y.y, x.z + 0.5f * y.z, x.w + 0.5f * y.w);
}

// Eight chains of multiply-adds a thread, so that one need not wait for the other. They stay finite, and what they come to
// is stored under a condition that no compiler can decide.
extern "C" __global__ void arithmetic(unsigned char* arena) {
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
extern "C" __global__ void nothing(unsigned char*) {}

// Holds the device while the host hands over what is to be measured, so that nothing waits for the host.
extern "C" __global__ void pause(unsigned char*) {
    for (int i = 0; i < MICROS; ++i) __nanosleep(1000);
}
