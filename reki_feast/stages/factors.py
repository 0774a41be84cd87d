"""Factors: asked from the model, confirmed by an expert."""

from __future__ import annotations

from collections.abc import Sequence

from reki_feast import knowledge
from reki_feast.errors import FactorsError
from reki_feast.files import write_text
from reki_feast.knowledge.factors.file import confirmed, dumps
from reki_feast.llm import RunReport
from reki_feast.project import DeclaredProject, now
from reki_feast.report import Progress, Silent
from reki_feast.results import FactorCount, FactorsResult
from reki_feast.stages.context import StageContext
from reki_feast.stages.observed import tell_usage


def factors(
    project: DeclaredProject, *, calls: int = 3, progress: Progress | None = None
) -> FactorsResult:
    """Ask which factors decide, merge the answers and write them for an expert to confirm.

    Raises:
        FactorsError: a file that an expert has confirmed is there already, or no answer is usable.
        BudgetError: a limit was reached before all answers came; nothing is written.
        KeyboardInterrupt: the same, on Ctrl-C.
    """
    there = project.factors_file()
    if there is not None and there.confirmed:
        rule = "confirmed factors are not overwritten"
        hint = "delete the file to ask anew; what was generated with its factors stays"
        raise FactorsError(rule, detail=str(project.factors_path), hint=hint)
    llm = project.llm(online=True)
    project.check_key()
    with project.ledger() as ledger, (progress or Silent()).bar("asking") as bar:
        bar(0, calls)
        requests = knowledge.factor_requests(
            project.wording(), templates=project.templates, as_of=now(), asks=calls
        )
        policy = project.request_policy(llm, ledger, online=True)
        found, asked = knowledge.ask_factors(requests, llm, ledger, policy=policy)
        tell_usage(StageContext.of(project), RunReport(), asked)
    write_text(project.factors_path, dumps(found))
    return _report(project, found, failed=asked.failed, notes=asked.notes)


def confirm_factors(project: DeclaredProject) -> FactorsResult:
    """Mark the factors file as confirmed, as it stands.

    Raises:
        FactorsError: there is no such file.
    """
    found = project.factors_file()
    if found is None:
        rule = f"{project.factors_path} holds the factors to confirm"
        raise FactorsError(rule, detail="no such file", hint="reki factors")
    write_text(project.factors_path, dumps(confirmed(found)))
    return _report(project, confirmed(found))


def _report(
    project: DeclaredProject,
    found: knowledge.FactorsFile,
    *,
    failed: int = 0,
    notes: Sequence[str] = (),
) -> FactorsResult:
    return FactorsResult(
        project=project.name,
        path=project.factors_path,
        confirmed=found.confirmed,
        factors=[FactorCount(one.name, one.named_by) for one in found.factors],
        notes=list(notes),
        next=["reki plan"] if found.confirmed else ["edit the file", "reki factors --confirm"],
        failed=failed,
    )
