#!/bin/sh
# Compiles the kernels of every declared graph for every architecture with NVRTC, from the package that requirements.txt names,
# and compares what they take with figures.txt (UPDATE_FIGURES=1 writes it). That takes ten minutes on two cores. With --changed
# it takes one or two: dcgan, lenet and mlp-gan for sm_80 and sm_90a, of which figures.txt has a line for each kernel, and of the
# rest what is not as it was when the figures were written. Needs Python 3, and no GPU.
set -eu
cd "$(dirname "$0")/../.."
# The figures are in the order of the files' names.
export LC_ALL=C

venv=target/nvrtc-venv
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --requirement tests/cuda/requirements.txt

texts=target/cuda-texts
rm -rf "$texts"
mkdir -p "$texts"
compile() {
    cargo run --quiet -- compile "$1" --device "cuda:$2" --precision "$3" --emit cuda -o "$4"
}
detailed=
brief=
for graph in graphs/*.ron; do
    program=$(basename "$graph" .ron)
    of="$texts/$program"
    # Without tensor cores, as for the oldest GPUs, and with them at each precision; by warpgroups where there are such.
    compile "$graph" sm_75 f32 "$of.fma.cu"
    own="$of.fma.cu=sm_75"
    for precision in f32 tf32 bf16; do
        compile "$graph" sm_80 "$precision" "$of.$precision.cu"
        own="$own $of.$precision.cu=sm_80,sm_86,sm_89,sm_90a,sm_100,sm_120"
    done
    for precision in tf32 bf16; do
        compile "$graph" sm_90a "$precision" "$of.sm_90a.$precision.cu"
        own="$own $of.sm_90a.$precision.cu=sm_90a"
    done
    case $program in
    dcgan | mlp-gan | lenet) detailed="$detailed $own" ;;
    *) brief="$brief $own" ;;
    esac
done
# shellcheck disable=SC2086
"$venv/bin/python" tests/cuda/nvrtc_compile.py --figures tests/cuda/figures.txt "$@" $detailed --brief $brief
