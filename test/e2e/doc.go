// Package e2e tests the whole path as kubelet and a person at the machine see it: the programs as they are built, a
// real registry, real images, real CNI plugins; killing the agent in between; and asking for what cannot be.
package e2e
