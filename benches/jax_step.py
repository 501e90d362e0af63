"""The DCGAN's training step in JAX, timed: the whole step is one compiled function. See benches/peers.sh.

    pip install "jax[cpu]"
    python benches/jax_step.py --threads 2 --steps 20

The model is that of graphs/dcgan.ron, with images as [batch, height, width, channels], which is what XLA prefers on a CPU.
"""
import argparse
import json
import os
import resource
import statistics
import time

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="processor cores to run on")
arguments.add_argument("--steps", type=int, default=20)
arguments.add_argument("--batch", type=int, default=128)
arguments.add_argument("--json", action="store_true", help="print every time as JSON")
options = arguments.parse_args()
# XLA has a thread for each core that the process may use, and asks when it is loaded.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])

import jax
from jax import lax, numpy as jnp

LATENT = 300
WARM_UP = 3
RATE, BETA_1, BETA_2, EPSILON = 2e-4, 0.9, 0.999, 1e-8


def glorot(key, shape, fan_in, fan_out):
    bound = (6 / (fan_in + fan_out)) ** 0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def conv_parameters(key, kernel, channels_in, channels_out):
    shape, area = (kernel, kernel, channels_in, channels_out), kernel * kernel
    return {"weight": glorot(key, shape, area * channels_in, area * channels_out), "bias": jnp.zeros(channels_out)}


def dense_parameters(key, units_in, units_out):
    return {"weight": glorot(key, (units_in, units_out), units_in, units_out), "bias": jnp.zeros(units_out)}


def norm_parameters(channels):
    return {"scale": jnp.ones(channels), "offset": jnp.zeros(channels)}


def new_networks(key):
    keys = jax.random.split(key, 7)
    generator = {
        "dense": dense_parameters(keys[0], LATENT, 12544),
        "norms": [norm_parameters(channels) for channels in (12544, 128, 64)],
        "up": [conv_parameters(k, *sizes) for k, sizes in zip(keys[1:4], [(5, 256, 128), (4, 128, 64), (4, 64, 1)])],
    }
    discriminator = {
        "down": [conv_parameters(k, *sizes) for k, sizes in zip(keys[4:6], [(4, 1, 64), (4, 64, 128)])],
        "dense": dense_parameters(keys[6], 6272, 1),
    }
    statistics_of = [{"mean": jnp.zeros(c), "variance": jnp.ones(c)} for c in (12544, 128, 64)]
    return generator, discriminator, statistics_of


def convolution(x, p, stride, pad, transposed=False):
    """A convolution; a transposed one as one of an image with zeros between its pixels. Filters are random: none is flipped."""
    edge = p["weight"].shape[0] - 1 - pad if transposed else pad
    strides = {"window_strides": (1, 1), "lhs_dilation": (stride, stride)} if transposed else {"window_strides": (stride, stride)}
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, p["weight"], padding=[(edge, edge)] * 2, dimension_numbers=layout, **strides) + p["bias"]


def batch_norm(x, p, running):
    """Normalises by the batch's statistics; also gives the running ones after it."""
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    mean, variance = x.mean(axes), x.var(axes)
    moved = {
        "mean": 0.9 * running["mean"] + 0.1 * mean,
        "variance": 0.9 * running["variance"] + 0.1 * variance * count / (count - 1),
    }
    return (x - mean) * lax.rsqrt(variance + 1e-5) * p["scale"] + p["offset"], moved


def generate(p, running, noise):
    moved = [None] * 3
    x, moved[0] = batch_norm(noise @ p["dense"]["weight"] + p["dense"]["bias"], p["norms"][0], running[0])
    x = jax.nn.relu(x).reshape(-1, 7, 7, 256)
    for i, (stride, pad) in enumerate([(1, 2), (2, 1)]):
        x, moved[i + 1] = batch_norm(convolution(x, p["up"][i], stride, pad, transposed=True), p["norms"][i + 1], running[i + 1])
        x = jax.nn.relu(x)
    return jnp.tanh(convolution(x, p["up"][2], 2, 1, transposed=True)), moved


def score(p, images, key):
    x = images
    for layer, key in zip(p["down"], jax.random.split(key)):
        x = jax.nn.leaky_relu(convolution(x, layer, 2, 1), 0.2)
        x = jnp.where(jax.random.bernoulli(key, 0.75, x.shape), x / 0.75, 0.0)
    return x.reshape(x.shape[0], -1) @ p["dense"]["weight"] + p["dense"]["bias"]


def bce(logits, target):
    return (jax.nn.softplus(logits) - target * logits).mean()


def adam(p, gradient, moments, count):
    first = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, moments[0], gradient)
    second = jax.tree.map(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, moments[1], gradient)
    c1, c2 = 1 - BETA_1**count, 1 - BETA_2**count
    new = jax.tree.map(lambda w, m, v: w - RATE * (m / c1) / (jnp.sqrt(v / c2) + EPSILON), p, first, second)
    return new, (first, second)


def train_step(state, real, key):
    generator, discriminator, moments_g, moments_d, running, count = state
    count = count + 1
    noise_d, noise_g, drop_real, drop_fake, drop_g = jax.random.split(key, 5)
    fake, running = generate(generator, running, jax.random.normal(noise_d, (options.batch, LATENT)))

    def loss_d(p):
        return bce(score(p, real, drop_real), 1.0) + bce(score(p, fake, drop_fake), 0.0)

    lost_d, gradient = jax.value_and_grad(loss_d)(discriminator)
    discriminator, moments_d = adam(discriminator, gradient, moments_d, count)

    def loss_g(p):
        made, moved = generate(p, running, jax.random.normal(noise_g, (options.batch, LATENT)))
        return bce(score(discriminator, made, drop_g), 1.0), moved

    (lost_g, running), gradient = jax.value_and_grad(loss_g, has_aux=True)(generator)
    generator, moments_g = adam(generator, gradient, moments_g, count)
    return (generator, discriminator, moments_g, moments_d, running, count), lost_d, lost_g


step = jax.jit(train_step, donate_argnums=0)
key_networks, key_images, key_steps = jax.random.split(jax.random.key(0), 3)
generator, discriminator, running = new_networks(key_networks)
zeros = [jax.tree.map(jnp.zeros_like, (network, network)) for network in (generator, discriminator)]
state = (generator, discriminator, *zeros, running, jnp.float32(0))
real = jax.random.uniform(key_images, (options.batch, 28, 28, 1)) * 2 - 1
times = []
for key in jax.random.split(key_steps, WARM_UP + options.steps):
    started = time.perf_counter()
    state, *losses = jax.block_until_ready(step(state, real, key))
    times.append(1e3 * (time.perf_counter() - started))
times = times[WARM_UP:]
if not all(jnp.isfinite(loss) for loss in losses):
    raise SystemExit(f"a loss is not a number: {losses}")
if options.json:
    print(json.dumps({"framework": "JAX", "version": jax.__version__, "times_ms": times}))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    median = statistics.median(times)
    print(
        f"JAX {jax.__version__}, {options.threads} threads: median {median:.3f} ms a step (from {min(times):.3f} to "
        f"{max(times):.3f}), {1e3 * options.batch / median:.0f} images/s, peak memory {peak:.0f} MiB"
    )
