"""Compares two safetensors files tensor by tensor; exit status 1 where one differs.

The difference of two tensors is the largest difference of their elements, relative to the largest element that is
expected. Gradients of biases in front of a training-mode batch normalisation are zero in exact arithmetic: what
rounding leaves of them is compared with the largest gradient of the same layer's weight, and Adam, which makes steps
of up to the learning rate out of it, is not compared on these biases.

    python tests/pytorch/compare.py expected.safetensors found.safetensors --tolerance 1e-9
"""
import argparse
import sys

from safetensors.numpy import load_file

BEFORE_NORM = ("generator/0-dense/bias", "generator/4-conv_transpose/bias", "generator/7-conv_transpose/bias")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("expected")
    args.add_argument("found")
    args.add_argument("--tolerance", type=float, required=True)
    a = args.parse_args()
    expected, found = load_file(a.expected), load_file(a.found)
    worst, bad = [], 0
    for name, value in expected.items():
        if name not in found:
            print(f"missing: {name}")
            bad += 1
            continue
        base = name.split("@")[0]
        scale = abs(value).max()
        if base.endswith(BEFORE_NORM) and base.startswith("gradient/"):
            scale = abs(expected[name.replace("/bias", "/weight")]).max()
        elif base.removesuffix("/adam_m").removesuffix("/adam_v").endswith(BEFORE_NORM):
            continue
        difference = abs(value - found[name].astype(value.dtype)).max() / max(scale, 1e-300)
        worst.append((difference, name))
        if not difference <= a.tolerance:
            print(f"{name}: {difference:.2e}")
            bad += 1
    for difference, name in sorted(worst, reverse=True)[:3]:
        print(f"largest: {difference:.2e} in {name}")
    print(f"{len(expected)} tensors, {bad} differ by more than {a.tolerance:g}")
    sys.exit(bad > 0)


main()
