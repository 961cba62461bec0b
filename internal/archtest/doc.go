// Package archtest holds the shape of the source tree as tests: which package may import which, that each says what it
// is, and the sizes of files. The table in docs/architecture.md in words is the table in imports_test.go.
package archtest
