# Everything a developer runs. It needs Go and make, and installs the rest from the distribution's archive; targets
# that start containers need root. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

export GOFLAGS := $(GOFLAGS) -buildvcs=false
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
TOOLS := $(CURDIR)/.cache/bin

# What building needs: a C compiler, for the part of libcontainer that enters namespaces, and seccomp's library.
BUILD_PACKAGES := gcc libc6-dev libseccomp-dev pkg-config
# What tests need besides: a registry to pull from, and the programs that tests look at the system with.
TEST_PACKAGES := $(BUILD_PACKAGES) docker-registry iproute2 iptables nftables procps util-linux dpkg e2fsprogs mount qemu-system-x86 bash-completion zsh fish mandoc

FUZZTIME ?= 10s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: build-packages ## build bin/nodeagent, bin/nodesupervisor and bin/nodectl
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/nodeagent ./cmd/nodectl
	CGO_ENABLED=1 go build -trimpath -tags seccomp,netgo,osusergo -ldflags '$(LDFLAGS) -linkmode external -extldflags -static' -o bin/ ./cmd/nodesupervisor

.PHONY: demo
demo: build ## run a pod on throwaway folders, show it, take everything down
	bin/nodeagent demo

.PHONY: lint
lint: ## gofmt and go vet
	@unformatted=$$(git ls-files -co --exclude-standard '*.go' | xargs -r ls -d 2>/dev/null | xargs -r gofmt -l); \
	if [[ -n $$unformatted ]]; then echo "gofmt these files:"; echo "$$unformatted"; exit 1; fi
	go vet ./...

.PHONY: check
check: lint ## format, vet and unit tests: two minutes, without root or network
	NODEAGENT_TEST_ROOT=no go test -short ./...

.PHONY: test
test: test-packages lint build tools kubelet ## install what the tests need and run all of them
	go build -race ./...
	go run ./hack/testimages >/dev/null
	@export NODEAGENT_TEST_REQUIRE=yes; failed=0; set -x; \
	go test -race -count=1 -p 1 -timeout 15m $$(go list ./... | grep -v '/nodeagent/test/') || failed=1; \
	go test -count=1 -p 1 -timeout 30m ./test/... || failed=1; \
	{ set +x; } 2>/dev/null; exit $$failed

.PHONY: test-root
test-root: test-packages ## unit tests and those that need root, with the race detector
	NODEAGENT_TEST_REQUIRE=yes go test -race -count=1 -p 1 -timeout 15m $$(go list ./... | grep -v '/nodeagent/test/')

.PHONY: test-e2e
test-e2e: test-packages build tools ## tests of the whole path: agent, registry, crictl
	NODEAGENT_TEST_REQUIRE=yes go test -count=1 -p 1 -timeout 20m ./test/e2e/... ./test/crictl/...

.PHONY: critest
critest: test-packages build tools ## the CRI conformance suite
	NODEAGENT_TEST_REQUIRE=yes go test -count=1 -v -timeout 20m ./test/critest/...

.PHONY: critest-repeat
critest-repeat: test-packages build tools ## the CRI conformance suite in each mode, five times
	NODEAGENT_TEST_CRITEST_RUNS=5 NODEAGENT_TEST_REQUIRE=yes go test -count=1 -v -timeout 60m ./test/critest/...

.PHONY: bench-pods
bench-pods: test-packages build tools peers ## time and memory of a pod, here and in containerd with runc
	hack/bench-pods

.PHONY: bench-net
bench-net: test-packages build tools peers ## time and throughput of pods' networks, here and with the reference plugins
	@hack/install-packages iperf3
	hack/bench-pods TestNetwork

.PHONY: bench-cri
bench-cri: test-packages build tools peers ## time of calls with 30 pods, here and in containerd with runc
	hack/bench-pods TestCalls

.PHONY: bench-probes
bench-probes: test-packages build tools peers ## processor time of 110 exec probes a second, here and in containerd with runc
	hack/bench-pods TestProbes

