//! Names that other tools have for words of this language, so that a message can say which word is meant.

/// What ONNX, PyTorch or NumPy call it, and what it is called here.
const NAMES: &[(&str, &str)] = &[
    ("AdaptiveAvgPool2d", "GlobalAvgPool"),
    ("AveragedModel", "Average"),
    ("AveragePool", "AvgPool"),
    ("AvgPool", "AveragePool"),
    ("AvgPool2d", "AvgPool"),
    ("BatchNorm2d", "BatchNorm"),
    ("BatchNormalization", "BatchNorm"),
    ("Bmm", "MatMul"),
    ("Cast", "Convert"),
    ("Cat", "Concat"),
    ("Clamp", "Clip"),
    ("ClipGradNorm", "ClipNorm"),
    ("ClipGradValue", "ClipValue"),
    ("Conv2d", "Conv"),
    ("ConvTranspose2d", "ConvTranspose"),
    ("CosineAnnealingLR", "CosineDecay"),
    ("CrossEntropy", "SoftmaxCrossEntropyLoss"),
    ("CrossEntropyLoss", "SoftmaxCrossEntropyLoss"),
    ("Ema", "Average"),
    ("Equal", "Eq"),
    ("ExponentialLR", "ExponentialDecay"),
    ("Flip", "Reverse"),
    ("Full", "ConstantOfShape"),
    ("GlobalAveragePool", "GlobalAvgPool"),
    ("Greater", "Gt"),
    ("GreaterOrEqual", "Ge"),
    ("GroupNormalization", "GroupNorm"),
    ("IndexSelect", "Gather"),
    ("InstanceNormalization", "InstanceNorm"),
    ("Interpolate", "Resize"),
    ("LayerNormalization", "LayerNorm"),
    ("Less", "Lt"),
    ("LessOrEqual", "Le"),
    ("Linear", "Dense"),
    ("LinearLR", "LinearDecay"),
    ("LogSumExp", "ReduceLogSumExp"),
    ("MaskedFill", "Select"),
    ("Maximum", "Max"),
    ("MaxPool2d", "MaxPool"),
    ("Minimum", "Min"),
    ("NLLLoss", "NegativeLogLikelihoodLoss"),
    ("NoGrad", "Detach"),
    ("Norm", "ReduceL2"),
    ("Ones", "ConstantOfShape"),
    ("Permute", "Transpose"),
    ("PixelShuffle", "DepthToSpace"),
    ("PixelUnshuffle", "SpaceToDepth"),
    ("Prod", "ReduceProd"),
    ("Rand", "Uniform"),
    ("Randn", "Normal"),
    ("ReduceMean", "Mean"),
    ("ReduceSum", "Sum"),
    ("ReflectionPad2d", "Pad"),
    ("Remainder", "Mod"),
    ("RMSNormalization", "RMSNorm"),
    ("Stack", "Concat"),
    ("Std", "Variance"),
    ("StepLR", "StepDecay"),
    ("StopGradient", "Detach"),
    ("TakeAlongDim", "GatherElements"),
    ("Tril", "Trilu"),
    ("Triu", "Trilu"),
    ("Var", "Variance"),
    ("View", "Reshape"),
    ("Where", "Select"),
    ("Zeros", "ConstantOfShape"),
];

/// The word of this language that is meant by another tool's, however that is written: `LogSumExp`, `torch.logsumexp`,
/// `log_sum_exp`.
pub fn ours(name: &str) -> Option<&'static str> {
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let theirs = plain(name.rsplit('.').next().unwrap_or(name));
    NAMES.iter().find(|(name, _)| plain(name) == theirs).map(|(_, ours)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::vocabulary::vocabulary;

    #[test]
    fn every_name_leads_to_a_word() {
        let words: Vec<String> = vocabulary().into_iter().flat_map(|g| g.words).map(|word| word.name).collect();
        for (theirs, ours) in NAMES {
            assert!(words.iter().any(|word| word == ours), "{theirs} leads to {ours}");
        }
        assert_eq!(
            ["where", "torch.clamp", "log_sum_exp", "nonsense"].map(super::ours),
            [Some("Select"), Some("Clip"), Some("ReduceLogSumExp"), None]
        );
    }
}
