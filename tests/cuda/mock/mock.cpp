// NVIDIA's two libraries, as far as the executor calls them, without a GPU: libnvrtc, whose code is the kernels' text
// compiled for the host with emulate.h, and libcuda, which runs that code. One file, loaded under both names.
//
// It is stricter than a driver. Work waits in its stream until somebody waits for it, so what is read or overwritten too
// early comes out wrong. Memory begins as NaN, and the pages around it can't be touched. A call without a current context,
// or with what was given back, is an error.
//
// The environment says what kind of a machine it is:
//   GCC_GAN_MOCK_ORDER   first, last or random:SEED: in which order a graph's nodes run where edges leave it open, and the
//                        blocks and threads of each
//   GCC_GAN_MOCK_FAULT   old_driver, no_device, out_of_memory, no_cubin (only PTX is taken), no_binary (nothing is),
//                        no_programmatic (edges can't be),
//                        full_at_graph:N: there is no memory for graph number N, or
//                        illegal_address:N, lost:N, unheard_of:N: that error at launch number N, and ever after
//   GCC_GAN_MOCK_KILL    N: the process is killed at launch number N
//   GCC_GAN_MOCK_MEMORY  bytes of memory; 1 GiB
//   GCC_GAN_MOCK_ARCHITECTURE  the GPU's compute capability times ten: 80, unless said. From 90 on edges can be programmatic: a
//                        kernel at such an edge must wait in all threads
//   GCC_GAN_MOCK_GRAPHS  any: how many edges of either kind each graph has is written to standard error
//   GCC_GAN_MOCK_LOG     a file to which a line is added for each text that is compiled and each module that is loaded

#include <dlfcn.h>
#include <elf.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#define API(name) extern "C" __attribute__((visibility("default"))) unsigned name

namespace {

enum : unsigned {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201, NO_BINARY_FOR_GPU = 209, ECC_UNCORRECTABLE = 214, INVALID_HANDLE = 400, NOT_FOUND = 500,
    NOT_READY = 600, ILLEGAL_ADDRESS = 700, UNHEARD_OF = 4321
};

std::string setting(const char* name) {
    const char* value = getenv(name);
    return value ? value : "";
}


bool has_fault(const char* name) { return setting("GCC_GAN_MOCK_FAULT") == name; }

// N of a fault `name:N`, or 0.
unsigned number_of_fault(const std::string& name) {
    const std::string fault = setting("GCC_GAN_MOCK_FAULT");
    return fault.rfind(name + ":", 0) == 0 ? (unsigned)atoi(fault.c_str() + name.size() + 1) : 0;
}

unsigned capability() {
    const std::string value = setting("GCC_GAN_MOCK_ARCHITECTURE");
    return value.empty() ? 80 : (unsigned)atoi(value.c_str());
}

void note(const std::string& line) {
    const std::string path = setting("GCC_GAN_MOCK_LOG");
    if (path.empty()) return;
    FILE* file = fopen(path.c_str(), "a");
    fprintf(file, "%s\n", line.c_str());
    fclose(file);
}

// --- Compiling for the host -------------------------------------------------------------------

std::string own_folder() {
    Dl_info info;
    dladdr((void*)own_folder, &info);
    const std::string path = info.dli_fname;
    return path.substr(0, path.rfind('/'));
}

std::string read_file(const std::string& path) {
    std::string content;
    if (FILE* file = fopen(path.c_str(), "rb")) {
        char part[1 << 16];
        while (const size_t read = fread(part, 1, sizeof part, file)) content.append(part, read);
        fclose(file);
    }
    return content;
}

// A shared object of a text of CUDA C++; false, and a log, where the compiler refuses it.
bool compile(const std::string& text, std::string& object, std::string& log) {
    char folder[] = "/tmp/gcc-gan-mock-XXXXXX";
    if (!mkdtemp(folder)) return false;
    const std::string source = std::string(folder) + "/kernel.cpp", made = std::string(folder) + "/kernel.so";
    FILE* file = fopen(source.c_str(), "w");
    fprintf(file, "#include \"emulate.h\"\n#line 1 \"kernel.cu\"\n%s\n%s", text.c_str(),
            "extern \"C\" size_t run_on_host(emulation::Kernel kernel, unsigned grid, unsigned block, size_t shared,\n"
            "                              unsigned char* arena, bool backwards) {\n"
            "    emulation::launch(kernel, grid, block, shared, arena, backwards);\n"
            "    return emulation::awaits;\n}\n");
    fclose(file);
    const std::string flags = read_file(own_folder() + "/flags");
    const std::string command = flags + " -shared -I '" + own_folder() + "' " + source + " -o " + made + " 2>&1";
    FILE* output = popen(command.c_str(), "r");
    char line[4096];
    while (fgets(line, sizeof line, output)) log += line;
    const bool compiled = pclose(output) == 0;
    object = compiled ? read_file(made) : "";
    for (const std::string& path : {source, made}) unlink(path.c_str());
    rmdir(folder);
    return compiled;
}

struct Program {
    std::string text, log, object;
    unsigned architecture;
};

// A cubin says in this field of its header what it is for.
void set_flags(std::string& object, unsigned flags) { ((Elf64_Ehdr*)&object[0])->e_flags = flags; }
const unsigned OWN = 1 << 16;  // sm_90a

// Compiles a text once, whatever it is compiled for.
bool compile_once(const std::string& text, std::string& object, std::string& log) {
    static std::mutex mutex;
    static std::map<std::string, std::string> all;
    {
        std::lock_guard<std::mutex> lock(mutex);
        const auto found = all.find(text);
        if (found != all.end()) return object = found->second, true;
    }
    if (!compile(text, object, log)) return false;
    std::lock_guard<std::mutex> lock(mutex);
    return all[text] = object, true;
}

const int ARCHITECTURES[] = {75, 80, 90};

}  // namespace

