# nnac: `make` lists what there is.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
TORCH  ?= torch==2.13.0
RUNS   ?= runs
CORES  ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

SWEEP   = $(BIN)/nnac sweep specs/comparison/all.toml --corpus $(RUNS)/corpus --runs $(RUNS)/sweep --jobs 2

# where the environment forbids compiled files, each process compiles torch anew: 6 s of the 10 that an import takes
export PYTHONDONTWRITEBYTECODE :=

.SECONDARY:
.PHONY: conformer bench-conformer help setup demo demo-from-nothing network network-conformer results results-aat results-decide results-fusion results-noise results-papers results-quick results-sizes test test-slow types check clean bench bench-codec bench-nna bench-bounds bench-train bench-methods bench-aat bench-search bench-latency bench-language bench-robust bench-house bench-cuda fuzz grammar bench-sparse

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

# what the demo needs; the file holds how many seconds that took.  Not compiled ahead: Python does that for the few files that are used
$(VENV)/.demo: pyproject.toml
	@set -e; begun=$$(date +%s); $(PYTHON) -m venv $(VENV); \
	echo 'pip install "$(TORCH)" -e ".[speech,fast]"'; $(BIN)/pip install --quiet --no-compile "$(TORCH)" -e ".[speech,fast]"; \
	echo $$(( $$(date +%s) - begun + 1 )) > $@

$(VENV)/.ready: $(VENV)/.demo
	$(BIN)/pip install --quiet -e ".[speech,audio,lsp,plot,fast,log,graphblas,rtl,hybrid,onnx,sherpa,dev]"
	touch $@

setup: $(VENV)/.ready      ## virtual environment with nnac and all it needs

demo: $(VENV)/.demo        ## speech in, transcript out: policy, training, program, emulator, 400 utterances (2 to 4 minutes, installing included)
	$(BIN)/nnac demo --out $(RUNS)/demo --setup-s "$$(cat $<)"

demo-from-nothing: $(VENV)/.demo    ## the same, and the float network is trained first (15 to 25 minutes)
	$(BIN)/nnac demo --from-nothing --out $(RUNS)/demo-from-nothing --setup-s "$$(cat $<)"

$(RUNS)/corpus/train.json: | setup
	$(BIN)/nnac corpus --out $(RUNS)/corpus

$(RUNS)/float.nnc: | $(RUNS)/corpus/train.json
	$(BIN)/nnac baseline --corpus $(RUNS)/corpus --out $@ --longer

network: $(RUNS)/float.nnc   ## the float network that comes with nnac, trained again (networks/README.md)
	$(BIN)/nnac pack $< --out networks/demo.nnc

network-conformer: $(RUNS)/conformer.nnc   ## the float Conformer that comes with nnac, trained again
	$(BIN)/nnac pack $< --out networks/conformer.nnc

results: $(RUNS)/corpus/train.json | setup   ## every policy of the comparison, trained and measured; resumes, and takes what results/decide has (hours)
	$(SWEEP) --float demo --also results/decide

$(RUNS)/%-lm.nnc: | $(RUNS)/corpus/train.json
	$(BIN)/nnac baseline --text $(RUNS)/corpus/$*.txt --tokens networks/demo.nnc --out $@

results-fusion: $(RUNS)/home-lm.nnc $(RUNS)/train-lm.nnc   ## beam search and language models at float, int8, INT4: tables of RESULTS.md; resumes (hours)
	$(BIN)/nnac sweep specs/comparison/fusion.toml --corpus $(RUNS)/corpus --runs $(RUNS)/fusion --jobs 2 --float demo \
	  --float home=$(RUNS)/home-lm.nnc --float train=$(RUNS)/train-lm.nnc --results results/fusion --out results/fusion/RESULTS.md
	$(BIN)/nnac sweep specs/comparison/all.toml --report

