"""Frames: what a scenario says in a prompt, without the catalogue's words for old interactions.

Two prompts of one frame differ in titles and verdicts alone, so that a run can tell a template or
a profile that was changed from a product that bears another name.
"""

from __future__ import annotations

from dataclasses import replace

from reki_feast.extract.prompts import asked_words, told_words, words_of
from reki_feast.extract.templating import Templates
from reki_feast.extract.text import quoted
from reki_feast.extract.wording import Wording
from reki_feast.schema import content_hash

_ANY = "any"


def user_frame(wording: Wording, templates: Templates, *, update: bool = False) -> str:
    """Hash of what prompts of users share: templates, words, columns shown, length of histories.

    Factors and profiles are not in it; they are compared on their own.

    Args:
        wording: words and columns of the scenario.
        templates: ``system`` and ``user`` are used.
        update: of prompts that hold the last knowledge: ``user_update`` in place of ``user``.

    Raises:
        DeclarationError: a template cannot be filled in.
    """
    said = replace(wording, factors=(_ANY,))
    name, known = (
        ("user_update", {"known": [(quoted(_ANY), quoted(_ANY))]}) if update else ("user", {})
    )
    words = {**asked_words(said), **told_words(said), **known}
    history = [(quoted(_ANY), "1" if said.rating else "liked")]
    texts = [
        templates.render(name, **words, profile=profile, history=history)
        for profile in ("", quoted(_ANY))
    ]
    return content_hash(_system(said, templates), *texts, said.title, str(said.n))


def group_frame(wording: Wording, templates: Templates, channel: str) -> str:
    """Hash of what prompts of a channel's groups of users share, but for factors.

    Raises:
        DeclarationError: a template cannot be filled in.
    """
    said = replace(wording, factors=(_ANY,))
    words = {**asked_words(said), "channel": channel, "shown": [quoted(_ANY)]}
    text = templates.render("user_group", **words)
    return content_hash(_system(said, templates), text, said.title)


def _system(wording: Wording, templates: Templates) -> str:
    return templates.render("system", **words_of(wording))
