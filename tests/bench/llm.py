"""How fast, how cheap and in how little memory many prompts are asked.

    python -m tests.bench.llm

against a server in a process of its own that answers after a fixed second and allows 64 calls at
once, and against the SDK alone on a server that answers at once.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from reki_feast.llm import (
    Answer,
    CompletionOptions,
    EchoLLM,
    Ledger,
    OpenAILLM,
    Request,
    RequestPolicy,
    RunReport,
    ask_all,
)
from reki_feast.llm.echo import default_answer
from reki_feast.schema import content_hash
from tests.bench.common import finish
from tests.bench.llm_server import serving

OPTIONS = CompletionOptions(structured="json_object")
_AT_ONCE = 64
_PROMPTS = 2_000
_SDK_CALLS = 2_000
_FACTORS = ("genre", "mood", "theme")
_AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
_QUESTION = (
    "Answer with one JSON object that has exactly these keys: "
    + ", ".join(f'"{factor}"' for factor in _FACTORS)
    + ". Each value is one text of one to three sentences."
)


def requests(count: int) -> Iterator[Request]:
    """So many prompts of some 2,000 characters."""
    for n in range(count):
        prompt = f"Film:\n<data>{'a film about a lighthouse keeper. ' * 55}{n}</data>\n{_QUESTION}"
        prompt_hash = content_hash("", prompt, *_FACTORS)
        yield Request("", prompt, _FACTORS, prompt_hash, "item", "knowledge", str(n), _AS_OF)


def asked(url: str, count: int, concurrency: int) -> tuple[RunReport, float, float]:
    """A run's report, its seconds, and the CPU seconds that this process took."""
    llm = OpenAILLM(model="tiny", base_url=url, options=OPTIONS)
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        started, cpu = time.perf_counter(), time.process_time()
        report = ask_all(
            requests(count), llm, ledger, policy=RequestPolicy(concurrency=concurrency)
        )
        return report, time.perf_counter() - started, time.process_time() - cpu


async def sdk_alone(url: str, count: int) -> float:
    """CPU seconds of the SDK for so many calls, 64 at once, nothing kept."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="none", base_url=url, max_retries=0)
    prompts = iter([request.prompt for request in requests(count)])

    async def work() -> None:
        for prompt in prompts:
            await client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": prompt}],
                max_tokens=2048,
                response_format={"type": "json_object"},
            )

    cpu = time.process_time()
    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    taken = time.process_time() - cpu
    await client.close()
    return taken


def throughput(name: str, concurrency: int) -> dict[str, object]:
    """Answers a second against the most that is possible: full rounds of a second each."""
    with serving("--delay", "1", "--allowed", str(_AT_ONCE)) as url:
        report, seconds, _ = asked(url, _PROMPTS, concurrency)
    assert report.asked == _PROMPTS, report
    possible = float(-(-_PROMPTS // _AT_ONCE))
    return {
        "name": name,
        "ours": round(_PROMPTS / seconds, 2),
        "reference": round(_PROMPTS / possible, 2),
        "ratio": round(possible / seconds, 4),
        "unit": f"answers/s, reference: {possible:g} rounds of {_AT_ONCE} at once",
    }


async def calls_alone(url: str, count: int) -> float:
    """CPU seconds of the provider for so many calls, 64 at once, without a run."""
    llm = OpenAILLM(model="tiny", base_url=url, options=OPTIONS)
    waiting = requests(count)

    async def work() -> None:
        for request in waiting:
            await llm.ask(request)

    cpu = time.process_time()
    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    taken = time.process_time() - cpu
    await llm.aclose()
    return taken


def cpu_per_call(repeats: int = 5) -> list[dict[str, object]]:
    """CPU a call: of the whole client, of the SDK alone, and what the run adds to the calls."""
    times: list[tuple[float, float, float]] = []
    with serving() as url:
        for _ in range(repeats):
            whole = asked(url, _SDK_CALLS, _AT_ONCE)[2]
            alone = asyncio.run(sdk_alone(url, _SDK_CALLS))
            times.append((whole, alone, asyncio.run(calls_alone(url, _SDK_CALLS))))
    whole, sdk, calls = (median(column) / _SDK_CALLS * 1e3 for column in zip(*times, strict=True))
    unit = "ms of CPU"
    return [
        {
            "name": "cpu_per_call",
            "ours": round(whole, 3),
            "reference": round(sdk, 3),
            "ratio": round(whole / sdk, 3),
            "unit": f"{unit}, reference: the SDK's own method alone",
        },
        {
            "name": "cpu_of_the_run",
            "ours": round(whole - calls, 3),
            "reference": round(calls, 3),
            "ratio": round((whole - calls) / calls, 3),
            "unit": f"{unit}, claims, ledger, pace; reference: the calls themselves",
        },
    ]


def memory() -> dict[str, object]:
    """Peak memory for 100,000 prompts beside 10,000, each in a process of its own."""
    few, many = (peak_of(count) for count in (10_000, 100_000))
    return {
        "name": "memory_100k",
        "ours": many,
        "reference": few,
        "ratio": round(many / few, 3),
        "unit": "MB at the peak, reference: 10,000 prompts",
    }


def peak_of(count: int) -> int:
    """Peak memory in MB of a process that asks so many prompts."""
    command = [sys.executable, "-m", "tests.bench.llm", "--ask", str(count)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class _Plain(EchoLLM):
    """An echo that keeps no record of what it was asked."""

    async def ask(self, request: Request) -> Answer:
        await asyncio.sleep(0)
        return Answer(default_answer(request), self.name)


def ask_echo(count: int) -> None:
    """Ask the echo, and print this process's peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        report = ask_all(
            requests(count), _Plain(), ledger, policy=RequestPolicy(concurrency=_AT_ONCE)
        )
    assert report.asked == count
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}\n")


def main() -> None:
    """Measure all of it; the SDK is imported before."""
    import openai  # noqa: F401

    rows = [
        throughput("throughput_64", _AT_ONCE),
        throughput("throughput_found_out", 4 * _AT_ONCE),
        *cpu_per_call(),
        memory(),
    ]
    notes = [
        "throughput_found_out: 256 at once are declared, and the server's 64 found out by its 429s"
    ]
    finish("llm", "asking many prompts", rows, notes)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ask"]:
        ask_echo(int(sys.argv[2]))
    else:
        main()
