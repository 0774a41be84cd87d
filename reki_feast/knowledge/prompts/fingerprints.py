"""Fingerprints of prompts: a hash of templates and wording, without titles and ratings.

Prompts of one fingerprint differ only in titles and ratings, so a run can distinguish a changed
template from a renamed product. They are stored in the column ``frame``.
"""

from __future__ import annotations

from dataclasses import replace

from reki_feast.knowledge.prompts.building import (
    base_variables,
    history_variables,
    question_variables,
)
from reki_feast.knowledge.prompts.templating import Templates
from reki_feast.knowledge.prompts.wording import Wording
from reki_feast.knowledge.text import quoted
from reki_feast.schema import content_hash

_ANY = "any"


def user_fingerprint(wording: Wording, templates: Templates, *, update: bool = False) -> str:
    """Hash of what prompts of users share: templates, words, columns shown, length of histories.

    Factors and profiles are not in it; they are compared on their own.

    Args:
        wording: words and columns of the scenario.
        templates: ``system`` and ``user`` are used.
        update: of prompts that hold the last knowledge: ``user_update`` in place of ``user``.

    Raises:
        DeclarationError: a template cannot be filled in.
    """
    probe = replace(wording, factors=(_ANY,))
    name, known = (
        ("user_update", {"known": [(quoted(_ANY), quoted(_ANY))]}) if update else ("user", {})
    )
    words = {**question_variables(probe), **history_variables(probe), **known}
    history = [(quoted(_ANY), "1" if probe.rating else "liked")]
    texts = [
        templates.render(name, **words, profile=profile, history=history)
        for profile in ("", quoted(_ANY))
    ]
    return content_hash(_system(probe, templates), *texts, probe.title, str(probe.n))


def group_fingerprint(wording: Wording, templates: Templates, channel: str) -> str:
    """Hash of what prompts of a channel's groups of users share, but for factors.

    Raises:
        DeclarationError: a template cannot be filled in.
    """
    probe = replace(wording, factors=(_ANY,))
    words = {**question_variables(probe), "channel": channel, "shown": [quoted(_ANY)]}
    text = templates.render("user_group", **words)
    return content_hash(_system(probe, templates), text, probe.title)


def _system(wording: Wording, templates: Templates) -> str:
    return templates.render("system", **base_variables(wording))
