// Package critest runs the CRI conformance suite of cri-tools against the agent and holds the number of specs that
// pass. NODEAGENT_TEST_ENDPOINT names another runtime's socket to run it against instead, to tell a fault of the test
// side from one of the agent; its registry configuration must then send the suite's registries to a local one.
package critest
