"""Link: what the predictions of a loss can be, and what users write to say that an output is raw or a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path

from onnx import GraphProto

from riverdelta.core.errors import ModelError
from riverdelta.core.losses import Loss
from riverdelta.core.nodes import Nodes
from riverdelta.graph.ranges import ANY, Range, ranges_of

_OPSET, _VAST = 17, 1e6
#: The name of the link of an output that is raw already.
IDENTITY = "identity"
#: What an output can be said to be.
RAW, PREDICTION = "raw", "prediction"


@dataclass(frozen=True)
class Link:
    """The link between the raw outputs of `loss` and its predictions, by the nodes that export it, and by name.

    >>> from riverdelta.core.losses import LOG_LOSS
    >>> Link(LOG_LOSS).predictions, Link(LOG_LOSS).line("p[1]", "prediction")
    ((0.0, 1.0), "probability='p[1]'")
    """

    loss: Loss

    @cached_property
    def _exported(self) -> tuple[Nodes, str]:
        nodes = Nodes(_OPSET)
        return nodes, self.loss.export_inverse_link(nodes, "raw")

    @cached_property
    def predictions(self) -> Range:
        """The bounds of the loss's predictions; a very large one, to which a graph clips, counts as infinite."""
        nodes, output = self._exported
        low, high = ranges_of(GraphProto(node=nodes.nodes, initializer=nodes.constants), Path()).get(output, ANY)
        return (0.0 if 0 < low < 1 / _VAST else low), (inf if high > _VAST else high)

    @property
    def operators(self) -> set[str]:
        """The operators that make a prediction of a raw output."""
        return {node.op_type for node in self._exported[0].nodes}

    @property
    def always_raw(self) -> bool:
        """Whether every output of a base is a raw output: predictions can be any number, or depend on the other rows."""
        return self.loss.lists or self.predictions == ANY

    @property
    def of_logits(self) -> bool:
        """Whether raw outputs are logits, so that `logit=` and `probability=` say what an output is."""
        return self.loss.raw == "logit"

    @property
    def raw(self) -> str:
        """The word for a raw output."""
        return self.loss.raw.replace("_", " ")

    @property
    def prediction(self) -> str:
        """The word for a prediction."""
        return "probability" if self.of_logits else "prediction"

    def word(self, word: str) -> str:
        """Return the word for a raw output, or a prediction."""
        return self.raw if word == RAW else self.prediction

    def name(self, word: str) -> str:
        """Return the link of an output that is raw, or a prediction."""
        return IDENTITY if word == RAW else self.loss.inverse_name or self.loss.raw

    def line(self, output: str, word: str) -> str:
        """Return what to write for an output that is raw, or a prediction."""
        if self.always_raw:
            return f"output={output!r}"
        if self.of_logits:
            return f"{'logit' if word == RAW else 'probability'}={output!r}"
        return f"output={output!r}, link={self.name(word)!r}"

    def said(
        self, path: Path, output: str | None, logit: str | None, probability: str | None, link: str | None
    ) -> tuple[str | None, str | None]:
        """Return the output that the user names, and what it is said to be: `raw`, `prediction` or None."""
        given = {name: one for name, one in (("output", output), ("logit", logit), ("probability", probability)) if one}
        named = " and ".join(f"{name}={one!r}" for name, one in given.items())
        line = f"output={next(iter(given.values()), None)!r}"
        if len(given) > 1:
            raise ModelError(f"{path.name}: {named}; name one output: write {line}")
        if (logit or probability) and not self.of_logits:
            raise ModelError(f"{path.name}: {named}, and the task {self.loss.task} corrects a {self.raw}; write {line}")
        links = {IDENTITY: RAW} | ({} if self.always_raw else {self.name(PREDICTION): PREDICTION})
        if link is not None and link not in links:
            raw = f"write link={IDENTITY!r} if the output is a {self.raw}"
            other = f", link={self.name(PREDICTION)!r} if it is a prediction of it"
            says = f"an output is a {self.raw} as it is: leave link out" if self.always_raw else raw + other
            raise ModelError(f"{path.name}: link is {link!r}; {says}")
        word = RAW if logit else PREDICTION if probability else None
        if link is not None and word not in (None, links[link]):
            right = next(one for one, meant in links.items() if meant == word)
            raise ModelError(f"{path.name}: {named} and link={link!r} contradict each other; write {named}, link={right!r}")
        return next(iter(given.values()), None), word if link is None else links[link]
