"""Renders the page: a Jinja template, and JSON that its script reads.

The page holds texts of users and models. In HTML they are escaped by the template; in JSON no
character can end the script or begin markup; the script writes them as text alone. A content
security policy that names the page's own script and style by their digests forbids all others, and
every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reki_feast.escaping import visible
from reki_feast.results import GroupNode, ProjectReport

_ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("page.js", "treemap.js", "map.js", "entity.js")
#: In JSON within a script: what could end it, begin markup, or break a line of JavaScript.
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def page(report: ProjectReport) -> str:
    """The whole page.

    Args:
        report: what it shows.
    """
    style = (_ASSETS / "report.css").read_text("utf-8")
    scripts = "\n".join((_ASSETS / name).read_text("utf-8") for name in _SCRIPTS)
    script = f'(() => {{\n"use strict";\n{scripts}\n}})();'
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            policy=Markup(policy),  # digests, which are no markup
            style=Markup(style),
            script=Markup(script),
            data=Markup(embedded(_data(report))),
        )
    )


def embedded(value: Any) -> str:
    r"""Data as JSON that may stand in a script element.

    >>> embedded(["</script>", "\u2028", "\u202e", float("nan")])
    '["\\u003c/script\\u003e","\\\\u2028","\\\\u202e",null]'
    """
    text = json.dumps(_shown(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_UNSAFE)


def _shown(value: Any) -> Any:
    """What steers text as escapes; times as ISO 8601."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): _shown(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _digest(text: str) -> str:
    found = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"sha256-{found}"


def _data(report: ProjectReport) -> dict[str, Any]:
    return {
        "anonymous": report.anonymous,
        "groups": {of: _box(node) for of, node in report.groups.items()},
        "maps": [asdict(one) for one in report.maps],
        "entities": report.entities,
    }


def _box(node: GroupNode) -> dict[str, Any]:
    """A group with what it has: there may be ten thousand of them."""
    found = {
        "name": node.name,
        "size": node.size,
        "groups": node.groups,
        "group": node.group,
        "items": node.items,
        "text": node.knowledge,
        "parts": [_box(one) for one in node.parts],
    }
    return {key: value for key, value in found.items() if value}


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=_number, day=_day, percent=_percent, gain=_gain, span=_span)
    return made


def _finalized(value: Any) -> Any:
    if value is None:
        return ""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _number(value: float | None, digits: int | None = None) -> str:
    """A number as a person reads it.

    >>> _number(1234567), _number(0.51234, 2), _number(None)
    ('1,234,567', '0.51', '')
    """
    if value is None:
        return ""
    if digits is not None:
        return f"{value:,.{digits}f}"
    if isinstance(value, int) or value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def _day(value: datetime | None) -> str:
    if value is None:
        return ""
    is_midnight = (value.hour, value.minute, value.second) == (0, 0, 0)
    return f"{value:%Y-%m-%d}" if is_midnight else f"{value:%Y-%m-%d %H:%M}"


def _percent(value: float | None) -> str:
    """A share; one that is not all, or not none, is not rounded to it.

    >>> _percent(0.5), _percent(0.9999), _percent(0.0001), _percent(None)
    ('50 %', '>99 %', '<1 %', '')
    """
    if value is None:
        return ""
    if 0.995 <= value < 1:
        return ">99 %"
    return "<1 %" if 0 < value < 0.005 else f"{value:.0%}".replace("%", " %")


def _gain(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}".replace("-", "−")


def _span(low: float, high: float, begin: float, end: float) -> tuple[str, str]:
    """Where a bar between two values begins on an axis, and how wide it is, in per cent.

    >>> _span(0.0, 0.5, -1.0, 1.0)
    ('50.00%', '25.00%')
    """
    width = (end - begin) or 1.0
    low, high = min(low, high), max(low, high)
    return f"{100 * (low - begin) / width:.2f}%", f"{100 * (high - low) / width:.2f}%"
