"""Few-shot adapters: carry effects from contexts that were measured into a new one.

Every adapter is fitted on a support set: the pseudobulk of the new context's control and of a few
measured targets. The control alone is zero-shot, the zero end of the same curve. Of a strength that
is a list, the best is chosen by leave-one-out on the support set, and on nothing else.

Taught in: notebooks/04_adapt_with_few_shots, notebooks/16_gains_between_contexts and
notebooks/26_predict_three_unseen_lines.
Needs: bulk.py, features.py, models.py.

>>> rows, genes = ["SOX2", "NANOG", CONTROL], ["SOX2", "NANOG"]
>>> mean = np.array([[0.1, 1.0], [0.6, 0.2], [0.7, 1.5]])
>>> bulk = anndata.AnnData(mean, pd.DataFrame(index=rows), pd.DataFrame(index=genes))
>>> delta = anndata.AnnData(mean[:2] - mean[2], bulk.obs[:2], bulk.var)
>>> model = ContextGain({"day 4": delta}).fit(bulk[["SOX2", CONTROL]])
>>> model.predict(["NANOG"]).shape
(2, 2)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import anndata
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone

from .bulk import CONTROL, effects, some_of
from .features import resolve, source_components, stack_effects
from .models import BulkModel, gain_products, predict_within, shrunken_gains


@dataclass(eq=False, repr=False)
class _SourceAdapter(BulkModel):
    """The template of adapters: ``_adapt(targets, effect)`` sees the support set, perhaps empty.

    ``_carry(targets)`` returns effects. Both see only targets that are covered.
    """

    sources: Mapping[str, anndata.AnnData]
    _: KW_ONLY
    shrinkage: float | Sequence[float] = 1.0
    prior: Mapping[str, float] | None = None
    fallback: str | None = None

    def _learn(self, targets: pd.Index, effect: np.ndarray, bulk: anndata.AnnData) -> None:
        if not self.sources:
            raise ValueError("no source context was given; expected at least one")
        if self.fallback not in (None, "mean"):
            raise ValueError(f"fallback={self.fallback!r}; expected None or 'mean'")
        for name, delta in self.sources.items():
            if not np.array_equal(delta.var_names, bulk.var_names):
                raise ValueError(
                    f"source {name!r} has other genes than the new context ({delta.n_vars} and "
                    f"{bulk.n_vars}), or another order; select them with source[:, bulk.var_names]"
                )
        usable = self._covered(targets)
        self.support_ = targets[usable]
        self._adapt(self.support_, np.asarray(effect[usable], dtype=np.float64))

    def _effect(self, targets: pd.Index) -> np.ndarray:
        covered = self._covered(targets)
        for lacking, known in self._known().items():
            missing = targets[~covered & ~targets.isin(known)]
            if len(missing):
                raise KeyError(
                    f"{lacking} {some_of(missing)}: {covered.sum()} of {len(targets)} targets "
                    "asked are covered; leave these out, or give fallback='mean'"
                )
        return self._carry(targets)

    def _covered(self, targets: pd.Index) -> np.ndarray:
        return ~self._fallback(targets) | (self.fallback == "mean")

    def _fallback(self, targets: pd.Index) -> np.ndarray:
        return ~np.all([targets.isin(known) for known in self._known().values()], axis=0)

    def _known(self) -> dict[str, pd.Index]:  # by what is said of all other targets
        return {"no source context measured": self._measured()}

    def _weights(self) -> np.ndarray:
        prior = dict.fromkeys(self.sources, 1.0) if self.prior is None else self.prior
        if set(prior) != set(self.sources) or not all(w > 0 for w in prior.values()):
            names = some_of(self.sources)
            raise ValueError(f"prior={dict(prior)}; expected a weight above 0 for each of {names}")
        weights = np.array([prior[name] for name in self.sources], dtype=np.float64)
        return weights / weights.sum()

    def _measured(self) -> pd.Index:
        return pd.Index(sorted(set().union(*(d.obs_names for d in self.sources.values()))))


@dataclass(eq=False, repr=False)
class ContextGain(_SourceAdapter):
    r"""Predict a target's effect as a weighted sum of its effects in other contexts.

    Parameters
    ----------
    sources
        Name of each source context, and its effects, ``(n_perts, n_genes)``, with the genes of
        the new context in its order.
    shrinkage
        How many support targets the starting point is worth, :math:`\alpha \ge 0`. 0 trusts
        the support set alone, ``inf`` the starting point. Of a list, the best is chosen.
    prior
        Weight of each source at the start, such as :func:`precision` makes; by default the same.
    fallback
        For a target that no source measured: ``None`` raises a KeyError, ``"mean"`` takes each
        source's mean effect.
    keep_size
        Divide the gains by their sum (negative ones count as 0): the support set decides whom to
        trust, not how large effects are, which noise makes small with 1 to 5 support targets.

    Notes
    -----
    With the effects :math:`x_{ct}` of target t in source c, and :math:`y_t` in the new context,

    .. math:: \hat y_t = \sum_c g_c x_{ct}, \qquad
              g = \arg\min_g \sum_{t \in \text{support}} \| y_t - \hat y_t \|^2
              + \alpha \bar e\, \| g - g^0 \|^2

    where :math:`g^0` are the weights at the start, and :math:`\bar e` the mean of
    :math:`\|x_{ct}\|^2`. With an empty support set :math:`g = g^0`: that is zero-shot. A target
    missing from some sources is predicted from the others, their gains divided by the share of
    :math:`g^0` that is theirs; a support target that some source lacks teaches nothing. Learnt are
    ``gain_``, a Series; ``shrinkage_``; and ``support_``, the support targets in use.
    """

    _: KW_ONLY
    keep_size: bool = False

    def _adapt(self, targets: pd.Index, effect: np.ndarray) -> None:
        self.start_ = self._weights()
        x, present = self._stack(targets)
        full = present.all(axis=0)
        x, effect = x[:, full], effect[full]
        gram, product = gain_products(x, effect)

        def fitted(rows, strength: float) -> np.ndarray:
            gain = shrunken_gains(gram[rows], product[rows], prior=self.start_, shrinkage=strength)
            if not self.keep_size:
                return gain
            gain = np.maximum(gain, 0)
            return gain / gain.sum() if gain.sum() > 0 else self.start_

        def held_out(strength: float) -> np.ndarray:
            gains = [fitted(others, strength) for others in ~np.eye(len(effect), dtype=bool)]
            return effect - np.einsum("tc,ctg->tg", gains, x)

        self.shrinkage_ = _choose(self.shrinkage, held_out, len(effect))
        gain = fitted(slice(None), self.shrinkage_)
        self.gain_ = pd.Series(gain, list(self.sources), name="gain")

    def _carry(self, targets: pd.Index) -> np.ndarray:
        stack, present = self._stack(targets)
        share = self.start_ @ present
        return np.tensordot(self.gain_.to_numpy(), stack, axes=1) / share[:, None]

    def _stack(self, targets: pd.Index) -> tuple[np.ndarray, np.ndarray]:
        stack, present = stack_effects(self.sources, targets)
        nowhere = ~present.any(axis=0)
        if nowhere.any():
            for block, delta in zip(stack, self.sources.values(), strict=True):
                block[nowhere] = np.mean(delta.X, axis=0, dtype=np.float64)
            present[:, nowhere] = True
        return stack, present


@dataclass(eq=False, repr=False)
class ZeroShot(_SourceAdapter):
    r"""Predict a new context from its controls alone, as far as other contexts agree.

    Parameters
    ----------
    sources, prior, fallback
        As for :class:`ContextGain`, of two sources at least; with ``"mean"`` a target that no
        source measured is predicted by the common response alone.
    shrinkage
        How many pairs of sources the common agreement is worth, 0 or more; ``inf`` trusts every
        target alike. Of a list, the best is chosen.

    Attributes
    ----------
    response_gain_ : float
        Share of the sources' mean response that a left-out source shows, 0 to 1.
    known_ : DataFrame
        One row a target that some source measured: the number of ``sources``, their ``agreement``
        and the ``weight`` of their mean in the prediction, both 0 to 1.

    Notes
    -----
    A source's effects are its mean response over targets and each target's own part,
    :math:`x_{ct} = m_c + d_{ct}`. Of k sources that measured a target,

    .. math:: \hat y_t = \gamma \bar m + \beta_t \bar d_t, \qquad
              \beta_t = \frac{k a_t}{1 + (k - 1) a_t}, \qquad
              a_t = \frac{\sum_{c < c'} \cos(d_{ct}, d_{c't}) + \lambda \bar a}
                         {k (k - 1) / 2 + \lambda}

    where :math:`\bar a` is the mean cosine over all pairs, and :math:`\gamma` fits each source's
    mean response by that of the others. :math:`\beta_t` is the Spearman-Brown formula: how far a
    mean of k measurements, any two of which agree by :math:`a_t`, tells of one more. Where sources
    do not agree, 0 is left, and so is a negative agreement. Agreement leaves the silenced gene out,
    which falls everywhere (:class:`~vcc_helpers.models.KnockedDown` sets it). :math:`\lambda`,
    then ``shrinkage_``, is chosen by leaving out each source as a whole and predicting it from the
    others, which takes three. Measured targets of the new context teach nothing here;
    :class:`Blend` puts them in.
    """

    _: KW_ONLY
    shrinkage: float | Sequence[float] = (0.0, 1.0, 3.0, 10.0, np.inf)

    def _adapt(self, targets: pd.Index, effect: np.ndarray) -> None:
        if len(self.sources) < 2:
            raise ValueError("one source context; how far effects carry over shows between two")
        if not np.all(np.asarray(self.shrinkage) >= 0):
            raise ValueError(f"shrinkage={self.shrinkage}; expected 0 or more")
        weights, every = self._weights(), self._measured()
        stack, present = stack_effects(self.sources, every)
        own_gene = self.var_.index.get_indexer(every)

        def transfer(rows: np.ndarray, strength: float) -> tuple:
            parts = stack[rows], present[rows], weights[rows], own_gene
            return _transfer(*parts, strength=strength)

        def held_out(strength: float) -> np.ndarray:
            errors = []
            for source, others in enumerate(~np.eye(len(stack), dtype=bool)):
                response, own, _ = transfer(others, strength)
                asked = present[source] & present[others].any(axis=0)
                errors.append(stack[source, asked] - own[asked] - response)
            return np.concatenate(errors)

        self.shrinkage_ = _choose(self.shrinkage, held_out, len(stack) - 1)
        self.response_, own, known = transfer(np.ones(len(stack), dtype=bool), self.shrinkage_)
        self.response_gain_ = known.pop("response_gain")
        self.known_ = pd.DataFrame(known, index=every)
        self.own_ = pd.DataFrame(own, index=every)

    def _carry(self, targets: pd.Index) -> np.ndarray:
        return self.response_ + self.own_.reindex(targets).fillna(0.0).to_numpy()


def _transfer(
    stack: np.ndarray,
    present: np.ndarray,
    weights: np.ndarray,
    own_gene: np.ndarray,
    *,
    strength: float,
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return the common response, each target's own part, and what these are made from.

    `stack` and `present` are those of :func:`~vcc_helpers.features.stack_effects`.
    """
    n_sources, n_targets = present.shape
    genes = np.flatnonzero(own_gene >= 0)
    rest = stack.copy()
    rest[:, genes, own_gene[genes]] = 0
    mean = rest.sum(axis=1) / np.maximum(present.sum(axis=1), 1)[:, None]
    others = (mean.sum(axis=0) - mean) / (n_sources - 1)
    gain = np.clip((mean * others).sum() / ((others**2).sum() or 1.0), 0, 1)
    own = (stack - mean[:, None]) * present[:, :, None]
    rest = (rest - mean[:, None]) * present[:, :, None]
    rest[:, genes, own_gene[genes]] = 0
    length = np.linalg.norm(rest, axis=2)
    rest /= np.where(length > 0, length, 1)[:, :, None]
    k = present.sum(axis=0)
    pairs = k * (k - 1) / 2
    cosines = ((rest.sum(axis=0) ** 2).sum(axis=1) - (rest**2).sum(axis=(0, 2))) / 2
    common = max(cosines.sum() / max(pairs.sum(), 1), 0)
    trusted = np.divide(pairs, pairs + strength, out=np.zeros(n_targets), where=pairs > 0)
    agreement = trusted * cosines / np.maximum(pairs, 1) + (1 - trusted) * common
    agreement = np.clip(agreement, 0, 1)
    weight = k * agreement / np.maximum(1 + (k - 1) * agreement, 1)
    share = weights @ present
    average = np.tensordot(weights, own, axes=1) / np.where(share > 0, share, 1)[:, None]
    known = {"sources": k, "agreement": agreement, "weight": weight, "response_gain": float(gain)}
    return gain * (weights @ mean / weights.sum()), weight[:, None] * average, known


