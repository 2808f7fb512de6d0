"""What a graph does beside its arithmetic: state that it writes, random numbers that reach its outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tfzip import graph

_WRITING = re.compile(
    r"Assign|Resource(Apply|Scatter|StridedSliceAssign)|Scatter(Nd)?(Add|Sub|Mul|Div|Min|Max|Update)$"
    r"|(Lookup|Mutable)\w*(Insert|Remove|Import)|(Queue|Stack)(En|De|Push|Pop)|Rng(ReadAnd)?Skip|Stateful(Uniform|Standard|Trunc|Rand)"
    r"|(Eager)?PyFunc"  # Python may write anything
)
_RANDOM = re.compile(
    r"Random(Uniform|StandardNormal|Gamma|Poisson|Shuffle|Crop)|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial"
    r"|Stateful(Uniform|StandardNormal|TruncatedNormal|RandomBinomial)|SampleDistortedBoundingBox|RngReadAndSkip"
)
_SEEDED = re.compile(
    r"Stateless(Random(?!Get)|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial|Shuffle|SampleDistorted)"
)
_CALLS = re.compile(r"(Stateful)?PartitionedCall(_\d+)?/")
"""The scopes of functions that were inlined, which tell nothing."""
_SEED_INPUT = {"StatelessMultinomial": 2, "StatelessSampleDistortedBoundingBox": 3}
"""Where the seed is not the second input."""


def writes_state(function: Any) -> bool:
    """Whether a concrete function changes what outlives the call: its order then matters, and it is not to overlap."""
    graph_def = function.graph.as_graph_def()
    library = {body.signature.name: body.node_def for body in graph_def.library.function}
    waiting: list[Any] = [graph_def.node]
    seen: set[str] = set()
    while waiting:
        for node in waiting.pop():
            if _WRITING.match(node.op):
                return True
            bodies = set(graph.called(node)) & library.keys() - seen
            seen |= bodies
            waiting.extend(library[name] for name in bodies)
    return False


def random_operation(function: Any) -> str | None:
    """The name of an operation that draws random numbers on which the outputs depend; None if there is none.

    Dropout that is switched off, and numbers drawn by a constant seed, do not count.
    """
    graph_def = graph.inline(function)
    library = {body.signature.name: body for body in graph_def.library.function}
    outputs = [tensor.name for tensor in function.outputs]
    return _random(graph.by_name(graph_def.node), outputs, library, set())


def _random(nodes: graph.Nodes, outputs: Iterable[str], library: dict[str, Any], seen: set[str]) -> str | None:
    for name in sorted(graph.ancestors(nodes, outputs, graph.switched_off(nodes)) & nodes.keys()):
        node = nodes[name]
        if _RANDOM.match(node.op) or (_SEEDED.match(node.op) and not _constant_seed(nodes, node)):
            return f"{_CALLS.sub('', name)} ({node.op})"
        for called in sorted(set(_taken(nodes, node)) & library.keys() - seen):
            seen.add(called)
            body = library[called]
            if found := _random(graph.by_name(body.node_def), body.ret.values(), library, seen):
                return found
    return None


def _taken(nodes: graph.Nodes, node: Any) -> list[str]:
    """The functions that a node calls; of a condition that is constant, only the one that it chooses."""
    if node.op in ("If", "StatelessIf") and (chosen := graph.constant(nodes, node.input[0])) is not None:
        return [node.attr["then_branch" if chosen else "else_branch"].func.name]
    return list(graph.called(node))


def _constant_seed(nodes: graph.Nodes, node: Any) -> bool:
    """Whether the seed comes of nothing that changes: of no variable, and of nothing that a caller gives."""
    seed = graph.ancestors(nodes, [node.input[_SEED_INPUT.get(node.op, 1)]])
    return all(name in nodes and nodes[name].op != "ReadVariableOp" for name in seed)
