package main

import (
	"regexp"
	"strings"
)

// release is the version that a build without a tag counts as.
const release = "0.1.0"

// version is what the build was made from: a tag, or a commit's short name.
var version = "dev"

var tagged = regexp.MustCompile(`^v?\d+\.\d+\.\d+`)

// semanticVersion is version as semver.org has it, as kubelet parses it.
func semanticVersion() string {
	if tagged.MatchString(version) {
		return strings.TrimPrefix(version, "v")
	}
	return release + "+" + strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-' {
			return r
		}
		return '-'
	}, version)
}
