"""What is read of ONNX, by name: for whoever only asks, since the readers themselves load torch."""

from __future__ import annotations

OPSETS = range(7, 27)
"""Versions of the operator set that are read: numpy's broadcasting begins with 7, the executor ends with 26."""

_NAMES = """
    Abs Add And Atan AveragePool BatchNormalization Cast Ceil Celu CenterCropPad Clip Compress Concat Constant
    ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace Div Dropout Einsum Elu Equal Erf Exp Expand
    EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater
    GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsNaN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg
    NonZero Not Or PRelu Pad Pow RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
    Round Scatter ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh Tile TopK Transpose Trilu Unsqueeze Upsample
    Where Xor
"""

OPERATOR_NAMES = tuple(_NAMES.split())
"""The operators that have a reader in `onnx_ops`."""
