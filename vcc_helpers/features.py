"""Perturbation features: what is known of a target before it is silenced here.

A feature table has one row per target, index target_gene; a target without a row is missing, never
zero, and a model cannot predict it. `effects_by_context` is the name of each source context, and
its effects, ``(n_perts, n_genes)``, differences of mean lognorm values. No context or no common
target, or genes that differ where they must not, are a ValueError.

Taught in: notebooks/03_predict_with_baselines, notebooks/13_linear_baseline,
notebooks/14_features_and_kernels, notebooks/15_nearest_neighbours and
notebooks/16_gains_between_contexts.
Needs: bulk.py.

>>> obs, var = pd.DataFrame(index=["SOX2"]), pd.DataFrame(index=["G1", "G2"])
>>> delta = anndata.AnnData(np.array([[0.5, -1.0]]), obs=obs, var=var)
>>> source_effects({"day 2": delta, "day 3": delta}).shape
(1, 4)
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from .bulk import some_of

#: Share of its expression that a silenced gene keeps, the median of the H1 training targets.
RESIDUAL = 0.05


def source_effects(effects_by_context: Mapping[str, anndata.AnnData]) -> pd.DataFrame:
    """Describe a target by what silencing it did in other contexts; the genes may differ.

    Rows are the targets measured in every context, sorted; columns ``(context, gene)``.
    """
    if not effects_by_context:
        raise ValueError("no source context was given; expected at least one")
    tables = {name: delta.to_df() for name, delta in effects_by_context.items()}
    table = pd.concat(tables, axis=1, join="inner").sort_index()
    if table.empty:
        sizes = ", ".join(f"{name}: {len(t)} targets" for name, t in tables.items())
        raise ValueError(f"no target was measured in every context ({sizes})")
    return table.rename_axis(index="target_gene")


def stack_effects(
    effects_by_context: Mapping[str, anndata.AnnData], targets: pd.Index
) -> tuple[np.ndarray, np.ndarray]:
    """Put the effects of targets in several contexts, of the same genes, on top of each other.

    Returned are effects, ``(n_contexts, n_targets, n_genes)``, 0 where a context did not measure
    the target; and which it did measure, ``(n_contexts, n_targets)``.
    """
    rows = [delta.obs_names.get_indexer(targets) for delta in effects_by_context.values()]
    stack = np.zeros((len(rows), len(targets), next(iter(effects_by_context.values())).n_vars))
    for block, row, delta in zip(stack, rows, effects_by_context.values(), strict=True):
        block[row >= 0] = np.asarray(delta.X)[row[row >= 0]]
    return stack, np.array(rows) >= 0


def source_mean(effects_by_context: Mapping[str, anndata.AnnData]) -> pd.DataFrame:
    """Average a target's effects over the contexts that measured it; all have the same genes.

    Rows are all targets that some context measured, sorted; columns genes.
    """
    if not effects_by_context:
        raise ValueError("no source context was given; expected at least one")
    (first, delta), *others = effects_by_context.items()
    for name, other in others:
        if not other.var_names.equals(delta.var_names):
            raise ValueError(
                f"sources {first!r} and {name!r} differ in their genes ({delta.n_vars} and "
                f"{other.n_vars}) or in the genes' order; select common ones with source[:, genes]"
            )
    targets = sorted(set().union(*(d.obs_names for d in effects_by_context.values())))
    targets = pd.Index(targets, name="target_gene")
    stack, present = stack_effects(effects_by_context, targets)
    mean = stack.sum(axis=0) / present.sum(axis=0)[:, None]
    return pd.DataFrame(mean, index=targets, columns=delta.var_names)


def source_components(
    effects_by_context: Mapping[str, anndata.AnnData], n_components: int = 10
) -> pd.DataFrame:
    r"""Describe a target by a few numbers that sum up its effects in other contexts.

    There are `n_components` columns, or as many as there are; the mean over targets is 0, a
    component's sign is arbitrary. Targets are the observations of this principal component
    analysis; each is described by its effects on the same genes in all contexts, side by side.
    Where a context did not measure a target, the mean of those that did takes its place.
    """
    mean = source_mean(effects_by_context)
    stack, present = stack_effects(effects_by_context, mean.index)
    stack += np.where(present[:, :, None], 0, mean)
    stack -= stack.mean(axis=1, keepdims=True)
    # few targets, many genes: the small matrix of products between targets holds all there is
    value, vector = np.linalg.eigh(sum(block @ block.T for block in stack))
    largest = np.argsort(-value, kind="stable")[: min(n_components, len(mean) - 1)]
    scores = vector[:, largest] * np.sqrt(np.maximum(value[largest], 0))
    return pd.DataFrame(scores, index=mean.index)


def embedding(source: pd.DataFrame | str | Path) -> pd.DataFrame:
    """Check a table of gene features that you bring: annotations, a language model, networks.

    `source` is a DataFrame whose index holds genes; or the path of a ``.csv`` or ``.tsv`` (may end
    in ``.gz``; commas, semicolons or tabs) whose first column does; or of an ``.npz`` with one list
    of names and one matrix ``(n_names, n_features)``. A row of nothing but zeros says that nothing
    is known of the gene, so it is left out; ``attrs["empty"]`` names those genes. A gene with more
    than one row, or a value that is no finite number, is a ValueError.
    """
    table = source if isinstance(source, pd.DataFrame) else _read_table(Path(source))
    table = table.set_axis(table.index.astype(str), axis=0).rename_axis(index="target_gene")
    _refuse_repeats(table, "more than one row")
    if words := [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]:
        raise ValueError(
            f"columns {some_of(words)} hold no numbers but {some_of(table[words[0]])}; drop them, "
            "or write 0.5 for 0,5"
        )
    table = table.astype(np.float64)
    if len(bad := table.index[~np.isfinite(table.to_numpy()).all(axis=1)]):
        raise ValueError(
            f"NaN or infinite features of {some_of(bad)}; leave these rows out: what is missing is "
            "reported, not guessed"
        )
    empty = (table == 0).all(axis=1)
    kept = table[~empty]
    if kept.empty:
        raise ValueError(
            f"the table has {len(table)} genes, {len(table.columns)} features and no value but 0; "
            "expected names in the first column, numbers in the others, separated by commas, "
            "semicolons or tabs"
        )
    kept.attrs["empty"] = table.index[empty].tolist()
    return kept


def _read_table(path: Path) -> pd.DataFrame:
    if path.exists() and not path.is_file():  # a pipe may have nobody at its other end
        raise ValueError(f"{path.name} is no plain file")
    name = path.name.removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            first = file.readline()
        sep = max(",;\t", key=lambda sign: first.count(sign.encode()))
        return pd.read_csv(path, sep=sep, index_col=0)
    if not name.endswith(".npz"):
        raise ValueError(f"cannot read {path.name}; expected .csv, .tsv (or these .gz) or .npz")
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    names = [a for a in arrays.values() if a.ndim == 1 and a.dtype.kind in "US"]
    matrices = [a for a in arrays.values() if a.ndim == 2]
    if len(names) != 1 or len(matrices) != 1 or len(names[0]) != len(matrices[0]):
        shapes = {key: a.shape for key, a in arrays.items()}
        raise ValueError(
            f"{path.name} holds {shapes}; expected one list of names and one matrix with a row each"
        )
    return pd.DataFrame(matrices[0], index=names[0].astype(str))


def join(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Put feature tables, each with its name, side by side; the index of each holds targets.

    Each is divided by the root mean square length of its rows, so that none outweighs another. Rows
    are the targets that every table has, in the first one's order; columns ``(table, feature)``;
    ``attrs["left_out"]`` gives for each table the targets that it lacks and another has.
    """
    kept, left_out = _in_every(tables)
    parts = []
    for table in tables.values():
        values = table.to_numpy(dtype=np.float64)
        length = np.sqrt((values**2).sum(axis=1).mean())
        parts.append(table.loc[kept] / (length or 1.0))
    names = [(name, _label(c)) for name, table in tables.items() for c in table.columns]
    columns = pd.MultiIndex.from_tuples(names, names=["table", "feature"])
    joined = pd.DataFrame(np.hstack(parts), index=kept, columns=columns)
    joined.attrs["left_out"] = left_out
    return joined


