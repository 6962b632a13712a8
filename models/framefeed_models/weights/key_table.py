"""Tables of names: which weights of others are which of ours, and in what form. It knows no model and no file.

Axes: D width, C channels, G cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor]
_NAMES_SHOWN = 12


class WeightsMismatchError(ValueError):
    """Weights that do not fit: names that are missing, names that nobody wants, tensors of another shape."""

    def __init__(self, what: str, *, missing: Iterable[str] = (), extra: Iterable[str] = ()) -> None:
        self.missing, self.extra = tuple(sorted(missing)), tuple(sorted(extra))
        parts = [
            f"{title} {_shown(names)}"
            for title, names in (("lacks", self.missing), ("has no place for", self.extra))
            if names
        ]
        super().__init__(f"{what}: {'; '.join(parts)}" if parts else what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A bijection between some tensors of theirs and some of ours: `give(take(x))` is x.

    Both take and return as many tensors as their side of the rule has names.
    """

    take: Callable[..., tuple[Tensor, ...]]
    give: Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """These weights of theirs are those of ours."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    form: Form


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTable:
    """All names of one kind of checkpoint, `title`, against all of one model of ours.

    `fresh` are weights of ours that such checkpoints do not have: they keep the values that the model starts with.
    `left` are weights of theirs that the model has no use for. Both are decisions, written down; nothing else may be
    left over on either side.
    """

    title: str
    rules: tuple[Rule, ...]
    fresh: frozenset[str] = field(default_factory=frozenset)
    left: frozenset[str] = field(default_factory=frozenset)

    @property
    def their_names(self) -> frozenset[str]:
        """Every name that such a checkpoint has."""
        return frozenset(name for rule in self.rules for name in rule.theirs) | self.left

    def leaving(self, theirs: Iterable[str], *, prefixes: tuple[str, ...]) -> KeyTable:
        """This table for checkpoints whose names that begin like this the model has no use for: a decoder, say."""
        return replace(self, left=self.left | {name for name in theirs if name.startswith(prefixes)})

    @property
    def our_names(self) -> frozenset[str]:
        """Every name that the rules fill."""
        return frozenset(name for rule in self.rules for name in rule.ours)


def import_weights(theirs: Weights, table: KeyTable) -> dict[str, Tensor]:
    """Their weights under our names, in our form, copied; dtypes are kept. Weights in `table.fresh` are not among them.

    Raises WeightsMismatchError if a name of the table is missing or another is there, or a tensor has another shape
    than its form.
    """
    _require_names(f"{table.title} checkpoint", seen=theirs.keys(), wanted=table.their_names)
    return {
        name: tensor
        for rule in table.rules
        for name, tensor in _apply(rule, rule.form.take, rule.theirs, rule.ours, theirs)
    }


def export_weights(ours: Weights, table: KeyTable) -> dict[str, Tensor]:
    """Our weights under their names, in their form, copied: what `import_weights` would turn into ours again.

    Raises WeightsMismatchError if a name is missing or another is there, a tensor has no such form (images have no
    time), or the table leaves weights of theirs or ours out, so that no whole checkpoint would come out.
    """
    if table.fresh or table.left:
        what = f"{table.title}: no checkpoint can be written from a table that leaves weights out"
        raise WeightsMismatchError(what, missing=table.left, extra=table.fresh)
    _require_names(f"model for {table.title}", seen=ours.keys(), wanted=table.our_names)
    return {
        name: tensor
        for rule in table.rules
        for name, tensor in _apply(rule, rule.form.give, rule.ours, rule.theirs, ours)
    }


def fill_model(model: nn.Module, weights: Weights, *, fresh: Iterable[str] = ()) -> None:
    """Put weights into a model in place, in its dtypes; it keeps those in `fresh`. One number fits with any axes.

    Raises WeightsMismatchError, with nothing changed, if a name is missing or not the model's, or a shape differs.
    """
    own = model.state_dict()
    _require_names(type(model).__name__, seen=weights.keys(), wanted=own.keys() - set(fresh))
    weights = {
        name: tensor.reshape(own[name].shape) if tensor.numel() == own[name].numel() == 1 else tensor
        for name, tensor in weights.items()
    }
    differing = [
        f"{name} is {tuple(tensor.shape)}, wanted {tuple(own[name].shape)}"
        for name, tensor in sorted(weights.items())
        if tensor.shape != own[name].shape
    ]
    if differing:
        raise WeightsMismatchError(f"{type(model).__name__}: {_shown(differing)}")
    model.load_state_dict({**own, **weights})


def _require_names(what: str, *, seen: Iterable[str], wanted: Iterable[str]) -> None:
    seen, wanted = set(seen), set(wanted)
    if seen != wanted:
        raise WeightsMismatchError(what, missing=wanted - seen, extra=seen - wanted)


def _apply(
    rule: Rule,
    form: Callable[..., tuple[Tensor, ...]],
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    weights: Weights,
) -> Iterator[tuple[str, Tensor]]:
    try:
        made = form(*(weights[name] for name in sources))
    except (RuntimeError, ValueError) as error:
        shapes = ", ".join(f"{name} {tuple(weights[name].shape)}" for name in sources) or "nothing"
        why = str(error).partition("\n")[0]
        raise WeightsMismatchError(f"{shapes} cannot become {', '.join(targets or rule.ours)}: {why}") from None
    for name, tensor in zip(targets, made, strict=True):
        yield name, tensor.clone(memory_format=torch.contiguous_format)


def _shown(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMES_SHOWN} more" if len(listed) > _NAMES_SHOWN else ""
    return ", ".join(listed[:_NAMES_SHOWN]) + more
