"""From tables to prompts, from answers to knowledge: the extraction of open-world knowledge.

- ``prompts``: templates, the texts of users, items and groups, redaction, fingerprints
- ``answers``: answers parsed into a text a factor, and made into rows of knowledge
- ``factors``: proposed by the model, merged, confirmed in a file
- ``validation``: the gates that an answer passes before it becomes knowledge
- ``importing``: knowledge made elsewhere
- ``by_entity``: knowledge joined to the entities that it is about

The names below are imported when they are first used.
"""

from typing import TYPE_CHECKING

from reki_feast.lazy import lazy_names

if TYPE_CHECKING:
    from reki_feast.knowledge.answers.knowledge_rows import knowledge_from
    from reki_feast.knowledge.answers.parsing import parse_answer
    from reki_feast.knowledge.factors.asking import ask_factors, factor_requests
    from reki_feast.knowledge.factors.file import FactorsFile, require_confirmed
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

__all__ = [
    "FactorsFile",
    "PromptTables",
    "Templates",
    "Wording",
    "ask_factors",
    "description_texts",
    "factor_requests",
    "group_prompts",
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "answers.knowledge_rows": ["knowledge_from"],
        "answers.parsing": ["parse_answer"],
        "factors.asking": ["ask_factors", "factor_requests"],
        "factors.file": ["FactorsFile", "require_confirmed"],
        "importing": ["import_entities", "import_groups"],
        "prompts.collective": ["group_prompts", "most_clicked"],
        "prompts.histories": ["PromptTables"],
        "prompts.individual": [
            "description_texts",
            "history_texts",
            "item_prompts",
            "user_prompts",
        ],
        "prompts.templating": ["Templates"],
        "prompts.updates": ["updatable", "user_updates"],
        "prompts.wording": ["Wording"],
        "validation.screening": ["screen"],
    },
)
