"""A policy's network as an ONNX graph: normaliser, network and mask, in operators that every runtime has."""

from __future__ import annotations

from typing import Any

import numpy as np

from townlet_train.data.checkpoint import Checkpoint
from townlet_train.errors import MissingExtraError
from townlet_train.policies.network import FEATURE_MEAN, FEATURE_STD, ILLEGAL_LOGIT, NetworkSpec

OPSET, IR_VERSION = 17, 8  # of 2022: old enough for runtimes in use
CLIP_LOW, CLIP_HIGH, ILLEGAL = "clip_low", "clip_high", "illegal_logit"


def onnx_bytes(checkpoint: Checkpoint) -> bytes:
    """The policy as an ONNX file, checked by the `onnx` package.

    Inputs are `features` (n, n_features), `maps` (n, channels, height, width) where the network reads them, and of
    indices as actions `action_mask` (n, n_actions); outputs `logits`, an illegal action's is -1e8, and `actions`, the
    most probable ones. Of vectors the only output is `actions`, their means.

    Raises:
        MissingExtraError: `onnx` is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("Export to ONNX", "onnx") from error
    graph = _Graph(checkpoint, onnx)
    model = onnx.helper.make_model(
        graph.build(),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="townlet-train",
    )
    onnx.helper.set_model_props(model, {"townlet_train.info": checkpoint.info.model_dump_json()})
    onnx.checker.check_model(model, full_check=True)
    serialized: bytes = model.SerializeToString()
    return serialized


class _Graph:
    """Nodes of the graph, added one after the other."""

    def __init__(self, checkpoint: Checkpoint, onnx: Any) -> None:
        self._helper, self._types = onnx.helper, onnx.TensorProto
        self._numpy = onnx.numpy_helper
        self._spec = NetworkSpec.from_document(checkpoint.info.network)
        self._weights = checkpoint.weights
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def build(self) -> Any:
        """The whole graph."""
        spec = self._spec
        outputs = self._network()
        inputs = [self._tensor("features", "FLOAT", "n", spec.n_features)]
        if spec.kind == "conflict_aware":
            inputs.append(self._tensor("maps", "FLOAT", "n", *spec.map_shape))
        if spec.distribution == "gaussian":
            self._add("Identity", [outputs], "actions")
            given = [self._tensor("actions", "FLOAT", "n", spec.n_actions)]
        else:
            inputs.append(self._tensor("action_mask", "BOOL", "n", spec.n_actions))
            illegal = self._constant(ILLEGAL, np.float32(ILLEGAL_LOGIT))
            self._add("Where", ["action_mask", outputs, illegal], "logits")
            self._add("ArgMax", ["logits"], "actions", axis=1, keepdims=0)
            given = [
                self._tensor("logits", "FLOAT", "n", spec.n_actions),
                self._tensor("actions", "INT64", "n"),
            ]
        return self._helper.make_graph(
            self._nodes, "policy", inputs, given, initializer=[*self._constants.values()]
        )

    def _network(self) -> str:
        spec = self._spec
        hidden = self._normalised()
        if spec.kind == "conflict_aware":
            self._add("Flatten", ["maps"], "flat_maps", axis=1)
            encoded = [self._dense("map_encoder.1", "flat_maps"), self._dense("feature_encoder.0", hidden)]
            self._add("Concat", encoded, "encoded", axis=1)
            return self._affine("policy_head", self._dense("shared.0", "encoded"))
        for layer in spec.hidden_layers(spec.actor_trunk):
            hidden = self._dense(layer, hidden)
        return self._affine("action_net", hidden)

    def _normalised(self) -> str:
        mean, std = self._weight(FEATURE_MEAN), self._weight(FEATURE_STD)
        clip = np.float32(self._spec.feature_clip)
        self._add("Sub", ["features", mean], "centred")
        self._add("Div", ["centred", std], "scaled")
        bounds = [self._constant(CLIP_LOW, -clip), self._constant(CLIP_HIGH, clip)]
        return self._add("Clip", ["scaled", *bounds], "normalised")

    def _dense(self, layer: str, inputs: str) -> str:
        kind = {"tanh": "Tanh", "relu": "Relu"}[self._spec.activation]
        return self._add(kind, [self._affine(layer, inputs)], f"{layer}.activation")

    def _affine(self, layer: str, inputs: str) -> str:
        weights = [self._weight(f"{layer}.weight"), self._weight(f"{layer}.bias")]
        return self._add("Gemm", [inputs, *weights], f"{layer}.output", transB=1)

    def _weight(self, name: str) -> str:
        return self._constant(name, np.ascontiguousarray(self._weights[name], np.float32))

    def _constant(self, name: str, value: Any) -> str:
        self._constants[name] = self._numpy.from_array(np.asarray(value, np.float32), name)
        return name

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: int) -> str:
        self._nodes.append(self._helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _tensor(self, name: str, kind: str, *shape: int | str) -> Any:
        return self._helper.make_tensor_value_info(name, getattr(self._types, kind), list(shape))
