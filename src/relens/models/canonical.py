"""One spelling of an ONNX network: the same bytes, whatever its tensors were called and in what order it was written.

Converters name and order by sets and counters, so that the same model becomes another file each time. The network, its
inputs and its outputs stay what they are; what no output depends on goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx


def canonical(model: onnx.ModelProto) -> bytes:
    """The file of a network, which is written anew in place."""
    _order(model.graph)
    kept = {tensor.name for tensor in (*model.graph.input, *model.graph.output)}
    _Names(kept).rename(model.graph)
    model.graph.name, model.graph.doc_string, model.doc_string = "network", "", ""
    domains = sorted(model.opset_import, key=lambda one: one.domain)
    _replace(model.opset_import, domains)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def graphs_in(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs within a node: branches, bodies of loops."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _order(graph: onnx.GraphProto) -> None:
    """Nodes in the order in which the outputs ask for them, and weights in that in which nodes do."""
    for node in graph.node:
        _replace(node.attribute, sorted(node.attribute, key=lambda one: one.name))
        for inner in graphs_in(node):
            _order(inner)
    makers = {name: node for node in graph.node for name in node.output if name}
    ordered: list[onnx.NodeProto] = []
    begun: set[str] = set()
    waiting = [(tensor.name, False) for tensor in reversed(graph.output)]
    while waiting:
        name, done = waiting.pop()
        if name not in makers:
            continue
        node = makers[name]
        first = next(one for one in node.output if one)
        if done:
            ordered.append(node)
        elif first not in begun:
            begun.add(first)
            waiting.append((name, True))
            waiting += [(needed, False) for needed in reversed(list(_needed(node)))]
    uses = [name for node in ordered for name in _needed(node)] + [tensor.name for tensor in graph.output]
    at = {name: place for place, name in reversed(list(enumerate(uses)))}
    weights = sorted((one for one in graph.initializer if one.name in at), key=lambda one: at[one.name])
    _replace(graph.node, ordered)
    _replace(graph.initializer, weights)
    del graph.value_info[:]


def _needed(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, and what is read within it."""
    yield from node.input
    for graph in graphs_in(node):
        for inner in graph.node:
            yield from _needed(inner)
        for tensor in graph.output:
            yield tensor.name


class _Names:
    """New names of tensors, and of sides that may have any length, in the order in which they are met."""

    def __init__(self, kept: set[str]) -> None:
        self._kept = kept
        self._tensors = {name: name for name in kept} | {"": ""}
        self._sides: dict[str, str] = {}

    def rename(self, graph: onnx.GraphProto) -> None:
        for tensor in (*graph.input, *graph.output):
            for side in tensor.type.tensor_type.shape.dim:
                if side.HasField("dim_param"):
                    side.dim_param = self._sides.setdefault(side.dim_param, f"n{len(self._sides)}")
        for tensor in graph.input:
            tensor.name = self._new(tensor.name, "given")
        for weight in graph.initializer:
            weight.name = self._new(weight.name, "weight")
        for node in graph.node:
            _replace(node.input, [self._tensors[name] for name in node.input])
            for inner in graphs_in(node):
                self.rename(inner)
            _replace(node.output, [self._new(name, node.op_type) for name in node.output])
            node.name = next(name for name in node.output if name)
            node.doc_string = ""
        for tensor in graph.output:
            tensor.name = self._tensors[tensor.name]

    def _new(self, name: str, kind: str) -> str:
        if name not in self._tensors:
            number = len(self._tensors)
            while f"{kind}_{number}" in self._kept:
                number += 1
            self._tensors[name] = f"{kind}_{number}"
            self._kept.add(self._tensors[name])
        return self._tensors[name]


def _replace(field: Any, values: Iterable[Any]) -> None:
    """Put other values into a repeated field."""
    copies = list(values)
    if copies and not isinstance(copies[0], str):
        copies = [type(one).FromString(one.SerializeToString()) for one in copies]
    del field[:]
    field.extend(copies)
