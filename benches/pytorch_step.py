"""The DCGAN's training step in PyTorch on the CPU, timed: the other side of `gcc-gan profile dcgan`.

    pip install torch
    python benches/pytorch_step.py --threads 2 --steps 20 [--compile]
"""
import argparse
import resource
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

BATCH, LATENT = 128, 300

arguments = argparse.ArgumentParser()
arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
arguments.add_argument("--steps", type=int, default=20)
arguments.add_argument("--compile", action="store_true")
options = arguments.parse_args()
torch.set_num_threads(options.threads)
torch.manual_seed(0)

generator = nn.Sequential(
    nn.Linear(LATENT, 12544), nn.BatchNorm1d(12544), nn.ReLU(), nn.Unflatten(1, (256, 7, 7)),
    nn.ConvTranspose2d(256, 128, 5, 1, 2), nn.BatchNorm2d(128), nn.ReLU(),
    nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
    nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh(),
)
discriminator = nn.Sequential(
    nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(0.25),
    nn.Conv2d(64, 128, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(0.25),
    nn.Flatten(), nn.Linear(6272, 1),
)
adam = {network: torch.optim.Adam(network.parameters(), lr=2e-4) for network in (generator, discriminator)}


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def loss_d(real):
    with torch.no_grad():
        fake = generator(torch.randn(BATCH, LATENT))
    return bce(discriminator(real), 1.0) + bce(discriminator(fake), 0.0)


def loss_g():
    return bce(discriminator(generator(torch.randn(BATCH, LATENT))), 1.0)


if options.compile:
    loss_d, loss_g = torch.compile(loss_d), torch.compile(loss_g)


def update(network, loss):
    adam[network].zero_grad(set_to_none=True)
    torch.autograd.backward(loss, inputs=list(network.parameters()))
    adam[network].step()


def step(real):
    update(discriminator, loss_d(real))
    update(generator, loss_g())


real = torch.rand(BATCH, 1, 28, 28) * 2 - 1
for _ in range(3):
    step(real)
times = []
for _ in range(options.steps):
    started = time.perf_counter()
    step(real)
    times.append(1e3 * (time.perf_counter() - started))
median = statistics.median(times)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(
    f"PyTorch {torch.__version__}, {'compiled' if options.compile else 'eager'}, {options.threads} threads: median {median:.1f} ms a step "
    f"(from {min(times):.1f} to {max(times):.1f}), {1e3 * BATCH / median:.0f} images/s, peak memory {peak:.0f} MiB"
)
