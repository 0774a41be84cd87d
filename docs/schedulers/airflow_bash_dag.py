"""An Airflow DAG of a day's work, where Airflow has an environment of its own.

It imports nothing of the project: each task runs a step of reki_daily.py by the project's Python.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import chain, dag

# HERE: the project's folder, its Python, and reki_daily.py in it.
COMMAND = "cd /srv/my-shop && REKI_PROJECT=. .venv/bin/python reki_daily.py"


@dag(
    schedule="15 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # a run brings all days up to date
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
)
def reki() -> None:
    """New knowledge of users and items into Feast, once a day."""
    steps = ("check", "ask", "refresh")
    chain(*(BashOperator(task_id=step, bash_command=f"{COMMAND} {step}") for step in steps))


reki_dag = reki()
