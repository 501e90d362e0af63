"""What the README's loader needs of PyTorch, in numpy, for machines without PyTorch: its wheels take 5 GB of disk.

Written from PyTorch's documentation of each layer: names and layouts of parameters, strict loading, and inference. It
stands in for `torch`, `torch.nn` and `safetensors.torch` after `install()`. Where PyTorch is installed, `loader.py` runs
with either, and both are compared with `gcc-gan run`.
"""

import sys
from contextlib import nullcontext
from types import ModuleType

import numpy
import safetensors.numpy


class Tensor(numpy.ndarray):
    def abs(self):
        return numpy.abs(self)

    def contiguous(self):
        return numpy.ascontiguousarray(self)


def tensor(array):
    return numpy.asarray(array).view(Tensor)


class Module:
    """A layer with its parameters and buffers by name; `optional` need not be in what is loaded."""

    optional = ()

    def __init__(self, **parameters):
        self.parameters = parameters

    def state_dict(self):
        return {name: tensor(value) for name, value in self.parameters.items()}

    def load(self, name, value):
        self.parameters[name] = numpy.asarray(value)

    def load_state_dict(self, given):
        own = self.state_dict()
        problems = [f"missing: {name}" for name in own if name not in given and name.split(".")[-1] not in self.optional]
        problems += [f"unexpected: {name}" for name in given if name not in own]
        problems += [
            f"{name} is {given[name].shape} and not {value.shape}"
            for name, value in own.items()
            if name in given and given[name].shape != value.shape
        ]
        if problems:
            raise RuntimeError("; ".join(problems))
        for name, value in given.items():
            self.load(name, value)

    def eval(self):
        return self

    def __call__(self, x):
        return tensor(self.forward(numpy.asarray(x, dtype="float64")).astype("float32"))


def zeros(*shape):
    return numpy.zeros(shape, dtype="float32")


class Linear(Module):
    def __init__(self, inputs, outputs):
        super().__init__(weight=zeros(outputs, inputs), bias=zeros(outputs))

    def forward(self, x):
        return x @ self.parameters["weight"].T.astype("float64") + self.parameters["bias"]


class BatchNorm2d(Module):
    def __init__(self, features, eps=1e-5):
        vector = zeros(features)
        super().__init__(
            weight=vector, bias=vector, running_mean=vector, running_var=vector, num_batches_tracked=numpy.int64(0)
        )
        self.eps = eps

    def forward(self, x):
        names = ["weight", "bias", "running_mean", "running_var"]
        shape = [1, -1] + [1] * (x.ndim - 2)
        weight, bias, mean, variance = (self.parameters[name].astype("float64").reshape(shape) for name in names)
        return (x - mean) / numpy.sqrt(variance + self.eps) * weight + bias


class BatchNorm1d(BatchNorm2d):
    pass


class ConvTranspose2d(Module):
    def __init__(self, inputs, outputs, kernel, stride=1, padding=0):
        super().__init__(weight=zeros(inputs, outputs, kernel, kernel), bias=zeros(outputs))
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x):
        count, _, height, width = x.shape
        k, s, p = self.kernel, self.stride, self.padding
        weight = self.parameters["weight"].astype("float64")
        whole = numpy.zeros((count, weight.shape[1], (height - 1) * s + k, (width - 1) * s + k))
        for i in range(k):
            for j in range(k):
                part = numpy.einsum("nchw,cd->ndhw", x, weight[:, :, i, j])
                whole[:, :, i : i + height * s : s, j : j + width * s : s] += part
        inside = whole[:, :, p : whole.shape[2] - p, p : whole.shape[3] - p]
        return inside + self.parameters["bias"].reshape(1, -1, 1, 1)


class ReLU(Module):
    def forward(self, x):
        return numpy.maximum(x, 0)


class Tanh(Module):
    def forward(self, x):
        return numpy.tanh(x)


class Unflatten(Module):
    def __init__(self, dimension, sizes):
        super().__init__()
        self.dimension, self.sizes = dimension, sizes

    def forward(self, x):
        return x.reshape(*x.shape[: self.dimension], *self.sizes, *x.shape[self.dimension + 1 :])


class Sequential(Module):
    # A file of a version of PyTorch without these counts is taken too.
    optional = ("num_batches_tracked",)

    def __init__(self, *layers):
        super().__init__()
        self.layers = layers

    def state_dict(self):
        return {f"{i}.{name}": value for i, layer in enumerate(self.layers) for name, value in layer.state_dict().items()}

    def load(self, name, value):
        i, name = name.split(".", 1)
        self.layers[int(i)].load(name, value)

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x


def install():
    torch, nn, files = ModuleType("torch"), ModuleType("torch.nn"), ModuleType("safetensors.torch")
    generator = numpy.random.default_rng(0)
    torch.nn, torch.no_grad, torch.manual_seed = nn, nullcontext, lambda seed: None
    torch.randn = lambda *shape: tensor(generator.standard_normal(shape, dtype="float32"))
    for layer in [Linear, BatchNorm1d, BatchNorm2d, ConvTranspose2d, ReLU, Tanh, Unflatten, Sequential]:
        setattr(nn, layer.__name__, layer)
    files.load_file = lambda file: {name: tensor(value) for name, value in safetensors.numpy.load_file(file).items()}
    files.save_file = lambda tensors, file: safetensors.numpy.save_file(
        {name: numpy.ascontiguousarray(value).view(numpy.ndarray) for name, value in tensors.items()}, file
    )
    sys.modules |= {"torch": torch, "torch.nn": nn, "safetensors.torch": files}
