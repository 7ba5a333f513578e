# make help lists the targets.

.DEFAULT_GOAL := build
FUZZTIME ?= 10s
HOSTILE ?= 5000
SEED ?= $(shell date +%s)
SOAK ?= 1h
CHAOS ?= 1h
PLANT_CYCLES ?= 1000
SOAK_KERNELS ?= 6.12 debian
PREFIX ?= /usr/local

export CGO_ENABLED = 0

.PHONY: help build install demo test check lint fuzz hostile soak soak-planted chaos chaos-planted minimal support zoo bench install-deps install-slow-deps clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

PLUGIN = plugin/built/outsight-x86_64.so
$(PLUGIN): scripts/build-plugin $(wildcard plugin/qemu/*)
	scripts/build-plugin

build: $(PLUGIN) ## build bin/outsight, one static binary
	go build -trimpath -ldflags="-s -w" -o bin/outsight ./cmd/outsight

demo: install-deps build ## boot a guest and show its processes, from outside and from inside
	scripts/demo

test: install-deps $(PLUGIN) ## run every test, those with guests too
	go test -timeout 60m ./...

check: ## run the tests that need no QEMU, in under a minute
	go vet ./...
	go test -short ./...

lint: ## run the linters
	scripts/lint

fuzz: ## run every fuzz target for FUZZTIME
	FUZZTIME=$(FUZZTIME) scripts/fuzz

hostile: install-deps ## lie to every view about a guest's memory, HOSTILE times, from SEED on
	OUTSIGHT_HOSTILE=$(HOSTILE) OUTSIGHT_HOSTILE_SEED=$(SEED) go test -count 1 -timeout 0 -v -run '^TestGuestHostile$$' ./groundtruth

soak: install-deps ## judge guests that are busy in every legal way, for SOAK on each of SOAK_KERNELS: nothing may be found
	OUTSIGHT_SOAK=$(SOAK) OUTSIGHT_SOAK_KERNELS="$(SOAK_KERNELS)" go test -count 1 -timeout 0 -v -run '^TestGuestSoak$$' ./groundtruth

chaos: install-deps $(PLUGIN) ## kill, stop and overload what reads a guest's events, for CHAOS: no event may be wrong or uncounted
	OUTSIGHT_CHAOS=$(CHAOS) go test -count 1 -timeout 0 -v -run '^TestGuestChaos$$' ./trace/tcg

chaos-planted: install-deps ## kill, stop and overload what plants, reads and removes probes, for CHAOS: no guest may notice, no event may be wrong or uncounted
	OUTSIGHT_SLOW=1 OUTSIGHT_CHAOS=$(CHAOS) go test -count 1 -timeout 0 -v -run '^TestGuestChaos$$' ./trace/planted

soak-planted: install-deps ## plant and remove probes PLANT_CYCLES times, in busy guests, by processes that are killed: no guest may notice
	OUTSIGHT_PLANT_CYCLES=$(PLANT_CYCLES) go test -count 1 -timeout 0 -v -run '^TestGuestPlantSoak$$' ./plant

minimal: install-slow-deps ## build a kernel with as little in it as outsight can read, once, and read it with every view
	OUTSIGHT_SLOW=1 go test -count 1 -timeout 90m -v -run '^TestGuestMinimal$$' ./groundtruth

support: install-slow-deps ## run every comparison with guests, an hour or two, and write the support tables from what they found
	rm -f bin/results.jsonl && mkdir -p bin
	OUTSIGHT_SLOW=1 OUTSIGHT_KVM=all OUTSIGHT_RESULTS=$(CURDIR)/bin/results.jsonl go test -count 1 -timeout 0 -run '^TestGuest' ./groundtruth
	OUTSIGHT_RESULTS=$(CURDIR)/bin/results.jsonl go test -count 1 -run '^TestSupportTable$$' ./groundtruth -update

zoo: install-slow-deps ## do every trick of the zoo on every kernel, an hour or more, and write the table of what was found
	rm -f bin/zoo.jsonl && mkdir -p bin
	OUTSIGHT_SLOW=1 OUTSIGHT_KVM=all OUTSIGHT_ZOO=$(CURDIR)/bin/zoo.jsonl go test -count 1 -timeout 0 -run '^TestGuest(Zoo|KVMZoo|KernelZoo|Busy|CredentialsRise|Imports)' ./check
	OUTSIGHT_ZOO=$(CURDIR)/bin/zoo.jsonl go test -count 1 -run '^Test(ZooPage|Coverage)$$' ./check -update

bench: install-deps build ## compare with drgn and crash as whole processes, and run the Go benchmarks
	go run ./bench
	go test -run '^$$' -bench . -benchmem ./...

install: build ## install the binary, its manual and its completions under PREFIX
	install -D bin/outsight $(DESTDIR)$(PREFIX)/bin/outsight
	bin/outsight man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	bin/outsight completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/outsight

install-deps: ## install what demo, test and bench need (Debian)
	scripts/install-deps

install-slow-deps: ## install what the slow tests need besides (Debian)
	scripts/install-deps --slow

clean:
	rm -rf bin
