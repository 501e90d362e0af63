"""Trains `dcgan-paper` here and in PyTorch, on the full MNIST with several seeds, and measures the samples of both.

    pip install torch numpy
    cargo build --release
    python benches/quality.py target/release/gcc-gan --data MNIST --seeds 3 --epochs 10 --out quality

Prints a table for the README: mean and standard deviation over the seeds. What is done stays in the folder: a second call goes
on where the first was stopped, at an epoch's end in PyTorch. On two cores a seed takes about 15 minutes here and 35 in
PyTorch. Peer and program are the same network, weights, losses, rates and averages; each has random numbers of its own.
"""
import argparse
import gzip
import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

LATENT, BATCH, SAMPLES, DECAY = 100, 128, 10_000, 0.999


def normal(network):
    """Weights as the paper has them (Radford, Metz & Chintala, ICLR 2016, section 4), biases of 0."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def networks():
    generator = nn.Sequential(
        nn.Linear(LATENT, 256 * 7 * 7, bias=False), nn.Unflatten(1, (256, 7, 7)), nn.BatchNorm2d(256), nn.ReLU(),
        nn.ConvTranspose2d(256, 128, 5, padding=2, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh())
    discriminator = nn.Sequential(
        nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(128 * 7 * 7, 1))
    return normal(generator), normal(discriminator)


def images(folder):
    """The training images, [60000, 1, 28, 28], from -1 to 1."""
    for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
        file = folder / name
        if file.exists():
            raw = gzip.decompress(file.read_bytes()) if name.endswith("gz") else file.read_bytes()
            return torch.from_numpy(np.frombuffer(raw[16:], np.uint8).reshape(-1, 1, 28, 28).copy()) / 127.5 - 1
    sys.exit(f"{folder}: there is no train-images-idx3-ubyte[.gz]: `gcc-gan data show mnist` says where MNIST is")


def train_peer(folder, data, seed, epochs):
    """Trains in PyTorch and writes SAMPLES images of the averaged generator, as bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    generator, discriminator = networks()
    of_g, of_d = (torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999)) for n in (generator, discriminator))
    average = [p.detach().clone() for p in generator.parameters()]
    averaged, first = 0, 0
    saved = folder / "state.pt"
    if saved.exists():
        state = torch.load(saved)
        for part, values in zip((generator, discriminator, of_g, of_d), state["parts"]):
            part.load_state_dict(values)
        average, averaged, first = state["average"], state["averaged"], state["epochs"]
        torch.set_rng_state(state["random"])
    for epoch in range(first, epochs):
        begun = time.time()
        for indices in torch.randperm(len(data)).split(BATCH):
            fake = generator(torch.randn(len(indices), LATENT))
            of_d.zero_grad()
            loss = F.softplus(-discriminator(data[indices])).mean() + F.softplus(discriminator(fake.detach())).mean()
            loss.backward()
            of_d.step()
            of_g.zero_grad()
            F.softplus(-discriminator(fake)).mean().backward()
            of_g.step()
            follow = max(1 - DECAY, 9 / (10 + averaged)) if averaged else 1
            torch._foreach_lerp_(average, [p.detach() for p in generator.parameters()], follow)
            averaged += 1
        parts = [part.state_dict() for part in (generator, discriminator, of_g, of_d)]
        state = dict(parts=parts, average=average, averaged=averaged, epochs=epoch + 1, random=torch.get_rng_state())
        torch.save(state, saved.with_suffix(".new"))
        saved.with_suffix(".new").rename(saved)
        print(f"PyTorch, seed {seed}: epoch {epoch + 1} in {time.time() - begun:.0f} s", file=sys.stderr, flush=True)
    for parameter, mean in zip(generator.parameters(), average):
        parameter.data.copy_(mean)
    generator.eval()
    torch.manual_seed(1_000 + seed)
    with torch.no_grad():
        made = torch.cat([generator(torch.randn(500, LATENT)) for _ in range(SAMPLES // 500)])
    np.save(folder / "samples.npy", ((made + 1) * 127.5).round().to(torch.uint8).numpy()[:, 0])


def train_ours(program, folder, data, seed, epochs):
    train = [program, "train", "--epochs", str(epochs)]
    if (folder / "checkpoint.safetensors").exists():
        train += ["--resume", folder]
    else:
        train += ["dcgan-paper", "--seed", str(seed), "--data", data, "--out", folder.parent, "--name", folder.name]
    subprocess.run(train, check=True, stdout=sys.stderr)


def measured(file, program, *what):
    """What `gcc-gan eval` says, kept in a file."""
    if not file.exists():
        said = subprocess.run([program, "eval", *map(str, what), "--samples", str(SAMPLES), "--json"], check=True,
                              capture_output=True, text=True).stdout
        file.write_text(said)
    return json.loads(file.read_text())


ROWS = {
    "Fréchet distance": ("{:.2f}", lambda m: m["frechet_distance"]),
    "kernel distance (KID)": ("{:.3f}", lambda m: m["kernel_distance"]["mean"]),
    "precision": ("{:.3f}", lambda m: m["precision"]),
    "recall": ("{:.3f}", lambda m: m["recall"]),
    "classifier score": ("{:.2f}", lambda m: m["classifier_score"]),
    "balance of classes": ("{:.3f}", lambda m: m["classes"]["balance"]),
}


def table(ours, peer):
    def cell(form, values):
        spread = f" ± {form.format(statistics.stdev(values))}" if len(values) > 1 else ""
        return form.format(statistics.mean(values)) + spread

    print("| | gcc-gan | PyTorch | real images |\n|---|---|---|---|")
    for name, (form, of) in ROWS.items():
        columns = [[of(r["measures"]) for r in ours], [of(r["measures"]) for r in peer], [of(ours[0]["real"])]]
        print(f"| {name} | {' | '.join(cell(form, values) for values in columns)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder with MNIST's files")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("quality"))
    args = parser.parse_args()
    program, out = args.program.resolve(), args.out
    ours, peer = [], []
    for seed in range(args.seeds):
        of_seed = f"seed-{seed}-epochs-{args.epochs}"
        run, made = out / "gcc-gan" / of_seed, out / "pytorch" / of_seed
        if not (run / "quality.json").exists():
            train_ours(program, run, args.data, seed, args.epochs)
        ours.append(measured(run / "quality.json", program, run, "--ema", "--seed", seed))
        if not (made / "samples.npy").exists():
            train_peer(made, images(args.data), seed, args.epochs)
        peer.append(measured(made / "quality.json", program, "--images", made / "samples.npy", "--data", args.data))
        print(f"after {seed + 1} of {args.seeds} seeds:", file=sys.stderr)
        table(ours, peer)


main()
