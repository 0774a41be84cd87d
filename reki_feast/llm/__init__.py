"""Language models: the interface and its providers, the ledger of calls, runs, budgets, prices.

Nothing heavy is imported here; ``reki_feast.llm.openai`` loads the SDK when it first connects.
"""

from reki_feast.llm.asking import ask_all, ask_all_async, ask_in_run
from reki_feast.llm.batch import BatchOptions, OpenAIBatchLLM
from reki_feast.llm.budget import BudgetError, SpendLimits, Spent
from reki_feast.llm.echo import EchoLLM
from reki_feast.llm.estimate import CallEstimate, estimate_calls
from reki_feast.llm.interface import (
    Answer,
    LanguageModel,
    Request,
    RequestError,
    Verdict,
    requests_from,
)
from reki_feast.llm.ledger import Ledger
from reki_feast.llm.openai import CompletionOptions, OpenAILLM
from reki_feast.llm.policy import RequestPolicy
from reki_feast.llm.pricing import Price, price_of
from reki_feast.llm.recorded import RecordedLLM
from reki_feast.llm.report import RunReport
from reki_feast.llm.run import Run

__all__ = [
    "Answer",
    "BatchOptions",
    "BudgetError",
    "CallEstimate",
    "CompletionOptions",
    "EchoLLM",
    "LanguageModel",
    "Ledger",
    "OpenAIBatchLLM",
    "OpenAILLM",
    "Price",
    "RecordedLLM",
    "Request",
    "RequestError",
    "RequestPolicy",
    "Run",
    "RunReport",
    "SpendLimits",
    "Spent",
    "Verdict",
    "ask_all",
    "ask_all_async",
    "ask_in_run",
    "estimate_calls",
    "price_of",
    "requests_from",
]
