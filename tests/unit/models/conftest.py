"""ONNX files made on the spot, for what only shapes, names and operations say."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper


def make_onnx(
    outputs,
    *,
    ends=(),
    size=(1, 3, 64, 64),
    name="images",
    kind=TensorProto.FLOAT,
    before=(),
    metadata=(),
    weights=np.float32,
):
    """A file with one operation that nobody knows between its input and its outputs.

    outputs   name to shape
    ends      output to the operations after it, in their order
    before    operations on the input, each with its constant
    """
    nodes, constants, value = [], [], name
    for number, (operation, constant) in enumerate(before):
        constants.append(numpy_helper.from_array(np.asarray(constant, np.float32), f"before_{number}"))
        nodes.append(helper.make_node(operation, [value, f"before_{number}"], [f"stage_{number}"]))
        value = f"stage_{number}"
    constants.append(numpy_helper.from_array(np.ones((64, 64), weights), "weights"))
    raw = [f"{output}_raw" if output in dict(ends) else output for output in outputs]
    nodes.append(helper.make_node("Head", [value, "weights"], raw, domain="test"))
    for output, operations in dict(ends).items():
        last = f"{output}_raw"
        for number, operation in enumerate(operations):
            after = output if number == len(operations) - 1 else f"{output}_{number}"
            nodes.append(helper.make_node(operation, [last], [after]))
            last = after
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, kind, size)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape) for output, shape in outputs.items()],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("test", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    helper.set_model_props(model, dict(metadata))
    return model.SerializeToString()


@pytest.fixture
def make():
    return make_onnx
