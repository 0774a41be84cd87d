"""Factors: asked from the model, confirmed by an expert."""

from __future__ import annotations

from collections.abc import Sequence

from reki_feast import extract
from reki_feast.errors import FactorsError
from reki_feast.extract.factors import confirmed, dumps
from reki_feast.files import write_text
from reki_feast.project import Project, now
from reki_feast.report import Progress, Report, Silent, Table


def factors(project: Project, *, calls: int = 3, progress: Progress | None = None) -> Report:
    """Ask which factors decide, merge the answers and write them for an expert to confirm.

    Raises:
        FactorsError: a file that an expert has confirmed is there already, or no answer is usable.
        BudgetError: a limit was reached before all answers came; nothing is written.
        KeyboardInterrupt: the same, on Ctrl-C.
    """
    there = project.factors_file()
    if there is not None and there.confirmed:
        rule = "confirmed factors are not overwritten"
        mend = "delete the file to ask anew; what was generated with its factors stays"
        raise FactorsError(rule, found=str(project.factors_path), mend=mend)
    llm = project.llm(online=True)
    project.check_key()
    with project.ledger() as ledger, (progress or Silent()).bar("asking") as bar:
        bar(0, calls)
        found, asked = extract.ask_factors(
            project.wording(),
            llm,
            ledger,
            templates=project.templates,
            as_of=now(),
            asks=calls,
            terms=project.terms(llm, ledger, online=True),
        )
    write_text(project.factors_path, dumps(found))
    return _report(project, found, failed=asked.failed, notes=asked.notes)


def confirm_factors(project: Project) -> Report:
    """Mark the factors file as confirmed, as it stands.

    Raises:
        FactorsError: there is no such file.
    """
    found = project.factors_file()
    if found is None:
        rule = f"{project.factors_path} holds the factors to confirm"
        raise FactorsError(rule, found="no such file", mend="reki factors")
    write_text(project.factors_path, dumps(confirmed(found)))
    return _report(project, confirmed(found))


def _report(
    project: Project, found: extract.FactorsFile, *, failed: int = 0, notes: Sequence[str] = ()
) -> Report:
    said = "confirmed" if found.confirmed else "not confirmed yet"
    return Report(
        f"{project.name}: factors in {project.factors_path}, {said}",
        tables=[
            Table("factors", ("factor", "named_by"), [(f.name, f.named_by) for f in found.factors])
        ],
        notes=list(notes),
        next=["reki plan"] if found.confirmed else ["edit the file", "reki factors --confirm"],
        failed=failed,
    )
