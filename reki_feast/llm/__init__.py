"""Language models: the port, its providers, the ledger of paid calls, the run, budgets, prices.

Nothing heavy is imported here; ``reki_feast.llm.openai`` loads the SDK when it first connects.
"""

from reki_feast.llm.asking import ask_all, ask_all_async
from reki_feast.llm.batch import OpenAIBatchLLM
from reki_feast.llm.budget import BudgetError, Limits, Spent
from reki_feast.llm.echo import EchoLLM
from reki_feast.llm.estimate import Plan, plan
from reki_feast.llm.ledger import Ledger
from reki_feast.llm.openai import OpenAILLM
from reki_feast.llm.port import LLM, Answer, Request, RequestError, Verdict, requests_from
from reki_feast.llm.price import Price, price_of
from reki_feast.llm.recorded import RecordedLLM
from reki_feast.llm.report import RunReport
from reki_feast.llm.run import Run
from reki_feast.llm.terms import Terms

__all__ = [
    "LLM",
    "Answer",
    "BudgetError",
    "EchoLLM",
    "Ledger",
    "Limits",
    "OpenAIBatchLLM",
    "OpenAILLM",
    "Plan",
    "Price",
    "RecordedLLM",
    "Request",
    "RequestError",
    "Run",
    "RunReport",
    "Spent",
    "Terms",
    "Verdict",
    "ask_all",
    "ask_all_async",
    "plan",
    "price_of",
    "requests_from",
]
