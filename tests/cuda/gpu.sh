#!/bin/bash
# Everything that only a GPU can show, in one command: right numbers, the same bits again, clean under compute-sanitizer, times.
#
#   tests/cuda/gpu.sh [FOLDER]      what it writes goes to FOLDER, else to target/gpu
#
# It needs an NVIDIA driver and NVRTC. Without cargo it takes binaries that were built elsewhere:
#   GCC_GAN=path          the release binary
#   GCC_GAN_TESTS=path    the test binary of tests/cuda_device.rs (cargo test --release --test cuda_device --no-run prints it)
# compute-sanitizer and PyTorch (of $PYTHON, else python3) are used where they are. Others:
#   GCC_GAN_GPU_QUICK=1   a small program, small batches and few steps: to try the script itself
#   GCC_GAN_GPU_LIMIT=s   seconds that a step of the script may take (600)
# A failed step is counted and the next one begins; the exit status is 1 where one failed.
set -u
cd "$(dirname "$0")/../.."

out=$(realpath -m "${1:-target/gpu}")
quick=${GCC_GAN_GPU_QUICK:-}
limit=${GCC_GAN_GPU_LIMIT:-600}
python=${PYTHON:-python3}
# Tensor cores are used for batches of 16 and more.
program=dcgan few=3 many=200 timed=1000 sets=() small=(--set batch=16) precisions="f32 tf32 bf16"
if [ -n "$quick" ]; then
    program=mlp-gan few=2 many=4 timed=6 sets=(--set batch=16)
fi
rm -rf "${out:?}/runs"
mkdir -p "$out/logs" "$out/runs"
: >"$out/results.txt"
failed=0 number=0

# step NAME COMMAND...: one line of the table; what the command prints goes to a file, and its end (of a profile
# the beginning) to the screen.
step() {
    local name=$1 started=$SECONDS status=0 log
    shift
    number=$((number + 1))
    log=$(printf '%s/logs/%02d-%s.txt' "$out" "$number" "${name//[^A-Za-z0-9]/-}")
    echo "== $name"
    timeout -k 10 "$limit" "$@" >"$log" 2>&1 || status=$?
    if [ -n "${top:-}" ] && [ "$status" = 0 ]; then head -n "$top" "$log"; else tail -n "${show:-3}" "$log"; fi
    local word=ok
    if [ "$status" != 0 ]; then
        word="FAILED ($status)"
        failed=$((failed + 1))
        [ "$status" != 124 ] || word="FAILED (over $limit s)"
    fi
    printf '%-58s %-20s %4d s  %s\n' "$name" "$word" $((SECONDS - started)) "$(basename "$log")" >>"$out/results.txt"
    return "$status"
}
skip() {
    echo "== $1: skipped, $2"
    printf '%-58s %s\n' "$1" "skipped: $2" >>"$out/results.txt"
}

# Said before a build that takes minutes; what the driver lacks besides is said by `gcc-gan devices` below.
if ! ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1' && ! (IFS=:; for d in ${LD_LIBRARY_PATH:-}; do [ -e "$d/libcuda.so.1" ] && exit 0; done; exit 1); then
    echo "there is no NVIDIA driver (libcuda.so.1) on this machine: nothing here can be checked" >&2
    exit 2
fi

if [ -z "${GCC_GAN:-}" ]; then
    command -v cargo >/dev/null || { echo "set GCC_GAN to the binary, or install Rust" >&2; exit 2; }
    limit=3600 step "build" cargo build --release || exit 1
    GCC_GAN=target/release/gcc-gan
    if [ -z "${GCC_GAN_TESTS:-}" ]; then
        GCC_GAN_TESTS=$(cargo test --release --test cuda_device --no-run 2>&1 | sed -n 's/.*(\(target[^)]*\)).*/\1/p')
    fi
fi
gan=$(realpath "$GCC_GAN")

# train NAME ARGUMENTS...: a run of that name, on the embedded digits.
train() {
    local name=$1
    shift
    "$gan" train "$@" --data embedded --offline --out "$out/runs" --name "$name"
}
resume() {
    local name=$1
    shift
    "$gan" train --resume "$out/runs/$name" "$@" --data embedded --offline
}
compare() { "$python" tests/cuda/compare_runs.py "$out/runs/$1" "$out/runs/$2" "${@:3}"; }
copy_and_resume() { cp -r "$out/runs/$1" "$out/runs/$2" && resume "${@:2}"; }
# What a step of a long run takes: from the first line of its metrics to the last but one.
step_time() {
    "$python" - "$out/runs/$1/metrics.jsonl" <<'PY'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
lines = lines[:-1] if len(lines) > 2 else lines
if len(lines) > 1:
    a, b = lines[0], lines[-1]
    print(f"gcc-gan train: {1e3 * (b['seconds'] - a['seconds']) / (b['step'] - a['step']):.3f} ms a step, steps {a['step']} to {b['step']}")
else:
    print("too few steps to take a time")
PY
}
timed_run() { train "$@" && step_time "$1"; }
# Functions run in this shell's copy, under `timeout`.
export -f train resume compare copy_and_resume step_time timed_run
export gan out python
call() { local name=$1; shift; step "$name" bash -c '"$@"' bash "$@"; }

