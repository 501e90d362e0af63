#!/bin/bash
# What tests/cuda/gpu.sh needs of a machine with Rust, for one with a GPU and without Rust: the release binary, the test binary
# of tests/cuda_device.rs and the commit, in a folder. Without the lines of debugging they are some 40 MiB.
#
#   tests/cuda/carry.sh [FOLDER]      target/carry, where gpu.sh finds them
#
# The other machine has a checkout too, the same system libraries or newer ones, and a processor of the same kind.
set -euo pipefail

folder=$(realpath -m "${1:-$(dirname "$0")/../../target/carry}")
cd "$(dirname "$0")/../.."
cargo build --release
tests=$(cargo test --release --test cuda_device --no-run --message-format json |
    sed -n 's/.*"kind":\["test"\].*"executable":"\([^"]*\)".*/\1/p')
[ -x "$tests" ] || { echo "cargo made no test binary" >&2; exit 1; }
mkdir -p "$folder"
cp "${CARGO_TARGET_DIR:-target}/release/gcc-gan" "$folder/gcc-gan"
cp "$tests" "$folder/cuda_device"
strip "$folder/gcc-gan" "$folder/cuda_device"
git describe --always --dirty >"$folder/commit"
du -h "$folder"/*
