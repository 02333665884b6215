r"""The recipe of a simulated world: everything but the cells, drawn once from a seed.

Every number that shapes it is a named constant below, next to the real figure it follows; the
calibration page of the book holds the result against those figures. How a count comes about, for
gene g in cell c of group p, batch b and depth :math:`d_c`:

.. math::

    \log \mu_{cg} = \beta_g + \Delta_{pg} + \gamma_{bg} + \textstyle\sum_k z_{ck} L_{kg}
        + \varepsilon_{cg}, \qquad
    x_{cg} \sim \mathrm{Poisson}\Bigl(d_c \, \mu_{cg} \Big/ \sum_h \mu_{ch}\Bigr)

with z and :math:`\varepsilon` normal. A Poisson count around a log-normal rate has, like a
negative binomial, a variance of mean + dispersion times mean squared.

Real figures are those of the training set of the Virtual Cell Challenge 2025 (150 targets,
18,080 genes) unless said otherwise; "screen" is the hiPSC screen bundled with the package.

Taught in: book/calibration.

>>> recipe = draw_recipe(Size(n_genes=60, n_targets=(4, 2, 3), n_controls=50), ("H1", "K562"))
>>> recipe.contexts["K562"].changes.shape
(9, 60)
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..bulk import CONTROL

# Mean counts of H1's genes in control cells at these cumulative shares.
BASAL_SHARE = (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
BASAL_SHARE += (0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9998, 1)
BASAL_COUNTS = (1e-5, 7.9e-5, 4.7e-4, 0.0021, 0.0076, 0.023, 0.060, 0.133, 0.275, 0.475, 0.756)
BASAL_COUNTS += (1.109, 1.555, 2.069, 2.714, 3.546, 4.583, 6.02, 8.43, 13.41, 21.67, 29.58, 40.3)
BASAL_COUNTS += (87.1, 148.0, 427.0)
# How far a gene's log expression in another context lies from the first. Assumed.
CONTEXT_LOG_SD = 0.8

# Counts per cell: median 53,912; p05 29,431 and p95 93,741; no cell below 19,981.
DEPTH_PER_GENE = 53_912 / 18_080
DEPTH_LOG_SD = 0.33
DEPTH_FLOOR = 20_000 / 53_912
# Medians of the 48 batches lie 9 % apart, mostly between three groups of 16: 47, 58, 56 thousand.
BATCH_GROUP_DEPTH = (0.86, 1.07, 1.02)
BATCH_LOG_SD = 0.045
# Batches' mean profiles correlate with the whole at .9975 in the median, .9921 at least; groups
# of batches differ by about .018 lognorm in the 1,000 genes of the real sample. How a batch's
# shift is spread over genes is assumed.
BATCH_GENE_LOG_SD = 0.08
BATCH_SIZE_LOG_SD = 0.35
BATCH_GROUP_GENE_LOG_SD = 0.02

# Variance of a gene's log rate between cells, at mean count m: FLOOR + SLOPE / m, at most MOST.
# Fitted so that the lognorm variance and the zeros of control cells are the real ones at every
# mean; the spread between genes of one mean is assumed.
RATE_VARIANCE_FLOOR = 0.024
RATE_VARIANCE_SLOPE = 0.10
RATE_VARIANCE_MOST = 1.1
RATE_VARIANCE_LOG_SD = 0.4
# Cell states carry a part of it: in the real sample, 14 % of the lognorm variance of highly
# expressed genes lies in ten components beyond what shuffled genes show.
N_STATES = 8
STATE_VARIANCE = 0.03
STATE_SHARE_MOST = 0.7

# Size of an effect on all genes but the silenced one, L2 norm in lognorm over 18,080 genes,
# sampling noise taken off, at these cumulative shares of 100 real targets.
SIZE_SHARE = (0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1)
SIZE = (0.38, 0.77, 1.06, 1.96, 3.69, 7.38, 13.7, 16.6, 24.4)
SIZE_GENES = 18_080
# How far a target's rank in size is its own, and how far the context's. Assumed.
SIZE_SHARED = 0.7
# Shares of an effect's squared norm. The first two, and the silenced gene itself, are the same in
# every context. With the noise of 150 cells per target, the cosine of an effect in another line and
# in H1 is .12 to .145 in real data, own gene included; what it is without noise is not known.
COMMON_SHARE = 0.06
SHARED_SHARE = 0.06
REWIRED_SHARE = 0.58
OWN_SHARE = 0.30
# Weak effects lie in fewer genes, most of them the target's own; and targets differ in that.
OWN_SHARE_LOG_SD = 1.0
OWN_SHARE_RANK = 0.7
COMMON_GAIN_SD = 0.9
# Programmes: how many, how unequal, how sparse (0: Laplace; larger: fewer genes carry it).
N_PROGRAMMES = 36
PROGRAMME_LOG_SD = 1.0
PROGRAMME_TAIL = 1.1
OWN_TAIL = 2.2
COMMON_TAIL = 0.5
SCORE_TAIL = 1.0
# How far the programmes a target moves are those its own gene varies with in control cells. In
# the screen, the covariance with a gene in control cells correlates with minus the gene's effect
# by .06 on average over 23 targets: next to nothing.
MEMBERSHIP_SHARE = 0.1
# Targets of one complex do nearly the same: the closest real pair has a correlation of .98.
TWIN_SHARE = 0.007
TWIN_NOISE = 0.08
# A factor of e^3 = 20 is as good as off, and keeps a rare draw from taking the whole library.
MAX_LOG_FOLD_CHANGE = 3.0

# Own-gene expression left: quartiles .043, .049, .063; 11 of the 300 real targets keep more than
# .4. It says next to nothing about the size of the effect (rank correlation .14), here nothing.
RESIDUAL_SHARE = (0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.96, 0.963, 1)
RESIDUAL = (0.008, 0.035, 0.043, 0.049, 0.063, 0.107, 0.18, 0.4, 0.95)
GUIDE_LOG_SD = 0.25
# 189 guide constructs for 150 targets; 31 non-targeting.
TWO_GUIDES_SHARE = 0.26
N_CONTROL_GUIDES = 31
# Targets are expressed genes: mean counts 3.0, 5.7, 10.6 at the quartiles.
TARGET_FROM_SHARE = 0.60

# Cells per target at these cumulative shares, in units of the median of 1,045.
CELLS_SHARE = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
CELLS = (33 / 1045, 171 / 1045, 590 / 1045, 1, 1742 / 1045, 2643 / 1045, 4760 / 1045)
# Strong effects cost cells: the rank correlation of cells and denoised norm is -.40.
CELLS_SIZE_CORRELATION = -0.42
MIN_CELLS = 12
# Share of the first context's targets that each other context has measured. Assumed.
COVERAGE = 0.9


@dataclass(frozen=True)
class Size:
    """How large a world is.

    Attributes
    ----------
    n_genes
        Depth and effect sizes scale with it: those per gene stay those of the real 18,080 genes.
    n_targets
        Numbers of train, validation and test targets.
    cells_per_target
        Median number of cells per target, at least 12; the others are spread as in the real screen.
    n_controls, n_batches
        Number of non-targeting cells in each context; of batches, which differ in depth and a
        little in expression.
    effect_scale
        Factor on the size of every effect; 1 gives the sizes measured in H1. The default of 2
        makes up for a part of the cells that a small world lacks: with 30 cells per target, where
        H1 has 1,045, effects of their real size drown in sampling noise.
    cells_of_parts
        Exact numbers of perturbed cells of the three parts in the first context, or none.
    """

    n_genes: int = 1500
    n_targets: tuple[int, int, int] = (150, 50, 100)
    cells_per_target: int = 30
    n_controls: int = 1000
    n_batches: int = 6
    effect_scale: float = 2.0
    cells_of_parts: tuple[int, int, int] | None = None


class Context(NamedTuple):
    """What is particular to one context."""

    log_basal: np.ndarray  # (n_genes,): log of the mean count in a control cell of median depth
    changes: np.ndarray  # (n_targets, n_genes), float32: natural log fold change of the rate
    residual: np.ndarray  # (n_targets,): own-gene expression left, 0 to 1
    n_cells: np.ndarray  # (n_targets,), int: 0 where the context has not measured a target
    batch_depth: np.ndarray  # (n_batches,): median depth, in units of the whole median
    batch_shift: np.ndarray  # (n_batches, n_genes), float32: what a batch adds to log rates
    key: int  # what the generators of this context's cells are seeded with


class Recipe(NamedTuple):
    """All that cells are drawn from; the first context is the one to predict in."""

    seed: int
    size: Size
    genes: np.ndarray  # (n_genes,), names
    targets: np.ndarray  # (n_targets,), int: which gene; train, then validation, then test
    n_guides: np.ndarray  # (n_targets,), int, 1 or 2
    guide_factor: np.ndarray  # (n_targets, 2): what a guide leaves, relative to the residual
    states: np.ndarray  # (N_STATES, n_genes), float32: what one unit adds to log rates
    rate_variance: np.ndarray  # (n_genes,): of the log rate between cells, beyond the states
    contexts: dict[str, Context]

    @property
    def labels(self) -> np.ndarray:
        """Names of the targets, ``(n_targets,)``, and after them the control label."""
        return np.append(self.genes[self.targets], CONTROL)


class _Biology(NamedTuple):
    """What all contexts share of the effects; every pattern is in units of lognorm."""

    log_basal: np.ndarray  # (n_genes,)
    targets: np.ndarray  # (n_targets,)
    programmes: np.ndarray  # (N_PROGRAMMES, n_genes), rows of norm 1
    membership: np.ndarray  # (N_STATES, n_genes), mean square 1: how states move genes
    common: np.ndarray  # (n_genes,), norm 1
    common_gain: np.ndarray  # (n_targets,), about 1
    shared: np.ndarray  # (n_targets, n_genes), rows of norm 1
    rank: np.ndarray  # (n_targets,), normal scores of the size of the effect
    twins: np.ndarray  # (n_pairs, 2), positions of targets


def draw_recipe(size: Size, contexts: tuple[str, ...] = ("H1",), *, seed: int = 0) -> Recipe:
    """Draw all that does not depend on the single cell; no context depends on the others' names."""
    rng = np.random.default_rng([seed, 0])
    biology = _draw_biology(size, rng)
    states, rate_variance = _draw_states(biology, rng)
    two = rng.random(len(biology.targets)) < TWO_GUIDES_SHARE
    factor = np.exp(rng.normal(0, GUIDE_LOG_SD, (len(two), 2)))
    factor /= factor.mean(axis=1, keepdims=True)
    # SIM0001, SIM0002, ...: with these zeros no gene symbol looks like it
    width = max(4, len(str(size.n_genes)))
    names = [f"SIM{number:0{width}d}" for number in range(1, size.n_genes + 1)]
    return Recipe(
        seed=seed,
        size=size,
        genes=np.array(names, dtype=object),
        targets=biology.targets,
        n_guides=1 + two,
        guide_factor=np.where(two[:, None], factor, 1.0),
        states=states,
        rate_variance=rate_variance,
        contexts={
            name: _draw_context(name, first=not i, size=size, biology=biology, seed=seed)
            for i, name in enumerate(contexts)
        },
    )


