// Package crictl runs every command of crictl against the agent, as an administrator would. NODEAGENT_TEST_ENDPOINT
// names another runtime's socket to run them against instead; its registry configuration must then send the registries
// of the test images to a local one.
package crictl
