"""The DCGAN's training step in PyTorch, timed: the other side of `gcc-gan profile dcgan`. See benches/peers.sh.

    pip install torch
    python benches/pytorch_step.py --threads 2 --steps 20 [--compile[=MODE]]
    python benches/pytorch_step.py --device cuda --precision bf16 [--channels-last] [--compile[=MODE]] [--graph]
    python benches/pytorch_step.py --device cuda --all      every mode of a GPU, each in a process of its own
    python benches/pytorch_step.py --losses 200 --weights WEIGHTS --images IMAGES

--precision is that of matrix products: f32 as it is, tf32, or bf16 (autocast; tf32 where that leaves f32). --graph replays the
whole step as one CUDA graph. MODE is torch.compile's: with max-autotune-no-cudagraphs and --graph the step is one graph of
the kernels that max-autotune finds. On a GPU a time is that of a series of steps without waiting between, divided by their number.

--losses trains that many steps on a data set and prints the losses of each as a line of JSON, as they are in a run's
metrics.jsonl. WEIGHTS is what `gcc-gan export` writes as safetensors, IMAGES an IDX file with gzip.
"""
import argparse
import gzip
import itertools
import json
import pathlib
import resource
import statistics
import struct
import subprocess
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

LATENT = 300
SERIES = 20  # steps of a GPU between two looks at the clock
WARM_UP = 11  # steps before a GPU's graph is made

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
arguments.add_argument("--steps", type=int, default=20, help="times to take; on a GPU each is of a series of steps")
arguments.add_argument("--batch", type=int, default=128)
arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
arguments.add_argument("--precision", choices=["f32", "tf32", "bf16"], default="f32")
arguments.add_argument("--channels-last", action="store_true")
arguments.add_argument("--compile", nargs="?", const="default", choices=["default", "max-autotune-no-cudagraphs"], metavar="MODE")
arguments.add_argument("--graph", action="store_true", help="the step as one CUDA graph")
arguments.add_argument("--all", action="store_true", help="every mode of a GPU at each precision")
arguments.add_argument("--losses", type=int, metavar="STEPS", help="train, and print losses in place of times")
arguments.add_argument("--weights", type=pathlib.Path, help="of --losses: what training begins with")
arguments.add_argument("--images", type=pathlib.Path, help="of --losses: what is trained on")
arguments.add_argument("--seed", type=int, default=0, help="of noise, dropout and the order of images")
arguments.add_argument("--json", action="store_true", help="print every time as JSON")
options = arguments.parse_args()
on_gpu = options.device == "cuda"
if options.graph and not on_gpu or options.precision == "tf32" and not on_gpu:
    arguments.error("--graph and tf32 are for --device cuda")
if options.losses and (options.graph or options.all or options.json or not (options.weights and options.images)):
    arguments.error("--losses takes --weights and --images, and neither --graph nor --all nor --json")
if options.all and options.json:
    arguments.error("--json is for one mode")
if options.all:
    flags = [["", "--channels-last"], ["", "--compile", "--compile=max-autotune-no-cudagraphs"], ["", "--graph"]]
    modes = [[flag for flag in mode if flag] for mode in itertools.product(*flags)]
    common = [sys.executable, __file__, "--device", options.device, "--batch", str(options.batch), "--steps", str(options.steps)]
    failed = 0
    for precision in ["f32", "tf32", "bf16"] if on_gpu else ["f32", "bf16"]:
        for mode in modes if on_gpu else [m for m in modes if "--graph" not in m]:
            failed += subprocess.run([*common, "--precision", precision, *mode], check=False).returncode != 0
    sys.exit(1 if failed else 0)

torch.set_num_threads(options.threads)
torch.manual_seed(options.seed)
BATCH = options.batch
device = torch.device(options.device)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.precision != "f32"
torch.backends.cudnn.benchmark = True

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
layout = torch.channels_last if options.channels_last else torch.contiguous_format
for network in (generator, discriminator):
    network.to(device, memory_format=layout)