def decompose(bulk_by_context: Mapping[str, anndata.AnnData]) -> pd.Series:
    r"""Split the squared length of effects into what is shared and what is not.

    `bulk_by_context` is as for :func:`precision`, of two contexts at least that share targets. With
    the effect of target t in context c, without the silenced gene and without sampling noise,

    .. math:: x_{ct} = \mu + \ell_c + s_t + i_{ct}

    where :math:`\mu` is global, :math:`\ell_c` what the line adds to every effect, :math:`s_t` what
    the target does in every line (conserved), and the rest their interaction. Returned are the mean
    squared lengths of the four, and of the noise, in squared lognorm, genes summed. They come from
    mean products of two effects, which share the parts that their indices share: no part can be
    read off one effect, and an estimate may be negative.
    """
    rows, lines, targets, noise, shared = [], [], [], [], []
    for line, bulk in bulk_by_context.items():
        delta, error = effects(bulk), bulk.layers["variance"] / bulk.obs[["n_cells"]].to_numpy()
        is_control, own = bulk.obs_names == CONTROL, bulk.var_names.get_indexer(delta.obs_names)
        kept = np.arange(bulk.n_vars) != own[:, None]
        rows.append(delta.X.astype(np.float64) * kept)
        noise += (error[~is_control] * kept).sum(axis=1).tolist()
        shared += [error[is_control].sum()] * delta.n_obs  # the control's, in all of a line
        lines += [line] * delta.n_obs
        targets += delta.obs_names.tolist()
    rows, noise, shared = np.vstack(rows), np.array(noise), np.array(shared)
    codes = (np.unique(names, return_inverse=True)[1] for names in (lines, targets))
    line, target = (np.equal.outer(code, code) for code in codes)
    product = rows @ rows.T - line * shared[:, None] - np.diag(noise)
    pairs = [~line & ~target, line & ~target, ~line & target]
    if not all(pair.any() for pair in pairs):
        raise ValueError("expected two contexts at least, which share two targets at least")
    neither, line, target = (product[pair].mean() for pair in pairs)
    parts = {
        "global": neither,
        "line": line - neither,
        "conserved": target - neither,
        "interaction": np.trace(product) / len(product) - line - target + neither,
        "noise": (noise + shared).mean(),
    }
    return pd.Series(parts, name="squared length")


