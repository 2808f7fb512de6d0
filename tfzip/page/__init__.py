"""The report's page: template, style, script and charts -> one HTML file that needs nothing else.

`chartist.umd.js` is Chartist, the library that draws the charts, as it is published.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Mapping
from typing import Any

from tfzip import describe
from tfzip.errors import UsageError

INSTALL = "pip install 'tfzip[report]'"


def check_installed() -> None:
    """Raise UsageError if what renders the page is missing."""
    try:
        import jinja2  # noqa: F401 - whether it is there
    except ImportError:
        raise UsageError(f"a report is made with Jinja2, which is not installed: {INSTALL}") from None


def render(facts: Mapping[str, Any]) -> str:
    """The page; `facts` are what the template names. All text is escaped; scripts other than its own are not run."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # which is JSON to Python alone
    environment.filters |= {"count": _count, "percent": _percent, "bytes": describe.size}
    scripts = [_text("chartist.umd.js"), _text("report.js")]
    own = {"style": _text("report.css"), "scripts": scripts, "hashes": [_hash(script) for script in scripts]}
    return environment.from_string(_text("report.html")).render({**facts, **own})


def _text(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(script: str) -> str:
    """As a Content-Security-Policy has it (W3C CSP 3, 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _count(number: int) -> str:
    return f"{number:,}"


def _percent(share: float | None) -> str:
    return "-" if share is None or share != share else f"{share:.1%}"
