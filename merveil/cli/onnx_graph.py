"""A network as an ONNX graph from feature images to probabilities, checked against torch first."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from merveil.mer.errors import InputError
from merveil.mer.extras import need

if TYPE_CHECKING:
    from merveil.mer.models.stacked import Floats, StackedNet

OPSET = 18
INPUT, OUTPUT = "images", "probabilities"
CLIPS = 16  # of the check
TOLERANCE = 1e-4  # largest difference of a probability


def onnx_bytes(net: "StackedNet", params: "Floats", about: Mapping[str, str]) -> tuple[bytes, float]:
    """(the file, largest difference from torch on made-up clips).

    The graph takes float32 images [n,h,w,c] of any n, as an archive holds them (bytes as 0..255), and gives
    float32 [n,K]; a float archive is given as it is to networks that normalise clip by clip. about: metadata.
    ImportError names the extra; InputError where the graph does not do what torch does.
    """
    import io
    import warnings

    onnx, runtime = need("onnx", "export"), need("onnxruntime", "export")
    import torch

    height, width, channels = net.shape

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("params", torch.from_numpy(np.array(params, np.float32)))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.softmax(net.logits(self.params[None], images, train=False)[0], -1)

    module, out = Whole().eval(), io.BytesIO()
    clips = np.random.default_rng(0).integers(0, 256, (CLIPS, height, width, channels)).astype(np.float32)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of every Python number; the check below decides
        torch.onnx.export(
            module,
            (torch.from_numpy(clips[:2]),),
            out,
            dynamo=False,  # the newer exporter needs onnxscript, which is in no extra
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "clips"}, OUTPUT: {0: "clips"}},
            opset_version=OPSET,
        )
        wanted = module(torch.from_numpy(clips)).numpy()
    graph = onnx.load_model_from_string(out.getvalue())
    for key, value in about.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(graph)
    data = bytes(graph.SerializeToString())
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found: Any = session.run([OUTPUT], {INPUT: clips})[0]
    apart = float(np.abs(found - wanted).max())
    if not apart <= TOLERANCE:
        raise InputError(
            f"the ONNX graph of {net.name} differs from torch by {apart:.2g}: it was not written"
        )
    return data, apart