def precision(bulk_by_context: Mapping[str, anndata.AnnData]) -> dict:
    r"""Weigh contexts by how precisely they were measured.

    `bulk_by_context` is the name of each source context, and its pseudobulk, with
    ``layers["variance"]`` and ``obs["n_cells"]``. An effect is a difference of two means, with the
    squared standard error :math:`v_t / n_t + v_0 / n_0`. The weight of a context is 1 over the mean
    of that over its targets and genes: the weights of the most precise average, were the contexts
    alike. They sum to 1. No target of the new context is looked at.
    """
    weights = {}
    for name, bulk in bulk_by_context.items():
        error = bulk.layers["variance"] / bulk.obs[["n_cells"]].to_numpy()
        is_control = bulk.obs_names == CONTROL
        if not is_control.any():
            raise KeyError(f"context {name!r} has no row {CONTROL!r}")
        weights[name] = 1 / (error[~is_control].mean() + error[is_control].mean())
    return {name: float(weight / sum(weights.values())) for name, weight in weights.items()}


@dataclass(eq=False, repr=False)
class ResidualRidge(_SourceAdapter):
    r"""Predict the weighted mean of the sources, and what that leaves by ridge regression.

    Parameters
    ----------
    sources, shrinkage, prior, fallback
        As for :class:`ContextGain`, which makes the starting point :math:`z_t` with
        ``keep_size=True``. A target that `features` lacks needs the fallback, too: their mean.
    n_components
        Number of source components that describe a target, K.
    alpha
        Penalty, above 0; ``inf`` keeps zero-shot. Of a list, the best is chosen.
    features
        A table whose index holds targets, to describe them by instead.

    Notes
    -----
    With the weighted mean :math:`z_t` of a target's source effects, the residuals
    :math:`R = Y - Z` of the support set, and the similarity
    :math:`k(t, u) = 1 + \phi_t \cdot \phi_u` of the targets' components, centred and scaled to a
    mean squared length of 1 over the targets of the sources:

    .. math:: \hat y_q = z_q + k_q (K + \alpha I)^{-1} R

    The 1 is what the new context adds to every effect. A huge :math:`\alpha` leaves :math:`z_q`,
    and so does an empty support set: that is zero-shot. While :math:`\alpha`, then ``alpha_``, is
    chosen, the few gains of the starting point stay those of the whole support set. The components
    take a moment; where many support sets are tried, make them once and give them as `features`.
    """

    _: KW_ONLY
    n_components: int = 10
    alpha: float | Sequence[float] = (1.0, 3.0, 10.0, 30.0, np.inf)
    features: pd.DataFrame | None = None

    def _adapt(self, targets: pd.Index, effect: np.ndarray) -> None:
        if not np.all(np.asarray(self.alpha) > 0):
            raise ValueError(f"alpha={self.alpha}; expected above 0")
        every, plain = self._measured(), {"shrinkage": self.shrinkage, "prior": self.prior}
        there, start = targets.isin(every), ContextGain(self.sources, **plain, keep_size=True)
        start._adapt(targets[there], effect[there])
        self.gain_ = start.gain_
        self.zero_shot_ = pd.DataFrame(start._carry(every), index=every, columns=self.var_.index)
        self.features_ = self._describe()
        parts = self._parts(targets, effect - self._zero_shot(targets))

        def held_out(alpha: float) -> np.ndarray:
            return sum(_left_out_residuals(similar, r, alpha) for similar, r in parts)

        self.alpha_ = _choose(self.alpha, held_out, len(targets))
        self.dual_ = [_inverse(similar, self.alpha_) @ residual for similar, residual in parts]

    def _parts(self, targets: pd.Index, residual: np.ndarray) -> list:
        return [(self._similarity(targets), residual)]

    def _carry(self, targets: pd.Index) -> np.ndarray:
        return self._zero_shot(targets) + self._similarity(targets) @ self.dual_[0]

    def _describe(self) -> pd.DataFrame:
        """Describe targets without a look at the new context."""
        table = resolve(self.features)
        if table is None:
            table = source_components(self.sources, self.n_components)
        if not np.isfinite(table.to_numpy(dtype=np.float64)).all():
            raise ValueError("features hold NaN or infinite values; leave those rows out")
        known = table.index.isin(self.zero_shot_.index)
        centred = table - table[known].mean()
        length = np.sqrt((centred[known] ** 2).sum(axis=1).mean())
        return centred / (length if length > 0 else 1.0)

    def _known(self) -> dict[str, pd.Index]:
        described = {} if self.features is None else {"no features for": self.features.index}
        return super()._known() | described

    def _zero_shot(self, targets: pd.Index) -> np.ndarray:
        effect = self.zero_shot_.reindex(targets).to_numpy(copy=True)
        effect[~targets.isin(self.zero_shot_.index)] = self.zero_shot_.to_numpy().mean(axis=0)
        return effect

    def _similarity(self, targets: pd.Index) -> np.ndarray:
        # only with the fallback is a target absent here; 0 is the mean of the features
        a, b = (self.features_.reindex(t).fillna(0.0).to_numpy() for t in (targets, self.support_))
        return 1 + a @ b.T


