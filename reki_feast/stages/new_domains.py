"""`reki train --domain`: the kept click model goes on in one domain, over vectors that stay."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import CondenseError, StoreError
from reki_feast.project import DeclaredProject
from reki_feast.report import Progress, Silent
from reki_feast.results import DomainRemoval, DomainResult, DomainScore, SampleCounts
from reki_feast.schema import KINDS, Kind, augmented
from reki_feast.stages.context import StageContext
from reki_feast.stages.exclusive import writing
from reki_feast.stages.stored_hein import StoredHein
from reki_feast.stages.training_data import drawn_to_learn, in_time, settings, training_data
from reki_feast.tables.domains import declared_domains, domain_of, domain_sizes
from reki_feast.views.domain_files import domain_path, domains_about, write_domain

if TYPE_CHECKING:
    from reki_feast.encoding import Floats
    from reki_feast.models.hein import HeinData
    from reki_feast.models.new_domain import LearntDomain
    from reki_feast.models.trained_backbone import TrainedBackbone
    from reki_feast.tables.asof import Indices


@writing
def train_domain(
    project: DeclaredProject, name: str, *, progress: Progress | None = None
) -> DomainResult:
    """Go on with the stored click model in one domain, on the published vectors as they are.

    Weights, vectors and the files of all other domains are only read.

    Args:
        project: the project; it is published.
        name: the domain, a value of the declared column.
        progress: shows how far it is.

    Raises:
        DeclarationError: no domains are declared.
        SourceError: there is no such column.
        CondenseError: nothing is trained or published, the click model is not stored, or the
            domain is unknown or too small.
    """
    from reki_feast.models.trained_backbone import stored

    started, context = time.perf_counter(), StageContext.of(project)
    trained, hein = _kept(context), StoredHein.of(context)
    data = _data(context, name)
    with (progress or Silent()).bar("training domain") as bar:
        bar(0, 1)
        made = _learnt(context, trained, data, hein)
        bar(1, 1)
    arrays, about = stored(made.backbone)
    samples = SampleCounts(*made.samples)
    scores = [DomainScore(name, one.auc, one.log_loss) for name, one in made.scores.items()]
    more = {
        "weights": hein.hashes[-1],
        "backbone": about,
        "match": asdict(made.head),
        "samples": asdict(samples),
        "held_out": {one.model: [one.auc, one.log_loss] for one in scores},
        "learning_rate": made.rate,
    }
    folder = context.lake.folder_of("hein")
    context.lake.claim()
    path = write_domain(folder, name, arrays, more)
    return DomainResult(
        project=context.name,
        domain=name,
        samples=samples,
        held_out=scores,
        seconds=time.perf_counter() - started,
        file=path,
        notes=[str(samples), "general vectors and other domains stay as they are"],
        next=[f'in your Feast repo: reki_match(views.user, views.item, domain="{name}")'],
    )


@writing
def remove_domain(project: DeclaredProject, name: str) -> DomainRemoval:
    """Remove what was learnt of a domain, and nothing else.

    Args:
        project: the project.
        name: the domain.

    Raises:
        StoreError: nothing is stored of it.
    """
    folder = StageContext.of(project).lake.folder_of("hein")
    path = domain_path(folder, name)
    if not path.exists():
        there = ", ".join(domains_about(folder)) or "none"
        raise StoreError(
            f"something is stored of domain {name}",
            detail=f"there are: {there}",
            hint="`reki train --domain NAME` learns one",
        )
    path.unlink()
    return DomainRemoval(
        project=project.name,
        domain=name,
        file=path,
        notes=["feature views that name the domain read the general vectors: feast apply"],
    )


def _kept(context: StageContext) -> TrainedBackbone:
    """The click model that the newest weights were trained with."""
    from reki_feast.models.hein import restore_backbones

    found = context.lake.backbones()
    kept = restore_backbones(*found) if found else []
    if not kept or kept[-1] is None:
        raise CondenseError(
            "a domain goes on with the click model that HEIN was trained with",
            detail="none is stored",
            hint="reki run, or reki train --retrain where weights are of an earlier version",
        )
    return kept[-1]


def _data(context: StageContext, name: str) -> HeinData:
    """The domain's samples, with histories in all domains, and published vectors."""
    from reki_feast.models.hein import HeinData

    found = in_time(context, training_data(context, drawn_to_learn(context)))
    said, rows = declared_domains(context.declared), found.interactions
    domain = domain_of(said, found.given, rows)
    inside = pc.and_(rows["sample"].combine_chunks(), pc.fill_null(pc.equal(domain, name), False))
    count = pc.sum(inside).as_py() or 0
    if count < said.least:
        sizes = domain_sizes(domain.filter(rows["sample"].combine_chunks()))
        raise CondenseError(
            f"a domain of its own has at least {said.least:,} interactions to learn from",
            detail=f"{name!r} has {count:,}; there are "
            + ", ".join(f"{one} ({size:,})" for one, size in sizes.items()),
            hint="until then it reads the general vectors: `reki_views` alone; or a lower "
            "Domains(least=…)",
        )
    at = rows.column_names.index("sample")
    return HeinData(
        rows.set_column(at, "sample", inside), *(_published(context, kind) for kind in KINDS)
    )


def _published(context: StageContext, kind: Kind) -> pa.Table:
    """The published vectors of users or items; of items the newest."""
    from reki_feast.tables.parts import newest

    key, name = context.key(kind), f"{kind}_aug"
    table = context.lake.read(name, augmented(key, kind))
    if not table.num_rows:
        raise CondenseError(
            "a domain learns from published vectors", detail="none are", hint="reki publish"
        )
    timed = [key.name, "event_timestamp"] if context.tables.timed else [key.name]
    return newest(table, timed if kind == "user" else [key.name])


def _learnt(
    context: StageContext, kept: TrainedBackbone, data: HeinData, hein: StoredHein
) -> LearntDomain:
    """The domain's click model and head."""
    from reki_feast.models.hein import make_task
    from reki_feast.models.new_domain import learn_domain

    seed = context.declared.training.seed
    task = make_task(data, config=settings(context), seed=seed, levels=kept.levels)
    tables: dict[Kind, Floats] = {
        "user": _by_index(data.users, task.users, task.user_rows, hein, "user"),
        "item": _by_index(data.items, task.items, None, hein, "item"),
    }
    return learn_domain(kept, task.items, task.parts, tables, seed=seed)


def _by_index(
    table: pa.Table, ids: pa.Array, rows: Indices | None, hein: StoredHein, kind: Kind
) -> Floats:
    """Published vectors ``[entities + 1, q]`` by index; the default one where there is none."""
    from reki_feast.encoding import vector_matrix

    if rows is None:
        found = pc.index_in(ids, value_set=table.column(0)).fill_null(-1)
        rows = np.asarray(found.to_numpy(zero_copy_only=False), np.int64)
    vectors, _ = vector_matrix(table[f"{kind}_aug"])
    default = np.array([hein.default_vector(kind)], np.float32)
    every: Floats = np.concatenate([vectors, default])[np.append(-1, rows)]
    return every
