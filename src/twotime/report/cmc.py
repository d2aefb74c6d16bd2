"""Posteriors in words: a sentence on convergence, tables, and a document of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from twotime.report.tables import Curve, Provenance, Table, curve_table, document, with_error

if TYPE_CHECKING:
    from twotime.results.cmc import CMCResult

_INTERVAL = (0.16, 0.84)


def status(post: "CMCResult") -> str:
    """Whether the chains converged and if not why, as a sentence."""
    limits, faults = post.limits, []
    r_hat, bulk, tail = (max(post.r_hat.values()), min(post.ess_bulk.values()),
                         min(post.ess_tail.values()))  # fmt: skip
    if not r_hat <= limits.max_r_hat:
        name = max(post.r_hat, key=lambda n: np.nan_to_num(post.r_hat[n], nan=np.inf))
        faults.append(f"R-hat of {name} is {post.r_hat[name]:.3f}, above {limits.max_r_hat:g}")
    if not min(bulk, tail) >= limits.min_ess:
        faults.append(
            f"the smallest effective sample size is {min(bulk, tail):.0f}, below {limits.min_ess:g}"
        )
    if not post.bfmi >= limits.min_bfmi:
        faults.append(f"BFMI is {post.bfmi:.2f}, below {limits.min_bfmi:g}")
    if np.any(post.shard_divergences > limits.max_divergences):
        faults.append(f"{post.divergences} draws diverged, more than {limits.max_divergences}")
    if not post.weights_hold:
        faults.append(
            f"importance weights have a Pareto k of {float(post.pareto_k):.2f} (expected at most "
            f"{limits.max_pareto_k:g}) and are worth {float(post.ess_weights):.0f} draws"
        )
    facts = f"R-hat at most {r_hat:.4f}, ESS at least {min(bulk, tail):.0f}, "
    facts += f"BFMI at least {post.bfmi:.2f}, {post.divergences} divergences"
    where = f" in {post.n_shards} shards" if post.n_shards > 1 else ""
    left = f"; shards {', '.join(map(str, post.excluded))} left out" if post.excluded else ""
    if not post.is_complete:
        return f"not converged: interrupted after {post.draws.shape[1]} draws ({facts}{where})"
    if post.converged:
        return f"converged: {facts}{where}{left}"
    return f"not converged: {'; '.join(faults)}{where}{left}; draw more or look at the traces"


def cmc_summary(post: "CMCResult") -> dict[str, Any]:
    """What was found, by name: medians, deviations, intervals and diagnostics."""
    samples = post.samples
    parameters = {
        name: {"value": value, "unit": unit, "sampled": free} | _numbers(samples.get(name))
        for name, unit, free, value in zip(
            post.all_names, post.units, post.varying, post.values, strict=True
        )
    }
    return {
        "converged": post.converged,
        "status": post.status,
        "parameters": parameters,
        "width": {"kind": post.width_kind, "meaning": post.width_text},
        "width_ratio": dict(zip(post.names, post.width_ratio, strict=True)),
        "r_hat": post.r_hat,
        "ess_bulk": post.ess_bulk,
        "ess_tail": post.ess_tail,
        "bfmi": post.bfmi,
        "divergences": post.divergences,
        "shards": {
            "number": post.n_shards,
            "strategy": post.strategy,
            "combination": post.combination,
            "pareto_k": post.pareto_k,
            "ess_weights": post.ess_weights,
            "converged": post.shard_converged,
            "excluded": post.excluded,
            "disagreement": post.disagreement,
        },
        "per_angle_mode": post.per_angle_mode,
        "contrast_and_offset": post.scaling_kind,
        "noise_level": post.noise_kind,
        "phi_degree": post.phi,
        "contrast": post.contrast.mean(axis=(0, 1)),
        "offset": post.offset.mean(axis=(0, 1)),
        "noise": float(post.noise.mean()),
        "correlation": {"names": post.names, "matrix": post.correlation},
        "gradients": post.n_gradients,
        "seconds": post.seconds,
    }


def _numbers(x: np.ndarray | None) -> dict[str, Any]:
    if x is None:
        return {}
    low, median, high = np.quantile(x, [_INTERVAL[0], 0.5, _INTERVAL[1]])
    return {"mean": x.mean(), "median": median, "sd": x.std(), "q16": low, "q84": high}


def cmc_report(
    post: "CMCResult",
    curves: Mapping[str, Curve],
    provenance: Provenance | None,
    figures: tuple[str, ...],
) -> str:
    """A posterior as a document.

    Args:
        post: The result.
        curves: Functions of time, empty where they are not known.
        provenance: Where it comes from, if known.
        figures: Names of the figures beside the document.
    """
    verdict = post.status[:1].upper() + post.status[1:] + "."
    tables = [posterior_table(post), *([curve_table(curves)] if curves else []),
              scaling_draws_table(post), chain_table(post)]  # fmt: skip
    if post.n_shards > 1:
        tables.append(shard_table(post))
    kind = "all pixels" if post.n_shards == 1 else f"{post.n_shards} shards of pixels"
    title = f"{post.model}: posterior from {kind}, {len(post.phi)} angles"
    return document(title, (verdict,), tuple(tables), remarks(post), provenance, figures)


def posterior_table(post: "CMCResult") -> Table:
    """Medians with standard deviations, intervals and diagnostics of the parameters."""
    rows = []
    for name, unit, value in zip(post.all_names, post.units, post.values, strict=True):
        x = post.samples.get(name)
        if x is None:
            rows.append((name, f"{value:.6g}", "fixed", "", "", "", unit))
            continue
        sd = float(x.std())
        low, high = (with_error(float(q), sd) for q in np.quantile(x, _INTERVAL))
        rows.append(
            (
                name,
                with_error(float(np.median(x)), sd),
                with_error(sd, sd),
                f"{low} … {high}",
                f"{post.r_hat[name]:.4f}",
                f"{post.ess_bulk[name]:.0f}",
                unit,
            )
        )
    heads = ("parameter", "median", "sd", "68 % interval", "R-hat", "ESS", "unit")
    return Table("Posterior", heads, tuple(rows))


def scaling_draws_table(post: "CMCResult") -> Table:
    """Contrast and offset of the angles, in one row where they are common to all."""
    rows = []
    for k, phi in enumerate(post.phi):
        cells = [
            f"{with_error(float(x.mean()), float(x.std()))} ± {with_error(float(x.std()), None)}"
            if x.std() > 0
            else f"{x.mean():.6g}"
            for x in (post.contrast[..., k], post.offset[..., k])
        ]
        rows.append((f"{phi:g}", *cells))
    if post.per_angle_mode == "averaged":
        rows = [("all", *rows[0][1:])]
    title = f"Contrast and offset ({post.per_angle_mode}, {post.scaling_kind})"
    return Table(title, ("φ [degree]", "contrast", "offset"), tuple(rows))


def chain_table(post: "CMCResult") -> Table:
    """What was run and what it cost."""
    chains, draws = post.draws.shape[:2]
    evaluations = float(post.n_gradients)
    rows = (
        ("sampler", post.sampler),
        ("chains × draws", f"{chains} × {draws}"),
        ("acceptance", f"{post.acceptance.min():.2f} to {post.acceptance.max():.2f}"),
        ("mean tree depth", f"{post.tree_depth.mean():.1f}"),
        ("cut at the largest depth", f"{100 * post.deepest.max():.1f} %"),
        ("gradients", f"{evaluations:.0f} in {float(post.seconds):.1f} s"),
    )
    return Table("Chains", ("quantity", "value"), rows)


def shard_table(post: "CMCResult") -> Table:
    """Diagnostics of each shard."""
    rows = tuple(
        (
            str(k),
            f"{post.shard_r_hat[k].max():.4f}",
            f"{post.shard_ess_bulk[k].min():.0f}",
            f"{post.shard_bfmi[k].min():.2f}",
            f"{int(post.shard_divergences[k])}",
            f"{np.abs(post.disagreement[k]).max():.1f}",
            "left out" if k in post.excluded else "yes" if post.shard_converged[k] else "no",
        )
        for k in range(post.n_shards)
    )
    heads = ("shard", "R-hat", "ESS", "BFMI", "divergences", "distance [sd]", "converged")
    return Table(f"Shards ({post.strategy}, {post.combination})", heads, rows)


def remarks(post: "CMCResult") -> tuple[str, ...]:
    """Sentences that belong under the tables."""
    found = [f"The width is {post.width_text}."]
    if post.width_kind != "none":
        ratio = ", ".join(f"{n} {r:.2f}" for n, r in zip(post.names, post.width_ratio, strict=True))
        found.append(f"Standard deviations over those of independent pixels: {ratio}.")
    if post.scaling_kind == "marginal":
        found.append("Contrast and offset were integrated out, their bounds left aside.")
    if post.combination == "importance":
        found.append(
            "Draws of the shards' product were weighted by the posterior of all pixels: Pareto k "
            f"{float(post.pareto_k):.2f}, worth {float(post.ess_weights):.0f} independent draws."
        )
    if post.n_shards > 1 and np.abs(post.disagreement).max() > 4:
        found.append("Shards disagree by more than 4 standard deviations: the model does not "
                     "describe all pixels alike, or shards are far from Gaussian.")  # fmt: skip
    return tuple(found)
