"""What docs/reference/errors.md says beside the errors' own texts: causes, and further mends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Area:
    """Errors that somebody meets while doing one thing.

    Attributes:
        title: the heading.
        cause: what these errors come from, as a rule; Markdown.
        modules: beginnings of the modules' paths below reki_feast/.
    """

    title: str
    cause: str
    modules: tuple[str, ...]


AREAS = (
    Area(
        "Declarations and the command line",
        "`generators/NAME.py` is read before anything else, by every command. The cause is a "
        "typing error, a key of another version, or two declarations where one is meant. All of "
        "the file's errors come together; [declarations](declarations.md) lists the keys.",
        (
            "cli/",
            "declare/",
            "project.py",
            "stages/context.py",
            "stages/comparing.py",
            "api/",
            "telemetry/",
        ),
    ),
    Area(
        "Your tables",
        "The queries of `Sources` ran, and what they gave breaks a rule; or they did not run. The "
        "cause lies in the query or in the table. `reki doctor` finds all of these at once. "
        "[Tables elsewhere](../how-to/postgres.md) is about sources that are no local file.",
        ("tables/", "stages/pushing.py"),
    ),
    Area(
        "Factors, prompts and templates",
        "Before a prompt can be written, its factors are confirmed, its template is filled in, and "
        "the columns that it names are there.",
        ("knowledge/", "stages/factors.py"),
    ),
    Area(
        "The language model",
        "The cause is an address, a key, a limit, or a server that answers otherwise than it says. "
        "What was answered before the error is kept: run the same command again.",
        ("llm/", "stages/generat", "stages/ledger_reports.py", "knowledge/factors/asking.py"),
    ),
    Area(
        "Imported knowledge",
        "`reki import-knowledge` takes files as they are. The cause is a file without the columns "
        "that it needs, or ids that went through a float.",
        (
            "stages/importing.py",
            "knowledge/import",
            "knowledge/answers/knowledge_rows.py",
            "llm/recorded.py",
        ),
    ),
    Area(
        "Encoding",
        "The cause is a model that cannot be loaded, or options that do not fit it.",
        ("encoding/", "stages/encod", "stages/stored_vectors.py", "stages/projections.py"),
    ),
    Area(
        "Groups",
        "The cause is vectors or attributes that changed since the groups were formed, or points "
        "that cannot be clustered.",
        ("clustering/", "stages/group"),
    ),
    Area(
        "Training and evaluation",
        "The cause is, as a rule, too few interactions of one kind, or times that leave nothing to "
        "learn from.",
        (
            "models/",
            "evaluation/",
            "stages/training",
            "stages/compatible.py",
            "stages/external_channel.py",
            "stages/stored_hein.py",
            "tables/snapshot_times.py",
        ),
    ),
    Area(
        "Publishing, match scores, recall and explaining",
        "The cause is an order of commands: something is asked for before it is made, or the Feast "
        "repo does not know yet what was published.",
        ("stages/", "views/"),
    ),
    Area(
        "The Feast repo: joins and materializing",
        "The cause is a table, a registry or an entity frame that does not fit the feature view.",
        ("stores/",),
    ),
    Area(
        "Redis",
        "The cause is an address, a right, a full server, or rows that an earlier version of a "
        "view wrote.",
        (
            "stores/address.py",
            "stores/connecting.py",
            "stores/embedded/",
            "stores/online/",
            "stores/redis_online.py",
        ),
    ),
    Area(
        "Tensors, training batches and vector search",
        "The cause is a name or a type: the service has features that a tensor cannot hold, or the "
        "query does not fit the stored vectors.",
        (
            "stores/serving/",
            "stores/training/",
            "stores/search/",
            "stores/online/searching.py",
            "stores/online/document",
        ),
    ),
    Area(
        "Spaces of vectors",
        "The cause is vectors of two trainings where those of one are meant. "
        "[Retrain and promote](../how-to/retrain.md) has the way.",
        (
            "stages/spaces.py",
            "stores/spaces.py",
            "stores/versions.py",
            "stores/version_records.py",
            "views/served_spaces.py",
            "stages/encoder_choice.py",
        ),
    ),
    Area(
        "Forgetting people",
        "`reki forget` refuses what looks like a mistake in a query rather than a wish.",
        ("stages/forgetting.py", "stores/deletion.py", "llm/ledger/deletion.py"),
    ),
    Area(
        "Files, rights and packages",
        "The cause is a full disk, another user's files, a damaged file, or an extra that is not "
        "installed. Stored files bear checksums, so a damaged one is told and not used.",
        (
            "files.py",
            "permissions.py",
            "locking.py",
            "extras.py",
            "tables/lake.py",
            "tables/parquet.py",
            "tables/objects.py",
            "tables/weights.py",
            "llm/ledger/",
            "stages/status.py",
        ),
    ),
    Area(
        "A Ray cluster",
        "[On many machines](../distributed.md) says who does what, and what may die.",
        ("distributed/",),
    ),
    Area("Elsewhere", "What else can go wrong.", ("",)),
)

_NO_ANSWER = (
    "the prompt is asked again; where it stays, see whether `base_url` is an OpenAI-compatible "
    "server"
)
_AGAIN = "run the command again: what was answered is kept, and this prompt is asked again"

#: What to do where the error itself has no hint, or one that is made while it runs.
MENDS = {
    "… have the attributes that are named": "correct `Collective(attributes=…)`, or select the "
    "columns in the query",
    "each item has one vector": "give as many vectors as ids",
    "… is Python that runs": "the hint names the line; run the file alone in Python",
    "the worker of the cluster lives until the answer comes": _AGAIN,
    "a channel's vectors have one length": "encode the channel anew, by one model",
    "a vector holds no nulls": "encode the channel anew",
    "the encoder is a model that sentence-transformers can load": "the hint says what is missing: "
    "the name, the network, or with `private=True` a model on disk",
    "backend is one of …": "`torch` or `bf16`",
    "pooling is one of …": "leave `pooling` out, or name one of those that the error lists",
    "max_tokens leaves room for a word": "raise `Encoder(max_tokens=…)`, or leave it out",
    "channel … has one text or None an id": "give one text, or None, for each id",
    "encoder … gives one vector of m floats a text": "name another sentence-transformers model",
    "answers have prompt_hash, text, model": "add the columns that are missing",
    "the server's quota lasts for the run": "wait until the limit's day ends, or raise it at the "
    "provider; then run the same command again",
    "the server answers each line of a batch": "run `reki generate` again: the lines that are "
    "missing go into the next batch",
    "the server has the file that was uploaded": "run `reki generate` again, some minutes later",
    "every line of a batch's files is a reply": "run `reki generate` again: the prompts go into "
    "the next batch",
    "the batch brings every line back": "run `reki generate` again: what is missing goes into "
    "the next batch",
    "the batch has room for the request": "nothing to do: the prompt goes into the next batch",
    "the batch is sent": "run `reki generate` again",
    "the server's reply has …": "see that the server has OpenAI's Batch API; else "
    '`LLM(provider="openai")`',
    "some calls succeed": "try one prompt by hand against this server and model; the detail has "
    "the server's words",
    "the reply can be read": _AGAIN,
    "the model answers": "a fake model was told to fail this prompt",
    "the ledger's rows are as they were written": "restore `ledger.sqlite` from a backup; a ledger "
    "is never begun anew by itself",
    "the ledger of answers can be read and written": "free space, mend the rights, or restore the "
    "file, as the hint says",
    "every recorded answer has a kind and a text": "complete those rows of the table",
    "every recorded answer has an owner": "complete those rows: the id of the user or the item",
    "the endpoint has a vector for each text": "cut long texts by `Encoder(max_tokens=…)`; see "
    "`extra_body` for what the server calls it",
    "extra_body sets no field that reki sets itself": "leave those fields out of `extra_body`: "
    "they have settings of their own",
    "the reply has an answer in its …": _NO_ANSWER,
    "the reply has an answer in its choices": _NO_ANSWER,
    "the server replies in JSON": "see that `base_url` ends as the server wants it, often in `/v1`",
    "the SDK makes the call": "the detail has the SDK's words; see `extra_body`",
    "interactions have the columns …": "select them in the interactions query",
    "interactions' … is never null": "add «where … is not null» to the interactions query",
    "user vectors are made out of 2 or more folds, or of none": "`Training(folds=4)`, or 0",
    "… has one type in all tables": "cast the key in one of the queries",
    "a list has … different items": "rerankers want at least as many items as a list has",
    "engine is local, or ray, which alone has an address": "`--engine ray --ray-address ADDRESS`",
    "… has options of redis-py that an address may have": "the error names the option and what to "
    "write in its place",
    "… has options with values that redis-py takes": "leave `decode_responses` out: what is stored "
    "are bytes",
    "Redis at … …": "the detail has the server's words: see that it runs, the password, and what "
    "the account may do",
    "every id of view … is in the online store": "`reki publish --materialize`; a server that "
    "drops keys wants `maxmemory-policy noeviction`",
    "….…: ids are integers or text": "cast the key to bigint or varchar in the query",
    "channel pairs differ in the user's channel": "`reki publish` again",
    "… ids are int64 or string": "`reki publish` again",
}