.PHONY: bench-cli
bench-cli: test-packages build tools peers ## time of nodectl run beside ctr's, and of ps with many containers
	hack/bench-pods TestCLI

.PHONY: bench-images
bench-images: test-packages build tools peers ## time and memory of pulls, here and in containerd
	@hack/install-packages debootstrap
	go run ./hack/bigimages
	hack/bench-pods TestImages $(if $(SNAPSHOTTERS),-snapshotters $(SNAPSHOTTERS))

.PHONY: soak
soak: test-packages build tools ## 10,000 containers that come and go, and pods beside gigabytes of dirty data
	NODEAGENT_TEST_SOAK=yes NODEAGENT_TEST_REQUIRE=yes go test -count=1 -v -timeout 60m -run '^(TestChurn|TestPodsBesideDirtyData)$$' ./test/e2e

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME
	@grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -r -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$dir"/*_test.go | cut -d' ' -f2); do \
			echo "$$dir $$target"; NODEAGENT_TEST_ROOT=no go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$dir"; \
		done; \
	done

.PHONY: generate
generate: ## write the generated Go of the protobuf files anew
	@hack/generate

.PHONY: tools
tools: ## build crictl, critest, ginkgo and the CNI plugins into .cache/bin
	@mkdir -p $(TOOLS)/cni
	cd hack/tools/critools && go build -trimpath -ldflags '-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=v1.36.0' -o $(TOOLS)/crictl sigs.k8s.io/cri-tools/cmd/crictl
	cd hack/tools/critools && go test -c -trimpath -ldflags '-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=v1.36.0' -o $(TOOLS)/critest sigs.k8s.io/cri-tools/cmd/critest
	cd hack/tools/critools && go build -trimpath -ldflags '-s -w' -o $(TOOLS)/ginkgo github.com/onsi/ginkgo/v2/ginkgo
	cd hack/tools/cni && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(TOOLS)/cni/ \
		github.com/containernetworking/plugins/plugins/main/{bridge,loopback} \
		github.com/containernetworking/plugins/plugins/ipam/host-local \
		github.com/containernetworking/plugins/plugins/meta/{portmap,firewall,bandwidth}

.PHONY: peers
peers: build-packages ## build containerd and runc into .cache/bin, to measure against
	@mkdir -p $(TOOLS)
	cd hack/tools/containerd && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -tags no_btrfs -o $(TOOLS)/ \
		github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}
	cd hack/tools/runc && CGO_ENABLED=1 go build -trimpath -tags 'seccomp netgo osusergo' -ldflags '-s -w -extldflags "-static" -X main.version=1.5.2' -o $(TOOLS)/runc github.com/opencontainers/runc

.PHONY: kubelet
kubelet: ## build kubelet into .cache/bin, to run pods with
	@mkdir -p $(TOOLS)
	cd hack/tools/kubelet && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(TOOLS)/kubelet k8s.io/kubernetes/cmd/kubelet

.PHONY: test-kubelet
test-kubelet: test-packages build kubelet ## a real kubelet runs a pod
	NODEAGENT_TEST_REQUIRE=yes go test -count=1 -v -timeout 5m ./test/kubelet/...

.PHONY: test-vm
test-vm: test-packages build tools ## tests on cgroup v2 alone and under systemd, in virtual machines
	NODEAGENT_TEST_REQUIRE=yes go test -count=1 -v -timeout 15m ./test/vm/...

.PHONY: build-packages
build-packages:
	@hack/install-packages $(BUILD_PACKAGES)

.PHONY: test-packages
test-packages:
	@hack/install-packages $(TEST_PACKAGES)

.PHONY: man
man: build ## write nodectl's manual pages into bin/man
	bin/nodectl man bin/man

.PHONY: clean
clean: ## remove what was built and cached here
	rm -rf bin .cache
