"""Compiles CUDA C++ texts with NVRTC, which needs no GPU: that they are valid, and what each kernel takes.

    pip install -r tests/cuda/requirements.txt
    python tests/cuda/nvrtc_compile.py kernels.cu=sm_80,sm_90a [other.cu=sm_75 ...]
        [--brief more.cu=sm_80 ...] [--figures FILE [--changed]] [--jobs N]

Kernels that differ in nothing but names, addresses in the arena and keys of draws are compiled once an architecture, of whatever
texts they are: then every program for every architecture takes minutes. With other addresses a kernel can take one or two registers
more or less.

Prints one line a text and architecture. Exits with 1 and the compiler's log on an error, a warning (but for one on unused
functions of the prelude), where a kernel has local memory (for registers that are spilled, or for arrays), or more shared
memory than a GPU that it is for. --figures
compares registers, shared memory and tensor-core instructions of every kernel of a `train_step` that has any of the last
with a file, and of the texts after --brief a line each, which ends with a hash of the text and of requirements.txt; the file's
head says which texts and architectures it covers. With --changed what has just one line is not compiled where the hash is still
the file's. A few registers more or less are no change: the assembler does not always give the same text as many.
UPDATE_FIGURES=1 writes the file instead.
"""

import argparse
import collections
import concurrent.futures
import ctypes
import difflib
import hashlib
import os
import pathlib
import re
import struct
import sys
import time


def find_package_folder() -> pathlib.Path:
    """The folder of the NVRTC wheel that holds `lib` and `include`."""
    for entry in map(pathlib.Path, sys.path):
        for library in sorted(entry.glob("nvidia/*/lib/libnvrtc.so.*")):
            return library.parent.parent
    sys.exit("NVRTC is not installed: pip install -r tests/cuda/requirements.txt")


FLAGS = [
    "--std=c++17",
    "--fmad=false",
    "--diag-suppress=177",  # a function of the prelude that this text does not call
    "--ptxas-options=-v",  # registers, spills and shared memory into the log
]