def _slope(log_basal: np.ndarray) -> np.ndarray:
    """How lognorm follows the log rate: d log(1 + m) / d log m = m / (1 + m)."""
    return 1 / (1 + np.exp(-log_basal))


def _unit_rows(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def _quantiles(shares: np.ndarray, at: tuple, values: tuple) -> np.ndarray:
    """Read a distribution off its quantiles; between two the logarithm is straight. A log, too."""
    return np.interp(shares, at, np.log(values))


def _by_rank(scores: np.ndarray, rising: np.ndarray) -> np.ndarray:
    """Give the largest score the last of the rising values, and so on."""
    placed = np.empty(len(scores))
    placed[np.argsort(scores, kind="stable")] = rising
    return placed


def _even(numbers: np.ndarray) -> np.ndarray:
    """Space shares evenly: the distribution is the same for every seed."""
    return (numbers + 0.5) / len(numbers)


def _heavy(rng: np.random.Generator, shape: tuple[int, ...], tail: float) -> np.ndarray:
    """Draw values of which a few are large: Laplace values times a power of their size."""
    values = rng.laplace(size=shape)
    return values * np.abs(values) ** tail


def _draw_biology(size: Size, rng: np.random.Generator) -> _Biology:
    n_genes, n_targets = size.n_genes, sum(size.n_targets)
    log_basal = _quantiles(_even(rng.permutation(n_genes)), BASAL_SHARE, BASAL_COUNTS)
    # Silencing needs a gene that is on.
    n_candidates = max(n_targets, round((1 - TARGET_FROM_SHARE) * n_genes))
    expressed = np.argsort(-log_basal, kind="stable")[:n_candidates]
    targets = rng.choice(expressed, n_targets, replace=False)
    # In lognorm units an effect's variance goes with the slope: so it does in the real effects.
    weight = np.sqrt(_slope(log_basal))
    programmes = _unit_rows(_heavy(rng, (N_PROGRAMMES, n_genes), PROGRAMME_TAIL) * weight)
    common = _unit_rows(_heavy(rng, (1, n_genes), COMMON_TAIL) * weight)[0]
    # how far a gene goes along with each programme: the programme's sign, and milder values
    patterns = programmes[:N_STATES] / weight
    membership = np.sign(patterns) * np.sqrt(np.abs(patterns))
    membership /= np.sqrt(np.mean(membership**2, axis=1, keepdims=True))
    other = _draw_scores(n_targets, rng) * np.sqrt(1 - MEMBERSHIP_SHARE)
    # silencing a gene lowers what it varies with
    other[:, :N_STATES] -= np.sqrt(MEMBERSHIP_SHARE) * _unit_rows(membership[:, targets].T)
    return _Biology(
        log_basal=log_basal,
        targets=targets,
        programmes=programmes,
        membership=membership,
        common=common,
        common_gain=rng.normal(1, COMMON_GAIN_SD, n_targets),
        shared=_unit_rows(other @ programmes),
        rank=rng.normal(size=n_targets),
        twins=rng.permutation(n_targets)[: 2 * round(TWIN_SHARE * n_targets)].reshape(-1, 2),
    )


def _draw_scores(n_targets: int, rng: np.random.Generator) -> np.ndarray:
    activity = np.exp(rng.normal(0, PROGRAMME_LOG_SD, N_PROGRAMMES))
    return _unit_rows(_heavy(rng, (n_targets, N_PROGRAMMES), SCORE_TAIL) * activity)


def _draw_states(biology: _Biology, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cell states move the first programmes' genes; the rest of the variance is each gene's own."""
    mean = np.exp(biology.log_basal)
    whole = np.minimum(RATE_VARIANCE_FLOOR + RATE_VARIANCE_SLOPE / mean, RATE_VARIANCE_MOST)
    whole = whole * np.exp(rng.normal(0, RATE_VARIANCE_LOG_SD, mean.size))
    states = biology.membership * np.sqrt(STATE_VARIANCE / N_STATES)
    # no gene is ruled by the states alone
    too_much = np.sqrt(np.maximum((states**2).sum(axis=0) / (STATE_SHARE_MOST * whole), 1))
    states = states / too_much
    return states.astype(np.float32), whole - (states**2).sum(axis=0)


def _draw_context(name: str, *, first: bool, size: Size, biology: _Biology, seed: int) -> Context:
    key = zlib.crc32(name.encode())
    rng = np.random.default_rng([seed, 1, key])
    n_targets, log_basal = len(biology.targets), biology.log_basal
    if not first:
        log_basal = log_basal + rng.normal(0, CONTEXT_LOG_SD, log_basal.size)
    noise = rng.normal(size=n_targets)
    rank = np.sqrt(SIZE_SHARED) * biology.rank + np.sqrt(1 - SIZE_SHARED) * noise
    # evenly spaced in every part, so a few are poor
    shares = np.concatenate([_even(rng.permutation(number)) for number in size.n_targets])
    residual = np.exp(_quantiles(shares, RESIDUAL_SHARE, RESIDUAL))
    changes = _draw_changes(biology, log_basal, rank, size, rng)
    changes[np.arange(n_targets), biology.targets] = np.log(residual)
    n_cells = _draw_n_cells(size, rank, rng, size.cells_of_parts if first else None)
    if not first:
        n_missing = n_targets - round(COVERAGE * n_targets)
        n_cells[rng.choice(n_targets, n_missing, replace=False)] = 0
    depth, shift = _draw_batches(size.n_batches, log_basal.size, rng)
    return Context(log_basal, changes, residual, n_cells, depth, shift, key)


def _draw_changes(
    biology: _Biology, log_basal: np.ndarray, rank: np.ndarray, size: Size, rng: np.random.Generator
) -> np.ndarray:
    """Draw what each knock-down does in one context, in four parts of which each has its share."""
    n_targets, n_genes = biology.shared.shape
    rewired = _unit_rows(_draw_scores(n_targets, rng) @ biology.programmes)
    weight = np.sqrt(_slope(log_basal))
    own = _unit_rows(_heavy(rng, (n_targets, n_genes), OWN_TAIL) * weight)
    shares = np.tile([COMMON_SHARE, SHARED_SHARE, REWIRED_SHARE, OWN_SHARE], (n_targets, 1))
    shares[:, 3] *= np.exp(OWN_SHARE_LOG_SD * rng.normal(size=n_targets) - OWN_SHARE_RANK * rank)
    shares = np.sqrt(shares / shares.sum(axis=1, keepdims=True)).T
    parts = (biology.common_gain[:, None] * biology.common, biology.shared, rewired, own)
    effect = sum(share[:, None] * part for share, part in zip(shares, parts, strict=True))
    real = np.exp(_quantiles(_by_rank(rank, _even(np.arange(n_targets))), SIZE_SHARE, SIZE))
    norm = size.effect_scale * np.sqrt(n_genes / SIZE_GENES) * real
    effect *= norm[:, None]
    for one, other in biology.twins:
        copy = effect[one] * norm[other] / norm[one]
        noise = _unit_rows(_heavy(rng, (1, n_genes), 0) * weight)[0] * np.linalg.norm(copy)
        effect[other] = copy + TWIN_NOISE * noise
    log_fold = effect / _slope(log_basal)
    return np.clip(log_fold, -MAX_LOG_FOLD_CHANGE, MAX_LOG_FOLD_CHANGE).astype(np.float32)


def _draw_n_cells(
    size: Size, rank: np.ndarray, rng: np.random.Generator, exact: tuple | None
) -> np.ndarray:
    """Cells of each target, ``(n_targets,)``, int: fewer where the effect is strong."""
    rho = CELLS_SIZE_CORRELATION
    z = rho * rank + np.sqrt(1 - rho**2) * rng.normal(size=len(rank))
    drawn = []
    for part, scores in enumerate(np.split(z, np.cumsum(size.n_targets)[:-1])):
        # both ends included: the smallest and the largest group are those of the real screen
        ends = (0, 1) if len(scores) > 1 else (0.5, 0.5)
        shares = _by_rank(scores, np.linspace(*ends, len(scores)))
        median = np.exp(_quantiles(shares, CELLS_SHARE, CELLS))
        n_cells = np.maximum(np.rint(size.cells_per_target * median).astype(int), MIN_CELLS)
        drawn.append(_with_sum(n_cells, exact[part]) if exact else n_cells)
    return np.concatenate(drawn)


def _with_sum(numbers: np.ndarray, total: int) -> np.ndarray:
    """Change the numbers between the smallest and the largest a little, to add up to `total`."""
    inner = np.flatnonzero((numbers > numbers.min()) & (numbers < numbers.max()))
    fixed = numbers.sum() - numbers[inner].sum()
    scaled = numbers[inner] * (total - fixed) / numbers[inner].sum()
    changed = numbers.copy()
    changed[inner] = np.floor(scaled).astype(int)
    short = total - changed.sum()
    changed[inner[np.argsort(-(scaled % 1), kind="stable")[:short]]] += 1
    return changed


def _draw_batches(
    n_batches: int, n_genes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Batches come in three groups: median depth of each, and what it adds to log rates."""
    group = np.arange(n_batches) * 3 // n_batches
    n_groups = len(BATCH_GROUP_DEPTH)
    depth = np.asarray(BATCH_GROUP_DEPTH)[group] * np.exp(rng.normal(0, BATCH_LOG_SD, n_batches))
    shift = rng.normal(0, BATCH_GROUP_GENE_LOG_SD, (n_groups, n_genes))[group]
    sizes = BATCH_GENE_LOG_SD * np.exp(rng.normal(0, BATCH_SIZE_LOG_SD, n_batches))
    shift = shift + sizes[:, None] * rng.normal(size=(n_batches, n_genes))
    return depth / np.median(depth), (shift - shift.mean(axis=0)).astype(np.float32)
