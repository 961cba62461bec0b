// Package cve holds the regression tests against a real agent of what has gone wrong in other runtimes: a test for each
// published weakness, named after its number, and a test for each pain of their users. What is decided in one package
// is tested there: see sandbox/spec, sandbox/account, network and imageservice.
//
// All tests share one agent, which the first of them starts; when the last has ended, the machine must be as before.
package cve
