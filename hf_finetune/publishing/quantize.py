"""An ONNX file with weights of 8 bits, by onnxruntime's own tools."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from hf_finetune.evaluation.predictor import Task

__all__ = ["CALIBRATION_EXAMPLES", "quantize_int8"]

CALIBRATION_EXAMPLES = 128
"""How many images the ranges of the activations are taken from."""

# Only what does the arithmetic; norms, softmax and activations stay in float32, where rounding them costs most.
_IMAGE_OPERATORS = ["Conv", "Gemm", "MatMul"]


class _Calibration:
    """What onnxruntime asks for one batch after another; None when there are no more."""

    def __init__(self, batches: Iterable[Mapping[str, torch.Tensor]]):
        self.batches: Iterator[Mapping[str, torch.Tensor]] = iter(batches)

    def get_next(self) -> dict[str, object] | None:
        batch = next(self.batches, None)
        return None if batch is None else {name: value.numpy() for name, value in batch.items()}


def quantize_int8(
    path: Path, task: Task, destination: Path, calibration: Iterable[Mapping[str, torch.Tensor]] = ()
) -> None:
    """Write an ONNX file anew with weights of 8 bits for each output channel.

    Texts: dynamic quantisation, which takes the ranges of the activations from each batch as it comes. Images:
    static quantisation in the QDQ format, whose ranges come from images, once.

    Args:
        path: The ONNX file.
        task: What the model classifies.
        destination: The new file.
        calibration: Model inputs of images, batch by batch.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # Seven bits for weights: on processors without VNNI the sum of two products of eight bits overflows.
    options = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
    with tempfile.TemporaryDirectory(prefix="hf-finetune-export-") as scratch:
        folded = Path(scratch) / "folded.onnx"
        # Folds batch norms and constants; the symbolic shapes are of no use here, and fail for some graphs.
        quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
        _forget_shapes(folded)
        if task == "text-classification":
            quantize_dynamic(str(folded), str(destination), **options)
            return
        quantize_static(
            str(folded),
            str(destination),
            _Calibration(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_IMAGE_OPERATORS,
            activation_type=QuantType.QUInt8,
            **options,
        )


def _forget_shapes(path: Path) -> None:
    """Remove the shapes of what is between the layers: those that torch wrote may contradict the new graph's."""
    import onnx

    model = onnx.load(str(path))
    del model.graph.value_info[:]
    onnx.save(model, str(path))
