# Everything runs in .venv, made on first use. PYTHON names another interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# On a shared machine threads that spin while they wait make training ten times slower.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help setup demo real test matrix schedulers docs check format soak attack bench bench-clustering bench-streaming bench-llm \
	bench-stores bench-late-rows bench-latency bench-recall bench-encode bench-rerun bench-compatible domains bench-increments bench-scale bench-spaces bench-books bench-report evaluate time tables feast-suite clean

help:            ## list the targets
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 18

setup: $(READY)  ## make the virtual environment with all that demo, tests and checks need

$(READY): pyproject.toml constraints.txt
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "reki-feast needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	"$(PYTHON)" -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[demo,dev]"
	@touch "$@"

demo: $(READY)   ## the main job on the embedded sample: no key, no server, no download
	@"$(BIN)/python" -m reki_feast.cli.demo

real: $(READY)   ## the main job on MovieLens (../shared/data, or where REKI_DATA points)
	@"$(BIN)/python" -m tests.bench.real

test: $(READY)   ## all tests, doctests included, a process a core; COVERAGE=1 adds the coverage
	@"$(BIN)/python" -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal $(if $(COVERAGE),--cov --cov-report=term:skip-covered)

matrix: $(READY) ## tests on every Python here, the lowest and highest libraries, and without extras
	@"$(BIN)/python" -m tests.matrix $(MATRIX)

schedulers: $(READY) ## run docs/schedulers' files under Airflow and Dagster, each in an environment of its own
	@"$(BIN)/python" -m tests.schedulers

docs: $(READY)   ## the documents as a site in build/docs, its reference from the code; a broken link fails
	@"$(BIN)/python" -m tests.docs.generate
	@"$(BIN)/python" -m tests.docs.site

check: $(READY)  ## format, lint, types, and which room imports which
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/ruff" check .
	@"$(BIN)/mypy"
	@"$(BIN)/lint-imports"

format: $(READY) ## mend format and lint where a machine can
	@"$(BIN)/ruff" check --fix-only --quiet .
	@"$(BIN)/ruff" format .

bench: bench-clustering bench-streaming bench-llm bench-stores bench-latency ## the benchmarks that ask for no encoder

bench-clustering: $(READY) ## speed, purity and memory of StreaKHC beside others
	@"$(BIN)/python" -m tests.bench.clustering

bench-streaming: $(READY) ## calls as MovieLens-100K comes in ten slices; calls for MovieLens-1M
	@"$(BIN)/python" -m tests.bench.streaming

bench-llm: $(READY) ## throughput, CPU a call and memory of asking many prompts
	@"$(BIN)/python" -m tests.bench.llm

evaluate: $(READY) ## DIN and LightGBM without and with vectors on MovieLens-1M, and their speed
	@"$(BIN)/python" -m tests.bench.evaluate

time: $(READY)   ## five libraries' jobs on two logs in time, with and without columns out of Feast
	@"$(BIN)/python" -m tests.bench.time $(TIME)

bench-compatible: $(READY) ## models in service after a retrain, plain and compatible, on MovieLens-1M (an hour)
	@"$(BIN)/python" -m tests.bench.compatible $(or $(COMPATIBLE),--table)

domains: $(READY) ## the first day of a new domain, on MovieLens-1M (hours; goes on where it stopped): DOMAINS="0 1 2"
	@"$(BIN)/python" -m tests.bench.domains --table $(DOMAINS)

tables: $(READY) ## the paper's tables (hours): TABLES="table2 …", SEEDS=5, DATA=ml-1m or dbbook, MODELS="din …"
	@"$(BIN)/python" -m tests.bench.tables $(or $(SEEDS),5) $(TABLES) --data $(or $(DATA),ml-1m) $(if $(MODELS),--backbones $(MODELS))

soak: $(READY)   ## 20,000 prompts with faults, and three kills; 10,000 reads beside writers
	@"$(BIN)/python" -m tests.bench.soak
	@"$(BIN)/python" -m tests.bench.serving

attack: $(READY) ## kills, copies, two writers, readers, damaged files and leaks: ATTACK="--seed 1 --tries 20"
	@"$(BIN)/python" -m tests.bench.attack $(ATTACK)

bench-stores: $(READY) ## materializing, reading and joining beside Feast's own stores
	@"$(BIN)/python" -m tests.bench.stores

bench-late-rows: $(READY) ## late rows by `feast materialize-incremental`, beside a whole run
	@"$(BIN)/python" -m tests.bench.late_rows

bench-latency: $(READY) ## milliseconds a request under 1, 8 and 64 callers, beside Feast's own
	@"$(BIN)/python" -m tests.bench.latency

bench-encode: $(READY) ## texts a second of the encoder beside plain SentenceTransformer.encode
	@"$(BIN)/python" -m tests.bench.encode $(ENCODE)

bench-recall: $(READY) ## vector search: milliseconds, recall, memory, freshness; new news (an hour; RECALL="--rows 100000" or --news)
	@"$(BIN)/python" -m tests.bench.recall $(RECALL)

bench-spaces: $(READY) ## 500 random orders of all that makes and serves spaces of vectors: SPACES="--seed 1"
	@"$(BIN)/python" -m tests.bench.spaces $(SPACES)

bench-rerun: $(READY) ## seconds of a run that changes nothing, beside an earlier commit's
	@"$(BIN)/python" -m tests.bench.rerun

bench-books: $(READY) ## the paper's own group knowledge of Amazon-Books: import, gates, encode, publish
	@"$(BIN)/python" -m tests.bench.books_groups

bench-report: $(READY) ## the page of reki report for 1,000,000 entities: megabytes, seconds to open; REPORT="--entities 100000"
	@"$(BIN)/python" -m tests.bench.report $(REPORT)

bench-scale: $(READY) ## 100,000 users end to end: seconds, memory, disk by stage; SCALE="--users 1000000"
	@"$(BIN)/python" -m tests.bench.scale $(SCALE)

bench-increments: $(READY) ## what a day's run writes and takes, beside the first run
	@"$(BIN)/python" -m tests.bench.increments

feast-suite: $(READY) ## Feast's own tests against our stores (clones Feast, or FEAST_SOURCE=FOLDER)
	@FEAST_SOURCE="$(FEAST_SOURCE)" "$(BIN)/python" -m tests.feast_suite

clean:           ## remove what was built and generated (not the virtual environment)
	@[ ! -x "$(BIN)/reki" ] || "$(BIN)/reki" down --scenario movies
	rm -rf build data feature_repo/data