@dataclass(eq=False, repr=False)
class SourceBilinear(ResidualRidge):
    r"""The bilinear model with components of the sources, adapted by a few targets.

    It is :class:`ResidualRidge`, but all that tells targets apart lies in the first K gene
    components, `n_components`, :math:`G` (genes x K, orthonormal) of the mean source effects
    :math:`z_t`, which have the mean :math:`m`:

    .. math:: \hat y_q = m + (z_q - m)\, G G^{\mathsf{T}} + b + \phi_q W G^{\mathsf{T}}

    The shift b and the small matrix W are learnt by the same ridge regression; without support both
    are 0. It is :class:`~vcc_helpers.models.BilinearRegressor` with a zero-shot end.
    """

    _: KW_ONLY
    n_components: int = 20

    def _parts(self, targets: pd.Index, residual: np.ndarray) -> list:
        inside = self._project(residual)
        # what the components cannot express still shifts every effect alike
        alike = np.ones((len(targets), len(targets)))
        return [(self._similarity(targets), inside), (alike, residual - inside)]

    def _carry(self, targets: pd.Index) -> np.ndarray:
        return super()._carry(targets) + self.dual_[1].sum(axis=0)

    def _describe(self) -> pd.DataFrame:
        mean = self.zero_shot_.mean()
        centred = self.zero_shot_ - mean
        value, vector = np.linalg.eigh((centred @ centred.T).to_numpy())
        largest = np.argsort(-value, kind="stable")[: self.n_components]
        largest = largest[value[largest] > 1e-9 * value.max()]
        scores = vector[:, largest] / np.sqrt(value[largest])
        self.gene_components_ = centred.to_numpy().T @ scores
        self.zero_shot_[:] = self._project(centred.to_numpy()) + mean.to_numpy()
        return super()._describe()

    def _project(self, effect: np.ndarray) -> np.ndarray:
        return effect @ self.gene_components_ @ self.gene_components_.T