results-decide: $(RUNS)/corpus/train.json | setup   ## the pairs of rows that decide about single methods; resumes (hours): results/decide/RESULTS.md
	$(BIN)/nnac sweep specs/comparison/decide.toml --float demo --corpus $(RUNS)/corpus --runs $(RUNS)/decide --jobs 2 \
	  --results results/decide --out results/decide/RESULTS.md

results-noise: results-decide      ## the same models heard in harder noise: results/noise/RESULTS.md
	$(BIN)/nnac corpus --out $(RUNS)/corpus --noise 1500
	$(BIN)/nnac sweep specs/comparison/noise.toml --float demo --corpus $(RUNS)/corpus --runs $(RUNS)/decide --jobs 2 \
	  --results results/noise --out results/noise/RESULTS.md

results-aat: $(RUNS)/corpus/train.json | setup   ## accelerator-aware training against weight-only, generous to saturating formats; resumes (hours)
	$(BIN)/nnac sweep specs/comparison/aat.toml --float demo --corpus $(RUNS)/corpus --runs $(RUNS)/aat --jobs 2 \
	  --results results/aat --out results/aat/RESULTS.md

results-papers: $(RUNS)/corpus/train.json | setup   ## the papers' own policies, trained on this corpus, a seed each; resumes (half an hour)
	$(BIN)/nnac sweep specs/comparison/papers.toml --float demo --corpus $(RUNS)/corpus --runs $(RUNS)/papers --jobs 2 \
	  --results results/papers --out results/papers/RESULTS.md

# RUNS/size-CELLS-SEED.nnc
$(RUNS)/size-%.nnc: | $(RUNS)/corpus/train.json
	$(BIN)/nnac baseline --corpus $(RUNS)/corpus --out $@ --cells $(word 1,$(subst -, ,$*)) --seed $(word 2,$(subst -, ,$*))

results-sizes: $(foreach s,0 1 2,$(foreach c,192 256,$(RUNS)/size-$(c)-$(s).nnc))   ## S8BQAT across sizes, three float networks of each; resumes (hours)
	$(BIN)/nnac sweep specs/comparison/sizes.toml --corpus $(RUNS)/corpus --runs $(RUNS)/sizes --jobs 2 \
	  $(foreach s,0 1 2,--float small=$(RUNS)/size-192-$(s).nnc --float middle=$(RUNS)/size-256-$(s).nnc) \
	  --results results/sizes --out results/sizes/RESULTS.md
	$(BIN)/nnac sweep specs/comparison/all.toml --report

results-quick: $(RUNS)/corpus/train.json | setup   ## seven rows that carry claims, one seed each (20 minutes): runs/quick/RESULTS.md
	$(SWEEP) --float demo --quick --results $(RUNS)/quick/results --out $(RUNS)/quick/RESULTS.md

test: setup                ## the tests, a process for each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist worksteal

test-slow: setup           ## hundreds of random programs, and the 57 M-weight INT4 RNN-T from training to the emulator (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

types: setup               ## the types (20 seconds; a second when little changed)
	$(BIN)/mypy

check: setup               ## what CI runs: style, types, then the tests
	$(BIN)/ruff check nnac tests benchmarks
	$(MAKE) types
	$(MAKE) test

bench-bounds: setup        ## whole recognitions, search included, of every bundled policy: over the roofline, over the bound that says why not
	$(BIN)/python -m benchmarks.bench_nna --bounds

bench: bench-language bench-codec bench-nna bench-train   ## all benchmarks; each ends with one JSON line

bench-cuda: setup          ## a training step on a GPU, exact against float
	$(BIN)/python -m benchmarks.bench_cuda

bench-house: setup         ## how often a concept is said outside its room: comparisons by name, types, circles, width
	$(BIN)/python -m benchmarks.bench_house

.PHONY: bench-import
bench-import: setup        ## others' models as they stand: published modules, constructs; every integer, on the emulator and as ONNX
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_import

bench-robust: setup        ## hostile input of every kind, thousands of cases: none may be bad
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_robust

