"""The two sides of a document: a writer that knows the labels of ids, a reader that knows the ids of labels; both know where they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from keydnn.experiment.context import ExperimentContext
from keydnn.experiment.documents.symbols import NoPathError
from keydnn.experiment.errors import ArtifactError, PackagedCodeError

_REFUSED = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, MemoryError)


class PlacedError(ArtifactError):
    """An error that tells its place in a document."""


class _PlacedPathError(NoPathError):
    """One that tells its place."""


class Side:
    """Where in a document we are.

    Args:
        name: What all messages start with.
        ctx: Holds the nodes.
    """

    def __init__(self, name: str, ctx: ExperimentContext) -> None:
        self.name, self.ctx = name, ctx
        self._places: list[str] = []

    @property
    def place(self) -> str:
        """Name and place, for messages."""
        places = ", ".join(self._places).replace(", [", "[")
        return ": ".join(part for part in (self.name, places) if part)

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Inside the block errors tell this place.

        Raises:
            PlacedError: For any error of what is made there, beside missing packages and code without permission.
            NoPathError: For a class that cannot be named.
        """
        self._places.append(place)
        try:
            yield
        except (PlacedError, PackagedCodeError, _PlacedPathError):
            raise
        except NoPathError as error:
            raise _PlacedPathError(f"{self.place}: {error}") from error
        except _REFUSED as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise PlacedError(f"{self.place}: {text}") from error
        finally:
            self._places.pop()

    def refuse(self, text: str) -> NoReturn:
        """Say what is wrong here.

        Raises:
            PlacedError: Always.
        """
        raise PlacedError(f"{self.place}: {text}")


class Writer(Side):
    """Writes ids as labels.

    Args:
        name: What all messages start with.
        ctx: Holds the nodes.
    """

    def __init__(self, name: str, ctx: ExperimentContext) -> None:
        super().__init__(name, ctx)
        self.labels: dict[str, str] = {}  # id to label of the nodes in this document

    def label_of(self, node_id: Any) -> str:
        """The label of a node in this document, else of a registered one, by which it is found again.

        Raises:
            PlacedError: There is no such node, or its label names another one.
        """
        if node_id in self.labels:
            return self.labels[node_id]
        node = self.ctx.available_nodes.get(node_id)
        if node is None:
            self.refuse(f"no node with id {node_id!r} is registered, so there is no label to write; make what names it anew")
        if self.ctx.get_node(label=node.label) is not node:
            self.refuse(f"two nodes are labelled {node.label!r}: give each a label of its own")
        return str(node.label)

    def is_node(self, value: Any) -> bool:
        """Whether a value is the id of a registered node."""
        return isinstance(value, str) and (value in self.labels or value in self.ctx.available_nodes)


class Reader(Side):
    """Reads labels as ids.

    Args:
        name: Of the file.
        ctx: Holds the nodes, and gets those that are made.
        overwrite: Whether nodes whose labels are taken replace the others.
        allow_packaged_code: Whether classes may be imported that are neither ours nor registered.
    """

    def __init__(self, name: str, ctx: ExperimentContext, *, overwrite: bool, allow_packaged_code: bool) -> None:
        super().__init__(name, ctx)
        self.overwrite, self.allow_packaged_code = overwrite, allow_packaged_code
        self.labels: dict[str, str] = {}  # label to id of the nodes in this document

    def id_of(self, label: Any) -> str:
        """The id of a node in this document, else of a registered one.

        Raises:
            PlacedError: There is none.
        """
        if not isinstance(label, str):
            self.refuse(f"a node is named by its label, got {label!r}")
        if label in self.labels:
            return self.labels[label]
        if not self.ctx.has_node(label=label):
            known = ", ".join(sorted({repr(node.label) for node in self.ctx.available_nodes.values()})) or "none"
            self.refuse(f"no node {label!r} is registered; feature sets are not in YAML and have to be registered first; there are {known}")
        return str(self.ctx.get_node(label=label).node_id)

    def mapping(self, value: Any, what: str) -> Mapping[Any, Any]:
        """A mapping.

        Raises:
            PlacedError: Something else.
        """
        if not isinstance(value, Mapping):
            self.refuse(f"{what} must be a mapping, got {shown(value)}")
        return value

    def sequence(self, value: Any, what: str) -> list[Any]:
        """A list; None is an empty one.

        Raises:
            PlacedError: Something else.
        """
        if value is not None and not isinstance(value, list):
            self.refuse(f"{what} must be a list, got {shown(value)}")
        return list(value or [])

    def text(self, value: Any, what: str) -> str:
        """A text with letters.

        Raises:
            PlacedError: Something else.
        """
        if not isinstance(value, str) or not value:
            self.refuse(f"{what} must be a text, got {shown(value)}")
        return value


def shown(value: Any) -> str:
    """A value in a message: short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
