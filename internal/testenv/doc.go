// Package testenv is what tests across the project stand on: whether they may run here, real parts to run against (an
// agent, a registry with images, CNI plugins, crictl), and a check that a test left nothing behind.
//
// A test that changes the machine begins with
//
//	testenv.Root(t)
//	testenv.Leaks(t)
//
// in this order and before it asks for anything else, since clean-ups run in reverse. Everything this package hands
// out is taken back by the test's own clean-up. Three variables of the environment change it: NODEAGENT_TEST_ROOT=no
// skips tests that need root though they could run, NODEAGENT_TEST_REQUIRE=yes makes a missing program a failure
// where it is a skip otherwise, and NODEAGENT_TEST_KEEP=yes keeps an agent's folders of a failed test.
package testenv
