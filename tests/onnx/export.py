"""Models that `gcc-gan export` writes, against the program itself: the same inputs by onnxruntime and by `gcc-gan run`.

    target/onnx-venv/bin/python tests/onnx/export.py target/debug/gcc-gan

Each model must pass ONNX's checker with inferred shapes, and outputs must agree within 1e-5, at numbers of examples that the
program was not trained with.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file, save_file

SMALL_BATCH = ["--set", "batch=8"]
SMALL = [*SMALL_BATCH, "--set", "noise_batch=8"]
# Of 64x64 colours, for which there are no data here.
UNTRAINED = ["--set", "latent=16", "--set", "features=4"]
# Program, settings of the training, what is exported, and the size that counts its examples.
CASES = [
    ("dcgan", SMALL, ["--entry", "sample"], "samples"),
    ("dcgan", SMALL, ["--network", "discriminator"], None),
    ("dcgan-paper", SMALL, ["--entry", "sample", "--ema"], "samples"),
    ("cgan", SMALL_BATCH, ["--entry", "sample"], "samples"),
    ("vae", SMALL_BATCH, ["--entry", "sample"], "samples"),
    ("vae", SMALL_BATCH, ["--entry", "evaluate"], "batch"),
    ("lenet", SMALL_BATCH, ["--entry", "evaluate"], "batch"),
    ("lenet", SMALL_BATCH, ["--network", "body"], None),
    ("mlp-gan", SMALL_BATCH, ["--entry", "sample"], "samples"),
    ("hinge", SMALL_BATCH, ["--entry", "sample"], "samples"),
    ("hinge", SMALL_BATCH, ["--network", "discriminator"], None),
    ("dcgan64", UNTRAINED, ["--entry", "sample"], "samples"),
]
TOLERANCE = 1e-5


def command(*args, folder=None):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))}\n{done.stdout}{done.stderr}")
    return done.stdout


def inputs_of(session, examples, rng):
    """Normal noise, or labels, of as many examples as asked for."""
    made = {}
    for wanted in session.get_inputs():
        shape = [examples if size == "N" else size for size in wanted.shape]
        if any(not isinstance(size, int) for size in shape):
            sys.exit(f"{wanted.name} has the shape {wanted.shape}")
        is_label = wanted.type == "tensor(int64)"
        made[wanted.name] = rng.integers(0, 10, shape) if is_label else rng.standard_normal(shape, np.float32)
    return made


def check(gcc_gan, folder, program, run, what, size):
    model = folder / "model.onnx"
    out = command(gcc_gan, "export", run, "--format", "onnx", "-o", model, *what)
    loaded = onnx.load(model)
    onnx.checker.check_model(loaded, full_check=True)
    facts = {p.key: p.value for p in loaded.metadata_props}
    assert facts["program"] == program and facts["step"] == str(loaded.model_version), facts
    assert all(node.name and node.doc_string for node in loaded.graph.node)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst = 0.0
    for examples in (5, 1, 11):
        given = inputs_of(session, examples, rng)
        if not any(size == "N" for wanted in session.get_inputs() for size in wanted.shape):
            sys.exit(f"{program} {what}: the number of examples is fixed: {out}")
        ours = {n: v.astype(np.uint32) if v.dtype == np.int64 else v for n, v in given.items()}
        save_file(ours, folder / "in.safetensors")
        name = what[1]
        sets = ["--set", f"{size}={examples}"] if size else []
        weights = run
        if "--ema" in what:
            # The averages under the names of what they are the averages of.
            state = load_file(run / "checkpoint.safetensors")
            averages = {k.removesuffix("/average"): v for k, v in state.items() if k.endswith("/average")}
            state = {k: averages.get(k, v) for k, v in state.items()}
            used = {i["name"] for i in used_state(gcc_gan, program, name)}
            save_file({**ours, **{k: v for k, v in state.items() if k in used}}, folder / "in.safetensors")
        command(gcc_gan, "run", program, name, "--checkpoint", weights, "--inputs", folder / "in.safetensors",
                "--outputs", folder / "out.safetensors", "--math", "exact", *sets)
        expected = load_file(folder / "out.safetensors")
        for output, found in zip(session.get_outputs(), session.run(None, given)):
            wanted = expected[output.name]
            assert found.shape == wanted.shape, (output.name, found.shape, wanted.shape)
            scale = max(1.0, float(np.abs(wanted).max()))
            worst = max(worst, float(np.abs(found - wanted).max()) / scale)
    print(f"{program} {' '.join(what)}: {len(loaded.graph.node)} nodes, within {worst:.1e}")
    if not worst <= TOLERANCE:
        sys.exit("further apart than that may be")


def used_state(gcc_gan, program, entry):
    names = json.loads(command(gcc_gan, "inputs", program, entry, "--json"))
    return [name for name in names if name["kind"] == "state"]


def main():
    gcc_gan = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        runs = {}
        for program, sets, what, size in CASES:
            if program not in runs and sets is UNTRAINED:
                command(gcc_gan, "run", program, "init", *sets, "--outputs", "init.safetensors", folder=folder)
                command(gcc_gan, "import", "init.safetensors", "--program", program, *sets, "-o", f"runs/{program}",
                        folder=folder)
                runs[program] = folder / "runs" / program
            if program not in runs:
                command(gcc_gan, "train", program, *sets, "--data", "embedded", "--offline", "--steps", "3",
                        "--name", program, folder=folder)
                runs[program] = folder / "runs" / program
            check(gcc_gan, folder, program, runs[program], what, size)


if __name__ == "__main__":
    main()