// --- NVRTC ------------------------------------------------------------------------------------

API(nvrtcVersion)(int* major, int* minor) { return *major = 12, *minor = 8, 0; }
API(nvrtcGetNumSupportedArchs)(int* count) { return *count = 3, 0; }
API(nvrtcGetSupportedArchs)(int* all) { return memcpy(all, ARCHITECTURES, sizeof ARCHITECTURES), 0; }
extern "C" const char* nvrtcGetErrorString(unsigned status) {
    return status == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_INVALID_INPUT";
}
API(nvrtcCreateProgram)(Program** program, const char* text, const char*, int, const char**, const char**) {
    return *program = new Program{text, "", "", 0}, 0;
}
API(nvrtcDestroyProgram)(Program** program) { return delete *program, *program = nullptr, 0; }
API(nvrtcCompileProgram)(Program* program, int count, const char** options) {
    bool is_exact = false, is_own = false;
    unsigned long given = 0;
    for (int i = 0; i < count; ++i) {
        char* end = nullptr;
        for (const char* start : {"--gpu-architecture=sm_", "--gpu-architecture=compute_"}) {
            if (strncmp(options[i], start, strlen(start)) != 0) continue;
            program->architecture = (unsigned)strtoul(options[i] + strlen(start), &end, 10);
            is_exact = strstr(start, "sm_") != nullptr;
            is_own = *end == 'a';
        }
        given += strcmp(options[i], "--fmad=false") == 0;
    }
    bool is_known = false;
    for (int known : ARCHITECTURES) is_known |= (unsigned)known == program->architecture;
    if (!is_known || given != 1) return program->log = "the mock is to be given an architecture and --fmad=false", 6;
    if (is_exact && is_own != (program->architecture >= 90)) return program->log = "sm_90a and sm_80 are meant", 6;
    note("compile " + std::to_string(program->architecture));
    if (!is_exact) return 0;  // there is no cubin then
    if (!compile_once(program->text, program->object, program->log)) return 6;
    return set_flags(program->object, program->architecture | (is_own ? OWN : 0)), 0;
}
API(nvrtcGetProgramLogSize)(Program* program, size_t* size) { return *size = program->log.size() + 1, 0; }
API(nvrtcGetProgramLog)(Program* program, char* log) { return strcpy(log, program->log.c_str()), 0; }
// Its PTX is the text, after the lines that PTX begins with: the driver compiles it.
std::string ptx_of(const Program* program) {
    return ".version 8.7\n.target sm_" + std::to_string(program->architecture) + "\n.address_size 64\n" + program->text;
}
API(nvrtcGetPTXSize)(Program* program, size_t* size) { return *size = ptx_of(program).size() + 1, 0; }
API(nvrtcGetPTX)(Program* program, char* ptx) { return strcpy(ptx, ptx_of(program).c_str()), 0; }
API(nvrtcGetCUBINSize)(Program* program, size_t* size) { return *size = program->object.size(), 0; }
API(nvrtcGetCUBIN)(Program* program, char* to) {
    return memcpy(to, program->object.data(), program->object.size()), 0;
}

