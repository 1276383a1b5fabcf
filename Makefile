# The commands of this project. `make run` and `make test` need nothing prepared: they install what is missing
# (Debian packages, by apt-get, as root or with sudo).

TARGET    := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
CARGO     ?= cargo
CARGOFLAGS ?= --locked
SCRIPTS   := .ci/run $(wildcard packaging/*.sh packaging/edit-config packaging/completions/* packaging/debian/p* tests/*.sh plugins.d/*.sh plugins.d/*.plugin)

# What `make torture` tortures; CI takes the binary its tests were run with.
PROGRAM   ?= $(TARGET)/release/netdata

.PHONY: help deps build web quick run test test-web test-deb deb rpm chaos scenarios lint fmt bench fuzz torture install clean

help:
	@echo "make run               build, then run a parent (http://localhost:19999) and a child on this machine; Ctrl-C stops both"
	@echo "make test              all tests, with Debian's real netdata as peer"
	@echo "make build             the release binaries, in $(TARGET)/release, and the dashboard, in web/dist, where npm is at hand"
	@echo "make web               the dashboard alone"
	@echo "make test-web          the dashboard's tests, in a browser against real agents"
	@echo "make chaos [SEEDS=50] [SEED=n] [EVENTS=200]   a child and three parents as real processes, under random mishaps"
	@echo "make scenarios [SCENARIOS=words] [TOGETHER=6]   each mishap and outage between each child and parent"
	@echo "make lint              format, clippy, shell scripts"
	@echo "make bench [ROW=...] [RECORDED=FILE]   ours and the real netdata on the same work"
	@echo "make fuzz [TIME=600] [ONLY=target]   the fuzz targets, TIME seconds each"
	@echo "make torture [CYCLES=1000] [SEED=n]   kills, power cuts, failing disks and damage, every sample compared"
	@echo "make install DESTDIR=  what a package holds; see packaging/install.sh for the paths"
	@echo "make test-deb [ONLY=words]   installs, runs, upgrades and removes the Debian package, and follows docs/, in roots of its own (as root)"
	@echo "make deb, make rpm     a Debian package, an RPM package, in $(TARGET)/packages"

deps:
	@packaging/deps.sh build

build: deps web
	$(CARGO) build $(CARGOFLAGS) --release --bins

# Never fails for want of npm: the agent has a plain page of its own.
web:
	@packaging/web.sh

# What work in progress is tried with: no link-time optimisation.
quick:
	$(CARGO) build $(CARGOFLAGS) --profile quick --bins

run: build
	@exec packaging/run-local.sh "$(TARGET)/release/netdata"

test:
	@packaging/deps.sh build test
	$(CARGO) build $(CARGOFLAGS) --bins
	@tests/peer.sh || echo "make test: no real netdata to test with, those tests will say so"
	@tests/sinks.sh >/dev/null || echo "make test: not all databases to export to are there, their tests will say so"
	$(CARGO) test $(CARGOFLAGS)

test-web:
	tests/web.sh "$(PROGRAM)"

chaos: export SEEDS := $(or $(SEEDS),50)
chaos: export SEED := $(or $(SEED),1)
chaos: export EVENTS := $(or $(EVENTS),200)
chaos:
	$(CARGO) build $(CARGOFLAGS) --bins
	$(CARGO) test $(CARGOFLAGS) --test daemon chaos:: -- --nocapture

scenarios: export SCENARIOS := $(or $(SCENARIOS),all)
scenarios: export TOGETHER := $(or $(TOGETHER),6)
scenarios:
	@packaging/deps.sh build test
	$(CARGO) build $(CARGOFLAGS) --bins
	@tests/peer.sh || echo "make scenarios: no real netdata to test with, only ours is"
	$(CARGO) test $(CARGOFLAGS) --test compat scenarios:: -- --nocapture

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy $(CARGOFLAGS) --all-targets -- -D warnings
	@for s in $(SCRIPTS); do bash -n $$s || exit 1; done
	@if command -v shellcheck >/dev/null; then shellcheck -S warning $(SCRIPTS); else echo "shellcheck is not installed: the scripts were only parsed"; fi
	@for c in benches tests/fuzz tests/torture; do if [ -f $$c/Cargo.toml ]; then (cd $$c && $(CARGO) fmt --check) || exit 1; fi; done

fmt:
	$(CARGO) fmt
	@for c in benches tests/fuzz tests/torture; do if [ -f $$c/Cargo.toml ]; then (cd $$c && $(CARGO) fmt); fi; done

bench: export RECORDED := $(RECORDED)
bench: build
	@packaging/deps.sh bench || echo "make bench: the real netdata is not there, only ours is measured"
	cd benches && $(CARGO) build $(CARGOFLAGS) --release
	cd benches && $(CARGO) run $(CARGOFLAGS) --release --bin netdata-benches -- --ours "$(TARGET)/release/netdata" $(ROW)

fuzz:
	@packaging/deps.sh build
	tests/fuzz/run.sh $(or $(TIME),600) $(ONLY)

torture: $(if $(filter $(TARGET)/release/netdata,$(PROGRAM)),build)
	cd tests/torture && $(CARGO) run $(CARGOFLAGS) --quiet --release -- "$(PROGRAM)" $(or $(CYCLES),1000) $(SEED)

install:
	packaging/install.sh "$(TARGET)/release" "$(DESTDIR)"

# What packages are made of; CI takes the programs its tests were run with.
BINARIES  ?= $(TARGET)/release

deb: $(if $(filter $(TARGET)/release,$(BINARIES)),build)
	@packaging/deps.sh deb
	@packaging/deb.sh "$(BINARIES)" "$(TARGET)/packages"
	@if command -v lintian >/dev/null; then lintian --allow-root --fail-on error,warning "$(TARGET)"/packages/netdata-rs_*.deb; \
	else echo "lintian is not installed: the package was not looked at"; fi

rpm: $(if $(filter $(TARGET)/release,$(BINARIES)),build)
	@packaging/deps.sh rpm
	@packaging/rpm.sh "$(BINARIES)" "$(TARGET)/packages"

test-deb: deb
	@packaging/deps.sh roots || true
	tests/package/run "$$(ls -t "$(TARGET)"/packages/netdata-rs_*.deb | head -n 1)" $(ONLY)

clean:
	$(CARGO) clean
	rm -rf web/dist web/node_modules benches/target tests/fuzz/target tests/fuzz/artifacts tests/torture/target
