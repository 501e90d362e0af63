"""What tests/cuda/gpu.sh measured, in text.

    python tests/cuda/gpu_report.py table FOLDER               all results; exits with 1 where one failed, 3 where one was skipped
    python tests/cuda/gpu_report.py curves NAME=RUN...         means of losses over the same steps of each run
    python tests/cuda/gpu_report.py step-time RUN PRECISION    what a step of a long run takes
    python tests/cuda/gpu_report.py fastest FOLDER PRECISION   the options of PyTorch's fastest mode

Python's own library suffices.
"""
import json
import pathlib
import re
import statistics
import sys
from typing import NamedTuple

PARTS = ["numbers", "bits", "memcheck", "racecheck", "initcheck", "synccheck", "times", "torch"]
PRECISIONS = ["f32", "tf32", "bf16"]
# What tests/cuda/kernels_alone.rs says of an entry.
ENTRY = re.compile(r"^\w+: [0-9]+ of the [0-9]+ buffers that ")
MILLISECONDS = re.compile(r"^(gcc-gan|PyTorch)[^,]*, (f32|tf32|bf16)([^,:]*).*: median ([0-9.]+) ms a step", re.MULTILINE)


class Result(NamedTuple):
    part: str
    name: str
    word: str
    seconds: str
    log: str


class Time(NamedTuple):
    side: str
    mode: str
    milliseconds: float


def results(folder: pathlib.Path) -> list[Result]:
    """The last word on each step, in the order of the parts. A part that began and did nothing has one without a name."""
    path = folder / "results.tsv"
    lines = path.read_text().splitlines() if path.exists() else []
    found = {(r.part, r.name): r for r in (Result(*line.split("\t")) for line in lines)}
    return sorted(found.values(), key=lambda result: PARTS.index(result.part))


def log(folder: pathlib.Path, result: Result) -> str:
    path = folder / "logs" / result.log
    return path.read_text(errors="replace") if result.log and path.is_file() else ""


def times(folder: pathlib.Path, of: list[Result], precision: str) -> list[Time]:
    found = [match for result in of if result.word == "ok" for match in MILLISECONDS.findall(log(folder, result))]
    return [Time(side, mode.strip(), float(ms)) for side, at, mode, ms in found if at == precision]


def fastest(folder: pathlib.Path, of: list[Result], precision: str) -> str | None:
    """The mode of PyTorch that was fastest where every mode was tried."""
    tried = times(folder, [r for r in of if r.part == "torch" and r.name.startswith("PyTorch")], precision)
    return min(tried, key=lambda time: time.milliseconds).mode if tried else None


def ratios(folder: pathlib.Path, of: list[Result]) -> list[str]:
    """Ours beside the fastest mode of PyTorch, of those that ran in turn."""
    lines = []
    for precision in PRECISIONS:
        turns = times(folder, [r for r in of if r.part == "torch" and r.name.startswith("turn")], precision)
        ours = [time.milliseconds for time in turns if time.side == "gcc-gan"]
        theirs = [time.milliseconds for time in turns if time.side == "PyTorch"]
        if ours and theirs:
            listed = [", ".join(f"{ms:.3f}" for ms in side) for side in (ours, theirs)]
            ratio = statistics.mean(ours) / statistics.mean(theirs)
            mode = next(time.mode for time in turns if time.side == "PyTorch")
            lines.append(f"{precision:5} {ratio:.2f} : 1   ours {listed[0]} ms a step, PyTorch {mode} {listed[1]}")
        else:
            lines.append(f"{precision:5} not measured")
    return lines


