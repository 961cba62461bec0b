// Package supervisorv1 is the generated code of the protocol between the node
// agent and the node supervisor. Package supervisor is its client in Go, with
// plain types; nothing else should need this one.
package supervisorv1
