"""An Airflow DAG of a day's work. It lies in the DAGs' folder, with reki_daily.py beside it."""

from datetime import UTC, datetime, timedelta

import reki_daily
from airflow.sdk import dag, task


@dag(
    schedule="15 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # a run brings all days up to date
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
)
def reki() -> None:
    """New knowledge of users and items into Feast, once a day."""
    check, ask, refresh = map(task, (reki_daily.check, reki_daily.ask, reki_daily.refresh))
    check() >> ask() >> refresh()


reki_dag = reki()
