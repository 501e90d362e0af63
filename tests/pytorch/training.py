"""Some steps of PyTorch's optimisers, schedulers, gradient clipping, averaged models and spectral normalisation, in float64.

Writes the fixture in training/, which `cargo test --test pytorch_fixture` compares with: one small network for each way to
train it, under the names that `gcc-gan inputs tests/pytorch/training.ron` lists.

    pip install torch numpy safetensors
    python tests/pytorch/training.py
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn, optim
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import lr_scheduler as schedules
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
STEPS = 6

# The optimiser, its schedule, and what is done to gradients before it, by the network's name in training.ron.
WAYS = {
    "adam": (lambda p: optim.Adam(p, 0.01, betas=(0.8, 0.999)), None, None),
    "adam_decay": (lambda p: optim.Adam(p, 0.01, weight_decay=0.1), None, None),
    "adam_amsgrad": (lambda p: optim.Adam(p, 0.01, betas=(0.9, 0.5), amsgrad=True), None, None),
    "adamw": (lambda p: optim.AdamW(p, 0.02, weight_decay=0.3), None, None),
    # PyTorch's cosine rises again behind its end.
    "adamw_cosine": (lambda p: optim.AdamW(p, 0.05, amsgrad=True),
                     lambda o: schedules.SequentialLR(o, [schedules.CosineAnnealingLR(o, 5, eta_min=0.01),
                                                          schedules.ConstantLR(o, factor=0.2, total_iters=99)], [5]), None),
    "rms_prop": (lambda p: optim.RMSprop(p, 0.01, weight_decay=0.1), None, None),
    "rms_prop_centred": (lambda p: optim.RMSprop(p, 0.01, alpha=0.9, eps=1e-3, momentum=0.5, centered=True), None, None),
    "sgd": (lambda p: optim.SGD(p, 0.1, weight_decay=0.2), None, None),
    "sgd_momentum": (lambda p: optim.SGD(p, 0.1, momentum=0.9), None, None),
    "sgd_nesterov": (lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01), None, None),
    "clip_norm": (lambda p: optim.SGD(p, 0.5), None, lambda p: clip_grad_norm_(p, 0.3)),
    "clip_value": (lambda p: optim.SGD(p, 0.5), None, lambda p: clip_grad_value_(p, 0.05)),
    "linear": (lambda p: optim.SGD(p, 0.2), lambda o: schedules.LinearLR(o, 1.0, 0.25, 4), None),
    "step": (lambda p: optim.SGD(p, 0.2), lambda o: schedules.StepLR(o, 2, 0.3), None),
    "exponential": (lambda p: optim.SGD(p, 0.2), lambda o: schedules.ExponentialLR(o, 0.7), None),
    "warm_up": (lambda p: optim.SGD(p, 0.2), lambda o: schedules.LinearLR(o, 0.25, 1.0, 3), None),
    "spectral": (lambda p: optim.SGD(p, 0.1), None, None),
}


def exact(x):
    """The nearest numbers that f32 holds too, so that both precisions start from the same."""
    return x.detach().float().double()


def network(name):
    if name == "spectral":
        layers = [nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 2, (2, 3)), nn.Linear(32, 2)]
        return nn.Sequential(spectral_norm(layers[0]), nn.Tanh(), spectral_norm(layers[1]), nn.Tanh(), nn.Flatten(),
                             spectral_norm(layers[2]))
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def layers(name, net):
    """The layers with weights, by our names."""
    words = {nn.Linear: "dense", nn.Conv2d: "conv", nn.ConvTranspose2d: "conv_transpose"}
    for i, layer in enumerate(net):
        word = next((word for kind, word in words.items() if isinstance(layer, kind)), None)
        if word:
            yield f"{name}/{i}-{word}", layer


def tensors(name, net, suffix=""):
    """Parameters and the state of spectral norms, by our names; weights of dense layers are turned."""
    found = {}
    for path, layer in layers(name, net):
        norm = getattr(layer, "parametrizations", None)
        weight = norm.weight.original if norm else layer.weight
        found[f"{path}/weight{suffix}"] = weight.T if isinstance(layer, nn.Linear) else weight
        found[f"{path}/bias{suffix}"] = layer.bias
        if norm:
            found[f"{path}/spectral_u"] = norm.weight[0]._u
            found[f"{path}/spectral_v"] = norm.weight[0]._v
    return {key: value.detach().clone().contiguous() for key, value in found.items()}


def main():
    given, expected = {}, {}
    runs = {}
    for name, (optimiser, schedule, clip) in WAYS.items():
        net = network(name)
        with torch.no_grad():
            for p in [*net.parameters(), *net.buffers()]:
                p.copy_(exact(p))
        given.update(tensors(name, net))
        method = optimiser(list(net.parameters()))
        runs[name] = (net, method, schedule and schedule(method), clip)
    averaged = AveragedModel(runs["adam"][0], multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in range(STEPS):
        x, y, image = (exact(torch.randn(shape)) for shape in ((5, 3), (5, 2), (5, 2, 5, 4)))
        given |= {f"x@{step}": x, f"y@{step}": y, f"image@{step}": image}
        for name, (net, method, schedule, clip) in runs.items():
            loss = ((net(image if name == "spectral" else x) - y) ** 2).mean()
            expected[f"loss_{name}@{step}"] = loss.detach().clone()
            method.zero_grad()
            loss.backward()
            if clip:
                clip(net.parameters())
            method.step()
            if schedule:
                schedule.step()
        averaged.update_parameters(runs["adam"][0])
        net = runs["spectral"][0].eval()
        expected[f"judged_spectral@{step}"] = net(image).sum().detach().clone()
        net.train()
    for name, (net, *_) in runs.items():
        expected.update(tensors(name, net))
    expected.update(tensors("adam", averaged.module, "/average"))
    folder = pathlib.Path(__file__).parent / "training"
    folder.mkdir(exist_ok=True)
    save_file(given, folder / "in.safetensors")
    save_file(expected, folder / "expected.safetensors")
    print(f"wrote {folder}: {len(given)} tensors in, {len(expected)} out, {STEPS} steps")


main()