// --- The device -------------------------------------------------------------------------------

namespace {

typedef std::chrono::steady_clock Clock;
typedef void (*Kernel)(unsigned char* arena);
// Gives the number of threads that waited for the kernels before.
typedef size_t (*Run)(Kernel, unsigned grid, unsigned block, size_t shared, unsigned char* arena, bool backwards);

struct Module {
    void* library;
    int file;
    Run run;
};

struct Function {
    Kernel kernel;
    Run run;
    unsigned most_shared;
};

struct Launch {
    const Function* function;
    unsigned grid, block, shared;
    unsigned char* arena;
    std::vector<size_t> after;  // positions of earlier nodes of its graph
    size_t programmatic = 0;    // how many of these edges are
};

// As the driver has it: CUDA_KERNEL_NODE_PARAMS.
struct NodeParameters {
    const Function* function;
    unsigned grid[3], block[3], shared;
    void **arguments, **extra;
    void *kernel, *context;
};

struct Event {
    bool recorded, happened;
    Clock::time_point time;
};

struct Stream {
    std::deque<std::function<void()>> work;
};

struct Graph {
    std::vector<Launch> nodes;
};

struct Mapping {
    size_t bytes;  // that were asked for
    unsigned char* whole;
    size_t whole_bytes;
};

std::recursive_mutex mutex;
unsigned broken = SUCCESS;  // the error after which nothing works
unsigned launches = 0;
bool started = false;
int retained = 0;
thread_local bool entered = false;
std::set<Stream*> streams;
std::map<unsigned char*, Mapping> memory;
std::vector<std::unique_ptr<Function>> functions;
std::mt19937 random_order;

// Memory that ends (but for what alignment asks for) where a page that can't be touched begins, as does the page before.
unsigned char* map(size_t bytes) {
    const size_t page = 4096, aligned = (bytes + 255) / 256 * 256, inside = (aligned + page - 1) / page * page;
    void* whole = mmap(nullptr, inside + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (whole == MAP_FAILED) return nullptr;
    unsigned char* const start = (unsigned char*)whole + page;
    mprotect(start, inside, PROT_READ | PROT_WRITE);
    memset(start, 0xff, inside);
    unsigned char* const base = start + inside - aligned;
    memory[base] = {bytes, (unsigned char*)whole, inside + 2 * page};
    return base;
}

bool is_inside(const unsigned char* start, size_t bytes) {
    auto next = memory.upper_bound((unsigned char*)start);
    if (next == memory.begin()) return false;
    --next;
    return start + bytes <= next->first + next->second.bytes;
}

void run(const Launch& launch) {
    ++launches;
    const struct { const char* name; unsigned error; } faults[] = {
        {"illegal_address", ILLEGAL_ADDRESS}, {"lost", ECC_UNCORRECTABLE}, {"unheard_of", UNHEARD_OF}};
    for (const auto& fault : faults) {
        if (number_of_fault(fault.name) == launches) broken = fault.error;
    }
    if (setting("GCC_GAN_MOCK_KILL") == std::to_string(launches)) raise(SIGKILL);
    if (memory.find(launch.arena) == memory.end()) broken = ILLEGAL_ADDRESS;
    if (broken) return;
    const std::string order = setting("GCC_GAN_MOCK_ORDER");
    const bool backwards = order == "last" || (order.rfind("random", 0) == 0 && random_order() % 2 == 0);
    const size_t awaits = launch.function->run(launch.function->kernel, launch.grid, launch.block, launch.shared,
                                               launch.arena, backwards);
    if (launch.programmatic > 0 && awaits != (size_t)launch.grid * launch.block) {
        fprintf(stderr, "mock: %zu threads waited for the kernels before, of %u x %u\n", awaits, launch.grid, launch.block);
        broken = ILLEGAL_ADDRESS;
    }
}

void run_graph(const Graph& graph) {
    const std::string order = setting("GCC_GAN_MOCK_ORDER");
    std::vector<bool> complete(graph.nodes.size());
    for (size_t count = 0; count < graph.nodes.size(); ++count) {
        std::vector<size_t> ready;
        for (size_t node = 0; node < graph.nodes.size(); ++node) {
            bool is_ready = !complete[node];
            for (size_t before : graph.nodes[node].after) is_ready = is_ready && complete[before];
            if (is_ready) ready.push_back(node);
        }
        size_t next = ready.front();
        if (order == "last") next = ready.back();
        if (order.rfind("random", 0) == 0) next = ready[random_order() % ready.size()];
        run(graph.nodes[next]);
        complete[next] = true;
    }
}

void work_until(Stream* stream, const std::function<bool()>& enough) {
    while (!stream->work.empty() && !enough()) {
        const std::function<void()> next = stream->work.front();
        stream->work.pop_front();
        if (!broken) next();
    }
}

// What gives something back waits for all that may use it.
void finish() {
    for (Stream* stream : streams) work_until(stream, [] { return false; });
}

unsigned check(const Launch& launch) {
    const bool fits = launch.grid > 0 && launch.block > 0 && launch.block <= 1024;
    return fits && launch.shared <= launch.function->most_shared ? SUCCESS : INVALID_VALUE;
}

unsigned load(Module** module, const char* image) {
    std::string object, log;
    if (memcmp(image, ELFMAG, SELFMAG) == 0) {
        const Elf64_Ehdr* header = (const Elf64_Ehdr*)image;
        const unsigned made_for = header->e_flags % OWN, own = header->e_flags / OWN, here = capability();
        const bool runs = own ? made_for == here : made_for / 10 == here / 10 && made_for <= here;
        if (has_fault("no_cubin") || !runs) return NO_BINARY_FOR_GPU;
        object.assign(image, header->e_shoff + (size_t)header->e_shnum * header->e_shentsize);
        set_flags(object, 0);
        note("load cubin " + std::to_string(made_for));
    } else {
        unsigned version, minor, made_for;
        int start = 0;
        if (sscanf(image, ".version %u.%u\n.target sm_%u\n.address_size 64\n%n", &version, &minor, &made_for, &start) != 3) return INVALID_IMAGE;
        if (made_for > capability()) return NO_BINARY_FOR_GPU;
        if (!compile(image + start, object, log)) return INVALID_IMAGE;
        note("load PTX " + std::to_string(made_for));
    }
    const int file = memfd_create("kernel", 0);
    if (write(file, object.data(), object.size()) != (ssize_t)object.size()) return INVALID_IMAGE;
    void* library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "mock: %s\n", dlerror());
        return INVALID_IMAGE;
    }
    *module = new Module{library, file, (Run)dlsym(library, "run_on_host")};
    return SUCCESS;
}

}  // namespace

