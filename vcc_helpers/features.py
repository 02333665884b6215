"""Perturbation features: what is known of a target before it is silenced here.

A feature table has one row a target. A model can only predict targets that have a row, so each
table can say which of the asked targets it covers.

Taught in: notebooks/05_linear_baseline and notebooks/06_knn_baseline.
Needs no sibling module.

>>> import anndata, numpy, pandas
>>> obs, var = pandas.DataFrame(index=["SOX2"]), pandas.DataFrame(index=["G1", "G2"])
>>> delta = anndata.AnnData(numpy.array([[0.5, -1.0]]), obs=obs, var=var)
>>> source_effects({"day 2": delta, "day 3": delta}).shape
(1, 4)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd


def source_effects(effects_by_context: Mapping[str, anndata.AnnData]) -> pd.DataFrame:
    """Describe a target by what silencing it did in other contexts.

    Parameters
    ----------
    effects_by_context
        Name of each source context, and its effects, ``(n_perts, n_genes)``; the genes may
        differ between contexts.

    Returns
    -------
    DataFrame
        Index target_gene, the targets measured in every context, sorted; columns
        ``(context, gene)``; values are effects, differences of mean lognorm values.

    Raises
    ------
    ValueError
        No context was given, or no target was measured in all of them.

    Notes
    -----
    Taught in: notebooks/06_knn_baseline.
    """
    if not effects_by_context:
        raise ValueError("no source context was given; expected at least one")
    tables = {name: delta.to_df() for name, delta in effects_by_context.items()}
    table = pd.concat(tables, axis=1, join="inner").sort_index()
    if table.empty:
        sizes = ", ".join(f"{name}: {len(t)} targets" for name, t in tables.items())
        raise ValueError(f"no target was measured in every context ({sizes})")
    return table.rename_axis(index="target_gene")


def coverage(tables: Mapping[str, pd.DataFrame], targets: Iterable[str]) -> pd.DataFrame:
    """Count which of the asked targets each feature table covers.

    Parameters
    ----------
    tables
        Name and feature table; the index holds targets.
    targets
        Targets that a model will be asked about.

    Returns
    -------
    DataFrame
        Index: name of the table; ``covered`` and ``asked``, numbers of targets; ``missing``, the
        names without features, a list.

    Notes
    -----
    Taught in: notebooks/06_knn_baseline.
    """
    asked = pd.Index(pd.unique(pd.Index(targets)))
    rows = {
        name: {
            "covered": int(asked.isin(table.index).sum()),
            "asked": len(asked),
            "missing": asked[~asked.isin(table.index)].tolist(),
        }
        for name, table in tables.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


@dataclass(frozen=True)
class GeneLoadings:
    """Describe a target by how its own gene behaves in the training effects.

    Called with training effects, it returns a feature table for all genes; so a model that uses
    it never sees more than what it is fitted on.

    Parameters
    ----------
    n_components
        Number of principal components, K. No more are used than the training effects have.

    Notes
    -----
    Genes are the observations of this principal component analysis, as in Ahlmann-Eltze, Huber
    and Anders 2025: two genes are close when the training perturbations move them alike.

    Taught in: notebooks/05_linear_baseline.
    """

    n_components: int = 10

    def __call__(self, train_effects: anndata.AnnData) -> pd.DataFrame:
        """Return the loadings of every gene.

        Parameters
        ----------
        train_effects
            Effects, ``(n_perts, n_genes)``.

        Returns
        -------
        DataFrame
            Index: genes; K columns, in the unit of the effects.
        """
        scores = gene_scores(np.asarray(train_effects.X), self.n_components)
        return pd.DataFrame(scores, index=train_effects.var_names)


def gene_scores(effect: np.ndarray, n_components: int) -> np.ndarray:
    """Return the principal component scores of genes across perturbations.

    Parameters
    ----------
    effect
        Effects, shape ``(n_perts, n_genes)``.
    n_components
        K; cut to ``n_perts`` or ``n_genes`` where those are fewer.

    Returns
    -------
    ndarray
        Shape ``(n_genes, K)``, float64. The sign of a component is arbitrary.

    Notes
    -----
    Taught in: notebooks/05_linear_baseline.
    """
    by_gene = effect.T.astype(np.float64)
    u, s, _ = np.linalg.svd(by_gene - by_gene.mean(axis=0), full_matrices=False)
    return u[:, :n_components] * s[:n_components]
