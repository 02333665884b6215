"""Few-shot adapters: carry effects from contexts that were measured into a new one.

Taught in: notebooks/07_few_shot_adaptation.
Needs: cells.py, effects.py, features.py, models.py.

>>> import vcc_helpers as vcc
>>> screen = vcc.datasets.load_hipsc_screen()
>>> day = {d: vcc.pseudobulk(screen[screen.obs["day"] == d]) for d in (4, 5)}
>>> model = ContextGain({"day 4": vcc.effects(day[4])}).fit(day[5][["non-targeting", "SOX2"]])
>>> model.predict(["NANOG"]).shape
(2, 103)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import anndata
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .cells import CONTROL, some_of
from .effects import control_row, effects
from .models import bulk_of_effects, target_index


class ContextGain(BaseEstimator):
    r"""Predict a target's effect as a weighted sum of its effects in other contexts.

    Parameters
    ----------
    sources
        Name of each source context, and its effects, ``(n_perts, n_genes)``, with the genes of
        the new context in its order.
    shrinkage
        How many support targets the starting point is worth, :math:`\alpha \ge 0`. 0 trusts
        the support set alone.
    control
        Name of the control's row in a pseudobulk.

    Attributes
    ----------
    gain_
        One weight a source context, a Series.

    Notes
    -----
    With the effects :math:`x_{ct}` of target t in source c, and :math:`y_t` in the new context,

    .. math:: \hat y_t = \sum_c g_c x_{ct}, \qquad
              g = \arg\min_g \sum_{t \in \text{support}} \| y_t - \hat y_t \|^2
              + \alpha \bar e\, \| g - g^0 \|^2

    where :math:`g^0_c = 1 / C` is the plain mean of the C sources and :math:`\bar e` the mean of
    :math:`\|x_{ct}\|^2`. With an empty support set :math:`g = g^0`: that is zero-shot. A target
    missing from some sources is predicted from the others, their weights scaled up by
    C / (number present). A support target that some source lacks teaches nothing about the gains.

    Taught in: notebooks/07_few_shot_adaptation.
    """

    def __init__(
        self,
        sources: Mapping[str, anndata.AnnData],
        *,
        shrinkage: float = 1.0,
        control: str = CONTROL,
    ):
        self.sources = sources
        self.shrinkage = shrinkage
        self.control = control

    def fit(self, bulk: anndata.AnnData, y: None = None) -> ContextGain:
        """Learn one gain a source from the support set.

        Parameters
        ----------
        bulk
            Pseudobulk of the new context, ``(n_groups, n_genes)``: the control's row, and one row
            a support target. The control alone means zero-shot.
        y
            Ignored; it is there because scikit-learn's tools pass it.

        Returns
        -------
        ContextGain
            Itself.

        Raises
        ------
        ValueError
            There is no source, a source's genes differ from `bulk`'s, or `shrinkage` is negative.
        KeyError
            `bulk` has no control row.
        """
        self._check(bulk)
        support = effects(bulk, control=self.control)
        self.var_, self.control_mean_ = bulk.var.copy(), control_row(bulk, self.control)
        stack, present = self._stack(support.obs_names)
        full = present.all(axis=0)
        x = stack[:, full].reshape(len(self.sources), -1)
        target = np.asarray(support.X[full], dtype=np.float64).ravel()
        prior = np.full(len(self.sources), 1 / len(self.sources))
        gram = x @ x.T
        weight = self.shrinkage * np.trace(gram) / len(prior) / max(full.sum(), 1)
        penalty = weight * np.eye(len(prior))
        # lstsq, since without shrinkage two sources that agree leave the split between them open
        gain = prior + np.linalg.lstsq(gram + penalty, x @ (target - prior @ x), rcond=None)[0]
        self.gain_ = pd.Series(gain, index=list(self.sources), name="gain")
        return self

    def predict(self, targets: Iterable[str]) -> anndata.AnnData:
        """Predict the pseudobulk of targets in the new context.

        Parameters
        ----------
        targets
            Names of perturbations that at least one source measured.

        Returns
        -------
        AnnData
            Shape ``(1 + n_targets, n_genes)``, mean lognorm: the control's row, then the targets.

        Raises
        ------
        KeyError
            No source measured a target.
        TypeError
            `targets` is one string instead of a list.
        """
        check_is_fitted(self)
        targets = target_index(targets)
        stack, present = self._stack(targets)
        if not present.any(axis=0).all():
            missing = targets[~present.any(axis=0)]
            raise KeyError(
                f"no source context measured {some_of(missing)}: {present.any(axis=0).sum()} of "
                f"{len(targets)} targets asked are covered; leave these out"
            )
        scale = len(self.sources) / present.sum(axis=0)
        effect = np.tensordot(self.gain_.to_numpy(), stack, axes=1) * scale[:, None]
        return bulk_of_effects(effect, targets, self.control_mean_, self.var_, self.control)

    def _check(self, bulk: anndata.AnnData) -> None:
        if not self.sources:
            raise ValueError("no source context was given; expected at least one")
        if self.shrinkage < 0:
            raise ValueError(f"shrinkage={self.shrinkage}; expected 0 or more")
        for name, delta in self.sources.items():
            if not np.array_equal(delta.var_names, bulk.var_names):
                raise ValueError(
                    f"source {name!r} has other genes than the new context ({delta.n_vars} and "
                    f"{bulk.n_vars}), or another order; select them with "
                    "source[:, bulk.var_names]"
                )

    def _stack(self, targets: pd.Index) -> tuple[np.ndarray, np.ndarray]:
        """Effects, ``(n_sources, n_targets, n_genes)``, 0 where absent, and what is present."""
        rows = [delta.obs_names.get_indexer(targets) for delta in self.sources.values()]
        stack = np.stack(
            [
                np.where(row[:, None] >= 0, np.asarray(delta.X, dtype=np.float64)[row], 0.0)
                for row, delta in zip(rows, self.sources.values(), strict=True)
            ]
        )
        return stack, np.array(rows) >= 0