def _in_every(tables: Mapping[str, pd.DataFrame]) -> tuple[pd.Index, dict[str, list]]:
    """Return the targets that all tables have, and for each those that it lacks."""
    if not tables:
        raise ValueError("no table was given; expected at least one")
    for name, table in tables.items():
        _refuse_repeats(table, f"table {name!r} has more than one row")
    every = pd.Index(np.concatenate([table.index for table in tables.values()])).unique()
    lacks = {name: every.difference(t.index, sort=False).tolist() for name, t in tables.items()}
    kept = every[~every.isin(sum(lacks.values(), []))]
    if not len(kept):
        sizes = ", ".join(f"{name}: {len(table)} targets" for name, table in tables.items())
        raise ValueError(f"no target is in every table ({sizes})")
    return kept.rename("target_gene"), lacks


def _label(column: object) -> str:
    return " ".join(map(str, column)) if isinstance(column, tuple) else str(column)


def coverage(
    tables: pd.DataFrame | Mapping[str, pd.DataFrame], targets: Iterable[str]
) -> pd.DataFrame:
    """Count which of the `targets` to be predicted each feature table covers.

    ``covered`` and ``asked`` are numbers of targets; ``missing`` is a list of names.
    """
    tables = {"features": tables} if isinstance(tables, pd.DataFrame) else tables
    asked, rows = pd.Index(targets).unique(), {}
    for name, table in tables.items():
        missing = asked[~asked.isin(table.index)].tolist()
        covered = len(asked) - len(missing)
        rows[name] = {"covered": covered, "asked": len(asked), "missing": missing}
    return pd.DataFrame.from_dict(rows, orient="index")


