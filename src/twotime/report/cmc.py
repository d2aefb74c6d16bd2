"""Words about posteriors: tables, sentences, and what other programs read."""

import functools
from typing import Any

import numpy as np

from twotime.report import Description, Table, sentence, with_error
from twotime.results.cmc import CMCResult
from twotime.results.storage import describe

_INTERVAL = (0.16, 0.84)


@describe.register
def describe_posterior(post: CMCResult) -> Description:
    """Words about a posterior."""
    kind = "all points" if post.n_shards == 1 else f"{post.n_shards} shards of points"
    tables = posterior_table(post), scaling_draws_table(post), chain_table(post)
    return Description(
        title=f"{post.model}: posterior from {kind}, {len(post.phi)} angles",
        lead=(sentence(post.status),),
        tables=(*tables, shard_table(post)) if post.n_shards > 1 else tables,
        remarks=remarks(post),
        summary=functools.partial(cmc_summary, post),
    )


def cmc_summary(post: CMCResult) -> dict[str, Any]:
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


def posterior_table(post: CMCResult) -> Table:
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


def scaling_draws_table(post: CMCResult) -> Table:
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


def chain_table(post: CMCResult) -> Table:
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


def shard_table(post: CMCResult) -> Table:
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


def remarks(post: CMCResult) -> tuple[str, ...]:
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
