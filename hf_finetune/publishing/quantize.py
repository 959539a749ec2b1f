"""Quantization of an ONNX file to 8-bit weights and activations with onnxruntime."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

__all__ = ["CALIBRATION_EXAMPLES", "quantize_int8"]

CALIBRATION_EXAMPLES = 128
"""Number of examples from which the ranges of the activations are estimated."""

# Only the matrix products. Norms, softmax and activation functions stay in float32: rounding them costs the most
# accuracy.
_OPERATORS = ["Conv", "Gemm", "MatMul"]


class _Calibration:
    """Calibration data reader for onnxruntime: returns one batch per call, then None."""

    def __init__(self, batches: Iterable[Mapping[str, torch.Tensor]]):
        self.batches: Iterator[Mapping[str, torch.Tensor]] = iter(batches)

    def get_next(self) -> dict[str, object] | None:
        batch = next(self.batches, None)
        return None if batch is None else {name: value.numpy() for name, value in batch.items()}


def quantize_int8(
    path: Path, destination: Path, calibration: Iterable[Mapping[str, torch.Tensor]] | None = None
) -> None:
    """Write a copy of an ONNX file with 8-bit activations, and 8-bit weights quantized per output channel.

    Dynamic quantization computes the ranges of the activations from each batch at inference. Static quantization, in
    the QDQ format, estimates them once from calibration examples.

    Args:
        path: ONNX file to quantize.
        destination: Path of the quantized file.
        calibration: Batches of model inputs for static quantization; None quantizes dynamically.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # reduce_range limits weights to 7 bits: without VNNI, the sum of two 8-bit products overflows 16 bits.
    options = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
    with tempfile.TemporaryDirectory(prefix="hf-finetune-export-") as temporary:
        preprocessed = Path(temporary) / "folded.onnx"
        # Folds batch norms and constants. Symbolic shape inference is not needed here, and fails for some graphs.
        quant_pre_process(str(path), str(preprocessed), skip_symbolic_shape=True)
        _remove_shapes(preprocessed)
        if calibration is None:
            quantize_dynamic(str(preprocessed), str(destination), **options)
            return
        quantize_static(
            str(preprocessed),
            str(destination),
            _Calibration(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            activation_type=QuantType.QUInt8,
            **options,
        )


def _remove_shapes(path: Path) -> None:
    """Remove the shapes of intermediate tensors: those that torch wrote may contradict the folded graph."""
    import onnx

    model = onnx.load(str(path))
    del model.graph.value_info[:]
    onnx.save(model, str(path))