@dataclass(frozen=True)
class GeneLoadings:
    """Describe a target by how its own gene behaves in the training effects.

    Called with training effects, it returns a table of all genes; so a model that uses it never
    sees more than what it is fitted on. Genes are the observations of this principal component
    analysis: two are close when the training perturbations move them alike.
    """

    n_components: int = 10

    def __call__(self, train_effects: anndata.AnnData) -> pd.DataFrame:
        """Return the loadings of every gene."""
        scores = gene_scores(np.asarray(train_effects.X), self.n_components)
        return pd.DataFrame(scores, index=train_effects.var_names)


@dataclass(frozen=True, eq=False)
class Likenesses:
    """Describe a target by how much it is like each training target, in several ways.

    `parts` has a name for each way: a table, its index targets, and a function of two sets of its
    rows, ``(n, m)``, such as :func:`same_direction`; or a square table of similarities that you
    bring, its index and columns targets. Called with training effects, it returns a table of the
    targets that every part has, with columns ``(part, training target)``; with `weights`, a number
    for each part, their weighted sum as the one part. To a regressor it is the kernel
    ``"precomputed"``.
    """

    parts: Mapping[str, pd.DataFrame | tuple[pd.DataFrame, Callable]]
    weights: Mapping[str, float] | None = None

    def __call__(self, train_effects: anndata.AnnData) -> pd.DataFrame:
        """Return the likeness of every target to the training targets."""
        pairs = {n: p if isinstance(p, tuple) else (p, None) for n, p in self.parts.items()}
        kept, left_out = _in_every({name: table for name, (table, _) in pairs.items()})
        trained = train_effects.obs_names[train_effects.obs_names.isin(kept)]
        alike = {}
        for name, (table, of) in pairs.items():
            rows = table.loc[kept, slice(None) if of else trained].to_numpy(np.float64)
            alike[name] = of(rows, rows[kept.get_indexer(trained)]) if of else rows
        if self.weights is not None:
            alike = {"sum": sum(self.weights[name] * k for name, k in alike.items())}
        columns = pd.MultiIndex.from_product([alike, trained], names=["part", "like"])
        table = pd.DataFrame(np.hstack(list(alike.values())), kept, columns)
        table.attrs["left_out"] = left_out
        return table


