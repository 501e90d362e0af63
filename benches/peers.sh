#!/bin/bash
# The DCGAN's training step at batch 128: ours and the peers', in turn in one run, as a Markdown table on standard output.
#
#   benches/peers.sh [--rounds N] [--steps N] [--threads N] [--only NAME]...
#
#   --rounds N    pairs of each side: ours, the peer, ours, the peer (5)
#   --steps N     steps measured in each run, after some that are not (10)
#   --threads N   (all cores that this process may use)
#   --only NAME   only this side, beside ours; may be given several times. Names:
#                 fast, exact, bf16                        other modes of ours
#                 torch, torch-channels-last, torch-compile, torch-bf16      PyTorch, on benches/pytorch_step.py
#                 jax                                      JAX, on benches/jax_step.py
#
# GCC_GAN=PATH is the release binary; else it is built. Peers run with $PYTHON (python3), JAX with $JAX_PYTHON where that is set.
# A peer whose package is missing is skipped. Progress goes to standard error. Exit status 1 where a side failed. The
# machine should do nothing else meanwhile: what counts is the ratio, which is of two runs that follow each other.
set -u
cd "$(dirname "$0")/.." || exit 2

rounds=5 steps=10 commit='' only=() known="fast exact bf16 torch torch-channels-last torch-compile torch-bf16 jax"
python=${PYTHON:-python3} jax_python=${JAX_PYTHON:-${PYTHON:-python3}}
threads=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)

usage() {
    echo "$1; see the head of benches/peers.sh" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' benches/peers.sh
        exit 0
        ;;
    --rounds | --steps | --threads)
        [[ ${2:-} =~ ^[1-9][0-9]{0,3}$ ]] || usage "$1 takes a number from 1 to 9999"
        declare "${1#--}=$2"
        ;;
    --only)
        [[ " $known " == *" ${2:-} "* && -n ${2:-} ]] || usage "--only takes one of: $known"
        only+=("$2")
        ;;
    *) usage "\`$1\` is not an option" ;;
    esac
    shift 2
done
command -v "$python" >/dev/null || { echo "Python 3 is needed, which also runs the peers: PYTHON=PATH" >&2; exit 2; }

if [ -z "${GCC_GAN:-}" ]; then
    command -v cargo >/dev/null || { echo "set GCC_GAN to the binary, or install Rust" >&2; exit 2; }
    cargo build --release >&2 || exit 1
    # Of what was built here, and of a binary from elsewhere nobody knows.
    commit=$(git rev-parse --short HEAD 2>/dev/null)
    GCC_GAN=target/release/gcc-gan
fi
GCC_GAN=$(command -v "$GCC_GAN" | sed "s#^[^/]#$PWD/&#")
"$GCC_GAN" --version >/dev/null || { echo "GCC_GAN=$GCC_GAN does not run" >&2; exit 2; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
# Each pair: the side, which of ours it is compared with, and the start of the names of both files.
: >"$work/pairs"
failed=0

# measured FILE COMMAND...: its standard output to FILE, and the peak of its resident memory in KiB to FILE.peak.
measured() {
    local file=$1
    shift
    "$python" - "$file" "$@" <<'PYTHON'
import resource, subprocess, sys
file, *command = sys.argv[1:]
with open(file, "w") as out, open(file + ".err", "w") as err:
    status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err).returncode
if status:
    sys.exit(1)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
with open(file + ".peak", "w") as out:
    print(peak // 1024 if sys.platform == "darwin" else peak, file=out)
PYTHON
}

# run_side NAME ROUND FILE: one run of a side.
run_side() {
    local name=$1 file=$3
    local torch=("$python" benches/pytorch_step.py --threads "$threads" --steps "$steps" --json)
    echo "round $2 of $rounds: $name" >&2
    case $name in
    f32 | fast | exact | bf16) measured "$file" "$GCC_GAN" profile "$work/$name.plan" --steps "$steps" --threads "$threads" --json ;;
    torch) measured "$file" "${torch[@]}" ;;
    torch-channels-last) measured "$file" "${torch[@]}" --channels-last ;;
    torch-compile) measured "$file" "${torch[@]}" --compile ;;
    torch-bf16) measured "$file" "${torch[@]}" --precision bf16 ;;
    jax) measured "$file" "$jax_python" benches/jax_step.py --threads "$threads" --steps "$steps" --json ;;
    esac && return
    echo "$name failed, and is left out: $(tail -n 1 "$file.err")" >&2
    failed=1
    return 1
}