bench-language: setup      ## start-up, 2,000 rules, language server
	$(BIN)/python -m benchmarks.bench_language

bench-codec: setup         ## bits per weight and speed of every codec (beside Vela's mlw, if installed)
	$(BIN)/python -m benchmarks.bench_codec

bench-nna: setup           ## schedules against the roofline, emulator speed, compile time
	$(BIN)/python -m benchmarks.bench_nna

bench-train: setup         ## the exact LSTM against torch.nn.LSTM, integers compared
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_train

bench-sparse: setup        ## sparse layers by GraphBLAS, torch and scipy against dense; the machine's sparse streams; the Graph Challenge
	$(BIN)/pip install --quiet -e ".[graphblas,images]"
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_sparse --plot results/sparse_layers.svg

bench-methods: $(RUNS)/corpus/train.json   ## compression methods, each where it acts: damage, events, slopes, pulls, bytes (20 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_methods --float demo --corpus $(RUNS)/corpus --picture results/methods.svg

bench-aat: $(RUNS)/float.nnc         ## accelerator-aware training against weight-only QAT and operators on the CPU (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_aat --float $(RUNS)/float.nnc --corpus $(RUNS)/corpus --runs $(RUNS)/aat

bench-latency: $(RUNS)/corpus/train.json     ## the papers' latency claims on whole recognitions: chapter of RESULTS.md (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_latency --corpus $(RUNS)/corpus --runs $(RUNS)/latency
	$(BIN)/nnac sweep specs/comparison/all.toml --report

bench-conformer: $(RUNS)/corpus/train.json   ## the Conformer: cycles a frame, equal integers, a training step, compile time (ten minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_conformer --corpus $(RUNS)/corpus --float networks/conformer.nnc

$(RUNS)/conformer.nnc: | $(RUNS)/corpus/train.json
	$(BIN)/nnac baseline --model conformer --corpus $(RUNS)/corpus --out $@

conformer: $(RUNS)/conformer.nnc   ## the float Conformer (a quarter of an hour on two cores), then its comparison under the methods (hours)
	$(SWEEP) --float conformer=$(RUNS)/conformer.nnc --only 'conformer-*'

bench-search: $(RUNS)/corpus/train.json      ## beam search, fusion, latency (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_search --corpus $(RUNS)/corpus --runs $(RUNS)/search

.PHONY: bench-hybrid
bench-hybrid: $(RUNS)/corpus/train.json      ## the hybrid: trained from nothing, INT4 and int8, decoding, the 43 M size (hours for what results/ lacks)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_hybrid --corpus $(RUNS)/corpus --runs $(RUNS)/hybrid

.PHONY: cosim area
$(RUNS)/demo/rnnt_int8.nnp: | setup
	$(BIN)/nnac demo --out $(RUNS)/demo

# needs Verilator (apt-get install verilator, 5.006 or later) and a C++ compiler.  COSIM=--short takes two minutes
cosim: setup $(if $(filter --short,$(COSIM)),,$(RUNS)/demo/rnnt_int8.nnp)   ## the RTL core beside the emulator: random programs, the demo's, planted faults, coverage (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.cosim $(COSIM)

area: setup                ## what the core is made of, module by module, and what its units take on an FPGA, placed and routed
	$(BIN)/pip install --quiet -e ".[area]"
	$(BIN)/python -m benchmarks.area --place tiny $(AREA)

fuzz: setup                ## minutes of coverage-guided fuzzing of the language
	$(BIN)/pip install --quiet -e ".[fuzz]"
	$(BIN)/python -m benchmarks.fuzz_language

grammar: setup             ## the parse tables, after a change of grammar/nnac.lark
	$(BIN)/python -m nnac.language.tables

clean:                     ## remove caches and runs, keep the environment
	rm -rf $(RUNS) build dist .pytest_cache .hypothesis .ruff_cache .mypy_cache
