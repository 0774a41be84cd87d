"""From tables to prompts, from answers to knowledge: the extraction of open-world knowledge.

- ``prompts``: templates, the texts of users, items and groups, redaction, fingerprints
- ``answers``: answers parsed into a text a factor, and made into rows of knowledge
- ``factors``: proposed by the model, merged, confirmed in a file
- ``validation``: the gates that an answer passes before it becomes knowledge
- ``importing``: knowledge made elsewhere
- ``by_entity``: knowledge joined to the entities that it is about

The names below are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reki_feast.knowledge.answers.knowledge_rows import knowledge_from
    from reki_feast.knowledge.answers.parsing import parse_answer
    from reki_feast.knowledge.factors.asking import ask_factors, factor_requests
    from reki_feast.knowledge.factors.file import FactorsFile, require_confirmed
    from reki_feast.knowledge.group_titles import group_titles
    from reki_feast.knowledge.importing import import_entities, import_groups
    from reki_feast.knowledge.prompts.collective import group_prompts, most_clicked
    from reki_feast.knowledge.prompts.histories import PromptTables
    from reki_feast.knowledge.prompts.individual import (
        description_texts,
        history_texts,
        item_prompts,
        user_prompts,
    )
    from reki_feast.knowledge.prompts.templating import Templates
    from reki_feast.knowledge.prompts.updates import updatable, user_updates
    from reki_feast.knowledge.prompts.wording import Wording
    from reki_feast.knowledge.validation.screening import screen

_MODULES = {
    "FactorsFile": "factors.file",
    "PromptTables": "prompts.histories",
    "Templates": "prompts.templating",
    "Wording": "prompts.wording",
    "ask_factors": "factors.asking",
    "description_texts": "prompts.individual",
    "factor_requests": "factors.asking",
    "group_prompts": "prompts.collective",
    "group_titles": "group_titles",
    "history_texts": "prompts.individual",
    "import_entities": "importing",
    "import_groups": "importing",
    "item_prompts": "prompts.individual",
    "knowledge_from": "answers.knowledge_rows",
    "most_clicked": "prompts.collective",
    "parse_answer": "answers.parsing",
    "require_confirmed": "factors.file",
    "screen": "validation.screening",
    "updatable": "prompts.updates",
    "user_prompts": "prompts.individual",
    "user_updates": "prompts.updates",
}
__all__ = [
    "FactorsFile",
    "PromptTables",
    "Templates",
    "Wording",
    "ask_factors",
    "description_texts",
    "factor_requests",
    "group_prompts",
    "group_titles",
    "history_texts",
    "import_entities",
    "import_groups",
    "item_prompts",
    "knowledge_from",
    "most_clicked",
    "parse_answer",
    "require_confirmed",
    "screen",
    "updatable",
    "user_prompts",
    "user_updates",
]


def __getattr__(name: str) -> Any:
    """Import a name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
