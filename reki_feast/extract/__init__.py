"""From tables to prompts, from answers to knowledge: the extraction of open-world knowledge."""

from reki_feast.extract.answers import knowledge_from
from reki_feast.extract.collective import group_prompts, most_clicked
from reki_feast.extract.factors import FactorsFile, ask_factors, require_confirmed
from reki_feast.extract.imported import import_entities, import_groups
from reki_feast.extract.prompts import (
    description_texts,
    history_texts,
    item_prompts,
    user_prompts,
)
from reki_feast.extract.reading import parse_answer
from reki_feast.extract.screening import screen
from reki_feast.extract.templating import Templates
from reki_feast.extract.titles import group_titles
from reki_feast.extract.updates import updatable, user_updates
from reki_feast.extract.wording import Wording

__all__ = [
    "FactorsFile",
    "Templates",
    "Wording",
    "ask_factors",
    "description_texts",
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
