"""Language models: the port, its providers, the ledger of paid calls, the run, prices.

Nothing heavy is imported here; ``reki_feast.llm.openai`` loads the SDK when it first connects.
"""

from reki_feast.llm.echo import EchoLLM
from reki_feast.llm.ledger import Ledger
from reki_feast.llm.openai import OpenAILLM
from reki_feast.llm.port import LLM, Answer, Request, RequestError, requests_from
from reki_feast.llm.price import Plan, Price, plan
from reki_feast.llm.recorded import RecordedLLM
from reki_feast.llm.run import RunReport, ask_all, ask_all_async

__all__ = [
    "LLM",
    "Answer",
    "EchoLLM",
    "Ledger",
    "OpenAILLM",
    "Plan",
    "Price",
    "RecordedLLM",
    "Request",
    "RequestError",
    "RunReport",
    "ask_all",
    "ask_all_async",
    "plan",
    "requests_from",
]
