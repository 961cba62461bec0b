// Package demo shows the agent at work on throwaway folders: it starts one, pulls an image whose only layer is the
// agent's own executable, runs a pod of it on the embedded network, shows what it sees, takes everything down and looks
// whether anything was left. It needs root and no network. Errors name the step that failed.
package demo
