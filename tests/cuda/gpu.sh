#!/bin/bash
# Everything that only a GPU can show, in one command: right numbers, the same bits again, clean under compute-sanitizer, times,
# and PyTorch beside them. At the end a table, with what was not proved.
#
#   tests/cuda/gpu.sh [--out FOLDER] [--pack FOLDER] [--seconds N] [PART...]
#
# Parts; without one all of them, in this order:
#   numbers     every kernel of the DCGAN at its full size against the CPU, each by itself; kernels and steps of small programs
#               against the interpreter; 3 steps and 200 steps against the CPU
#   bits        a run again, resumed, and beside another on the same GPU: the same bits; resumed on the other device
#   sanitizer   two steps under each tool of compute-sanitizer; one tool alone by its name:
#               memcheck racecheck initcheck synccheck
#   times       each kernel beside the GPU's ceilings, and the steps of a long run
#   torch       PyTorch: losses of 200 steps from the same weights at each precision, its time in every mode, ours and its in turn
#   table       none: the table of what is in the folder
#
#   --out FOLDER    where results, logs and the table are (target/gpu). Parts of earlier calls stay there and in the table; a part
#                   that is run again replaces them
#   --pack FOLDER   at the end copies table.txt, results.tsv and logs.tar.gz there
#   --seconds N     how long the call may take: what would begin later is skipped
#
# In pieces of ten minutes, three calls do it, or a fourth with what the table says was skipped: `--seconds 560` with `numbers bits`, with
# `torch`, and with `sanitizer times`.
#
# It needs an NVIDIA driver, NVRTC and Python. Binaries are those of target/carry, which tests/cuda/carry.sh makes: here, where
# there is cargo, else on another machine. Or:
#   GCC_GAN=path             the release binary
#   GCC_GAN_TESTS=path       the test binary of tests/cuda_device.rs
# compute-sanitizer and PyTorch (of $PYTHON, else python3) are used where they are. Others:
#   GCC_GAN_GPU_QUICK=1      a small program and few steps: to try the script itself. No figure means anything then
#   GCC_GAN_GPU_LIMIT=s      seconds that a step of the script may take (600)
# A failed step is counted and the next one begins. Exit status: 0 all passed, 1 something failed, 2 nothing can be checked here,
# 3 nothing failed, but something was skipped.
set -u

head=$0
usage() {
    echo "$1; see the head of tests/cuda/gpu.sh" >&2
    exit 2
}
out='' pack='' seconds=1000000 parts=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$head"
        exit 0
        ;;
    --out | --pack)
        [ -n "${2:-}" ] || usage "$1 takes a folder"
        declare "${1#--}=$(realpath -m "$2")"
        shift
        ;;
    --seconds)
        [[ ${2:-} =~ ^[1-9][0-9]{0,5}$ ]] || usage "--seconds takes a number"
        seconds=$2
        shift
        ;;
    sanitizer) parts+=(memcheck racecheck initcheck synccheck) ;;
    numbers | bits | memcheck | racecheck | initcheck | synccheck | times | torch | table) parts+=("$1") ;;
    *) usage "\`$1\` is not a part" ;;
    esac
    shift
