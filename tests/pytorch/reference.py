"""Training steps of the DCGAN in PyTorch, in float64, for `gcc-gan run` to be compared with.

Writes what goes in (parameters, running statistics, images, noise, dropout masks) and what comes out (losses,
gradients, parameters, running statistics, Adam's moments) of some steps, under the names that
`gcc-gan inputs graphs/dcgan.ron` lists:

    pip install torch numpy safetensors
    python tests/pytorch/reference.py --out /tmp/full
    gcc-gan run graphs/dcgan.ron train_step --steps 3 --f64-reference \
        --inputs /tmp/full/in.safetensors --outputs /tmp/full/f64.safetensors
    python tests/pytorch/compare.py /tmp/full/expected.safetensors /tmp/full/f64.safetensors --tolerance 1e-9

An f32 step is compared from PyTorch's state before it, for each of the steps (step-0, step-1, step-2):

    gcc-gan run graphs/dcgan.ron train_step \
        --inputs /tmp/full/step-0/in.safetensors --outputs /tmp/full/step-0/f32.safetensors
    python tests/pytorch/compare.py /tmp/full/step-0/expected.safetensors /tmp/full/step-0/f32.safetensors --tolerance 1e-4

Over several steps no f32 arithmetic stays near f64: Adam's first steps are near the learning rate times the sign of each
gradient, so the smallest ones, rounded across zero, move their weights the other way, and relu's kinks do the rest. How
far PyTorch's own f32 strays shows `--float32`, which makes the same files in f32 from the same inputs.

With --small it makes the fixture beside this file, for the program small.ron.
"""
import argparse
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)


def exact(x):
    """The nearest numbers that f32 holds too, so that both precisions start from the same."""
    return x.float().double()


class Sizes:
    """The numbers that small.ron has in the place of dcgan.ron's."""

    def __init__(self, small):
        self.batch, self.noise_batch, self.latent = (3, 4, 5) if small else (128, 128, 300)
        self.gen = (6, 5, 4) if small else (256, 128, 64)
        self.dis = (3, 4) if small else (64, 128)


def parameters(s, rng):
    """Parameters and running statistics by name, with values that leave nothing at a special point."""
    g0, g1, g2 = s.gen
    d0, d1 = s.dis
    shapes = {
        "generator/0-dense": ((s.latent, g0 * 49), (g0 * 49,)),
        "generator/4-conv_transpose": ((g0, g1, 5, 5), (g1,)),
        "generator/7-conv_transpose": ((g1, g2, 4, 4), (g2,)),
        "generator/10-conv_transpose": ((g2, 1, 4, 4), (1,)),
        "discriminator/0-conv": ((d0, 1, 4, 4), (d0,)),
        "discriminator/3-conv": ((d1, d0, 4, 4), (d1,)),
        "discriminator/7-dense": ((d1 * 49, 1), (1,)),
    }
    norms = {"generator/1-batch_norm": g0 * 49, "generator/5-batch_norm": g1, "generator/8-batch_norm": g2}
    p, stats = {}, {}
    for name, (weight, bias) in shapes.items():
        area = weight[2] * weight[3] if len(weight) == 4 else 1
        limit = (6 / ((weight[0] + weight[1]) * area)) ** 0.5
        p[name + "/weight"] = exact((torch.rand(weight, generator=rng) * 2 - 1) * limit)
        p[name + "/bias"] = exact(torch.randn(bias, generator=rng) * 0.05)
    for name, n in norms.items():
        p[name + "/scale"] = exact(1 + torch.randn(n, generator=rng) * 0.1)
        p[name + "/offset"] = exact(torch.randn(n, generator=rng) * 0.1)
        stats[name + "/running_mean"] = exact(torch.randn(n, generator=rng) * 0.1)
        stats[name + "/running_variance"] = exact(1 + torch.rand(n, generator=rng))
    return p, stats


def generator(p, stats, z, s):
    def norm(x, name):
        mean, variance = stats[name + "/running_mean"], stats[name + "/running_variance"]
        return F.batch_norm(x, mean, variance, p[name + "/scale"], p[name + "/offset"], True, 0.1, 1e-5)

    def up(x, name, stride, pad):
        return F.conv_transpose2d(x, p[name + "/weight"], p[name + "/bias"], stride, pad)

    x = z @ p["generator/0-dense/weight"] + p["generator/0-dense/bias"]
    x = F.relu(norm(x, "generator/1-batch_norm")).view(-1, s.gen[0], 7, 7)
    x = F.relu(norm(up(x, "generator/4-conv_transpose", 1, 2), "generator/5-batch_norm"))
    x = F.relu(norm(up(x, "generator/7-conv_transpose", 2, 1), "generator/8-batch_norm"))
    return torch.tanh(up(x, "generator/10-conv_transpose", 2, 1))


