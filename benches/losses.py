#!/usr/bin/env python3
"""The DCGAN's losses in every way to compute it, from the same seed: trains what is not trained yet, and draws all.

    benches/losses.py [--steps N] [--data DATA] [--out DIR] [MODE...]

MODE is exact, accurate, fast or bf16; all without one. Runs go to DIR (runs/losses), the drawing to DIR/losses.svg; standard
output has a table. A run that is there already is not trained again. GCC_GAN=PATH is the release binary (target/release/gcc-gan).
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess

MODES = {"exact": ["--math", "exact"], "accurate": [], "fast": ["--math", "fast"], "bf16": ["--precision", "bf16"]}
COLOURS = {"exact": "#000000", "accurate": "#0072b2", "fast": "#e69f00", "bf16": "#009e73"}
LOSSES = {"loss_d": "loss of the discriminator", "loss_g": "loss of the generator"}
WIDTH, HEIGHT, LEFT, TOP, GAP = 760, 240, 40, 30, 34

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("modes", nargs="*", metavar="MODE", help="exact, accurate, fast or bf16")
arguments.add_argument("--steps", type=int, default=500)
arguments.add_argument("--data", default="embedded")
arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/losses"))
options = arguments.parse_args()
modes = options.modes or list(MODES)
if unknown := [mode for mode in modes if mode not in MODES]:
    arguments.error(f"`{unknown[0]}` is none of {', '.join(MODES)}")


def records(mode):
    """What the run of a mode wrote: a record for each of some steps."""
    metrics = options.out / mode / "metrics.jsonl"
    if not metrics.exists():
        command = [os.environ.get("GCC_GAN", "target/release/gcc-gan"), "train", "dcgan", *MODES[mode], "--offline"]
        command += ["--steps", str(options.steps), "--data", options.data, "--out", options.out, "--name", mode]
        subprocess.run(command, check=True)
    with open(metrics) as lines:
        return [record for record in map(json.loads, lines) if record["step"] <= options.steps]


runs = {mode: records(mode) for mode in modes}
values = [r[loss] for run in runs.values() for r in run for loss in LOSSES if r[loss] is not None]
highest = max(values) * 1.05
parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 90} {2 * (HEIGHT + TOP + GAP)}" '
    'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
]
for number, (loss, title) in enumerate(LOSSES.items()):
    top = TOP + number * (HEIGHT + TOP + GAP)
    x = lambda step: LEFT + WIDTH * step / options.steps
    y = lambda value: top + HEIGHT * (1 - value / highest)
    parts.append(f'<text x="{LEFT}" y="{top - 10}" font-weight="bold">{title}</text>')
    for value in range(int(highest) + 1):
        parts.append(f'<path d="M{LEFT},{y(value):.1f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>')
    for step in range(0, options.steps + 1, max(1, options.steps // 5)):
        name = f"step {step}" if step == 0 else step
        parts.append(f'<text x="{x(step):.1f}" y="{top + HEIGHT + 18}" text-anchor="middle">{name}</text>')
    for row, (mode, run) in enumerate(runs.items()):
        points = " ".join(f"{x(r['step']):.1f},{y(r[loss]):.1f}" for r in run if r[loss] is not None)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[mode]}" stroke-width="1.6"/>')
        parts.append(f'<text x="{LEFT + WIDTH + 12}" y="{top + 14 + 18 * row}" fill="{COLOURS[mode]}">{mode}</text>')
parts.append("</svg>\n")
(options.out / "losses.svg").write_text("\n".join(parts))

print(f"{'':9}{'images/s':>9}" + "".join(f"{loss + ', ' + of:>20}" for loss in LOSSES for of in ("2nd half", "last")))
for mode, run in runs.items():
    row = f"{mode:9}{statistics.median(r['images_per_second'] for r in run):9.0f}"
    for loss in LOSSES:
        half = [r[loss] for r in run if r["step"] > options.steps / 2 and r[loss] is not None]
        last = run[-1][loss]
        row += f"{statistics.mean(half):20.3f}" + (f"{last:20.3f}" if last is not None else f"{'not finite':>20}")
    print(row)
first = modes[0]
for mode in modes[1:]:
    pairs = zip(runs[first], runs[mode])
    apart = [a["step"] for a, b in pairs if any(None in (a[l], b[l]) or abs(a[l] - b[l]) > 0.05 * a[l] for l in LOSSES)]
    print(f"{mode} is more than 5% from {first} {f'first at step {apart[0]}' if apart else 'at no step'}")
print(f"drawn: {options.out / 'losses.svg'}")
