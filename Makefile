# Targets without logic; the logic is in cargo and in tests/.

.PHONY: setup fmt lint test e2e bench bench-baseline bench-peers load fuzz image run-sandbox deny ci

setup: ## install what the end-to-end tests need
	tests/e2e/setup.sh

fmt:
	cargo fmt

lint:
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings

test: ## everything: format, lints, Rust tests, real provider, real clients, real browser
	tests/run.sh

e2e: setup ## the end-to-end tests alone, on binaries that are already built
	node tests/e2e/run.mjs

bench: ## what a request costs, held against benches/baseline.toml; then every other benchmark
	benches/setup.sh guard
	cargo bench --bench instructions
	cargo bench $(patsubst benches/%.rs,--bench %,$(wildcard benches/*.rs))

bench-baseline: ## writes benches/baseline.toml: what a request may cost from now on
	benches/setup.sh guard
	cargo bench --bench instructions -- --take-baseline

bench-peers: ## beside nginx, HAProxy and Envoy (docs/performance.md); QUICK=1 ONLY=cpu,start PINGORA=1 UPDATE=1
	@benches/setup.sh peers
	@cargo build --profile $(or $(PROFILE),release) --bin bearerd --example canned
	@node benches/peers/run.mjs

load: ## eleven scenarios of load, with a report (docs/load-testing.md); SECONDS_EACH=20 ONLY=fresh,storm URL=https://...
	@benches/setup.sh load
	@$(if $(URL),,cargo build --release)
	@node benches/load/run.mjs

fuzz: ## each target for SECONDS_EACH=60; needs a C++ compiler
	fuzz/run.sh

image: ## builds the image without an engine, runs it, and checks compose files, systemd unit and chart; root only (docs/deploy.md)
	tests/image/run.sh

run-sandbox:
	cargo run --release -- sandbox

deny: ## needs cargo-deny and the network
	cargo deny check

ci:
	.ci/run
