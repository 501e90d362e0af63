"""Runs the README's loader of exported weights in PyTorch, and compares its images with `gcc-gan run`'s; then back again.

    python tests/pytorch/loader.py target/debug/gcc-gan [--without-torch]

Needs numpy, safetensors and torch, or --without-torch: then the layers are those of torch_by_numpy.py.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

if "--without-torch" in sys.argv:
    import torch_by_numpy

    torch_by_numpy.install()

import torch
from safetensors.torch import load_file, save_file

README = Path(__file__).resolve().parents[2] / "README.md"


def main():
    program = str(Path(sys.argv[1]).resolve())
    [loader] = [b for b in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "load_state_dict" in b]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)

        def gcc_gan(*args):
            done = subprocess.run([program, *map(str, args)], cwd=folder, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{args}\n{done.stdout}{done.stderr}")

        sets = ["--set", "batch=8", "--set", "noise_batch=8"]
        gcc_gan("train", "dcgan", *sets, "--data", "embedded", "--offline", "--steps", 3, "--name", "dcgan-001")
        gcc_gan("export", "runs/dcgan-001", "--network", "generator", "-o", "generator.safetensors")
        names = {"__name__": "loader"}
        torch.manual_seed(0)
        exec(loader.replace('"generator.safetensors"', repr(str(folder / "generator.safetensors"))), names)
        noise = torch.randn(5, 300)
        save_file({"noise": noise}, folder / "in.safetensors")
        gcc_gan("run", "dcgan", "sample", "--checkpoint", "runs/dcgan-001", "--set", "samples=5", "--inputs",
                "in.safetensors", "--outputs", "out.safetensors", "--math", "exact")
        with torch.no_grad():
            found = names["generator"](noise)
        difference = (found - load_file(folder / "out.safetensors")["images"]).abs().max().item()
        print(f"images within {difference:.1e}")
        assert names["images"].shape == (16, 1, 28, 28) and difference <= 1e-5

        # What PyTorch saves, counts of batches among it, is imported.
        gcc_gan("export", "runs/dcgan-001", "-o", "all.safetensors")
        everything = load_file(folder / "all.safetensors")
        everything |= {f"generator.{k}": v.contiguous() for k, v in names["generator"].state_dict().items()}
        save_file(everything, folder / "theirs.safetensors")
        gcc_gan("import", "theirs.safetensors", "--into", "runs/dcgan-001", "-o", "runs/theirs")
        gcc_gan("export", "runs/theirs", "-o", "again.safetensors")
        assert (folder / "all.safetensors").read_bytes() == (folder / "again.safetensors").read_bytes()
        gcc_gan("train", "--resume", "runs/theirs", "--steps", 1)
        print("and back with the same bits")


if __name__ == "__main__":
    main()
