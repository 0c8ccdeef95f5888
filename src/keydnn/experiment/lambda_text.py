"""The text of a lambda as a function, without ``eval`` where the text is simple enough to come from a file.

Simple text is one lambda of one argument over comparisons, boolean and arithmetic operators, constants, ``in``, lists, tuples and
calls to abs, min, max, len, round and isinstance.  It is interpreted node by node.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from keydnn.experiment.errors import PackagedCodeError

FUNCTIONS: dict[str, Any] = {"abs": abs, "min": min, "max": max, "len": len, "round": round, "isinstance": isinstance}
TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "tuple": tuple}
LARGEST_POWER = 64  # of an exponent; longer powers of integers are a way to stop a machine
LONGEST_TEXT = 2000

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type, Callable[[Any], Any]] = {ast.Not: operator.not_, ast.USub: operator.neg, ast.UAdd: operator.pos}
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def compile_lambda(source: str, *, allow_any: bool) -> Callable[[Any], Any]:
    """The function that the text of a lambda with one argument describes.

    Args:
        source: The text.
        allow_any: Whether text beyond the simple kind may be given to ``eval`` (with ``np`` at hand).

    Raises:
        ValueError: Not the text of a lambda with one argument.
        PackagedCodeError: Not simple, and ``allow_any`` is False.
    """
    tree = _parse(source)
    argument = tree.args.args[0].arg
    problem = _problem(tree.body, argument)
    if problem is None:
        return lambda x: _value(tree.body, {argument: x})
    if not allow_any:
        raise PackagedCodeError(f"lambda text {source!r} uses {problem}; to run it pass allow_packaged_code=True after reading it")
    return eval(compile(ast.Expression(tree), "<lambda text>", "eval"), {"np": np})  # the caller's own text


def _parse(source: str) -> ast.Lambda:
    if not isinstance(source, str) or len(source) > LONGEST_TEXT:
        raise ValueError(f"lambda text must be a string of at most {LONGEST_TEXT} characters")
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{source!r} is no lambda: {error}") from error
    if not isinstance(tree, ast.Lambda):
        raise ValueError(f"{source!r} is no lambda")
    rest = tree.args.posonlyargs + tree.args.kwonlyargs + tree.args.defaults
    if len(tree.args.args) != 1 or rest or tree.args.vararg or tree.args.kwarg:
        raise ValueError(f"{source!r} must take exactly one argument, without a default")
    return tree


def _problem(node: ast.AST, argument: str) -> str | None:
    """What makes the expression more than simple; None if it is simple."""
    if isinstance(node, ast.Constant | ast.operator | ast.unaryop | ast.boolop | ast.cmpop | ast.expr_context):
        known = {**_BINARY, **_UNARY, **_COMPARE, ast.And: 0, ast.Or: 0}
        is_operator = isinstance(node, ast.operator | ast.unaryop | ast.cmpop)
        return f"the operator {type(node).__name__}" if is_operator and type(node) not in known else None
    if isinstance(node, ast.Name):
        return None if node.id == argument or node.id in TYPES else f"the name {node.id!r}"
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS or node.keywords:
            return f"the call {ast.unparse(node)!r}"
        return next((p for a in node.args if (p := _problem(a, argument))), None)
    if isinstance(node, ast.Compare | ast.BoolOp | ast.BinOp | ast.UnaryOp | ast.List | ast.Tuple | ast.Set | ast.IfExp):
        return next((p for child in ast.iter_child_nodes(node) if (p := _problem(child, argument))), None)
    return f"{ast.unparse(node)!r}"


def _value(node: Any, names: dict[str, Any]) -> Any:
    return _VALUE_OF[type(node)](node, names)


def _name(node: ast.Name, names: dict[str, Any]) -> Any:
    return names[node.id] if node.id in names else TYPES[node.id]


def _bool_op(node: ast.BoolOp, names: dict[str, Any]) -> Any:
    stops_at = isinstance(node.op, ast.Or)
    value: Any = None
    for part in node.values:
        value = _value(part, names)
        if bool(value) is stops_at:
            break
    return value


def _bin_op(node: ast.BinOp, names: dict[str, Any]) -> Any:
    a, b = _value(node.left, names), _value(node.right, names)
    if isinstance(node.op, ast.Pow) and isinstance(b, int) and abs(b) > LARGEST_POWER:
        raise ValueError(f"a power with an exponent above {LARGEST_POWER} is not computed")
    if isinstance(node.op, ast.Mult) and (isinstance(a, str | list | tuple) or isinstance(b, str | list | tuple)):
        raise ValueError("repeating text or lists is not computed")
    return _BINARY[type(node.op)](a, b)


def _compare(node: ast.Compare, names: dict[str, Any]) -> Any:
    a, result = _value(node.left, names), True
    for op, right in zip(node.ops, node.comparators, strict=True):
        b = _value(right, names)
        result = _COMPARE[type(op)](a, b)
        if not result:
            return result
        a = b
    return result


_VALUE_OF: dict[type, Callable[[Any, dict[str, Any]], Any]] = {
    ast.Constant: lambda node, names: node.value,
    ast.Name: _name,
    ast.List: lambda node, names: [_value(item, names) for item in node.elts],
    ast.Tuple: lambda node, names: tuple(_value(item, names) for item in node.elts),
    ast.Set: lambda node, names: {_value(item, names) for item in node.elts},
    ast.IfExp: lambda node, names: _value(node.body if _value(node.test, names) else node.orelse, names),
    ast.UnaryOp: lambda node, names: _UNARY[type(node.op)](_value(node.operand, names)),
    ast.Call: lambda node, names: FUNCTIONS[node.func.id](*[_value(item, names) for item in node.args]),
    ast.BoolOp: _bool_op,
    ast.BinOp: _bin_op,
    ast.Compare: _compare,
}
