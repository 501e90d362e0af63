"""Compiles CUDA C++ texts with NVRTC, which needs no GPU: that they are valid, and what each kernel takes.

    pip install -r tests/cuda/requirements.txt
    python tests/cuda/nvrtc_compile.py kernels.cu=sm_80,sm_90a [other.cu=sm_75 ...]
        [--brief more.cu=sm_80 ...] [--figures FILE] [--cubin-dir DIR] [--jobs N]

Prints one line a text and architecture. Exits with 1 and the compiler's log on an error, a warning (but for one on unused
functions of the prelude), where a kernel has local memory (for registers that are spilled, or for arrays), or more shared
memory than a GPU that it is for. --figures
compares registers, shared memory and tensor-core instructions of every kernel of a `train_step` that has any of the last
with a file, and of the texts after --brief a line each; the file's head says which texts and architectures it covers.
UPDATE_FIGURES=1 writes the file instead.
"""

import argparse
import collections
import concurrent.futures
import ctypes
import difflib
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
        flags = [
            f"--gpu-architecture={arch}",
            f"--include-path={self.include}",
            "--std=c++17",
            "--fmad=false",
            "--diag-suppress=177",  # a function of the prelude that this text does not call
            "--ptxas-options=-v",  # registers, spills and shared memory into the log
        ]
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


def header(wanted: list[tuple[pathlib.Path, str]]) -> str:
    """Which texts are compiled for which architectures."""
    covered: dict[str, list[str]] = {}
    for path, arch in wanted:
        covered.setdefault(path.stem, []).append(arch)
    lines = [f"#   {text}: {', '.join(archs)}" for text, archs in covered.items()]
    return "\n".join(["# Covered are these texts (program, GPU that it is for if not sm_80, precision), and no others:", *lines, ""])


def compile_one(path: pathlib.Path, arch: str, is_brief: bool, cubins: pathlib.Path | None) -> tuple[bool, str, list[str]]:
    """Whether it is as it should be, what to print, and the lines of the table of figures."""
    nvrtc = Nvrtc(find_package_folder())
    source = path.read_bytes()
    start = time.perf_counter()
    cubin, log = nvrtc.compile(source, path.name, arch)
    seconds = time.perf_counter() - start
    kernels, rest = figures_of(log)
    kernels.pop("kernels_await_predecessors", None)  # does nothing: it tells the host of the wait in the others
    subject = f"{path.stem} for {arch}"
    # Where products of warpgroups wait for each other, the assembler says that they are serialized.
    if cubin is None or "warning" in rest or "serialized" in rest:
        return False, f"{rest}\n{subject}: {'does not compile' if cubin is None else 'has warnings'}", []
    launches = launches_of(source.decode())
    if kernels.keys() != launches.keys():
        return False, f"{subject}: {len(launches)} kernels in the text, {len(kernels)} in the compiler's log", []
    spilling = [name for name, kernel in kernels.items() if kernel.spilled]
    if spilling:
        return False, f"{subject}: registers are spilled to memory in {', '.join(spilling)}", []
    keeping = [name for name, kernel in kernels.items() if kernel.local]
    if keeping:
        return False, f"{subject}: arrays are kept in local memory by {', '.join(keeping)}", []
    limit = shared_limit(arch)
    large = [name for name, kernel in kernels.items() if kernel.static_shared + asked_for(launches[name]) > limit]
    if large:
        return False, f"{subject}: more than {limit} bytes of shared memory in {', '.join(large)}", []
    if cubins:
        cubins.mkdir(parents=True, exist_ok=True)
        (cubins / f"{path.stem}.{arch}.cubin").write_bytes(cubin)
    by_warps = tensor_instructions(cubin, HMMA)
    by_warpgroups = tensor_instructions(cubin, HGMMA) if arch == "sm_90a" else collections.Counter()
    by_tensor = sorted((name for name in kernels if by_warps[name] or by_warpgroups[name]), key=list(launches).index)
    most = max(kernel.registers for kernel in kernels.values())
    table = [
        f"{subject}: {len(kernels)} kernels, {len(by_tensor)} with tensor cores, {most} registers at most, no spills"
    ]
    is_detailed = arch in DETAILED and not is_brief
    for name in (name for name in by_tensor if name.startswith("train_step_") and is_detailed):
        kernel = kernels[name]
        static = f"{kernel.static_shared} bytes of static shared memory, " if kernel.static_shared else ""
        count, what = (by_warpgroups[name], "HGMMA") if by_warpgroups[name] else (by_warps[name], "HMMA")
        table.append(f"  {kernel.registers:3} registers {count:4} {what}  {static}{launches[name]}  {name}")
    return True, f"{table[0]}; {len(cubin) >> 10} KiB in {seconds:.1f} s", table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", metavar="FILE[=ARCH,...]", help="for sm_90a where none is named")
    parser.add_argument("--brief", nargs="+", default=[], metavar="FILE[=ARCH,...]", help="the same, with a line each in the table")
    parser.add_argument("--figures", type=pathlib.Path, help="the table to compare with")
    parser.add_argument("--cubin-dir", type=pathlib.Path, help="also write the cubins into this folder")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    arguments = parser.parse_args()
    wanted = []
    for text in arguments.texts + arguments.brief:
        path, _, archs = text.partition("=")
        is_brief = text in arguments.brief
        wanted += [(pathlib.Path(path), arch, is_brief, arguments.cubin_dir) for arch in (archs or "sm_90a").split(",")]
    print(f"NVRTC {Nvrtc(find_package_folder()).version()}")
    failed, table = False, []
    # The compiler runs in processes of its own: as a library it uses one core. Long texts first.
    order = sorted(range(len(wanted)), key=lambda i: -wanted[i][0].stat().st_size)
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
        jobs = {i: pool.submit(compile_one, *wanted[i]) for i in order}
        for i in range(len(wanted)):
            good, words, lines = jobs[i].result()
            print(words, file=sys.stdout if good else sys.stderr, flush=True)
            failed |= not good
            table += lines
    if arguments.figures and not failed:
        found = header([(path, arch) for path, arch, *_ in wanted]) + "".join(f"{line}\n" for line in table)
        if os.environ.get("UPDATE_FIGURES"):
            arguments.figures.write_text(found)
        kept = arguments.figures.read_text() if arguments.figures.exists() else ""
        if found != kept:
            name = str(arguments.figures)
            sys.stderr.writelines(difflib.unified_diff(kept.splitlines(True), found.splitlines(True), name, "now"))
            print("The figures changed: UPDATE_FIGURES=1 writes them where that is right.", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
