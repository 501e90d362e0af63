"""Programs for the page's tests: python programs.py layers 100 > deep.ron; python programs.py calls 12 > wide.ron

`layers N`: one network of N layers, trained. `calls N`: a network that is called N times, each call with its own
loss: 12 give a graph of some 12,000 nodes.
"""

import sys

HEAD = """Program(
    name: "{name}",
    sizes: {{ "batch": 4 }},
    networks: {{
        "net": Network(
            input: [{input}],
            layers: [
                {layers}
            ],
        ),
    }},
    entries: {{
        "train_step": Entry(
            inputs: {{ "x": Tensor(["batch", {input}]) }},
            steps: [
                {steps}
            ],
            outputs: ["loss"],
        ),
    }},
)
"""


def lines(parts, indent=16):
    return (",\n" + " " * indent).join(parts)


def layers(count):
    """`count` layers in one network: convolutions, normalisations and activations in turn."""
    turn = ["Conv(channels: 4, kernel: 3, pad: 1)", "BatchNorm()", "LeakyRelu(0.2)"]
    body = [turn[i % 3] for i in range(count - 2)] + ["Flatten()", "Dense(1)"]
    steps = [
        'Let("y", Call("net", "x", Training))',
        'Let("loss", Mean(Mul("y", "y")))',
        'Minimise("loss", "net", Adam(lr: 0.001))',
    ]
    return HEAD.format(name="deep", input="1, 8, 8", layers=lines(body), steps=lines(steps))


def calls(count):
    """`count` calls of one network of forty layers, whose losses are added up."""
    body = ["Dense(8), BatchNorm(), Tanh(), Dropout(0.1)"] * 10 + ["Dense(1)"]
    steps = [
        f'Let("y{i}", Call("net", Mul("x", {i}.5), Training)), Let("loss{i}", Mean(Mul("y{i}", "y{i}")))'
        for i in range(count)
    ]
    total = '"loss0"'
    for i in range(1, count):
        steps.append(f'Let("sum{i}", Add({total}, "loss{i}"))')
        total = f'"sum{i}"'
    steps.append(f'Let("loss", {total})')
    steps.append('Minimise("loss", "net", Adam(lr: 0.001))')
    return HEAD.format(name="wide", input="8", layers=lines(body), steps=lines(steps))


if __name__ == "__main__":
    kind, count = sys.argv[1:]
    print({"layers": layers, "calls": calls}[kind](int(count)), end="")
