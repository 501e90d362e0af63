"""How each ONNX node is said in the graph language: one expression for each of its outputs.

`spell(case)` gives the expressions and the values that they take. A node that cannot be said raises `NotSayable` with
the reason. Constant inputs of a node that are written in the program (axes, shapes, pads) are read from the case's data.
"""

import onnx
from onnx import helper, numpy_helper


class NotSayable(Exception):
    """Why a node has no expression."""


# Nodes that are written with their inputs in order and nothing else.
PLAIN = {
    "Abs": "Abs",
    "Acos": "Acos",
    "Acosh": "Acosh",
    "Add": "Add",
    "And": "And",
    "Asin": "Asin",
    "Asinh": "Asinh",
    "Atan": "Atan",
    "Atanh": "Atanh",
    "Ceil": "Ceil",
    "Cos": "Cos",
    "Cosh": "Cosh",
    "Equal": "Eq",
    "Erf": "Erf",
    "Exp": "Exp",
    "Floor": "Floor",
    "GlobalAveragePool": "GlobalAveragePool",
    "GlobalMaxPool": "GlobalMaxPool",
    "Greater": "Gt",
    "GreaterOrEqual": "Ge",
    "HardSwish": "HardSwish",
    "Identity": "Identity",
    "IsNaN": "IsNaN",
    "Less": "Lt",
    "LessOrEqual": "Le",
    "Log": "Log",
    "MatMul": "MatMul",
    "Mish": "Mish",
    "Mul": "Mul",
    "Neg": "Neg",
    "Not": "Not",
    "Or": "Or",
    "PRelu": "PRelu",
    "Pow": "Pow",
    "Reciprocal": "Reciprocal",
    "Relu": "Relu",
    "Round": "Round",
    "Sigmoid": "Sigmoid",
    "Sign": "Sign",
    "Sin": "Sin",
    "Sinh": "Sinh",
    "Size": "Size",
    "Softplus": "Softplus",
    "Softsign": "Softsign",
    "Sqrt": "Sqrt",
    "Sub": "Sub",
    "Tan": "Tan",
    "Tanh": "Tanh",
    "Where": "Select",
    "Xor": "Xor",
}

# Reductions, and what they are called here.
REDUCTIONS = {
    "ReduceL1": "ReduceL1",
    "ReduceL2": "ReduceL2",
    "ReduceLogSum": "ReduceLogSum",
    "ReduceLogSumExp": "ReduceLogSumExp",
    "ReduceMax": "ReduceMax",
    "ReduceMean": "Mean",
    "ReduceMin": "ReduceMin",
    "ReduceProd": "ReduceProd",
    "ReduceSum": "Sum",
    "ReduceSumSquare": "ReduceSumSquare",
}

# Activations whose attributes have the same names here.
WITH_ATTRIBUTES = {
    "Celu": ["alpha"],
    "Elu": ["alpha"],
    "HardSigmoid": ["alpha", "beta"],
    "Selu": ["alpha", "gamma"],
    "Shrink": ["bias", "lambd"],
    "Swish": ["alpha"],
    "ThresholdedRelu": ["alpha"],
    "LRN": ["size", "alpha", "beta", "bias"],
    "Softmax": ["axis"],
    "LogSoftmax": ["axis"],
    "Hardmax": ["axis"],
    "LpNormalization": ["axis", "p"],
    "MeanVarianceNormalization": ["axes"],
    "Flatten": ["axis"],
    "InstanceNormalization": ["epsilon"],
}


def number(value):
    """A number as it is written."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def written(value):
    """A number, a flag, a word or a list as it is written."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) > 0:
        return "[" + ", ".join(number(v) for v in value) + "]"
    return number(value)


class Node:
    """A case's node with its data."""

    def __init__(self, case):
        self.node = case.model.graph.node[0]
        self.attributes = {a.name: helper.get_attribute_value(a) for a in self.node.attribute}
        for name, value in self.attributes.items():
            if isinstance(value, bytes):
                self.attributes[name] = value.decode()
        graph_inputs = [i.name for i in case.model.graph.input]
        data = dict(zip(graph_inputs, case.data_sets[0][0]))
        self.given = [data.get(name) if name else None for name in self.node.input]
        self.opset = case.model.opset_import[0].version
        self.used = {}

    def has(self, i):
        return i < len(self.given) and self.given[i] is not None

    def x(self, i=0):
        """Input `i` as a value."""
        self.used[f"i{i}"] = self.given[i]
        return f'"i{i}"'

    def maybe(self, i):
        return self.x(i) if self.has(i) else None

    def literal(self, i, default=None):
        """Input `i` as it is written in the program."""
        return self.given[i] if self.has(i) else default

    def attribute(self, name, default=None):
        return self.attributes.get(name, default)