@dataclass(eq=False, repr=False)
class Blend(BulkModel):
    r"""Trust zero-shot while the support set is small, and what was learnt from it when it grows.

    `zero_shot` is a model that needs the new context's control only, such as :class:`ContextGain`,
    `adapted` any model; with `n0` support targets, 0 or more, both count the same. With n of them,

    .. math:: \hat y = (1 - w)\, \hat y^{\text{zero-shot}} + w\, \hat y^{\text{adapted}},
              \qquad w = \frac{n}{n + n_0}
    """

    zero_shot: BaseEstimator
    adapted: BaseEstimator
    _: KW_ONLY
    n0: float = 5.0

    def _learn(self, targets: pd.Index, effect: np.ndarray, bulk: anndata.AnnData) -> None:
        if not self.n0 >= 0:
            raise ValueError(f"n0={self.n0}; expected 0 or more")
        n = len(targets)
        self.zero_shot_ = clone(self.zero_shot).fit(bulk[[CONTROL]])
        self.adapted_ = clone(self.adapted).fit(bulk) if n else None
        self.weight_ = n / (n + self.n0) if n else 0.0

    def _predict(self, targets: pd.Index) -> anndata.AnnData:
        pred = predict_within(self.zero_shot_, targets)
        if self.weight_ > 0:
            learnt = predict_within(self.adapted_, targets)
            pred.X[1:] += np.float32(self.weight_) * (learnt.X[1:] - pred.X[1:])
            pred.obs["fallback"] |= learnt.obs["fallback"]
        return pred


def _choose(
    strength: float | Sequence[float], held_out: Callable[[float], np.ndarray], n_support: int
) -> float:
    """Return the strength with the least held-out errors; of equals the greatest, most careful."""
    if np.ndim(strength) == 0:
        return strength
    if not len(strength):
        raise ValueError("no strength to choose from; give a number, or a list of some")
    if n_support < 2:
        return float(max(strength))
    error = {float(s): np.abs(held_out(s)).mean() for s in sorted(strength, reverse=True)}
    return min(error, key=error.get)


def _left_out_residuals(similar: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    r"""Return the errors of kernel ridge regression on targets left out one at a time.

    With :math:`A = (K + \alpha I)^{-1}`, that of target i is :math:`(A Y)_i / A_{ii}`.
    """
    if np.isinf(alpha):  # all are predicted as 0
        return y
    inverse = _inverse(similar, alpha)
    return (inverse @ y) / np.diag(inverse)[:, None]


def _inverse(similar: np.ndarray, alpha: float) -> np.ndarray:
    if np.isinf(alpha):
        return np.zeros_like(similar)
    return np.linalg.inv(similar + alpha * np.eye(len(similar)))
