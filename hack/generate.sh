#!/bin/sh
# Generates the Go code of the supervisor's protocol beside its .proto.
# Needs protoc; the generators are built from the versions go.mod names.
set -eu
cd "$(dirname "$0")/.."
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
GOBIN=$bin go install google.golang.org/protobuf/cmd/protoc-gen-go
GOBIN=$bin go install github.com/containerd/ttrpc/cmd/protoc-gen-go-ttrpc
export PATH="$bin:$PATH"
protoc -I api \
	--go_out=api --go_opt=paths=source_relative \
	--go-ttrpc_out=api --go-ttrpc_opt=paths=source_relative \
	supervisor/v1/supervisor.proto
gofmt -w api/supervisor