def discriminator(p, x, masks):
    for name, mask in zip(("discriminator/0-conv", "discriminator/3-conv"), masks):
        x = F.leaky_relu(F.conv2d(x, p[name + "/weight"], p[name + "/bias"], 2, 1), 0.2) * mask / 0.75
    return x.flatten(1) @ p["discriminator/7-dense/weight"] + p["discriminator/7-dense/bias"]


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def of_step(tensors, step):
    """Those called `name@step`, as `name`."""
    return {name.removesuffix(f"@{step}"): value for name, value in tensors.items() if name.endswith(f"@{step}")}


def write(folder, given, expected):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in given.items()}, folder / "in.safetensors")
    save_file({name: value.contiguous() for name, value in expected.items()}, folder / "expected.safetensors")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--out", type=pathlib.Path, help="the folder to write to")
    args.add_argument("--steps", type=int, default=3)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--float32", action="store_true", help="compute in f32")
    args.add_argument("--small", action="store_true", help="the fixture for small.ron")
    a = args.parse_args()
    out = a.out or pathlib.Path(__file__).parent / "small"
    s, rng = Sizes(a.small), torch.Generator().manual_seed(a.seed)

    p, stats = parameters(s, rng)
    dtype = torch.float32 if a.float32 else torch.float64
    p, stats = ({name: value.to(dtype) for name, value in group.items()} for group in (p, stats))
    given = {name: value.clone() for name, value in {**p, **stats}.items()}
    nets = {net: [name for name in p if name.startswith(net)] for net in ("generator", "discriminator")}
    for value in p.values():
        value.requires_grad_()
    adam = {net: torch.optim.Adam([p[n] for n in names], lr=2e-4, betas=(0.9, 0.999), eps=1e-8)
            for net, names in nets.items()}
    expected = {}

    def draw(name, step, value):
        value = exact(value).to(dtype)
        given[f"train_step/{name}@{step}"] = value
        return value

    def masks(call, step, batch):
        shapes = ((batch, s.dis[0], 14, 14), (batch, s.dis[1], 7, 7))
        return [draw(f"{call}/discriminator/{layer}-dropout", step, (torch.rand(shape, generator=rng) < 0.75).double())
                for layer, shape in zip((2, 5), shapes)]

    def state(step):
        """Parameters, running statistics and moments as they are, copied."""
        tensors = {name: value.detach().clone() for name, value in {**p, **stats}.items()}
        for net, names in nets.items():
            tensors[f"{net}/adam/t"] = torch.tensor(float(step))
            for name in names:
                moments = adam[net].state.get(p[name], {})
                for ours, theirs in (("adam_m", "exp_avg"), ("adam_v", "exp_avg_sq")):
                    tensors[f"{name}/{ours}"] = moments.get(theirs, torch.zeros_like(p[name])).detach().clone()
        tensors["step"] = torch.tensor(step, dtype=torch.int64)
        return tensors

    def minimise(loss_name, loss, net, step):
        gradients = torch.autograd.grad(loss, [p[n] for n in nets[net]])
        expected[f"{loss_name}@{step}"] = loss.detach().clone()
        for name, gradient in zip(nets[net], gradients):
            expected[f"gradient/{loss_name}/{name}@{step}"] = gradient.clone()
            p[name].grad = gradient
        adam[net].step()

    for k in range(a.steps):
        before = state(k)
        given[f"real@{k}"] = real = exact(torch.rand((s.batch, 1, 28, 28), generator=rng) * 2 - 1).to(dtype)
        z = draw("noise_d", k, torch.randn((s.noise_batch, s.latent), generator=rng))
        with torch.no_grad():
            fake = generator(p, stats, z, s)
        on_real = discriminator(p, real, masks("score_real", k, s.batch))
        on_fake = discriminator(p, fake, masks("score_fake", k, s.noise_batch))
        minimise("loss_d", bce(on_real, 1.0) + bce(on_fake, 0.0), "discriminator", k)

        z = draw("noise_g", k, torch.randn((s.noise_batch, s.latent), generator=rng))
        score = discriminator(p, generator(p, stats, z, s), masks("score_g", k, s.noise_batch))
        minimise("loss_g", bce(score, 1.0), "generator", k)

        if not a.small:
            write(out / f"step-{k}", {**before, **of_step(given, k)}, {**of_step(expected, k), **state(k + 1)})

    expected.update(state(a.steps))
    for counter in ("step", "generator/adam/t", "discriminator/adam/t"):
        expected.pop(counter)
    write(out, given, expected)
    print(f"wrote {out}: {len(given)} tensors in, {len(expected)} out, {a.steps} steps")


main()
