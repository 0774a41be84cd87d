"""The stages in order: each command of `reki`, as a function from a project to a report.

Here stages meet the lake. A stage's rows are compared with what is stored, and only rows whose
hash changed are added: a second run does nothing, and a run that was killed goes on.
"""

from reki_feast.stages.checking import check_status
from reki_feast.stages.comparing import diff
from reki_feast.stages.context import StageContext
from reki_feast.stages.encoding import encode
from reki_feast.stages.explaining import explain
from reki_feast.stages.factors import confirm_factors, factors
from reki_feast.stages.forgetting import forget
from reki_feast.stages.generating import generate
from reki_feast.stages.grouping import form_groups
from reki_feast.stages.groups import groups
from reki_feast.stages.importing import import_knowledge
from reki_feast.stages.ledger_reports import (
    check_ledger,
    export_ledger,
    give_up_batches,
    ledger,
    quality,
)
from reki_feast.stages.new_domains import remove_domain, train_domain
from reki_feast.stages.planning import plan
from reki_feast.stages.publishing import publish
from reki_feast.stages.pushing import Pusher, push, push_file
from reki_feast.stages.recalling import recall
from reki_feast.stages.reporting import report
from reki_feast.stages.running import run
from reki_feast.stages.spaces import promote, retire, rollback, spaces
from reki_feast.stages.status import down, status
from reki_feast.stages.training import train

__all__ = [
    "Pusher",
    "StageContext",
    "check_ledger",
    "check_status",
    "confirm_factors",
    "diff",
    "down",
    "encode",
    "explain",
    "export_ledger",
    "factors",
    "forget",
    "form_groups",
    "generate",
    "give_up_batches",
    "groups",
    "import_knowledge",
    "ledger",
    "plan",
    "promote",
    "publish",
    "push",
    "push_file",
    "quality",
    "recall",
    "remove_domain",
    "report",
    "retire",
    "rollback",
    "run",
    "spaces",
    "status",
    "train",
    "train_domain",
]
