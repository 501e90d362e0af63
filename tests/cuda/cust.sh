#!/bin/sh
# The program with the driver reached by the crate `cust` (the feature of that name) in place of `cudarc`: it is checked, and
# the tests of the mocked GPU run with it. Such a program is linked with NVIDIA's driver; here with a stub that has every
# function that the crate declares and does nothing, and the mock takes its place when the program runs. Needs no GPU.
set -eu
cd "$(dirname "$0")/../.."

stub=${CARGO_TARGET_DIR:-target}/cust-stub
mkdir -p "$stub/lib64"
declared=$(cargo metadata --format-version 1 --features cust | python3 -c '
import json, pathlib, sys
packages = json.load(sys.stdin)["packages"]
print(next(pathlib.Path(p["manifest_path"]).parent for p in packages if p["name"] == "cust_raw"))')
sed -n 's/^ *pub fn \(cu[A-Z][A-Za-z0-9_]*\).*/unsigned \1(void) { return 999; }/p' "$declared/src/cuda.rs" | sort -u >"$stub/stub.c"
[ -s "$stub/stub.c" ] || { echo "no functions are declared in $declared/src/cuda.rs" >&2; exit 1; }
${CC:-cc} -shared -fPIC -Wl,-soname,libcuda.so.1 "$stub/stub.c" -o "$stub/lib64/libcuda.so.1"
cp "$stub/lib64/libcuda.so.1" "$stub/lib64/libcuda.so"

CUDA_LIBRARY_PATH=$(cd "$stub" && pwd)
export CUDA_LIBRARY_PATH
# In the target of all else, so that what both need is built once. A program that starts only with a driver must not stay there.
trap 'cargo build --quiet' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cargo clippy --features cust -- -D warnings
LD_LIBRARY_PATH="$CUDA_LIBRARY_PATH/lib64" INSTA_UPDATE=no cargo test --features cust --test cuda_device