def call(op, **arguments):
    """`Op(x: ..., axis: ...)`, without the arguments that are `None`."""
    given = [
        f"{name}: {value if isinstance(value, str) else written(value)}"
        for name, value in arguments.items()
        if value is not None
    ]
    return f"{op}({', '.join(given)})"


def flag(value):
    return bool(value)


def windows(n, kernel):
    """The arguments of a window: stride, padding, dilation."""
    dimensions = len(kernel)
    arguments = {"stride": n.attribute("strides", [1] * dimensions), "dilation": n.attribute("dilations")}
    auto = n.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        arguments["pad"] = "Same" if auto == "SAME_UPPER" else "SameLower"
    elif auto == "NOTSET":
        arguments["pad"] = n.attribute("pads")
    return arguments


def pool(n, op, **more):
    kernel = n.attribute("kernel_shape")
    ceil = True if n.attribute("ceil_mode", 0) else None
    return [call(op, x=n.x(), size=kernel, **windows(n, kernel), ceil=ceil, **more)]


def spell_max_pool(n):
    if len(n.node.output) > 1:
        raise NotSayable("MaxPool gives no indices")
    return pool(n, "MaxPool")


def spell_conv(n):
    kernel = n.given[1].shape[2:]
    return [call("Conv", x=n.x(0), weight=n.x(1), bias=n.maybe(2), **windows(n, kernel), groups=n.attribute("group"))]


