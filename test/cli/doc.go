// Package cli runs the command lines of docker's tutorials, with nodectl in
// docker's place, against a real agent and registry: lines.txt has the lines,
// testdata the scripts that run each of them and look at what a person would.
package cli
