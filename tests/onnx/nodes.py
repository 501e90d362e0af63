"""Says the node cases that the package `onnx` publishes in the graph language, runs them, and compares.

    python tests/onnx/nodes.py target/debug/gcc-gan [--least N] [--only OP] [--show] [--write]

Each case is a program with one expression for each output of the node. Prints a table by operator. Exit status 1 where
fewer than `--least` cases agree, where one differs, or where others than `not_sayable.txt` lists cannot be said;
`--write` writes that list.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx.backend.test.case.node import collect_testcases  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from spell import NotSayable, SPELLINGS, spell  # noqa: E402

# What cannot be said.
LIST = pathlib.Path(__file__).parent / "not_sayable.txt"

# Elements that f32 holds, but for the last digits of doubles: those of the cases are small whole numbers, masks, or f32.
TYPES = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.INT64,
    onnx.TensorProto.INT32,
    onnx.TensorProto.BOOL,
}


def cases():
    """The cases of one node each, of the operators that are said here, on tensors of these types."""
    for case in sorted(collect_testcases(None), key=lambda case: case.name):
        graph = case.model.graph
        if (
            len(graph.node) != 1
            or graph.node[0].op_type not in SPELLINGS
            or graph.node[0].domain not in ("", "ai.onnx")
        ):
            continue
        # Some functions of ONNX are published a second time, expanded to another node.
        if "_expanded" in case.name:
            continue
        tensors = [value.type for value in [*graph.input, *graph.output]]
        if all(t.HasField("tensor_type") and t.tensor_type.elem_type in TYPES for t in tensors):
            yield case


def program(expressions, used):
    inputs = ", ".join(f'"{name}": Tensor({list(value.shape)})' for name, value in used.items())
    lets = ", ".join(f'Let("o{i}", {said})' for i, said in enumerate(expressions))
    outputs = ", ".join(f'"o{i}"' for i in range(len(expressions)))
    entry = f"Entry(inputs: {{ {inputs} }}, steps: [{lets}], outputs: [{outputs}])"
    return f'Program(name: "case", entries: {{ "case": {entry} }})\n'


def run(binary, case):
    """What became of a case, why, and its program."""
    text = ""
    try:
        expressions, used = spell(case)
        values = {name: np.asarray(value) for name, value in used.items()}
        text = program(expressions, values)
        if any(value.size == 0 for value in values.values()) or any(np.size(e) == 0 for e in case.data_sets[0][1]):
            raise NotSayable("a tensor without elements")
        if any(value.dtype.kind == "i" and np.abs(value).max() >= 2**24 for value in values.values()):
            raise NotSayable("whole numbers that f32 does not hold")
    except NotSayable as reason:
        return "not sayable", str(reason), text
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("case.ron", "in.safetensors", "out.safetensors")]
        with open(paths[0], "w", encoding="utf-8") as file:
            file.write(text)
        save_file({name: np.array(value, dtype=np.float32, order="C") for name, value in values.items()}, paths[1])
        command = [binary, "run", paths[0], "case", "--inputs", paths[1], "--outputs", paths[2], "--threads", "1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return "differs", done.stderr, text
        found = load_file(paths[2])
    for i, expected in enumerate(case.data_sets[0][1][: len(expressions)]):
        expected, value = np.asarray(expected), found[f"o{i}"]
        if expected.shape != value.shape:
            return "differs", f"o{i} is {value.shape}, not {expected.shape}", text
        # The tolerance that ONNX itself asks of a backend, and a little around 0.
        if not np.allclose(
            value, expected.astype(np.float32), rtol=case.rtol, atol=max(case.atol, 1e-6), equal_nan=True
        ):
            return "differs", f"o{i} is {value.reshape(-1)[:8]}, not {expected.reshape(-1)[:8]}", text
    return "passes", "", text


def not_sayable(chosen, results):
    """The cases that cannot be said, with the reason of each."""
    lines = [
        "# Node cases of the operators that `spell.py` knows which cannot be said, and why. Made by `nodes.py --write`."
    ]
    for case, (verdict, why, _) in zip(chosen, results):
        if verdict == "not sayable":
            lines.append(f"{case.name}: {why}")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("binary")
    parser.add_argument("--least", type=int, default=0)
    parser.add_argument("--only")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    chosen = [c for c in cases() if not args.only or c.model.graph.node[0].op_type == args.only]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda case: run(args.binary, case), chosen))
    table = collections.defaultdict(collections.Counter)
    for case, (verdict, why, text) in zip(chosen, results):
        table[case.model.graph.node[0].op_type][verdict] += 1
        if args.show or verdict == "differs":
            print(f"{case.name}: {verdict}\n{text}{why}\n")
    verdicts = ["passes", "differs", "not sayable"]
    print(f"{'operator':28}" + "".join(f"{v:>13}" for v in verdicts))
    for op in sorted(table):
        print(f"{op:28}" + "".join(f"{table[op][v] or '':>13}" for v in verdicts))
    total = sum(table.values(), collections.Counter())
    print(f"{'all of ' + str(len(chosen)):28}" + "".join(f"{total[v]:>13}" for v in verdicts))
    listed = not_sayable(chosen, results)
    if args.write:
        LIST.write_text(listed, encoding="utf-8")
    if not args.only and LIST.read_text(encoding="utf-8") != listed:
        print(f"{LIST} lists others than these; --write renews it:\n{listed}", file=sys.stderr)
        return 1
    if total["differs"] or total["passes"] < args.least:
        print(f"{total['passes']} of at least {args.least} pass, {total['differs']} differ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
