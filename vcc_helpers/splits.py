"""Which targets a model may learn from, and which it must predict.

`targets` are names of perturbations; repeats count once. `seed` is that of the draw.

Taught in: notebooks/12_mean_and_median, notebooks/16_gains_between_contexts and
notebooks/22_score_another_model.
Needs no sibling module.

>>> few_shot_split(["A", "B", "C", "D"], n_support=1, seed=0)
FewShotSplit(support=['C'], query=['A', 'B', 'D'])
>>> [fold.query for fold in k_fold(["A", "B", "C", "D"], n_splits=2, seed=0)]
[['B', 'C'], ['A', 'D']]
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData


class FewShotSplit(NamedTuple):
    """Targets of a new context: measured ones to learn from, and the others to predict.

    A model may see the effects of the support set, but not those of the query set.
    """

    support: list[str]
    query: list[str]

    def rows(self, bulk: AnnData) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of both sets in a pseudobulk, the control's first in each.

        A list of such pairs is what scikit-learn's searches take as ``cv``.
        """
        return tuple(
            np.array([bulk.obs_names.get_loc(name) for name in ("non-targeting", *part)])
            for part in self
        )


def few_shot_split(targets: Iterable[str], *, n_support: int, seed: int = 0) -> FewShotSplit:
    """Draw a support set of `n_support` targets at random; 0 is zero-shot, one must be left.

    With the same seed a larger support set contains the smaller one, so a learning curve changes
    one thing at a time.
    """
    order = _shuffled(targets, seed)
    if not 0 <= n_support < len(order):
        raise ValueError(
            f"n_support={n_support} of {len(order)} targets; expected 0 to {len(order) - 1}, "
            "so that at least one target is left to predict"
        )
    return FewShotSplit(sorted(order[:n_support]), sorted(order[n_support:]))


def nested_splits(
    targets: Iterable[str],
    sizes: Iterable[int],
    *,
    query: Iterable[str] | None = None,
    seed: int = 0,
) -> list[FewShotSplit]:
    """Draw support sets that grow, with one query set for all: the points of a learning curve.

    Those of `targets` that are in `query` are never drawn; by default the query set is what the
    largest support set leaves. There is one split a size, in the order given; without `query` the
    support sets are those of :func:`few_shot_split` with this seed.
    """
    asked, sizes = None if query is None else set(query), list(sizes)
    order = _shuffled(set(targets) - (asked or set()), seed)
    most = len(order) - (asked is None)
    if not sizes or min(sizes) < 0 or max(sizes) > most or asked == set():
        raise ValueError(
            f"sizes={sizes} with {len(order)} targets to draw from; expected numbers from 0 to "
            f"{most}, and at least one target left to predict"
        )
    rest = sorted(order[max(sizes) :] if asked is None else asked)
    return [FewShotSplit(sorted(order[:size]), rest) for size in sizes]


def to_toml(split: FewShotSplit, *, data: str | Path, dataset: str, context: str) -> str:
    """Write a few-shot split as cell-load reads it, and with it Arc's State.

    `data` is the ``.h5ad``, or a folder of such files, with the cells of all contexts, `dataset` a
    name for them, without a dot, `context` the new context, as the cells' column of contexts has
    it; all others are trained on. Returned is the text of a ``.toml`` file, as of cell-load 0.10.
    Query targets are its test part, and its validation part too, since cell-load wants one:
    choosing by it is looking at the answers.
    """
    if not split.query:
        raise ValueError("no query target; expected one at least, which the model must predict")
    quoted = partial(json.dumps, ensure_ascii=False)
    name, path = quoted(dataset), quoted(str(Path(data).resolve()))
    where, query = quoted(f"{dataset}.{context}"), quoted(split.query)
    return (
        f'[datasets]\n{name} = {path}\n\n[training]\n{name} = "train"\n\n'
        f"[fewshot.{where}]\nval = {query}\ntest = {query}\n"
    )


def from_toml(source: str | Path, *, targets: Iterable[str], context: str) -> FewShotSplit:
    """Read the few-shot split of a context from a ``.toml`` file of cell-load.

    `targets` are all of the context, since those to train on are not named. The query set is the
    test part, the support set all that is in no part; a context that is held out as a whole has
    none. Names of data sets may hold dots if the file lists them under ``datasets``.
    """
    try:
        content = tomllib.loads(Path(source).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{source} is no TOML file ({error})") from error
    targets = set(targets)
    few, none = content.get("fewshot", {}), content.get("zeroshot", {})
    listed = [f"{name}.{context}" for name in content.get("datasets", {})]
    meant = [name for name in (*few, *none) if name.split(".", 1)[-1] == context]
    for name in listed + meant:
        if name in few:
            test, val = (set(few[name].get(part, [])) for part in ("test", "val"))
            return FewShotSplit(sorted(targets - test - val), sorted(test))
        if name in none:
            return FewShotSplit([], sorted(targets))
    there = sorted(name.split(".", 1)[-1] for name in [*few, *none])
    raise ValueError(
        f"{source} holds no split of {context!r}; it has {', '.join(map(repr, there)) or 'none'}"
    )


def k_fold(targets: Iterable[str], *, n_splits: int = 5, seed: int = 0) -> list[FewShotSplit]:
    """Split the targets into folds; each is the query set once, the others being the support.

    There are `n_splits` folds, 2 to the number of targets; their sizes differ by one at most.
    """
    order = _shuffled(targets, seed)
    if not 2 <= n_splits <= len(order):
        raise ValueError(f"n_splits={n_splits}; expected 2 to the number of targets, {len(order)}")
    folds = [order[start::n_splits] for start in range(n_splits)]
    return [FewShotSplit(sorted(set(order) - set(fold)), sorted(fold)) for fold in folds]


def _shuffled(targets: Iterable[str], seed: int) -> list[str]:
    """Names in an order that depends on the set of names and the seed alone."""
    names = sorted(set(targets))
    return [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
