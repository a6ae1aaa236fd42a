# Everything a newcomer needs. `make run` serves, `make test` proves.

.PHONY: help run build test check bench callgrind chaos image clean

CARGO ?= cargo
# The load generator is a package of its own.
LOAD = benches/load/Cargo.toml

help: ## what there is
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## build, then serve on port 9501 with the embedded store and the development keys
	CONFIG_FILE=$${CONFIG_FILE:-config/development.conf} $(CARGO) run --release --locked

build: ## the release binary, in target/release
	$(CARGO) build --release --locked

test: ## all tests, with a real MariaDB, nginx and HAProxy that are found or installed and started for them
	CARGO="$(CARGO)" scripts/test

check: ## format, lints, licences: what CI asks for before the tests
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-features --all-targets -- -D warnings
	$(CARGO) fmt --check --manifest-path $(LOAD)
	$(CARGO) clippy --locked --all-targets --manifest-path $(LOAD) --target-dir target/load -- -D warnings
	$(CARGO) test --locked --test structure --test licences

bench: ## the speed table, side by side with its peers in one run (BENCH_FULL=1, BENCH_ONLY, see scripts/bench)
	scripts/bench

callgrind: ## instructions of each operation of the lock core, the same however busy the machine is
	scripts/callgrind

chaos: ## faults injected into real servers, histories checked (CHAOS_SECONDS, CHAOS_SEED, CHAOS_STORE, CHAOS_CLIENTS)
	scripts/with-galera scripts/with-mariadb $(CARGO) test --locked --test chaos -- --nocapture --skip group_replication::

image: ## the container image
	docker build -t small-resource-server .

clean: ## what was built; data/ stays
	$(CARGO) clean