# Which sides there are. Each is paired with one of ours.
plan() {
    local name=$1
    shift
    "$GCC_GAN" compile dcgan "$@" -o "$work/$name.plan" >"$work/log" 2>&1
}
wanted() { [ ${#only[@]} = 0 ] || [[ " ${only[*]} " == *" $1 "* ]]; }
has() { "$1" -c "import importlib.util as i, sys; sys.exit(i.find_spec('$2') is None)" 2>/dev/null; }
plan f32 || { cat "$work/log" >&2; exit 1; }
sides=() ours=(f32)
for name in fast exact; do
    if ! wanted $name; then continue; fi
    if plan $name --math $name; then
        sides+=("$name:f32") ours+=("$name")
    else
        echo "$name is skipped: this version has no --math $name" >&2
    fi
done
bf16_partner=f32
if wanted bf16 || wanted torch-bf16; then
    if plan bf16 --precision bf16; then
        bf16_partner=bf16
        ours+=(bf16)
        ! wanted bf16 || sides+=(bf16:f32)
    else
        echo "bf16 of ours is skipped: $(sed -n 's/^error: //p' "$work/log" | head -n 1)" >&2
    fi
fi
peers=0
for name in torch torch-channels-last torch-compile torch-bf16; do
    if ! wanted $name; then continue; fi
    peers=1
    partner=f32
    [ $name != torch-bf16 ] || partner=$bf16_partner
    ! has "$python" torch || sides+=("$name:$partner")
done
if [ $peers = 1 ] && ! has "$python" torch; then
    echo "PyTorch is skipped: pip install torch, for $python (or another, by PYTHON=PATH)" >&2
fi
if wanted jax; then
    if has "$jax_python" jax; then
        sides+=(jax:f32)
    else
        echo "JAX is skipped: pip install 'jax[cpu]', for $jax_python (or another, by JAX_PYTHON=PATH)" >&2
    fi
fi
# Without a peer there is still ours.
[ ${#sides[@]} -gt 0 ] || sides=(f32:)

echo "load at the start: $(uptime | sed 's/.*load average[s]*: //')" >&2
left_out=" "
for ((round = 1; round <= rounds; round++)); do
    for side in "${sides[@]}"; do
        name=${side%%:*} partner=${side#*:}
        [[ $left_out != *" $name "* ]] || continue
        pair=$work/$round-$name
        if [ -n "$partner" ]; then
            run_side "$partner" $round "$pair.ours" || exit 1
        fi
        if run_side "$name" $round "$pair.side"; then
            printf '%s\t%s\t%s\n' "$name" "$partner" "$pair" >>"$work/pairs"
        else
            left_out+="$name "
        fi
    done
done

# A profile has the machine's ceilings measured too, which takes memory: ours is that of training.
for name in "${ours[@]}"; do
    echo "memory of $name" >&2
    # A run's folder is made where the command runs.
    train=("$GCC_GAN" train "$name.plan" --steps 5 --threads "$threads" --data embedded --offline)
    if ! (cd "$work" && measured "$name.train" "${train[@]}"); then
        echo "training with $name failed: $(tail -n 1 "$work/$name.train.err")" >&2
        failed=1
    fi
done

"$python" - "$work" "$rounds" "$steps" "$threads" "$("$GCC_GAN" --version)" "$commit" <<'PYTHON'
import datetime, json, os, platform, statistics, subprocess, sys

work, rounds, steps, threads, version, commit = sys.argv[1:]
LABELS = {
    "f32": "{}", "fast": "{}, `--math fast`", "exact": "{}, `--math exact`", "bf16": "{}, `--precision bf16`",
    "torch": "{}, eager", "torch-channels-last": "{}, eager, channels last", "torch-compile": "{}, `torch.compile`",
    "torch-bf16": "{}, eager, bfloat16 autocast", "jax": "{}, jit",
}
OURS = ("f32", "fast", "exact", "bf16")


def figures(file):
    """Median, least and greatest time of a step in ms, the framework, and the peak of memory in MiB."""
    with open(file) as text:
        data = json.load(text)
    with open(file + ".peak") as text:
        peak = int(text.read()) / 1024
    if "step" in data:
        step = data["step"]
        return *(1e3 * step[f"{part}_seconds"] for part in ("median", "min", "max")), version, peak
    times = data["times_ms"]
    return statistics.median(times), min(times), max(times), f"{data['framework']} {data['version'].split('+')[0]}", peak


runs, ratios, order = {}, {}, []
with open(f"{work}/pairs") as text:
    pairs = [line.rstrip("\n").split("\t") for line in text]
for name, partner, pair in pairs:
    ours = figures(pair + ".ours") if partner else None
    theirs = figures(pair + ".side")
    for side, run in [(partner, ours), (name, theirs)]:
        if run:
            runs.setdefault(side, []).append(run)
    if ours:
        ratios.setdefault((name, partner), []).append(ours[0] / theirs[0])


def described(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
    except OSError:
        return ""


def machine():
    about = dict(line.split(":", 1) for line in described(["lscpu"]).splitlines() if ":" in line)
    about = {name.strip(): value.strip() for name, value in about.items()}
    flags = set(about.get("Flags", "").split())
    name = about.get("Model name") or described(["sysctl", "-n", "machdep.cpu.brand_string"]).strip() or platform.machine()
    sets = [("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX")]
    vectors = next((text for flag, text in sets if flag in flags), None)
    if platform.machine() in ("aarch64", "arm64"):
        vectors = "NEON"
    more = [text for flag, text in [("avx512_bf16", "AVX512-BF16"), ("amx_bf16", "AMX-BF16")] if flag in flags]
    family = f" (family {about['CPU family']}, model {about['Model']})" if "CPU family" in about and "Model" in about else ""
    return f"{name}{family}, {threads} threads of {os.cpu_count()} cores, {' and '.join([vectors or 'no known vectors', *more])}"


def spread(numbers, digits):
    least, most = (f"{of(numbers):.{digits}f}" for of in (min, max))
    return least if least == most else f"{least} – {most}"


def memory(name):
    if name not in OURS:
        return f"{max(run[4] for run in runs[name]):.0f} MiB"
    try:
        with open(f"{work}/{name}.train.peak") as text:
            return f"{int(text.read()) / 1024:.0f} MiB"
    except FileNotFoundError:
        return "not measured"


def counted(number, what):
    return f"{number} {what}{'' if number == '1' else 's'}"


print(f"One training step of the DCGAN at batch 128. {machine()}; {platform.system()} {platform.release().split('-')[0]}.")
built = f"{version} ({commit})" if commit else version
print(f"{datetime.date.today()}, {built}, {counted(rounds, 'round')} of {counted(steps, 'step')}, in turn.\n")
print("| | median | fastest – slowest step | peak memory | ours takes, of its time |")
print("|---|---|---|---|---|")
for name in [name for name in LABELS if name in runs]:
    of = runs[name]
    median = statistics.median(run[0] for run in of)
    steps_spread = spread([run[1] for run in of] + [run[2] for run in of], 0)
    ratio = ""
    for (side, partner), found in ratios.items():
        if side == name:
            than = " (by `--precision bf16`)" if partner == "bf16" else ""
            of_all = f" ({spread(found, 2)})" if len(found) > 1 else ""
            ratio = f"{statistics.median(found):.2f}{of_all}{than}"
    label = LABELS[name].format(of[0][3])
    print(f"| {label} | {median:.0f} ms | {steps_spread} ms | {memory(name)} | {ratio} |")
if ratios:
    print("\nOurs divided by the other, pair by pair:\n")
for (name, partner), found in ratios.items():
    print(f"- {LABELS[name].format(runs[name][0][3])}: {', '.join(f'{ratio:.3f}' for ratio in found)}")
PYTHON
status=$?
[ $status = 0 ] || exit $status
exit $failed
