"""Writes a graph as an ONNX file, as it is or with int8 weights, and holds it to the model. It alone knows ONNX.

A file that says something else than the model is not written.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from framefeed.errors import BadInput, FramefeedError
from framefeed.whole_files import whole_files
from trainer_client.training.onnx_export.graphs import BATCH, Graph

_LARGEST_DIFFERENCE = 1e-4  # of the largest value: kernels round in another order
_ONE_FILE_BYTES = 1_500_000_000  # protobuf has a limit of 2 GiB, beyond which weights lie in a file of their own

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How far a file's answers are from the model's, over the rows of all outputs.

    `difference` is the largest one as a share of the largest value, `cosine` the mean over rows; `agreement` the share
    of rows with the same largest value, for logits, else None.
    """

    difference: float
    cosine: float
    agreement: float | None

    def __str__(self) -> str:
        same = "" if self.agreement is None else f", the same class first for {self.agreement:.2%}"
        return f"rows of cosine {self.cosine:.5f} with the model's{same}"


@contextmanager
def onnx_files(out: Path) -> Iterator[OnnxFolder]:
    """Within it files are made out of sight; at its end they are in `out`, or after an error nothing is.

    Raises BadInput where onnx, onnxscript or onnxruntime is not installed, and for a folder that cannot be written.
    """
    try:
        import onnx  # noqa: F401, PLC0415 - an extra
        import onnxruntime  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        raise BadInput(f"--format is onnx, which needs {error.name}; pip install 'framefeed[onnx]'") from None
    try:
        with whole_files(out) as made:
            yield OnnxFolder(made)
    except OSError as error:
        raise BadInput(f"--out {out} cannot be written: {error.strerror or error}") from None


class OnnxFolder:
    """Graphs written into a folder, each checked with onnxruntime."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, graph: Graph) -> tuple[Path, Likeness]:
        """NAME.onnx, and how like the model it is for another number of clips than it was traced with.

        Raises FramefeedError for a graph that differs by more than 1e-4 of its largest value.
        """
        path = self._folder / f"{graph.name}.onnx"
        weights_bytes = sum(tensor.nbytes for tensor in graph.module.state_dict().values())
        with _quiet():
            torch.onnx.export(
                graph.module,
                tuple(graph.inputs.values()),
                path,
                dynamo=True,
                verbose=False,
                dynamic_shapes=_free_axes(graph),
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                external_data=weights_bytes > _ONE_FILE_BYTES,
            )
        likeness = self.likeness(path, graph, [{name: tensor[:1] for name, tensor in graph.inputs.items()}])
        if not likeness.difference <= _LARGEST_DIFFERENCE:
            raise FramefeedError(
                f"export of {graph.name}: onnxruntime says something else than the model, by {likeness.difference:.1e} "
                f"of the largest value, wanted {_LARGEST_DIFFERENCE:.0e} at most"
            )
        return path, likeness

    def quantise(self, path: Path) -> Path:
        """NAME.int8.onnx beside a file: matrices of 8-bit weights, each column with its own scale, and activations
        quantised as they come (onnxruntime's dynamic quantisation)."""
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

        smaller = path.with_suffix(".int8.onnx")
        external = (path.parent / f"{path.name}.data").exists()
        with _quiet():
            quantize_dynamic(
                path, smaller, per_channel=True, weight_type=QuantType.QInt8, use_external_data_format=external
            )
        return smaller

    def likeness(self, path: Path, graph: Graph, batches: list[dict[str, Tensor]]) -> Likeness:
        """How like the model's a file's answers are. Blocks while both answer."""
        runs = _session(path)
        differences, cosines, same, largest = [], list[Tensor](), list[Tensor](), 0.0
        for inputs in batches:
            found = runs(inputs)
            for name, wanted in graph.answers(inputs).items():
                differences.append(float((found[name] - wanted).abs().max()))
                largest = max(largest, float(wanted.abs().max()))
                ours, theirs = wanted.flatten(0, -2), found[name].flatten(0, -2)
                cosines.append(torch.cosine_similarity(ours, theirs, dim=-1))
                same.append(ours.argmax(dim=-1) == theirs.argmax(dim=-1))
        return Likeness(
            difference=max(differences) / max(largest, 1e-12),
            cosine=float(torch.cat(cosines).mean()),
            agreement=float(torch.cat(same).float().mean()) if graph.are_logits else None,
        )


def _session(path: Path) -> Callable[[Inputs], dict[str, Tensor]]:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Inputs) -> dict[str, Tensor]:
        found = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)}

    return run


def _free_axes(graph: Graph) -> tuple[dict[int, object], ...]:
    dims = {name: torch.export.Dim(name) for axes in graph.axes.values() for name in axes.values() if name == BATCH}
    return tuple(
        {axis: dims.get(name, torch.export.Dim.DYNAMIC) for axis, name in graph.axes[name].items()}
        for name in graph.inputs
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and the quantiser tell their progress, and of packages that no graph here needs."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
