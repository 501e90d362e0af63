"""Compiles CUDA C++ files with NVRTC, which needs no GPU: that the emitted text is valid.

    pip install -r tests/cuda/requirements.txt
    python tests/cuda/nvrtc_compile.py kernels.cu [...] [--arch sm_90a] [--cubin-dir DIR]

Prints the size of each cubin and the kernels in it; exits with 1 and the compiler's log on an error.
Warnings are errors, but for one on unused functions of the prelude.
"""

import argparse
import ctypes
import pathlib
import re
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
        ]
        arguments = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
        try:
            status = self.lib.nvrtcCompileProgram(program, len(flags), arguments)
            log = self.blob(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            return (self.blob(program, "CUBIN") if status == 0 else None), log
        finally:
            self.lib.nvrtcDestroyProgram(ctypes.byref(program))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--arch", default="sm_90a")
    parser.add_argument("--cubin-dir", type=pathlib.Path, help="also write the cubins into this folder")
    arguments = parser.parse_args()
    nvrtc = Nvrtc(find_package_folder())
    print(f"NVRTC {nvrtc.version()}, {arguments.arch}")
    failed = False
    for path in arguments.files:
        source = path.read_bytes()
        start = time.perf_counter()
        cubin, log = nvrtc.compile(source, path.name, arguments.arch)
        seconds = time.perf_counter() - start
        kernels = len(re.findall(rb"^extern \"C\" __global__", source, re.MULTILINE))
        if log.strip():
            print(log, file=sys.stderr)
        if cubin is None or "warning" in log:
            print(f"{path}: {'does not compile' if cubin is None else 'has warnings'}", file=sys.stderr)
            failed = True
            continue
        print(f"{path}: {kernels} kernels, {len(source)} bytes of text, {len(cubin)} bytes of cubin, {seconds:.2f} s")
        if arguments.cubin_dir:
            arguments.cubin_dir.mkdir(parents=True, exist_ok=True)
            (arguments.cubin_dir / path.with_suffix(".cubin").name).write_bytes(cubin)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
