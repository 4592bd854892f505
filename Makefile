# Everything that is built, tested and shown goes through here. What changes
# kernel state does it in namespaces of its own.

GO  ?= go
BIN := bin

# sudo's PATH leaves out where Go's own archive is unpacked.
export PATH := $(PATH):/usr/local/go/bin
# Root does not read the repository of a user who runs sudo make.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

# What the programs answer to --version.
VERSION ?= $(shell packaging/version.sh)

# Static binaries: they run in any container image and on any host.
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X github.com/dcos/dcos-overlay/internal/version.described=$(VERSION)'

# staticcheck is pinned here, not in go.mod, which is for what we ship.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# What tests leave in the temporary directory when they are killed, the next removes.
TEST := scripts/in-tempdir.sh $(GO) test

.DEFAULT_GOAL := help

.PHONY: help
help: ## say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

.PHONY: build
build: ## build the plugins, the daemons and dcos-overlayctl into bin/
	@echo "build: dcos-overlay, dcos-ipam, dcos-overlay-call, dcos-overlay-coordinator, dcos-overlay-companion, dcos-overlayctl into $(BIN)/"
	@mkdir -p $(BIN)
	@$(BUILD) -o $(BIN)/ ./plugins/dcos-overlay ./plugins/dcos-ipam ./plugins/dcos-overlay-call
	@$(BUILD) -o $(BIN)/dcos-overlay-coordinator ./coordinator
	@$(BUILD) -o $(BIN)/dcos-overlay-companion ./companion
	@$(BUILD) -o $(BIN)/dcos-overlayctl ./ctl

.PHONY: dist
dist: ## build tarballs, packages and SBOMs for amd64 and arm64 into dist/
	@VERSION="$(VERSION)" packaging/dist.sh dist

.PHONY: deps
deps: ## install the Debian packages that demo and test need (root)
	@scripts/install-deps.sh

.PHONY: demo
demo: deps ## show two hosts whose containers reach each other (root)
	@$(GO) run ./integration/demo

.PHONY: test
test: deps lint unit integration ## run every test (root)

.PHONY: unit
unit: ## run the tests of each package, with the race detector (root)
	@echo "unit: the tests of each package, on the real kernel in namespaces, with the race detector"
	@$(TEST) -race -timeout 15m $$($(GO) list ./... | grep -vE '/integration(/torture|/page)?$$')

.PHONY: integration
integration: ## run the tests on several hosts (root)
	@echo "integration: the built programs on hosts made of namespaces, and the coordinator's page in a browser"
	@$(TEST) -count 1 -timeout 30m ./integration ./integration/page
	@echo "torture: three etcd members and three coordinators that are killed, paused and cut off"
	@$(TEST) -count 1 -timeout 20m ./integration/torture

.PHONY: docs
docs: deps ## take the manual's pictures of the page anew, into docs/images (root)
	@$(TEST) -count 1 -timeout 10m ./integration/page -v -args -page.images="$(CURDIR)/docs/images"

.PHONY: bench
bench: ## measure against the stock plugins and others, and write docs/benchmarks.md (root)
	@$(GO) run ./bench --docs docs

.PHONY: bench-quick
bench-quick: ## the same in less than two minutes, and write nothing (root)
	@$(GO) run ./bench --quick

.PHONY: lint
lint: ## check format, go vet, go.mod and staticcheck
	@echo "lint: gofmt, go mod tidy, go vet, staticcheck"
	@out=$$(gofmt -l .); test -z "$$out" || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	@$(GO) mod tidy -diff
	@$(GO) vet ./...
	@$(GO) run $(STATICCHECK) ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN) dist
