// Several runs of one entry in a row, on examples that the device keeps: what begins and what ends each of them.
//
// The host leaves on the desk, which lies in memory behind the plan's arena, what a row of runs needs, and launches the same
// graph once for each. The first kernel of the graph takes the inputs of its run from the examples, the last one notes what
// is to be looked at and goes on to the next run; so nothing changes from launch to launch but memory.

struct Desk {
    unsigned long long images, labels;  // addresses: bytes, example after example
    unsigned seed[2];
    unsigned run;  // how many of the row are complete
    unsigned unused;
};  // followed by the numbers of the examples, run after run

// A byte as a value in [-1, 1]: 0 is -1 and 255 is 1, exactly. In the order of the host's own conversion, so with its bits.
static __device__ float to_unit(unsigned char pixel) {
    return 2.0f * (float)pixel / 255.0f - 1.0f;
}
