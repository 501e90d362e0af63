//! Names that other tools have for words of this language, so that a message can say which word is meant.

/// What ONNX, PyTorch or NumPy call it, and what it is called here.
const NAMES: &[(&str, &str)] = &[
    ("AveragePool", "AvgPool"),
    ("AvgPool", "AveragePool"),
    ("AvgPool2d", "AvgPool"),
    ("BatchNorm2d", "BatchNorm"),
    ("BatchNormalization", "BatchNorm"),
    ("Cat", "Concat"),
    ("Clamp", "Clip"),
    ("Conv2d", "Conv"),
    ("ConvTranspose2d", "ConvTranspose"),
    ("CrossEntropy", "SoftmaxCrossEntropyLoss"),
    ("CrossEntropyLoss", "SoftmaxCrossEntropyLoss"),
    ("Equal", "Eq"),
    ("Full", "ConstantOfShape"),
    ("GlobalAveragePool", "GlobalAvgPool"),
    ("Greater", "Gt"),
    ("GreaterOrEqual", "Ge"),
    ("GroupNormalization", "GroupNorm"),
    ("InstanceNormalization", "InstanceNorm"),
    ("LayerNormalization", "LayerNorm"),
    ("Less", "Lt"),
    ("LessOrEqual", "Le"),
    ("Linear", "Dense"),
    ("LogSumExp", "ReduceLogSumExp"),
    ("MaxPool2d", "MaxPool"),
    ("NLLLoss", "NegativeLogLikelihoodLoss"),
    ("Norm", "ReduceL2"),
    ("Ones", "ConstantOfShape"),
    ("Permute", "Transpose"),
    ("PixelShuffle", "DepthToSpace"),
    ("PixelUnshuffle", "SpaceToDepth"),
    ("Prod", "ReduceProd"),
    ("ReduceMean", "Mean"),
    ("ReduceSum", "Sum"),
    ("Remainder", "Mod"),
    ("RMSNormalization", "RMSNorm"),
    ("Stack", "Concat"),
    ("Std", "Variance"),
    ("Tril", "Trilu"),
    ("Triu", "Trilu"),
    ("Var", "Variance"),
    ("View", "Reshape"),
    ("Where", "Select"),
    ("Zeros", "ConstantOfShape"),
];

/// The word of this language that is meant by another tool's.
pub fn ours(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
}
