"""A soak: 20,000 prompts, one call in twenty meets a fault, and the run is killed three times.

    python -m tests.bench.soak [prompts]

Ends with an error if a prompt is neither answered nor quarantined, if one that was answered is
sent again, or if the ledger's books do not balance.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from reki_feast.knowledge.validation.gates import AnswerRules, AnswerValidator
from reki_feast.llm import Ledger, OpenAILLM, RequestPolicy, ask_all
from reki_feast.llm.ledger import invariants
from reki_feast.schema import content_hash
from tests.bench.common import ROOT, finish
from tests.bench.llm import requests
from tests.llm.servers import FAULTS, Endpoint, Fault

_PROMPTS = 20_000
_CONCURRENCY = 64
_KILLS = 3
_ONE_IN = 20
#: Faults that hold up a call for as long as its time-out are left to the tests.
_MIX = [FAULTS[name] for name in sorted(FAULTS) if name not in ("stall", "slow", "429 retry-after")]


def rule(prompt: str, nth: int, number: int) -> Fault | None:
    """The same faults in every soak, whatever the order of calls."""
    drawn = int(content_hash(str(nth), prompt)[:8], 16)
    return _MIX[drawn // _ONE_IN % len(_MIX)] if drawn % _ONE_IN == 0 else None


def child(url: str, path: Path, count: int) -> None:
    """One run, to its end."""
    with Ledger(path) as ledger:
        gates = AnswerValidator(AnswerRules(language="English"), alike=ledger.alike)
        policy = RequestPolicy(concurrency=_CONCURRENCY, backoff_s=0.05, validator=gates.validate)
        report = ask_all(
            requests(count), OpenAILLM(model="tiny", base_url=url), ledger, policy=policy
        )
    sys.stdout.write(f"{report.asked} {report.reused} {report.quarantined} {report.failed}\n")


def start(url: str, path: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.bench.soak", "--child", url, str(path), str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def killed(endpoint: Endpoint, path: Path, count: int, after: int) -> int:
    """Kill a run after so many calls; how many had come by then."""
    process = start(endpoint.url, path, count)
    while len(endpoint.bill) < after and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    return len(endpoint.bodies)


def answered(path: Path) -> set[str]:
    """Prompts that are answered."""
    with Ledger(path) as ledger:
        rows = ledger.rows("SELECT prompt FROM prompts WHERE state = 'answered'")
        assert invariants.violations(ledger.rows) == []
    return {row[0].rstrip() for row in rows}


def soak(count: int) -> dict[str, int]:
    """Run, kill, run again to the end; what was found."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder, Endpoint(delay_s=0.02, rule=rule) as endpoint:
        path, again = Path(folder) / "ledger.sqlite", 0
        marks = []
        for kill in range(_KILLS):
            after = round(count * (kill + draw.uniform(0.3, 0.9)) / (_KILLS + 0.5))
            sent = killed(endpoint, path, count, after)
            marks.append((sent, answered(path)))
        out, _ = start(endpoint.url, path, count).communicate()
        prompts = endpoint.prompts
        for sent, known in marks:
            again += sum(1 for prompt in prompts[sent:] if prompt.rstrip() in known)
        with Ledger(path) as ledger:
            totals, broken = ledger.totals(), invariants.violations(ledger.rows)
            lost = ledger.rows("SELECT COUNT(*) FROM calls WHERE state = 'lost'")[0][0]
        found = {
            "prompts": count,
            "calls": len(endpoint.bill),
            "faults": sum(1 for call in endpoint.bill if call.fault),
            "answered": totals.answered,
            "quarantined": totals.quarantined,
            "neither": count - totals.answered - totals.quarantined,
            "answered prompts sent again": again,
            "answered twice": len(endpoint.paid_twice()),
            "calls lost to kills": lost,
            "broken rules": len(broken),
        }
    assert out.split(), "the last run did not end"
    return found


def main(count: int) -> None:
    """Soak, tell, and fail if anything was lost or paid twice."""
    started = time.perf_counter()
    found = soak(count)
    seconds = round(time.perf_counter() - started, 1)
    unit = "count"
    rows: list[dict[str, Any]] = [
        {"name": name, "ours": n, "reference": None, "ratio": None, "unit": unit}
        for name, n in found.items()
    ]
    rows.append({"name": "seconds", "ours": seconds, "reference": None, "ratio": None, "unit": "s"})
    notes = [f"{_KILLS} kills; calls in flight then: at most {_CONCURRENCY} each"]
    finish("soak", f"a soak of {count:,} prompts", rows, notes)
    zero = ("neither", "answered prompts sent again", "broken rules")
    bad = [name for name in zero if found[name]]
    if bad or found["answered twice"] > _KILLS * _CONCURRENCY:
        sys.exit(f"the soak found defects: {bad}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else _PROMPTS)