// --- The driver -------------------------------------------------------------------------------

// A call that needs the driver, or a context too.
#define STARTED                                          \
    std::lock_guard<std::recursive_mutex> lock(mutex);   \
    if (!started) return 3;                              \
    if (broken) return broken
#define ENTERED \
    STARTED;    \
    if (!entered) return INVALID_CONTEXT

API(cuInit)(unsigned) {
    if (has_fault("no_device")) return NO_DEVICE;
    const std::string order = setting("GCC_GAN_MOCK_ORDER");
    if (order.rfind("random:", 0) == 0) random_order.seed((unsigned)atoi(order.c_str() + 7));
    return started = true, SUCCESS;
}
API(cuDriverGetVersion)(int* version) { return *version = has_fault("old_driver") ? 11040 : 12080, SUCCESS; }
API(cuGetErrorName)(unsigned error, const char** text) {
    static const std::map<unsigned, const char*> names = {
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},       {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},               {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU"}, {ECC_UNCORRECTABLE, "CUDA_ERROR_ECC_UNCORRECTABLE"},
        {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"}};
    const auto found = names.find(error);
    *text = found == names.end() ? nullptr : found->second;
    return *text ? SUCCESS : INVALID_VALUE;
}
API(cuGetErrorString)(unsigned error, const char** text) {
    static const std::map<unsigned, const char*> meanings = {
        {ILLEGAL_ADDRESS, "an illegal memory access was encountered"},
        {ECC_UNCORRECTABLE, "uncorrectable ECC error encountered"},
        {NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"}};
    const auto found = meanings.find(error);
    return found == meanings.end() ? cuGetErrorName(error, text) : (*text = found->second, SUCCESS);
}
API(cuDeviceGetCount)(int* count) {
    STARTED;
    return *count = 1, SUCCESS;
}
API(cuDeviceGet)(int* device, int ordinal) {
    STARTED;
    return ordinal == 0 ? (*device = 0, SUCCESS) : INVALID_DEVICE;
}
API(cuDeviceGetName)(char* name, int length, int) {
    STARTED;
    return snprintf(name, (size_t)length, "Mock GPU"), SUCCESS;
}
API(cuDeviceGetAttribute)(int* value, int attribute, int) {
    STARTED;
    const int here = (int)capability();
    // One multiprocessor, and a cache of 128 KiB.
    const std::map<int, int> values = {{75, here / 10}, {76, here % 10}, {16, 1}, {38, 128 << 10}};
    const auto found = values.find(attribute);
    return found == values.end() ? INVALID_VALUE : (*value = found->second, SUCCESS);
}
API(cuDeviceTotalMem_v2)(size_t* bytes, int) {
    STARTED;
    return *bytes = (size_t)1 << 30, SUCCESS;
}
API(cuDevicePrimaryCtxRetain)(void** context, int) {
    STARTED;
    return ++retained, *context = &retained, SUCCESS;
}
API(cuDevicePrimaryCtxRelease_v2)(int) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    return retained > 0 ? (--retained, SUCCESS) : INVALID_CONTEXT;
}
API(cuCtxSetCurrent)(void* context) {
    STARTED;
    if (context != &retained || retained == 0) return INVALID_CONTEXT;
    return entered = true, SUCCESS;
}

static size_t memory_bytes() {
    const std::string most = setting("GCC_GAN_MOCK_MEMORY");
    return most.empty() ? (size_t)1 << 30 : (size_t)atoll(most.c_str());
}
static size_t taken() {
    size_t all = 0;
    for (const auto& mapping : memory) all += mapping.second.bytes;
    return all;
}
API(cuMemGetInfo_v2)(size_t* free, size_t* total) {
    ENTERED;
    const size_t all = memory_bytes(), used = taken();
    return *free = has_fault("out_of_memory") ? 4096 : used < all ? all - used : 0, *total = all, SUCCESS;
}
API(cuMemAlloc_v2)(unsigned char** base, size_t bytes) {
    ENTERED;
    if (bytes == 0) return INVALID_VALUE;
    if (has_fault("out_of_memory") || taken() + bytes > memory_bytes()) return OUT_OF_MEMORY;
    *base = map(bytes);
    return *base ? SUCCESS : OUT_OF_MEMORY;
}
API(cuMemFree_v2)(unsigned char* base) {
    ENTERED;
    finish();
    const auto found = memory.find(base);
    if (found == memory.end()) return INVALID_VALUE;
    munmap(found->second.whole, found->second.whole_bytes);
    return memory.erase(found), broken;
}
API(cuMemHostAlloc)(unsigned char** base, size_t bytes, unsigned) {
    ENTERED;
    return *base = (unsigned char*)malloc(bytes), SUCCESS;
}
API(cuMemFreeHost)(unsigned char* base) {
    ENTERED;
    return finish(), free(base), broken;
}
API(cuMemcpyHtoDAsync_v2)(unsigned char* to, const void* from, size_t bytes, Stream* stream) {
    ENTERED;
    if (!is_inside(to, bytes)) return INVALID_VALUE;
    return stream->work.push_back([=] { memcpy(to, from, bytes); }), SUCCESS;
}
API(cuMemcpyDtoHAsync_v2)(void* to, const unsigned char* from, size_t bytes, Stream* stream) {
    ENTERED;
    if (!is_inside(from, bytes)) return INVALID_VALUE;
    return stream->work.push_back([=] { memcpy(to, from, bytes); }), SUCCESS;
}
API(cuMemsetD8Async)(unsigned char* at, unsigned char value, size_t bytes, Stream* stream) {
    ENTERED;
    if (!is_inside(at, bytes)) return INVALID_VALUE;
    return stream->work.push_back([=] { memset(at, value, bytes); }), SUCCESS;
}

API(cuModuleLoadDataEx)(Module** module, const char* image, unsigned, int*, void**) {
    ENTERED;
    return has_fault("no_binary") ? (unsigned)NO_BINARY_FOR_GPU : load(module, image);
}
API(cuModuleUnload)(Module* module) {
    ENTERED;
    finish();
    dlclose(module->library);
    close(module->file);
    return delete module, broken;
}
API(cuModuleGetFunction)(Function** function, Module* module, const char* name) {
    ENTERED;
    // Code for sm_80 has no kernel of this name.
    static const Function waits = {};
    if (strcmp(name, "kernels_await_predecessors") == 0) {
        return capability() >= 90 ? (*function = const_cast<Function*>(&waits), SUCCESS) : NOT_FOUND;
    }
    void* const symbol = dlsym(module->library, name);
    if (!symbol) return NOT_FOUND;
    functions.push_back(std::make_unique<Function>(Function{(Kernel)symbol, module->run, 48 * 1024}));
    return *function = functions.back().get(), SUCCESS;
}
API(cuFuncSetAttribute)(Function* function, int attribute, int value) {
    ENTERED;
    if (attribute != 8 || value > 163 * 1024) return INVALID_VALUE;
    return function->most_shared = (unsigned)value, SUCCESS;
}
API(cuLaunchKernel)(const Function* function, unsigned grid, unsigned, unsigned, unsigned block, unsigned, unsigned,
                    unsigned shared, Stream* stream, void** arguments, void**) {
    ENTERED;
    const Launch launch = {function, grid, block, shared, *(unsigned char**)arguments[0], {}};
    if (const unsigned error = check(launch)) return error;
    return stream->work.push_back([=] { run(launch); }), SUCCESS;
}

API(cuStreamCreate)(Stream** stream, unsigned) {
    ENTERED;
    return *stream = new Stream, streams.insert(*stream), SUCCESS;
}
API(cuStreamSynchronize)(Stream* stream) {
    ENTERED;
    return work_until(stream, [] { return false; }), broken;
}
API(cuStreamDestroy_v2)(Stream* stream) {
    ENTERED;
    return finish(), streams.erase(stream), delete stream, broken;
}
API(cuEventCreate)(Event** event, unsigned) {
    ENTERED;
    return *event = new Event{}, SUCCESS;
}
API(cuEventRecord)(Event* event, Stream* stream) {
    ENTERED;
    event->recorded = true;
    event->happened = false;
    return stream->work.push_back([=] { event->happened = true, event->time = Clock::now(); }), SUCCESS;
}
API(cuEventSynchronize)(Event* event) {
    ENTERED;
    for (Stream* stream : streams) work_until(stream, [=] { return !event->recorded || event->happened; });
    return broken;
}
API(cuEventDestroy_v2)(Event* event) {
    ENTERED;
    return finish(), delete event, broken;
}
API(cuEventElapsedTime)(float* milliseconds, const Event* from, const Event* to) {
    ENTERED;
    if (!from->recorded || !to->recorded) return INVALID_HANDLE;
    if (!from->happened || !to->happened) return NOT_READY;
    return *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count(), SUCCESS;
}

API(cuGraphCreate)(Graph** graph, unsigned) {
    ENTERED;
    return *graph = new Graph, SUCCESS;
}
API(cuGraphDestroy)(Graph* graph) {
    ENTERED;
    return delete graph, SUCCESS;
}
// A node's handle is its position, counted from 1.
API(cuGraphAddKernelNode_v2)(size_t* node, Graph* graph, const size_t* after, size_t count, const NodeParameters* given) {
    ENTERED;
    Launch launch = {given->function, given->grid[0], given->block[0], given->shared, *(unsigned char**)given->arguments[0],
                     {}};
    for (size_t i = 0; i < count; ++i) {
        if (after[i] < 1 || after[i] > graph->nodes.size()) return INVALID_VALUE;
        launch.after.push_back(after[i] - 1);
    }
    if (const unsigned error = check(launch)) return error;
    return graph->nodes.push_back(launch), *node = graph->nodes.size(), SUCCESS;
}
// The parameters of older programs end before `kernel`, which is not read.
API(cuGraphAddKernelNode)(size_t* node, Graph* graph, const size_t* after, size_t count, const NodeParameters* given) {
    return cuGraphAddKernelNode_v2(node, graph, after, count, given);
}
struct EdgeData {
    unsigned char from_port, to_port, type, reserved[5];
};
API(cuGraphAddDependencies_v2)(Graph* graph, const size_t* from, const size_t* to, const EdgeData* edges, size_t count) {
    ENTERED;
    if (has_fault("no_programmatic")) return NOT_FOUND;
    for (size_t i = 0; i < count; ++i) {
        const bool is_programmatic = edges[i].from_port == 1 && edges[i].to_port == 0 && edges[i].type == 1;
        if (!is_programmatic || from[i] < 1 || from[i] >= to[i] || to[i] > graph->nodes.size()) return INVALID_VALUE;
        Launch& launch = graph->nodes[to[i] - 1];
        launch.after.push_back(from[i] - 1);
        ++launch.programmatic;
    }
    return SUCCESS;
}
API(cuGraphInstantiateWithFlags)(Graph** ready, const Graph* graph, unsigned long long) {
    ENTERED;
    if (!setting("GCC_GAN_MOCK_GRAPHS").empty()) {
        size_t edges = 0, programmatic = 0;
        for (const Launch& node : graph->nodes) edges += node.after.size(), programmatic += node.programmatic;
        fprintf(stderr, "mock: a graph with %zu full and %zu programmatic edges\n", edges - programmatic, programmatic);
    }
    static unsigned graphs = 0;
    if (number_of_fault("full_at_graph") == ++graphs) return OUT_OF_MEMORY;
    return *ready = new Graph(*graph), SUCCESS;
}
API(cuGraphExecDestroy)(Graph* graph) {
    ENTERED;
    return finish(), delete graph, broken;
}
API(cuGraphUpload)(Graph*, Stream*) {
    ENTERED;
    return SUCCESS;
}
API(cuGraphLaunch)(Graph* graph, Stream* stream) {
    ENTERED;
    return stream->work.push_back([=] { run_graph(*graph); }), SUCCESS;
}