done
[ ${#parts[@]} -gt 0 ] || parts=(numbers bits memcheck racecheck initcheck synccheck times torch)
cd "$(dirname "$0")/../.." || exit 2

out=${out:-$PWD/target/gpu}
quick=${GCC_GAN_GPU_QUICK:-}
limit=${GCC_GAN_GPU_LIMIT:-600}
python=${PYTHON:-python3}
program=dcgan few=3 many=200 timed=2048 between=64 precisions="f32 tf32 bf16"
# Tensor cores are used for batches of 16 and more; the tools are slow.
small=(--set batch=16)
if [ -n "$quick" ]; then
    program=$PWD/tests/cuda/mock/gan.ron few=2 many=4 timed=6 between=2 small=() precisions="f32 bf16"
    export GCC_GAN_TEST_FEW_KERNELS=1
fi
command -v "$python" >/dev/null || { echo "Python 3 is needed: PYTHON=PATH" >&2; exit 2; }
mkdir -p "$out/logs" || exit 2

report() { "$python" tests/cuda/gpu_report.py "$@"; }
if [ "${parts[*]}" = table ]; then
    report table "$out"
    exit
fi

# --- Binaries, and a GPU -------------------------------------------------------------------------
has_driver() {
    local folder
    ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1' && return
    while IFS= read -r -d : folder; do
        [ ! -e "$folder/libcuda.so.1" ] || return 0
    done <<<"${LD_LIBRARY_PATH:-}:"
    return 1
}
commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
if [ -z "${GCC_GAN:-}" ]; then
    if command -v cargo >/dev/null; then
        # Said before a build that takes minutes.
        has_driver || { echo "there is no NVIDIA driver (libcuda.so.1) here: nothing can be checked" >&2; exit 2; }
        tests/cuda/carry.sh || exit 2
    elif [ ! -x target/carry/gcc-gan ]; then
        echo "set GCC_GAN to the binary, make target/carry by tests/cuda/carry.sh on a machine with Rust, or install Rust" >&2
        exit 2
    fi
    GCC_GAN=target/carry/gcc-gan
    GCC_GAN_TESTS=${GCC_GAN_TESTS:-target/carry/cuda_device}
    commit=$(cat target/carry/commit)
fi
gan=$(realpath "$GCC_GAN") tests=${GCC_GAN_TESTS:+$(realpath "$GCC_GAN_TESTS")}
devices=$("$gan" devices --json) || { echo "$gan does not run" >&2; exit 2; }
if grep -qE '"no_(gpu|nvrtc)"' <<<"$devices" || ! grep -q '"cuda:0"' <<<"$devices"; then
    "$gan" devices >&2
    echo "nothing here can be checked" >&2
    exit 2
fi

# --- Steps, and what is written down of each -----------------------------------------------------
runs=$(mktemp -d) || exit 2
part='' number=0 running='' reserve=0 ended=''

record() { printf '%s\t%s\t%s\t%s\t%s\n' "$part" "$1" "$2" "${3:-}" "${4:-}" >>"$out/results.tsv"; }
skip() {
    echo "== $part: $1: skipped, $2"
    record "$1" "skipped: $2"
}
# step NAME COMMAND...: one line of the table. What the command prints goes to a file, and its end ($show lines) or, of a profile,
# the beginning ($top lines) to the screen.
step() {
    local name=$1 started=$SECONDS status=0 word=ok log
    local left=$((seconds - reserve - SECONDS)) most=$limit
    shift
    if [ $left -lt 3 ]; then
        skip "$name" "no time was left"
        return 1
    fi
    [ $left -ge "$most" ] || most=$left
    number=$((number + 1))
    log=$(printf '%s-%02d-%s.txt' "$part" $number "${name//[^A-Za-z0-9]/-}")
    echo "== $part: $name"
    # What the table says where the script itself is killed.
    record "$name" "skipped: was killed" '' "$log"
    timeout -k 10 "$most" "$@" >"$out/logs/$log" 2>&1 &
    running=$!
    wait $running || status=$?
    running=
    if [ -n "${top:-}" ] && [ $status = 0 ]; then head -n "$top" "$out/logs/$log"; else tail -n "${show:-3}" "$out/logs/$log"; fi
    if [ $status = 124 ] || [ $status = 137 ]; then
        word="FAILED: took over $most s"
        [ "$most" = "$limit" ] || word="skipped: did not end in the $most s that were left"
    elif [ $status != 0 ]; then
        word="FAILED ($status)"
    fi
    record "$name" "$word" $((SECONDS - started)) "$log"
    return $status
}
# Functions run in this shell's copy, under `timeout`.
call() {
    local name=$1
    shift
    step "$name" bash -uc '"$@"' bash "$@"
}

begin() {
    part=$1 number=0
    rm -f "$out/logs/$part"-*
    if [ -e "$out/results.tsv" ]; then
        grep -v "^$part	" "$out/results.tsv" >"$out/results.new"
        mv "$out/results.new" "$out/results.tsv"
    fi
    record "" begun
}
header() {
    echo "gcc-gan on a GPU, $(date -u +%Y-%m-%d), commit $commit${quick:+, QUICK: no figure means anything}"
    "$gan" devices
    nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader 2>/dev/null
}
finish() {
    local status=0
    report table "$out" >"$out/table.txt" || status=$?
    echo
    cat "$out/table.txt"
    if [ -n "$pack" ]; then
        mkdir -p "$pack" && cp "$out/table.txt" "$out/results.tsv" "$pack" && tar -C "$out" -czf "$pack/logs.tar.gz" logs
    fi
    # What was killed may still be writing.
    [ -z "$running" ] || wait "$running"
    rm -rf "$runs"
    exit "${ended:-$status}"
}
stop() {
    trap '' INT TERM HUP
    [ -z "$running" ] || kill "$running" 2>/dev/null
    ended=$1
    exit
}
trap finish EXIT
trap 'stop 130' INT
trap 'stop 143' TERM
trap 'stop 129' HUP

# --- What the parts are made of ------------------------------------------------------------------
# train NAME ARGUMENTS...: a run of that name, on the embedded digits.
train() { "$gan" train "$program" "${@:2}" --data embedded --offline --out "$runs" --name "$1"; }
# on_gpu NAME PRECISION ARGUMENTS...
on_gpu() { train "$1" --device cuda --precision "$2" "${@:3}"; }
resume() { "$gan" train --resume "$runs/$1" "${@:2}" --data embedded --offline; }
copy_and_resume() { cp -r "$runs/$1" "$runs/$2" && resume "${@:2}"; }
compare() { "$python" tests/cuda/compare_runs.py "$runs/$1" "$runs/$2" "${@:3}"; }
same_bits() { compare "$1" "$2" --state 0 --losses 0; }
two_at_once() {
    local first second status=0
    on_gpu "$1" "${@:3}" & first=$!
    on_gpu "$2" "${@:3}" & second=$!
    wait $first || status=1
    wait $second || status=1
    return $status
}
# A run of the DCGAN leaves 112 MiB.
forget() { rm -rf "${runs:?}"/*/; }
# NVRTC compiles one kernel at a time in a process, so this is a process for each precision.
compile_kernels() {
    local precision pids='' pid status=0
    for precision in $precisions; do
        on_gpu "compiled-$precision" "$precision" "$@" --steps 1 & pids+=" $!"
    done
    for pid in $pids; do wait "$pid" || status=1; done
    return $status
}
compiled=
compile_once() {
    [ -z "$compiled" ] || return
    call "kernels compiled for all precisions at once" compile_kernels
    compiled=1
    forget
}
# Each test is a process, for the same reason. One that skips itself has shown nothing.
one_test() {
    local found status=0
    found=$("$tests" --exact "$1" --nocapture --test-threads 1 2>&1) || status=$?
    if [ $status = 0 ] && grep -q '1 passed' <<<"$found" && ! grep -q 'skipped: ' <<<"$found"; then
        echo "passed $1"
    else
        printf 'FAILED %s\n%s\n' "$1" "$found"
        return 1
    fi
}
# Of every kernel the buffer that is off most, and a line for each entry.
kernels_alone() {
    local found status=0
    found=$("$tests" --exact "kernels_alone::in_$1" --nocapture --test-threads 1 2>&1) || status=$?
    grep -vE '^(running |test |ok$|$)' <<<"$found"
    [ $status = 0 ] && grep -q '1 passed' <<<"$found" && ! grep -q 'skipped: ' <<<"$found"
}
all_tests() {
    local names status=0
    # The mocked GPU's tests are no business of a real one; those at full size have steps of their own.
    names=$("$tests" --list | sed -n 's/: test$//p' | grep -vE '^(mock::|kernels_alone::in_)')
    [ -z "$quick" ] || names=$(grep -xE 'ceilings_are_positive_numbers|steps_are_those_of_the_interpreter' <<<"$names")
    [ -n "$names" ] || { echo "$tests lists no tests"; return 1; }
    # Into the log as they end: of what is killed one knows how far it came.
    xargs -P "$(nproc)" -I NAME bash -uc 'one_test NAME' <<<"$names" | tee "$runs/tests"
    [ "${PIPESTATUS[0]}" = 0 ] || status=1
    echo "$(grep -c '^passed' "$runs/tests") of $(wc -l <<<"$names") tests passed"
    return $status
}
# Images of noise: 512 whole batches. At the end of an epoch a checkpoint is written, so an epoch is long.
long_data() {
    "$python" - "$runs/noise.npy" <<'PY'
import os, sys
shape = "{'descr': '|u1', 'fortran_order': False, 'shape': (65536, 28, 28), }"
with open(sys.argv[1], "wb") as file:
    file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + shape.ljust(117).encode() + b"\n")
    for _ in range(64):
        file.write(os.urandom(1024 * 28 * 28))
PY
}
timed_run() {
    local data=embedded
    if [ -z "$quick" ]; then
        [ -e "$runs/noise.npy" ] || long_data || return
        data=$runs/noise.npy
    fi
    rm -rf "$runs/timed"
    "$gan" train "$program" --steps $timed --log-every $between --sample-every $((timed * 2)) --device cuda --precision "$1" \
        --data "$data" --offline --out "$runs" --name timed && report step-time "$runs/timed" "$1"
}
export -f report train on_gpu resume copy_and_resume compare same_bits two_at_once compile_kernels one_test kernels_alone
export -f all_tests long_data timed_run
export gan tests out runs python program precisions timed between quick

# --- The parts -----------------------------------------------------------------------------------
part_numbers() {
    compile_once
    local precision state losses curves=("CPU=$runs/cpu-many")
    for precision in $precisions; do
        if [ -n "$tests" ]; then
            call "each kernel by itself, $precision" kernels_alone "$precision"
        else
            skip "each kernel by itself, $precision" "GCC_GAN_TESTS is not set"
        fi
    done
    call "CPU, $few steps" train cpu-few --steps $few --log-every 1 --device cpu
    call "CPU, $many steps" train cpu-many --steps $many --log-every 1 --device cpu
    for precision in $precisions; do
        # Adam's first steps are the signs of gradients: where one is nearly 0, rounding turns it, and a bias that began at 0
        # is far off. So the state may be a good deal, and the losses, which are what is learnt, little.
        case $precision in
        f32) state=2e-2 losses=1e-3 ;;
        tf32) state=3e-1 losses=1e-2 ;;
        bf16) state=6e-1 losses=5e-2 ;;
        esac
        call "$precision, $few steps" on_gpu "$precision-few" "$precision" --steps $few --log-every 1
        call "$precision, $few steps: beside the CPU's" compare cpu-few "$precision-few" --state $state --losses $losses
        call "$precision, $many steps" on_gpu "$precision-many" "$precision" --steps $many --log-every 1
        # Losses of a GAN drift apart from rounding alone; how far is printed, and looked at.
        call "$precision, $many steps: beside the CPU's" compare cpu-many "$precision-many"
        curves+=("$precision=$runs/$precision-many")
    done
    show=30 call "losses of $many steps" report curves "${curves[@]}"
    forget
    # The longest comes last, and leaves time for another part.
    reserve=90
    if [ -n "$tests" ]; then
        show=6 call "tests: conformance, graphs against single launches" all_tests
    else
        skip "tests: conformance, graphs against single launches" "GCC_GAN_TESTS is not set"
    fi
    reserve=0
}

part_bits() {
    compile_once
    local precision
    for precision in $precisions; do
        call "$precision, once" on_gpu once "$precision" --steps $few --log-every 1
        call "$precision, again" on_gpu again "$precision" --steps $few --log-every 1
        call "$precision, again: the same bits" same_bits once again
        call "$precision, two at once" two_at_once left right "$precision" --steps $few --log-every 1
        call "$precision, two at once: the first has the same bits" same_bits once left
        call "$precision, two at once: the second has the same bits" same_bits once right
        call "$precision, resumed" copy_and_resume once resumed --steps $((2 * few)) --device cuda
        call "$precision, not interrupted" on_gpu whole "$precision" --steps $((2 * few))
        call "$precision, resumed: the same bits" same_bits whole resumed
        forget
    done
    call "f32, once more" on_gpu gpu f32 --steps $few
    call "CPU, $few steps" train cpu --steps $few --device cpu
    call "the GPU's run resumed on the CPU" copy_and_resume gpu to-cpu --steps $((2 * few)) --device cpu
    call "the CPU's run resumed on the GPU" copy_and_resume cpu to-gpu --steps $((2 * few)) --device cuda
    call "both resumed runs beside each other" compare to-cpu to-gpu --losses 1e-2
    forget
}

small_compiled=
sanitized() {
    local tool=$1 sanitizer precision why
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
    if [ -z "$sanitizer" ]; then
        skip "two steps" "compute-sanitizer is not installed"
        return
    fi
    # It does not run with every driver and in every container.
    if ! why=$(timeout 60 "$sanitizer" --tool "$tool" "$gan" devices 2>&1) || grep -q 'not supported' <<<"$why"; then
        skip "two steps" "compute-sanitizer does not run here: $(tail -n 1 <<<"$why" | cut -c 1-100)"
        return
    fi
    [ -n "$small_compiled" ] || call "kernels compiled" compile_kernels "${small[@]}"
    small_compiled=1
    forget
    for precision in $precisions; do
        show=4 step "two steps, $precision" "$sanitizer" --tool "$tool" --error-exitcode 9 "$gan" train "$program" "${small[@]}" \
            --steps 2 --device cuda --precision "$precision" --data embedded --offline --out "$runs" --name "$tool-$precision"
    done
    forget
}

part_times() {
    compile_once
    local precision
    for precision in $precisions; do
        top=24 step "profile, $precision" "$gan" profile "$program" --steps $((few * 7)) --device cuda --precision "$precision" \
            -o "$out/logs/times-profile-$precision.json"
        call "steps of a run, $precision" timed_run "$precision"
    done
}

fresh_weights() {
    program=dcgan train fresh --steps 1 --set lr_gen=0 --set lr_dis=0 --device cpu &&
        "$gan" export "$runs/fresh" --format safetensors -o "$runs/fresh.safetensors"
}
# torch_losses SEED PRECISION
torch_losses() {
    mkdir -p "$runs/torch-$2-$1" && "$python" benches/pytorch_step.py --device cuda --losses $many --seed "$1" --precision "$2" \
        --weights "$runs/fresh.safetensors" --images src/train/data/mnist-10k-images-idx3-ubyte.gz >"$runs/torch-$2-$1/metrics.jsonl"
}
# What torch.compile makes is kept on the disk: made for all modes at once, so that each finds it.
compile_torch() {
    local precision flags
    # shellcheck disable=SC2016
    for precision in $precisions; do
        for flags in "" --channels-last; do echo "--precision $precision --compile $flags"; done
    done | xargs -P 6 -I FLAGS bash -uc '"$python" benches/pytorch_step.py --device cuda --steps 1 FLAGS'
}
export -f fresh_weights torch_losses compile_torch
export many
part_torch() {
    if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        skip "losses and times" "there is no PyTorch that sees a GPU in $python"
        return
    fi
    compile_once
    local precision seeds seed turn flags mode device=cuda curves=()
    # PyTorch's program is the DCGAN.
    [ -z "$quick" ] || device=cpu
    call "fresh weights" fresh_weights
    for precision in $precisions; do
        program=dcgan call "$many steps, $precision" train "ours-$precision" --device $device --precision "$precision" \
            --steps $many --log-every 1
        curves+=("$precision=$runs/ours-$precision")
    done
    for precision in $precisions; do
        # How far apart seeds are is measured in f32 alone.
        seeds=1
        [ "$precision" != f32 ] || seeds="1 2 3"
        for seed in $seeds; do
            call "$many steps, PyTorch, $precision, seed $seed" torch_losses "$seed" "$precision"
            curves+=("PyTorch $precision, seed $seed=$runs/torch-$precision-$seed")
        done
    done
    show=30 call "losses of $many steps beside PyTorch's" report curves "${curves[@]}"
    forget

    # What is in turn comes last, and has time of its own.
    reserve=150
    for mode in "" "--channels-last" "--graph" "--channels-last --graph" compile \
        "--compile" "--channels-last --compile" "--compile --graph" "--channels-last --compile --graph" \
        "--compile=max-autotune-no-cudagraphs --graph" "--channels-last --compile=max-autotune-no-cudagraphs --graph"; do
        if [ "$mode" = compile ]; then
            call "torch.compile, all modes at once" compile_torch
            continue
        fi
        for precision in $precisions; do
            # shellcheck disable=SC2086
            # The last modes measure kernels first, and would disturb each other if they did so at once.
            step "PyTorch, $precision${mode:+ $mode}" "$python" benches/pytorch_step.py --device cuda --precision $precision $mode
        done
    done
    reserve=0
    # Ours and the fastest of PyTorch's in turn, twice, so that a chip that warms up or is shared shows.
    for turn in 1 2; do
        for precision in $precisions; do
            call "turn $turn, ours, $precision" timed_run "$precision"
            flags=$(report fastest "$out" "$precision")
            # shellcheck disable=SC2086
            step "turn $turn, PyTorch, $precision${flags:+ $flags}" "$python" benches/pytorch_step.py --device cuda \
                --precision $precision $flags
        done
    done
}

header | tee "$out/header.txt"
for one in "${parts[@]}"; do
    case $one in
    table) continue ;;
    memcheck | racecheck | initcheck | synccheck) begin "$one" && sanitized "$one" ;;
    *) begin "$one" && "part_$one" ;;
    esac
done