def same_direction(rows: np.ndarray, trained: np.ndarray) -> np.ndarray:
    r"""Call two targets alike whose rows, such as annotations, point in the same direction.

    Directions are taken from the mean direction of the training targets; with the cosine of two,
    the likeness is :math:`e^{5 (\cos - 1)}`, 1 for the same, and near 0 from a right angle on.
    """
    centre = _unit(trained).mean(axis=0)
    a, b = (_unit(_unit(x) - centre) for x in (rows, trained))
    return np.exp(5 * (a @ b.T - 1))


def _unit(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def near_counts(rows: np.ndarray, trained: np.ndarray) -> np.ndarray:
    r"""Call two targets alike that have similar numbers, above 0, such as of cells and of depth.

    Logarithms are standardised by the training targets and cut to -3 to 3; with the distance d of
    two targets, the likeness is :math:`e^{-d^2 / 2}`.
    """
    if not (rows > 0).all():
        raise ValueError("numbers of cells or depths of 0 or below; leave these targets out")
    rows, trained = np.log(rows), np.log(trained)
    scale = np.where(trained.std(axis=0) > 0, trained.std(axis=0), 1)
    a, b = (np.clip((x - trained.mean(axis=0)) / scale, -3, 3) for x in (rows, trained))
    return np.exp(-cdist(a, b, "sqeuclidean") / 2)


def same_value(rows: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Call two targets alike, 1 or 0, that have the same value in the one column."""
    return 1.0 * (rows == trained.T)


def gene_scores(effect: np.ndarray, n_components: int) -> np.ndarray:
    """Return the principal component scores of genes across perturbations, ``(n_genes, K)``.

    K is `n_components`, or as many as there are. The sign of a component is arbitrary.
    """
    by_gene = effect.T.astype(np.float64)
    u, s, _ = np.linalg.svd(by_gene - by_gene.mean(axis=0), full_matrices=False)
    return u[:, :n_components] * s[:n_components]


@dataclass(frozen=True, eq=False)
class EffectTable:
    """Put a table whose values are effects into the gene order of the training data.

    Its columns are genes, or ``(context, gene)`` as :func:`source_effects` makes them: one block of
    ``n_genes`` columns per context. A gene that the table lacks is a ValueError, not a zero.
    """

    table: pd.DataFrame

    def __call__(self, train_effects: anndata.AnnData) -> pd.DataFrame:
        """Return the table in these effects' genes."""
        columns, wanted = self.table.columns, train_effects.var_names
        if columns.nlevels > 1:
            wanted = pd.MultiIndex.from_product([columns.unique(level=0), wanted])
        place = columns.get_indexer(wanted)
        if len(lost := wanted[place < 0]):
            raise ValueError(
                f"the table has no effects on {some_of(lost)}: {len(lost)} of {len(wanted)} "
                "columns are missing; give the data and the table the same genes"
            )
        as_it_is = np.array_equal(place, np.arange(len(columns)))
        return self.table if as_it_is else self.table.iloc[:, place]


def resolve(
    features: pd.DataFrame | Callable | Mapping | None,
    train_effects: anndata.AnnData | None = None,
) -> pd.DataFrame | None:
    """Make a feature table of one, a function of `train_effects`, or a mapping of names to these.

    None stays None. A target with more than one row is a ValueError.
    """
    if isinstance(features, Mapping):
        return join({name: resolve(part, train_effects) for name, part in features.items()})
    table = features(train_effects) if callable(features) else features
    if table is not None:
        _refuse_repeats(table, "more than one row of features")
    return table


def _refuse_repeats(table: pd.DataFrame, what: str) -> None:
    if not table.index.is_unique:
        twice = table.index[table.index.duplicated()].unique()
        raise ValueError(f"{what} for {some_of(twice)}; keep one each")
