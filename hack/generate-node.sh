#!/bin/sh
# Generates the Go code of api/node/v1. It wants protoc, protoc-gen-go and
# protoc-gen-go-grpc on the PATH; the generators' versions are written into
# what they make.
set -eu
cd "$(dirname "$0")/.."
protoc -I api/node/v1 \
	--go_out=api/node/v1 --go_opt=paths=source_relative \
	--go-grpc_out=api/node/v1 --go-grpc_opt=paths=source_relative \
	node.proto
gofmt -w api/node/v1/*.pb.go
