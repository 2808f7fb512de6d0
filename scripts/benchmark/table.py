"""The results, for people."""

from __future__ import annotations

from typing import Any


def show(title: str, result: dict[str, Any]) -> str:
    """A table: a row a side, a column for each of tfzip's own sides: how many times as fast it is, and the spread."""
    sides = result["sides"]
    own = [side["own"] for side in sides.values() if side["own"] and "failed" not in side]
    heads = "".join(f"  {name + ' /':>20}" for name in own)
    lines = [
        f"{title}: {result['images']} images, {result['image_bytes'] / 1e6:.0f} MB",
        f"{'':38} {result['unit']:>10} {'MB':>7}{heads}",
    ]
    for name, side in sides.items():
        if "failed" in side:
            lines.append(f"{name:38} not measured: {side['failed']}")
            continue
        written = f"{side['bytes'] / 1e6:.0f}" if side["bytes"] else ""
        ratios = "".join(f"  {_ratio(side['ratios'].get(each)):>20}" for each in own)
        lines.append(f"{name:38} {side['rate']:10.0f} {written:>7}{ratios}".rstrip())
    return "\n".join(lines)


def _ratio(ratio: dict[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.2f} ({ratio['least']:.2f}-{ratio['most']:.2f})"


def versions(result: dict[str, Any]) -> str:
    """A line for each side: what it was made of."""
    told = {}
    for side in result["sides"].values():
        if "versions" in side:
            told[", ".join(f"{name} {version}" for name, version in side["versions"].items())] = None
    return "\n".join(f"  {line}" for line in told)
