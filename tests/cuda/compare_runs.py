"""Compares two runs of `gcc-gan train`: the state in their checkpoints, and their losses.

    python tests/cuda/compare_runs.py RUN RUN [--state LIMIT] [--losses LIMIT]

--state is how far a state tensor may be from that of the first run, as the norm of the difference by the tensor's own norm (0:
the same bits); --losses how far a loss may be, as a part of it. Prints the largest of both; exits with 1 where a limit is
passed. Python's own library suffices.
"""
import argparse
import array
import json
import math
import pathlib
import struct
import sys


def state(run: pathlib.Path) -> dict[str, tuple[str, bytes]]:
    """The tensors of a checkpoint, each with its element type. The format: a length, a JSON header, the bytes."""
    data = (run / "checkpoint.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = memoryview(data)[8 + length :]
    return {name: (t["dtype"], bytes(body[slice(*t["data_offsets"])])) for name, t in header.items()}


def distance(kind: str, a: bytes, b: bytes) -> float:
    """0 only where all bits are the same."""
    if a == b:
        return 0.0
    if kind != "F32" or len(a) != len(b):
        return math.inf
    a, b = array.array("f", a), array.array("f", b)
    norm = math.sqrt(sum(x * x for x in a))
    difference = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b)))
    if math.isnan(difference):
        return math.inf
    # A tensor near 0 is measured against what rounding leaves.
    return max(difference / (norm + 1e-6 * math.sqrt(len(a))), sys.float_info.min)


def losses(run: pathlib.Path) -> dict[tuple[int, str], float]:
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return {(line["step"], name): v for line in lines for name, v in line.items() if "loss" in name and v is not None}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, type=pathlib.Path)
    parser.add_argument("--state", type=float)
    parser.add_argument("--losses", type=float)
    arguments = parser.parse_args()
    first, second = map(state, arguments.runs)
    if first.keys() != second.keys() or not first:
        print("the runs have other tensors")
        return 1
    farthest, name = max((distance(first[name][0], first[name][1], second[name][1]), name) for name in first)
    print(f"state: {f'{farthest:.1e} apart at most, in {name}' if farthest else 'the same bits'}")
    passed = arguments.state is not None and farthest > arguments.state
    expected, found = map(losses, arguments.runs)
    common = expected.keys() & found.keys()
    if not common:
        print("losses: the runs have no step in common")
        return 1
    apart, step = max((abs(found[at] - expected[at]) / max(abs(expected[at]), 1e-3), at) for at in common)
    print(f"losses: {apart:.1e} apart at most, {step[1]} of step {step[0]}, in {len(common)} losses")
    far = min((at for at in common if not abs(found[at] - expected[at]) <= 0.05 * abs(expected[at])), default=None)
    if far:
        print(f"losses: over 5% apart first in {far[1]} of step {far[0]}")
    return int(passed or (arguments.losses is not None and apart > arguments.losses))


if __name__ == "__main__":
    sys.exit(main())