def table(folder: pathlib.Path) -> int:
    every = results(folder)
    shown = [result for result in every if result.name]
    header = folder / "header.txt"
    print(header.read_text() if header.exists() else "")
    part = None
    for result in shown:
        if result.part != part:
            part = result.part
            print(part)
        seconds = f"{result.seconds:>4} s  {result.log}" if result.seconds else ""
        print(f"  {result.name:58} {result.word:20} {seconds}".rstrip())
    for result in shown:
        if result.word == "ok" and result.name.startswith("losses"):
            print(f"\n{result.part}, {result.name}\n{log(folder, result).rstrip()}")
    apart = [(r, line) for r in shown if r.name.endswith("beside the CPU's") for line in log(folder, r).splitlines()]
    if apart:
        print("\nBeside the CPU's runs")
        for result, line in apart:
            print(f"  {result.name.split(':')[0]:20} {line}")
    each = [r for r in shown if r.name.startswith("each kernel by itself")]
    alone = [(r, line) for r in each for line in log(folder, r).splitlines() if ENTRY.match(line)]
    if alone:
        print("\nKernels by themselves, from what each read")
        for result, line in alone:
            print(f"  {result.name.split(', ')[-1]:5} " + line.replace("; off most is ", "\n          off most: "))
    # What ran beside others has no times.
    timed = [r for r in shown if r.word == "ok" and "at once" not in r.name]
    lines = [line for r in timed for line in log(folder, r).splitlines() if MILLISECONDS.match(line)]
    if lines:
        print("\nTimes")
        print("\n".join(f"  {line}" for line in lines))
    for result in shown:
        if result.word == "ok" and result.name.startswith("profile, "):
            print(f"\nEach kernel's time and what this GPU could do in it, {result.name.removeprefix('profile, ')}")
            print("\n".join(f"  {line}" for line in log(folder, result).splitlines()))
    print("\nOurs : the fastest mode of PyTorch, in turn")
    print("\n".join(f"  {line}" for line in ratios(folder, every)))

    failed = [r for r in shown if r.word.startswith("FAILED")]
    skipped = [r for r in shown if r.word.startswith("skipped")]
    never = [part for part in PARTS if all(r.part != part for r in every)]
    # One that began, and of which nothing is known.
    empty = [part for part in PARTS if part not in never and all(r.part != part for r in shown)]
    passed = len(shown) - len(failed) - len(skipped)
    missing = {r.part for r in skipped} | set(never) | set(empty)
    print(f"\n{passed} steps passed, {len(failed)} failed, {len(skipped)} skipped")
    for result in failed:
        print(f"failed: {result.part}: {result.name}, see {folder / 'logs' / result.log}")
    if missing:
        names = ", ".join(part for part in PARTS if part in missing)
        print(f"{len(missing)} {'part' if len(missing) == 1 else 'parts'} skipped or not complete: not proved ({names})")
    if not failed and not missing:
        print("all passed")
    return 1 if failed else 3 if missing else 0


def metrics(run: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def curves(runs: dict[str, pathlib.Path]) -> int:
    read = {name: metrics(run) for name, run in runs.items()}
    last = min(lines[-1]["step"] for lines in read.values())
    losses = [name for name in next(iter(read.values()))[0] if name.startswith("loss")]
    edges = [edge for edge in (0, 1, 10, 50, 100, 150) if edge < last] + [last]
    spans = list(zip(edges, edges[1:]))
    for loss in losses:
        print(f"{loss + ', mean of steps':26}" + "".join(f"{f'{a + 1} to {b}' if a + 1 < b else b:>13}" for a, b in spans))
        for name, lines in read.items():
            means = [statistics.mean(line[loss] for line in lines if a < line["step"] <= b) for a, b in spans]
            print(f"  {name:24}" + "".join(f"{mean:13.4f}" for mean in means))
    if any("PyTorch" in name for name in runs):
        print(
            "The same weights to begin with and the same images, in another order, with other noise and other dropout masks: lines\n"
            "cannot agree step by step. What can be compared are means over many steps, and whether ours lie where PyTorch's\n"
            "own runs with other seeds do (three of f32); step 1 is of the same weights, and differs by its batch and its noise alone."
        )
    return 0


def step_time(run: pathlib.Path, precision: str) -> int:
    """Of each epoch from its first line to its last: at its end a checkpoint is written, which is no part of a step."""
    lines = metrics(run)
    steps = round(lines[0]["step"] / lines[0]["epoch"])
    epochs = {}
    for line in lines:
        epochs.setdefault((line["step"] - 1) // steps, []).append(line)
    spans = [(epoch[0], epoch[-1]) for epoch in epochs.values() if len(epoch) > 1]
    if not spans:
        print("too few steps to take a time")
        return 1
    taken = [1e3 * (b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in spans]
    counted = sum(b["step"] - a["step"] for a, b in spans)
    print(
        f"gcc-gan train, {precision}: median {statistics.median(taken):.3f} ms a step (from {min(taken):.3f} to "
        f"{max(taken):.3f}), of {len(spans)} times, {counted} steps"
    )
    return 0


def main(command: str, arguments: list[str]) -> int:
    match command, arguments:
        case "table", [folder]:
            return table(pathlib.Path(folder))
        case "curves", [_, *_]:
            return curves({name: pathlib.Path(run) for name, run in (a.split("=", 1) for a in arguments)})
        case "step-time", [run, precision]:
            return step_time(pathlib.Path(run), precision)
        case "fastest", [folder, precision]:
            mode = fastest(pathlib.Path(folder), results(pathlib.Path(folder)), precision)
            print(" ".join("--" + word.replace("_", "-") for word in (mode or "").split() if word != "eager"))
            return 0
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "", sys.argv[2:]))
