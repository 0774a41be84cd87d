"""A day's work on a project, as functions without arguments for cron, Airflow and Dagster.

Each may be run again at any moment: a killed one goes on, and nothing is paid for twice. Two at
once wait for each other. As a script: `python reki_daily.py`, or with names of steps.
"""

import json
import os
import sys
from collections.abc import Sequence

from reki_feast import Project
from reki_feast.errors import RekiError
from reki_feast.llm import BudgetError

# HERE: the project's folder, the one with generators/, and which of these, if there are several.
FOLDER = os.environ.get("REKI_PROJECT", "/srv/my-shop")
SCENARIO = os.environ.get("REKI_SCENARIO")


def check() -> dict[str, int]:
    """Look at the day's tables, the model's server, Redis and the Feast repo; it is free."""
    found = Project(FOLDER, SCENARIO).doctor()
    if problems := [problem for one in found.checks for problem in one.problems]:
        raise RekiError(problems)
    return {"checks": len(found.checks)}


def ask() -> dict[str, int | str]:
    """Ask the model about users and items that are new or have news.

    Budget(per="run", max_cost=…) in the declarations says what a day may cost. What was answered
    before the limit is used, and tomorrow's run goes on.
    """
    try:
        usage = Project(FOLDER, SCENARIO).generate().usage
    except BudgetError as error:
        return {"stopped": str(error)}
    return {"asked": usage.asked, "quarantined": usage.quarantined, "failed": usage.failed}


def refresh() -> dict[str, int]:
    """Encode what is new, train the first time, and bring all to Feast, offline and online."""
    project = Project(FOLDER, SCENARIO)
    encoded = project.encode()
    project.train()
    published = project.publish(materialize=True)
    return {
        "texts": encoded.texts,
        "rows": sum(table.added for table in published.published),
        "online": sum(view.online or 0 for view in published.online),
    }


STEPS = {"check": check, "ask": ask, "refresh": refresh}


def main(names: Sequence[str]) -> int:
    """Run the named steps, or all, and write a line of figures; 1 is the exit code of a failure."""
    if wrong := set(names) - set(STEPS):
        sys.stderr.write(f"a step is one of {', '.join(STEPS)}; got {', '.join(wrong)}\n")
        return 2
    try:
        figures = {name: STEPS[name]() for name in names or STEPS}
    except RekiError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{json.dumps(figures)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