class Nvrtc:
    def __init__(self, folder: pathlib.Path):
        self.include = folder / "include"
        # The compiler opens its built-in functions by name.
        for builtins in sorted((folder / "lib").glob("libnvrtc-builtins.so.*")):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        library = next(iter(sorted((folder / "lib").glob("libnvrtc.so.*"))))
        self.lib = ctypes.CDLL(str(library))
        self.lib.nvrtcGetErrorString.restype = ctypes.c_char_p

    def check(self, status: int, what: str) -> None:
        if status != 0:
            raise RuntimeError(f"{what}: {self.lib.nvrtcGetErrorString(status).decode()}")

    def version(self) -> str:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.check(self.lib.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
        return f"{major.value}.{minor.value}"

    def blob(self, program: ctypes.c_void_p, kind: str) -> bytes:
        """What `nvrtcGet<kind>` gives: the log or the cubin."""
        size = ctypes.c_size_t()
        self.check(getattr(self.lib, f"nvrtcGet{kind}Size")(program, ctypes.byref(size)), kind)
        buffer = ctypes.create_string_buffer(size.value)
        self.check(getattr(self.lib, f"nvrtcGet{kind}")(program, buffer), kind)
        return buffer.raw

    def compile(self, source: bytes, name: str, arch: str) -> tuple[bytes | None, str]:
        """The cubin, or None where there is an error, and the log."""
        program = ctypes.c_void_p()
        status = self.lib.nvrtcCreateProgram(ctypes.byref(program), source, name.encode(), 0, None, None)
        self.check(status, "nvrtcCreateProgram")
        flags = [f"--gpu-architecture={arch}", f"--include-path={self.include}", *FLAGS]
        arguments = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
        try:
            status = self.lib.nvrtcCompileProgram(program, len(flags), arguments)
            log = self.blob(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            return (self.blob(program, "CUBIN") if status == 0 else None), log
        finally:
            self.lib.nvrtcDestroyProgram(ctypes.byref(program))


class Figures(collections.namedtuple("Figures", "registers local spilled static_shared")):
    """What ptxas says of a kernel: registers a thread, bytes of local memory, bytes of spill stores and loads, bytes of shared
    memory."""


def figures_of(log: str) -> tuple[dict[str, Figures], str]:
    """Each kernel's figures by its name, and what else the log says."""
    found, rest, name, local, spilled = {}, [], None, 0, 0
    for line in log.splitlines():
        if entry := re.search(r"Compiling entry function '(\w+)'", line):
            name, local, spilled = entry[1], 0, 0
        elif memory := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            local += int(memory[1])
            spilled += int(memory[2]) + int(memory[3])
        elif used := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            found[name] = Figures(int(used[1]), local, spilled, int(shared[1]) if shared else 0)
        elif line.strip() and not re.search(r"bytes [gc]mem|Function properties|Compile time", line):
            rest.append(line)
    return found, "\n".join(rest)


DETAILED = {"sm_80", "sm_90a"}  # with a line for each kernel that has tensor-core instructions
# The low 12 bits of tensor-core instructions, as of each of 16 bytes: mma.sync of sm_75 and newer, and wgmma of sm_90a.
HMMA, HGMMA = 0x23C, 0x9F0


def tensor_instructions(cubin: bytes, opcode: int) -> dict[str, int]:
    """How many there are in each function of a cubin, an ELF file with a section of code for each."""
    sections, size, count, names = struct.unpack_from("<Q", cubin, 40) + struct.unpack_from("<3H", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, sections + size * i) for i in range(count)]
    found = {}
    for name, _, _, _, offset, length in headers:
        start = headers[names][4] + name
        title = cubin[start : cubin.index(b"\0", start)].decode()
        if title.startswith(".text."):
            words = struct.unpack_from(f"<{length // 8}Q", cubin, offset)
            found[title.removeprefix(".text.")] = sum(word & 0xFFF == opcode for word in words[::2])
    return found


def shared_limit(arch: str) -> int:
    """Bytes of shared memory that a block may have on every GPU that runs code for an architecture (CUDA C++ Programming Guide,
    technical specifications): what is for sm_80 runs on sm_86 too, what is for sm_100 on sm_120."""
    return {"sm_75": 64, "sm_90a": 227}.get(arch, 99) << 10


def asked_for(launch: str) -> int:
    """Bytes of shared memory that a launch asks for, besides what is part of the function."""
    asked = re.search(r"(\d+) bytes of shared memory", launch)
    return int(asked[1]) if asked else 0


def launches_of(source: str) -> dict[str, str]:
    """How each kernel is launched, from the comment over it."""
    pattern = r"^// launch: (.*)\nextern \"C\" __global__ void (?:\w+\(\d+\) )?(\w+)"
    return {name: launch for launch, name in re.findall(pattern, source, re.MULTILINE)}


class Part(collections.namedtuple("Part", "text launches")):
    """A kernel of a program with all that stands with it in the text: its functions, and how each is launched by its name."""

    @property
    def name(self) -> str:
        """The first function's; all of the others begin with it."""
        return os.path.commonprefix(list(self.launches))


class Text:
    """A program's text: what all kernels may use, and the kernels."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        # The first line names the program, and others its entries.
        source = re.sub(r"^// --- .* kernels; .*\n", "", path.read_text().partition("\n")[2], flags=re.MULTILINE)
        self.prelude, *parts = re.split(r"^(?=// \[\d+\] )", source, flags=re.MULTILINE)
        self.parts = [Part(part, launches_of(part)) for part in parts]
        known = set(WORD.findall(self.prelude))
        self.likenesses = [likeness(part, known) for part in self.parts]
        compiler = pathlib.Path(__file__).with_name("requirements.txt").read_text()
        self.hash = hashlib.sha256("\n".join([compiler, *FLAGS, without_comments(source)]).encode()).hexdigest()[:12]
        stray = len(re.findall(r"__global__ void (?:\w+\(\d+\) )?\w+\(", source)) - 1  # kernels_await_predecessors
        if stray != sum(len(part.launches) for part in self.parts):
            sys.exit(f"{path}: {stray} kernels, of which not each has a line that says how it is launched")


VARIABLES = {"threadIdx", "blockIdx", "blockDim", "gridDim"}
WORD = re.compile(r"[A-Za-z_]\w*|0x[0-9a-f]+u?|\d[\w.]*")


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*", "", text)


def likeness(part: Part, known: set[str]) -> str:
    """What is the same of kernels that differ in names, addresses in the arena and keys of draws: each name and address by the
    number of its first place. `known` are words that mean something outside the kernel. So do its functions of other names, such
    as sqrtf, and CUDA's variables."""
    names: dict[str, str] = {}
    addresses: dict[str, str] = {}

    def number(word: re.Match) -> str:
        is_function = text.startswith("(", word.end()) and not word[0].startswith(part.name)
        is_own = not (word[0][0].isdigit() or word[0] in known or word[0] in VARIABLES or is_function)
        return names.setdefault(word[0], f"name{len(names)}") if is_own else word[0]

    text = without_comments(part.text)
    text = re.sub(r"(?<=arena \+ )\d+", lambda m: addresses.setdefault(m[0], f"address{len(addresses)}"), text)
    text = re.sub(r"\{0x[0-9a-f]+u, 0x[0-9a-f]+u\}(?=\};)", "key", text)
    return WORD.sub(number, text) + "".join(part.launches.values())


class Kernel(collections.namedtuple("Kernel", "figures by_warps by_warpgroups")):
    """A function as it was compiled: its figures, and how many tensor-core instructions it has of either kind."""


def wrong_with(name: str, kernel: Kernel, launch: str, arch: str) -> str | None:
    figures = kernel.figures
    if figures.spilled:
        return f"registers are spilled to memory in {name}"
    if figures.local:
        return f"arrays are kept in local memory by {name}"
    if figures.static_shared + asked_for(launch) > shared_limit(arch):
        return f"more than {shared_limit(arch)} bytes of shared memory in {name}"
    return None


def compile_parts(prelude: str, parts: list[Part], arch: str) -> tuple[str, list[dict[str, Kernel]]]:
    """What is wrong, if anything is, and of each part its functions. They are compiled in one text, since each reads the prelude
    anew."""
    nvrtc = Nvrtc(find_package_folder())
    source = prelude
    for number, part in enumerate(parts):
        # Programs have names in common. What belongs to a function begins with its name.
        source += re.sub(rf"\b{part.name}", f"part{number}_{part.name}", part.text)
    cubin, log = nvrtc.compile(source.encode(), "kernels.cu", arch)
    found, rest = figures_of(log)
    # Where products of warpgroups wait for each other, the assembler says that they are serialized.
    if cubin is None or "warning" in rest or "serialized" in rest:
        return rest or "it does not compile, and the compiler says nothing", []
    by_warps = tensor_instructions(cubin, HMMA)
    by_warpgroups = tensor_instructions(cubin, HGMMA) if arch == "sm_90a" else collections.Counter()
    kernels = []
    for number, part in enumerate(parts):
        kernels.append({})
        for name, launch in part.launches.items():
            compiled = f"part{number}_{name}"
            if compiled not in found:
                return f"{name} is not in the compiler's log", []
            kernel = Kernel(found[compiled], by_warps[compiled], by_warpgroups[compiled])
            if wrong := wrong_with(name, kernel, launch, arch):
                return wrong, []
            kernels[-1][name] = kernel
    return "", kernels


def subject(text: Text, arch: str) -> str:
    return f"{text.path.stem} for {arch}"


def known_lines(figures: pathlib.Path, version: str) -> dict[str, str]:
    """The lines of a file of figures by what they are of, where it is by the same compiler."""
    first, *lines = (figures.read_text().splitlines() if figures.exists() else []) or [""]
    if not first.startswith(f"# NVRTC {version}."):
        return {}
    return {line.partition(":")[0]: line for line in lines if not line.startswith((" ", "#"))}


def lines_of(text: Text, arch: str, is_brief: bool, kernels: list[tuple[str, str, Kernel]]) -> list[str]:
    """The lines of the table of figures for a text; of each kernel its name, its launch and what it was compiled to."""
    by_tensor = [(name, launch, k) for name, launch, k in kernels if k.by_warps or k.by_warpgroups]
    most = max(kernel.figures.registers for _, _, kernel in kernels)
    counts = f"{len(kernels)} kernels, {len(by_tensor)} with tensor cores, {most} registers at most, no spills"
    lines = [f"{subject(text, arch)}: {counts}; {text.hash}"]
    if is_brief or arch not in DETAILED:
        return lines
    for name, launch, kernel in by_tensor:
        if name.startswith("train_step_"):
            figures = kernel.figures
            static = f"{figures.static_shared} bytes of static shared memory, " if figures.static_shared else ""
            count, what = (kernel.by_warpgroups, "HGMMA") if kernel.by_warpgroups else (kernel.by_warps, "HMMA")
            lines.append(f"  {figures.registers:3} registers {count:4} {what}  {static}{launch}  {name}")
    return lines


# The same text compiled again took 88 registers for 87, or 98 for 96: one kernel in some thousands.
REGISTERS_APART = 4


def settled(kept: list[str], found: list[str]) -> list[str]:
    """The found lines of a table of figures, and in place of each that only a few registers tell from a kept line that line."""

    def with_places(lines: list[str]) -> list[tuple[tuple[str, str], str]]:
        """Each line with what it is of: its text, and all that it says but registers."""
        of, placed = "", []
        for line in lines:
            of = of if line.startswith(" ") else line.partition(":")[0]
            placed.append(((of, re.sub(r" *\d+ registers", " registers", line)), line))
        return placed

    def registers(line: str) -> int:
        return int(re.search(r"(\d+) registers", line)[1])

    before = dict(with_places(kept))
    lines = []
    for place, line in with_places(found):
        old = before.get(place, line)
        if old != line and abs(registers(old) - registers(line)) <= REGISTERS_APART:
            print(f"{registers(line)} registers for {registers(old)}, which is no change: {place[0]}, {line.split()[-1]}")
            line = old
        lines.append(line)
    return lines


class Wanted(collections.namedtuple("Wanted", "text arch is_brief line")):
    """A text to compile for an architecture, and its line of the table where that still holds: then nothing is compiled for it."""

    def parts(self) -> dict[tuple[str, str, str], Part]:
        """Its kernels by what others may be like: the architecture, the prelude and the kernel."""
        return {(self.arch, self.text.prelude, like): part for like, part in zip(self.text.likenesses, self.text.parts)}


def wanted_of(arguments: argparse.Namespace, version: str) -> list[Wanted]:
    known = known_lines(arguments.figures, version) if arguments.changed else {}
    wanted = []
    for is_brief, given in [(False, arguments.texts), (True, arguments.brief)]:
        for path, _, archs in (text.partition("=") for text in given):
            text = Text(pathlib.Path(path))
            for arch in (archs or "sm_90a").split(","):
                has_one_line = is_brief or arch not in DETAILED
                line = known.get(subject(text, arch), "") if has_one_line else ""
                wanted.append(Wanted(text, arch, is_brief, line if line.endswith(f"; {text.hash}") else None))
    return wanted


def header(version: str, wanted: list[Wanted]) -> str:
    """By which compiler which texts are compiled for which architectures."""
    covered: dict[str, list[str]] = {}
    for what in wanted:
        covered.setdefault(what.text.path.stem, []).append(what.arch)
    lines = [f"#   {text}: {', '.join(archs)}" for text, archs in covered.items()]
    covers = f"# NVRTC {version}. Covered are these texts (program, GPU that it is for if not sm_80, precision), and no others:"
    return "\n".join([covers, *lines, ""])


# Parts in one text: fewer read the prelude more often, more leave a core without work at the end.
TOGETHER = 40


class Job(collections.namedtuple("Job", "of arch prelude parts")):
    """Kernels that are compiled in one text, by what others may be like, and the first text that they are of."""


def jobs_of(wanted: list[Wanted]) -> list[Job]:
    """Of each architecture and prelude the kernels that others are like, by the text in which they come first. What stands
    together is the same whatever is asked for, since it changes what the compiler inlines."""
    jobs, seen, asked = [], set(), set()
    for what in wanted:
        own = what.parts()
        if not what.line:
            asked.update(own)
        new = [(key, part) for key, part in own.items() if key not in seen]
        seen.update(own)
        of = subject(what.text, what.arch)
        for start in range(0, len(new), TOGETHER):
            jobs.append(Job(of, what.arch, what.text.prelude, new[start : start + TOGETHER]))
    return [job for job in jobs if any(key in asked for key, _ in job.parts)]


def compile_all(jobs: list[Job], processes: int) -> dict[tuple[str, str, str], list[Kernel]] | None:
    """The functions of each kernel by what others may be like; None where something is wrong, which is printed."""
    compiled, failed = {}, False
    # The compiler runs in processes of its own: as a library it uses one core.
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        results = [pool.submit(compile_parts, job.prelude, [part for _, part in job.parts], job.arch) for job in jobs]
        for done, (job, result) in enumerate(zip(jobs, results), 1):
            wrong, kernels = result.result()
            if sys.stderr.isatty():
                print(f"\r{done} of {len(jobs)} texts compiled", end="" if done < len(jobs) and not wrong else "\n", file=sys.stderr)
            if wrong:
                print(f"{wrong}\n{job.of}, among {len(job.parts)} kernels from {job.parts[0][1].name} on", file=sys.stderr)
                failed = True
                continue
            for (key, _), functions in zip(job.parts, kernels):
                compiled[key] = list(functions.values())
    return None if failed else compiled


def table_of(wanted: list[Wanted], compiled: dict[tuple[str, str, str], list[Kernel]]) -> list[str]:
    """The lines of the table of figures. The first of each text that was compiled is printed too."""
    table = []
    for text, arch, is_brief, line in wanted:
        if line:
            table.append(line)
            continue
        kernels = []
        for like, part in zip(text.likenesses, text.parts):
            functions = compiled[arch, text.prelude, like]
            kernels += [(name, launch, k) for (name, launch), k in zip(part.launches.items(), functions)]
        lines = lines_of(text, arch, is_brief, kernels)
        print(lines[0])
        table += lines
    return table


def is_as_kept(figures: pathlib.Path, head: str, table: list[str]) -> bool:
    """Whether a file of figures is as it would be written now; what is not is printed."""
    kept = figures.read_text() if figures.exists() else ""
    found = head + "".join(f"{line}\n" for line in settled(kept.splitlines(), table))
    if os.environ.get("UPDATE_FIGURES"):
        figures.write_text(found)
        return True
    if found == kept:
        return True
    sys.stderr.writelines(difflib.unified_diff(kept.splitlines(True), found.splitlines(True), str(figures), "now"))
    print("The figures changed: UPDATE_FIGURES=1 writes them where that is right.", file=sys.stderr)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", metavar="FILE[=ARCH,...]", help="for sm_90a where none is named")
    parser.add_argument("--brief", nargs="+", default=[], metavar="FILE[=ARCH,...]", help="the same, with a line each in the table")
    parser.add_argument("--figures", type=pathlib.Path, help="the table to compare with")
    parser.add_argument("--changed", action="store_true", help="compile what has one line in the table only where it changed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    arguments = parser.parse_args()
    if arguments.changed and not arguments.figures:
        parser.error("--changed is for --figures")
    version = Nvrtc(find_package_folder()).version()
    print(f"NVRTC {version}")
    start = time.perf_counter()
    wanted = wanted_of(arguments, version)
    compiled = compile_all(jobs_of(wanted), arguments.jobs)
    if compiled is None:
        return 1
    table = table_of(wanted, compiled)
    print(f"{len(compiled)} kernels compiled for an architecture in {time.perf_counter() - start:.0f} s; the others are like them")
    if unchanged := sum(what.line is not None for what in wanted):
        print(f"{unchanged} of {len(wanted)} texts for an architecture are as they were when the figures were written")
    if arguments.figures and not is_as_kept(arguments.figures, header(version, wanted), table):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
