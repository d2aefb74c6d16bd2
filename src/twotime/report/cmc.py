"""Descriptions of posteriors: tables, remarks, and a summary for other programs."""

import functools
from typing import Any

import numpy as np

from twotime.report import Description, Table, by_place, estimate, extent, sentence, with_error
from twotime.results.cmc import CMCResult
from twotime.results.storage import describe

_LEVELS = (0.16, 0.5, 0.84)
_DISAGREE = 4.0
_FACTS = (
    "converged", "status", "per_angle_mode", "r_hat", "ess_bulk", "ess_tail", "bfmi", "divergences",
    "n_points", "seconds",
)  # fmt: skip


@describe.register
def describe_posterior(post: CMCResult) -> Description:
    """The description of a posterior."""
    kind = "all points" if post.n_shards == 1 else f"{post.n_shards} shards of points"
    tables = posterior_table(post), scaling_draws_table(post), chain_table(post)
    return Description(
        title=f"{post.model}: posterior from {kind}, {extent(post.phi, post.rings)}",
        lead=(sentence(post.status),),
        tables=(*tables, shard_table(post)) if post.n_shards > 1 else tables,
        remarks=remarks(post),
        summary=functools.partial(posterior_summary, post),
    )


def posterior_summary(post: CMCResult) -> dict[str, Any]:
    """The findings of a posterior by name, for other programs to read."""
    parameters = dict[str, dict[str, Any]]()
    facts = zip(post.all_names, post.values, post.units, post.varying, strict=True)
    for name, value, unit, free in facts:
        parameters[name] = {"value": value, "unit": unit, "sampled": free}
    for name, x in post.samples.items():
        parameters[name] |= _numbers(x)
    return {name: getattr(post, name) for name in _FACTS} | {
        "parameters": parameters,
        "judged": {name: _numbers(x) for name, x in post.judged.items()},
        "prior_conflicts": post.prior_conflicts,
        "width": {"kind": post.width_kind, "meaning": post.width_text},
        "width_ratio": dict(zip(post.names, post.width_ratio, strict=True)),
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
        "contrast_and_offset": post.scaling_kind,
        "noise_level": post.noise_kind,
        "phi_degree": post.phi,
        "wavevector_q": post.q,
        "weight": post.weight,
        "contrast": post.contrast.mean(axis=(0, 1)),
        "offset": post.offset.mean(axis=(0, 1)),
        "noise": post.noise.mean(),
        "correlation": {"names": post.names, "matrix": post.correlation},
        "gradients": post.n_gradients,
    }


def _numbers(x: np.ndarray) -> dict[str, Any]:
    low, median, high = np.quantile(x, _LEVELS)
    return {"mean": x.mean(), "median": median, "sd": x.std(), "q16": low, "q84": high}


def posterior_table(post: CMCResult) -> Table:
    """Medians with standard deviations, intervals and diagnostics of all that was sampled."""
    rows, units = [], dict(zip(post.all_names, post.units, strict=True))
    names = dict.fromkeys((*post.all_names, *post.judged))
    for name in names:
        unit = units.get(name, "")
        if name not in post.judged:
            rows.append((name, f"{post.params[name]:.6g}", "fixed", "", "", "", unit))
            continue
        x = post.judged[name]
        sd = float(x.std())
        low, median, high = (with_error(float(q), sd) for q in np.quantile(x, _LEVELS))
        quality = f"{post.r_hat[name]:.4f}", f"{post.ess_bulk[name]:.0f}"
        rows.append((name, median, with_error(sd, sd), f"{low} … {high}", *quality, unit))
    heads = ("parameter", "median", "sd", "68 % interval", "R-hat", "ESS", "unit")
    return Table("Posterior", heads, tuple(rows))


def scaling_draws_table(post: CMCResult) -> Table:
    """Contrast and offset of each angle, in one row if all angles share them."""

    def cell(x: np.ndarray) -> str:
        mean, sd = float(x.mean()), float(x.std())
        return estimate(mean, sd) if sd > 0 else f"{mean:.6g}"

    rows = []
    for k, phi in enumerate(post.phi):
        rows.append((f"{phi:g}", cell(post.contrast[..., k]), cell(post.offset[..., k])))
    title = f"Contrast and offset ({post.per_angle_mode}, {post.scaling_kind})"
    return by_place(title, ("contrast", "offset"), rows, post)


def chain_table(post: CMCResult) -> Table:
    """Settings and cost of the chains."""
    chains, draws = post.draws.shape[:2]
    rows = (
        ("sampler", post.sampler),
        ("chains × draws", f"{chains} × {draws}"),
        ("acceptance", f"{post.acceptance.min():.2f} to {post.acceptance.max():.2f}"),
        ("mean tree depth", f"{post.tree_depth.mean():.1f}"),
        ("stopped at the maximum depth", f"{100 * post.deepest.max():.1f} %"),
        ("gradients", f"{float(post.n_gradients):.0f} in {float(post.seconds):.1f} s"),
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
    found = [f"Width of the posterior: {post.width_text}."]
    if post.prior_names is not None:
        flat = [name for name in post.names if name not in post.prior_names]
        if flat:
            found.append(
                f"No prior was given for {', '.join(flat)}: uniform between the bounds, in the "
                "logarithm for amplitudes."
            )
    if post.width_kind != "none":
        ratio = ", ".join(f"{n} {r:.2f}" for n, r in zip(post.names, post.width_ratio, strict=True))
        found.append(f"Standard deviations relative to those for independent points: {ratio}.")
    if post.scaling_kind == "marginal":
        found.append("Contrast and offset were integrated out analytically, without bounds.")
    if post.combination == "importance":
        found.append(
            "Draws from the product of the shards were reweighted with the posterior of all "
            f"points: Pareto k {float(post.pareto_k):.2f}, effective sample size "
            f"{float(post.ess_weights):.0f}."
        )
    if post.n_shards > 1 and np.abs(post.disagreement).max() > _DISAGREE:
        found.append(
            f"Shards disagree by more than {_DISAGREE:g} standard deviations: the model does not "
            "describe all points equally well, or shards are far from Gaussian."
        )
    return tuple(found)
