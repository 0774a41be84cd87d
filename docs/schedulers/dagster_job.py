"""Dagster assets of a day's work, a job and its schedule: `dagster dev -f dagster_job.py`."""

import dagster as dg
import reki_daily

AGAIN = dg.RetryPolicy(max_retries=2, delay=600)


@dg.asset
def tables_are_fine() -> dg.MaterializeResult:
    """The day's tables, the model's server, Redis and the Feast repo, checked."""
    return dg.MaterializeResult(metadata=reki_daily.check())


@dg.asset(deps=[tables_are_fine], retry_policy=AGAIN)
def knowledge() -> dg.MaterializeResult:
    """What the model knows of users and items that are new or have news."""
    return dg.MaterializeResult(metadata=reki_daily.ask())


@dg.asset(deps=[knowledge], retry_policy=AGAIN)
def online_features() -> dg.MaterializeResult:
    """Vectors, scores and texts in Feast, offline and online."""
    return dg.MaterializeResult(metadata=reki_daily.refresh())


daily = dg.define_asset_job("reki_daily", [tables_are_fine, knowledge, online_features])

defs = dg.Definitions(
    assets=[tables_are_fine, knowledge, online_features],
    jobs=[daily],
    schedules=[dg.ScheduleDefinition(job=daily, cron_schedule="15 3 * * *")],
)