show=12 step "devices" "$gan" devices
"$gan" devices --json >"$out/devices.json" || true

# --- Right numbers -----------------------------------------------------------------------------
if [ -n "${GCC_GAN_TESTS:-}" ] && [ -n "$quick" ]; then
    step "conformance (elementwise alone)" "$GCC_GAN_TESTS" conformance::elementwise --exact
elif [ -n "${GCC_GAN_TESTS:-}" ]; then
    show=6 step "conformance, and graphs against single launches" "$GCC_GAN_TESTS" --test-threads 4
else
    skip "conformance" "GCC_GAN_TESTS is not set"
fi
# Adam's first steps are the signs of gradients: where one is nearly 0, rounding turns it, and a bias that began at 0 is far
# off. So the state may be a good deal, and the losses, which are what is learnt, little.
call "CPU, $few steps" train cpu-few "$program" "${sets[@]}" --steps $few --device cpu
call "CPU, $many steps" train cpu-many "$program" "${sets[@]}" --steps $many --device cpu
for precision in $precisions; do
    case $precision in
    f32) state=2e-2 losses=1e-3 ;;
    tf32) state=3e-1 losses=1e-2 ;;
    bf16) state=6e-1 losses=5e-2 ;;
    esac
    on="--device cuda --precision $precision"
    # shellcheck disable=SC2086
    {
        call "$precision, $few steps" train "$precision-few" "$program" "${sets[@]}" --steps $few $on
        call "$precision, $few steps: beside the CPU's" compare cpu-few "$precision-few" --state $state --losses $losses
        call "$precision, $many steps" train "$precision-many" "$program" "${sets[@]}" --steps $many $on
        # Losses of a GAN drift apart from rounding alone; how far is printed, and looked at.
        call "$precision, $many steps: beside the CPU's" compare cpu-many "$precision-many"
        call "$precision, again" train "$precision-again" "$program" "${sets[@]}" --steps $few $on
        call "$precision, again: the same bits" compare "$precision-few" "$precision-again" --state 0 --losses 0
        call "$precision, resumed" copy_and_resume "$precision-few" "$precision-resumed" --steps $((2 * few)) $on
        call "$precision, not interrupted" train "$precision-whole" "$program" "${sets[@]}" --steps $((2 * few)) $on
        call "$precision, resumed: the same bits" compare "$precision-whole" "$precision-resumed" --state 0 --losses 0
    }
done
call "the GPU's run resumed on the CPU" copy_and_resume f32-few f32-to-cpu --steps $((2 * few)) --device cpu
call "the CPU's run resumed on the GPU" copy_and_resume cpu-few cpu-to-f32 --steps $((2 * few)) --device cuda
call "both resumed runs beside each other" compare f32-to-cpu cpu-to-f32 --losses 1e-2

# --- compute-sanitizer -------------------------------------------------------------------------
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
for tool in memcheck racecheck initcheck; do
    if [ -z "$sanitizer" ]; then
        skip "$tool" "compute-sanitizer is not installed"
        continue
    fi
    for precision in $precisions; do
        show=4 step "$tool, $precision" "$sanitizer" --tool $tool --error-exitcode 9 "$gan" train "$program" "${small[@]}" \
            --steps 2 --device cuda --precision $precision --data embedded --offline --out "$out/runs" --name "$tool-$precision"
    done
done

# --- Times -------------------------------------------------------------------------------------
for precision in $precisions; do
    top=24 step "profile, $precision" "$gan" profile "$program" "${sets[@]}" --steps $((few * 7)) --device cuda \
        --precision $precision -o "$out/profile-$precision.json"
done
has_torch=
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null && has_torch=1
# Ours and PyTorch's in turn, twice, so that a chip that warms up or is shared shows.
for turn in 1 2; do
    for precision in $precisions; do
        call "time $turn, $precision" timed_run "time-$turn-$precision" "$program" "${sets[@]}" --steps $timed \
            --sample-every $((timed * 2)) --device cuda --precision $precision
    done
    if [ -n "$has_torch" ]; then
        show=24 step "time $turn, PyTorch" "$python" benches/pytorch_step.py --device cuda --all
    else
        skip "time $turn, PyTorch" "no PyTorch with CUDA in $python"
    fi
done

# --- The table ---------------------------------------------------------------------------------
{
    echo
    echo "gcc-gan on a GPU, $(date -u +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)${quick:+, QUICK: no figure means anything}"
    "$gan" devices
    nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader 2>/dev/null
    echo
    cat "$out/results.txt"
    echo
    grep -h "ms a step" "$out"/logs/*-time-* 2>/dev/null
    grep -H "apart at most" "$out"/logs/*beside* 2>/dev/null | sed "s#^$out/logs/##"
    echo
    [ $failed = 0 ] && echo "all passed" || echo "$failed failed: see $out/logs"
} | tee "$out/table.txt"
[ $failed = 0 ]