fast = {"fused": True, "capturable": options.graph} if on_gpu else {}
adam = {network: torch.optim.Adam(network.parameters(), lr=2e-4, **fast) for network in (generator, discriminator)}


def bce(logits, target):
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def autocast():
    return torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.precision == "bf16")


def noise(examples):
    return torch.randn(examples, LATENT, device=device)


def loss_d(real):
    with autocast():
        with torch.no_grad():
            fake = generator(noise(len(real)))
        return bce(discriminator(real), 1.0) + bce(discriminator(fake), 0.0)


def loss_g(examples):
    with autocast():
        return bce(discriminator(generator(noise(examples))), 1.0)


if options.compile:
    loss_d, loss_g = (torch.compile(loss, mode=options.compile) for loss in (loss_d, loss_g))


def update(network, loss):
    adam[network].zero_grad(set_to_none=True)
    torch.autograd.backward(loss, inputs=list(network.parameters()))
    adam[network].step()
    return loss


def step(real):
    return update(discriminator, loss_d(real)), update(generator, loss_g(len(real)))


def wait():
    if on_gpu:
        torch.cuda.synchronize()


def read_weights(path):
    """The tensors of a safetensors file: a length, a JSON header, the bytes."""
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, tensor in header.items():
        dtype = {"F32": torch.float32, "I64": torch.int64}[tensor["dtype"]]
        begin, end = (8 + length + offset for offset in tensor["data_offsets"])
        tensors[name] = torch.frombuffer(data[begin:end], dtype=dtype).reshape(tensor["shape"])
    return tensors


def batches(images):
    """Epoch after epoch in another order, the last batch of each with what is left."""
    while True:
        yield from images[torch.randperm(len(images), device=images.device)].split(BATCH)


if options.losses:
    weights = read_weights(options.weights)
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        network.load_state_dict({key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")})
    pixels = bytearray(gzip.decompress(options.images.read_bytes())[16:])
    images = torch.frombuffer(pixels, dtype=torch.uint8).to(device).reshape(-1, 1, 28, 28).float() / 127.5 - 1
    for number, real in zip(range(1, options.losses + 1), batches(images.to(memory_format=layout))):
        of_d, of_g = step(real)
        print(json.dumps({"step": number, "loss_d": of_d.item(), "loss_g": of_g.item()}))
    sys.exit()

real = (torch.rand(BATCH, 1, 28, 28, device=device) * 2 - 1).to(memory_format=layout)
run = step
if options.graph:
    # What a graph replays is where it was when the graph was made: warmed up beside the default stream, as PyTorch asks.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            step(real)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(real)

    def run(_):
        graph.replay()


for _ in range(WARM_UP if on_gpu else 3):
    run(real)
wait()
series = SERIES if on_gpu else 1
times = []
for _ in range(options.steps):
    started = time.perf_counter()
    for _ in range(series):
        run(real)
    wait()
    times.append(1e3 * (time.perf_counter() - started) / series)
if options.json:
    print(json.dumps({"framework": "PyTorch", "version": torch.__version__, "times_ms": times}))
    sys.exit()
median = statistics.median(times)
if on_gpu:
    peak, where = torch.cuda.max_memory_allocated() / 2**20, torch.cuda.get_device_name()
else:
    peak, where = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, f"{options.threads} threads"
compiled = {None: "", "default": "compile"}.get(options.compile, f"compile={options.compile}")
mode = " ".join(filter(None, ["channels_last" * options.channels_last, compiled, "graph" * options.graph]))
print(
    f"PyTorch {torch.__version__}, {options.precision} {mode or 'eager'}, {where}: median {median:.3f} ms a step "
    f"(from {min(times):.3f} to {max(times):.3f}), {1e3 * BATCH / median:.0f} images/s, peak memory {peak:.0f} MiB",
    flush=True,
)