def spell_conv_transpose(n):
    kernel, x = n.given[1].shape[2:], n.given[0].shape[2:]
    arguments = windows(n, kernel)
    extra = n.attribute("output_padding")
    shape = n.attribute("output_shape")
    if shape is not None:
        # What the padding leaves of the whole, as the operator's specification has it.
        strides, dilations = n.attribute("strides", [1] * len(x)), n.attribute("dilations", [1] * len(x))
        extra = extra or [0] * len(x)
        whole = [s * (i - 1) + e + (k - 1) * d + 1 for s, i, e, k, d in zip(strides, x, extra, kernel, dilations)]
        total = [w - o for w, o in zip(whole, shape)]
        extra = [e + max(0, -t) for e, t in zip(extra, total)]
        low = [max(0, t) - max(0, t) // 2 for t in total]
        arguments["pad"] = low + [max(0, t) // 2 for t in total]
    return [
        call(
            "ConvTranspose",
            x=n.x(0),
            weight=n.x(1),
            bias=n.maybe(2),
            **arguments,
            groups=n.attribute("group"),
            output_padding=extra,
        )
    ]


def spell_reduction(n):
    op, keep = n.node.op_type, n.attribute("keepdims", 1)
    axes = n.attribute("axes", n.literal(1))
    if axes is not None and len(axes) == 0 and n.attribute("noop_with_empty_axes", 0):
        return [call(REDUCTIONS[op], x=n.x(), axes=[], keepdims=flag(keep))]
    if axes is not None and len(axes) == 0:
        axes = None
    return [call(REDUCTIONS[op], x=n.x(), axes=axes, keepdims=flag(keep))]


def spell_arg(n):
    last = True if n.attribute("select_last_index", 0) else None
    return [
        call(n.node.op_type, x=n.x(), axis=n.attribute("axis", 0), keepdims=flag(n.attribute("keepdims", 1)), last=last)
    ]


def spell_slice(n):
    if n.opset < 10:
        return [
            call("Slice", x=n.x(), starts=n.attribute("starts"), ends=n.attribute("ends"), axes=n.attribute("axes"))
        ]
    return [call("Slice", x=n.x(), starts=n.literal(1), ends=n.literal(2), axes=n.literal(3), steps=n.literal(4))]


def spell_split(n):
    axis, sizes = n.attribute("axis", 0), n.attribute("split", n.literal(1))
    parts = range(len(n.node.output))
    if sizes is not None:
        return [call("Split", x=n.x(), sizes=sizes, part=i, axis=axis) for i in parts]
    return [call("Chunk", x=n.x(), count=len(n.node.output), part=i, axis=axis) for i in parts]


def spell_pad(n):
    mode = {"constant": None, "edge": "Edge", "reflect": "Reflect", "wrap": "Wrap"}[n.attribute("mode", "constant")]
    value = n.literal(2)
    pads = n.attribute("pads", n.literal(1))
    return [
        call("Pad", x=n.x(), pads=pads, mode=mode, value=None if value is None else float(value), axes=n.literal(3))
    ]


def spell_loss(n):
    op, reduction = n.node.op_type, n.attribute("reduction", "mean").capitalize()
    arguments = {"weight": n.maybe(2), "ignore_index": n.attribute("ignore_index")}
    said = [call(op, x=n.x(0), target=n.x(1), **arguments, reduction=reduction)]
    if len(n.node.output) > 1:
        said.append(call("LogSoftmax", x=n.x(0), axis=1))
    return said


def spell_layer_norm(n):
    axis, epsilon = n.attribute("axis", -1), n.attribute("epsilon")
    said = [call("LayerNormalization", x=n.x(0), scale=n.x(1), bias=n.maybe(2), axis=axis, epsilon=epsilon)]
    axes = list(range(axis if axis >= 0 else axis + n.given[0].ndim, n.given[0].ndim))
    if len(n.node.output) > 1:
        said.append(call("Mean", x=n.x(0), axes=axes))
    if len(n.node.output) > 2:
        variance = call("Variance", x=n.x(0), axes=axes)
        said.append(f"Rsqrt(Add({variance}, {number(epsilon or 1e-5)}))")
    return said


def spell_batch_norm(n):
    if not n.attribute("training_mode", 0):
        arguments = {"mean": n.x(3), "variance": n.x(4)}
        return [
            call("BatchNormalization", x=n.x(0), scale=n.x(1), bias=n.x(2), **arguments, epsilon=n.attribute("epsilon"))
        ]
    said = [call("BatchNormalization", x=n.x(0), scale=n.x(1), bias=n.x(2), epsilon=n.attribute("epsilon"))]
    keep = n.attribute("momentum", 0.9)
    axes = [d for d in range(n.given[0].ndim) if d != 1]
    for old, op in ((3, "Mean"), (4, "Variance")):
        new = call(op, x=n.x(0), axes=axes, keepdims=False)
        said.append(f"Add(Mul({n.x(old)}, {number(keep)}), Mul({new}, {number(1 - keep)}))")
    return said


def spell_dropout(n):
    rate = n.attribute("ratio", n.literal(1))
    training = n.literal(2)
    if training is not None and bool(training) and (rate is None or float(rate) != 0):
        raise NotSayable("random draws are others than NumPy's")
    said = [call("Dropout", x=n.x(), rate=None if rate is None else float(rate))]
    if len(n.node.output) > 1:
        said.append(call("ConstantOfShape", shape=list(n.given[0].shape), value=1.0))
    return said


def spell_resize(n):
    coordinates = n.attribute("coordinate_transformation_mode", "half_pixel")
    if coordinates == "tf_crop_and_resize":
        raise NotSayable("Resize takes no region of interest")
    if n.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotSayable("Resize keeps no aspect ratio by itself")
    words = {
        "half_pixel": None,
        "half_pixel_symmetric": "HalfPixelSymmetric",
        "pytorch_half_pixel": "PytorchHalfPixel",
        "align_corners": "AlignCorners",
        "asymmetric": "Asymmetric",
    }
    rounding = {
        "round_prefer_floor": None,
        "round_prefer_ceil": "RoundPreferCeil",
        "floor": "Floor",
        "ceil": "Ceil",
    }[n.attribute("nearest_mode", "round_prefer_floor")]
    scales, sizes = n.literal(2), n.literal(3)
    scales = None if scales is None or scales.size == 0 else [float(s) for s in scales]
    return [
        call(
            "Resize",
            x=n.x(),
            sizes=sizes,
            mode={"nearest": None, "linear": "Linear", "cubic": "Cubic"}[n.attribute("mode", "nearest")],
            coordinates=words[coordinates],
            rounding=rounding,
            scales=scales,
            axes=n.attribute("axes"),
            antialias=True if n.attribute("antialias", 0) else None,
            cubic=n.attribute("cubic_coeff_a"),
            exclude_outside=True if n.attribute("exclude_outside", 0) else None,
        )
    ]


def spell_one_hot(n):
    off, on = (float(v) for v in n.given[2])
    depth = int(n.given[1].reshape(-1)[0])
    return [call("OneHot", labels=n.x(0), classes=depth, axis=n.attribute("axis", -1), off=off, on=on)]


def spell_constant_of_shape(n):
    value = n.attribute("value")
    value = 0.0 if value is None else float(numpy_helper.to_array(value)[0])
    return [call("ConstantOfShape", shape=n.given[0], value=value)]


def spell_many(n, op):
    inputs = [n.x(i) for i in range(len(n.given))]
    return [f"{op}({', '.join(inputs)})"]


def spell_several(n, op):
    if len(n.given) == 1:
        raise NotSayable(f"`{op}` of one tensor: it is `Identity`")
    return spell_many(n, op)


def spell_div(n):
    if n.given[0].dtype.kind == "i":
        raise NotSayable("whole numbers are divided as real ones")
    return spell_many(n, "Div")


def spell_mean(n):
    inputs = [n.x(i) for i in range(len(n.given))]
    return [f"MeanOf([{', '.join(inputs)}])"]


def spell_trilu(n):
    k = int(n.given[1].reshape(-1)[0]) if n.has(1) else None
    return [call("Trilu", x=n.x(), k=k, upper=None if n.attribute("upper", 1) else False)]


def spell_cumulative(n):
    options = {name: True if n.attribute(name, 0) else None for name in ("exclusive", "reverse")}
    return [call(n.node.op_type, x=n.x(), axis=int(n.given[1]), **options)]


def spell_is_inf(n):
    options = {name: None if n.attribute(name, 1) else False for name in ("detect_negative", "detect_positive")}
    return [call("IsInf", x=n.x(), **options)]


def spell_upsample(n):
    scales = n.literal(1) if n.has(1) else n.attribute("scales")
    if any(float(s) != int(s) for s in scales) or list(scales[:2]) != [1, 1]:
        raise NotSayable("Upsample takes whole factors for the pixels")
    return [
        call(
            "Upsample",
            x=n.x(),
            scale=[int(s) for s in scales[2:]],
            mode="Linear" if n.attribute("mode") == "linear" else None,
        )
    ]


def spell_gemm(n):
    return [
        call(
            "Gemm",
            a=n.x(0),
            b=n.x(1),
            c=n.maybe(2),
            alpha=n.attribute("alpha"),
            beta=n.attribute("beta"),
            trans_a=True if n.attribute("transA", 0) else None,
            trans_b=True if n.attribute("transB", 0) else None,
        )
    ]


def reduction_word(n):
    return {"none": None, "add": "Add", "mul": "Mul", "max": "Max", "min": "Min"}[n.attribute("reduction", "none")]


SPELLINGS = {
    "ArgMax": spell_arg,
    "ArgMin": spell_arg,
    "AveragePool": lambda n: pool(
        n, "AveragePool", count_include_pad=True if n.attribute("count_include_pad", 0) else None
    ),
    "BatchNormalization": spell_batch_norm,
    "Clip": lambda n: [call("Clip", x=n.x(), min=n.maybe(1), max=n.maybe(2))],
    "Concat": lambda n: [f"Concat([{', '.join(n.x(i) for i in range(len(n.given)))}], {n.attribute('axis')})"],
    "ConstantOfShape": spell_constant_of_shape,
    "Conv": spell_conv,
    "ConvTranspose": spell_conv_transpose,
    "CumProd": spell_cumulative,
    "CumSum": spell_cumulative,
    "Div": spell_div,
    "DepthToSpace": lambda n: [call("DepthToSpace", x=n.x(), block=n.attribute("blocksize"), mode=n.attribute("mode"))],
    "Dropout": spell_dropout,
    "Einsum": lambda n: [f'Einsum("{n.attribute("equation")}", [{", ".join(n.x(i) for i in range(len(n.given)))}])'],
    "Expand": lambda n: [call("Expand", x=n.x(), shape=n.given[1])],
    "EyeLike": lambda n: [call("EyeLike", x=n.x(), k=n.attribute("k"))],
    "Gather": lambda n: [call("Gather", x=n.x(0), indices=n.x(1), axis=n.attribute("axis"))],
    "GatherElements": lambda n: [call("GatherElements", x=n.x(0), indices=n.x(1), axis=n.attribute("axis"))],
    "GatherND": lambda n: [call("GatherND", x=n.x(0), indices=n.x(1), batch_dims=n.attribute("batch_dims"))],
    "Gelu": lambda n: [
        call("Gelu", x=n.x(), approximate={"none": None, "tanh": "Tanh"}[n.attribute("approximate", "none")])
    ],
    "Gemm": spell_gemm,
    "GroupNormalization": lambda n: [
        call(
            "GroupNormalization",
            x=n.x(0),
            scale=n.x(1),
            bias=n.x(2),
            groups=n.attribute("num_groups"),
            epsilon=n.attribute("epsilon"),
        )
    ],
    "IsInf": spell_is_inf,
    "LayerNormalization": spell_layer_norm,
    "LeakyRelu": lambda n: [call("LeakyRelu", x=n.x(), slope=n.attribute("alpha"))],
    "LpPool": lambda n: pool(n, "LpPool", p=n.attribute("p")),
    "Max": lambda n: spell_several(n, "Max"),
    "MaxPool": spell_max_pool,
    "Mean": spell_mean,
    "Min": lambda n: spell_several(n, "Min"),
    "Mod": lambda n: [call("Mod", a=n.x(0), b=n.x(1), fmod=True if n.attribute("fmod", 0) else None)],
    "NegativeLogLikelihoodLoss": spell_loss,
    "OneHot": spell_one_hot,
    "Pad": spell_pad,
    "RMSNormalization": lambda n: [
        call("RMSNormalization", x=n.x(0), scale=n.x(1), axis=n.attribute("axis"), epsilon=n.attribute("epsilon"))
    ],
    "Range": lambda n: [f"Range({', '.join(number(v) for v in n.given)})"],
    "Reshape": lambda n: [call("Reshape", x=n.x(), shape=n.given[1])],
    "Resize": spell_resize,
    "ScatterElements": lambda n: [
        call(
            "ScatterElements",
            x=n.x(0),
            indices=n.x(1),
            updates=n.x(2),
            axis=n.attribute("axis"),
            reduction=reduction_word(n),
        )
    ],
    "ScatterND": lambda n: [call("ScatterND", x=n.x(0), indices=n.x(1), updates=n.x(2), reduction=reduction_word(n))],
    "Shape": lambda n: [call("Shape", x=n.x(), start=n.attribute("start"), end=n.attribute("end"))],
    "Slice": spell_slice,
    "SoftmaxCrossEntropyLoss": spell_loss,
    "SpaceToDepth": lambda n: [call("SpaceToDepth", x=n.x(), block=n.attribute("blocksize"), mode=n.attribute("mode"))],
    "Split": spell_split,
    "Squeeze": lambda n: [call("Squeeze", x=n.x(), axes=n.attribute("axes", n.literal(1)))],
    "Sum": lambda n: spell_several(n, "Add"),
    "Tile": lambda n: [call("Tile", x=n.x(), repeats=n.given[1])],
    "Transpose": lambda n: [call("Transpose", x=n.x(), permutation=n.attribute("perm"))],
    "Trilu": spell_trilu,
    "Unsqueeze": lambda n: [call("Unsqueeze", x=n.x(), axes=n.attribute("axes", n.literal(1)))],
    "Upsample": spell_upsample,
}
for name in REDUCTIONS:
    SPELLINGS[name] = spell_reduction
for name, attributes in WITH_ATTRIBUTES.items():
    SPELLINGS[name] = lambda n, name=name, attributes=attributes: [
        call(name, **dict(positional(n, name)), **{a: n.attribute(a) for a in attributes})
    ]
for name, ours in PLAIN.items():
    SPELLINGS[name] = lambda n, ours=ours: spell_many(n, ours)


def positional(n, name):
    """The values that come first, by their names here."""
    names = {"InstanceNormalization": ["x", "scale", "bias"]}.get(name, ["x"])
    return [(given, n.x(i)) for i, given in enumerate(names)]


def spell(case):
    """The expressions of a case's node, and what they take by name."""
    n = Node(case)
    expressions = SPELLINGS[n.node.op_type](n)
    return expressions, n.used
