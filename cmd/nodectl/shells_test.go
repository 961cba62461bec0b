package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// What a shell does to complete a line, without a terminal: each prints its completions, one on a line. The line is $1.
const (
	bashCompletes = `source /usr/share/bash-completion/bash_completion
source <(nodectl completion bash)
COMP_LINE=$1 COMP_POINT=${#1}
read -ra COMP_WORDS <<<"$1"
[[ $1 = *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
__start_nodectl
printf '%s\n' "${COMPREPLY[@]}"`
	zshCompletes = `compdef() { : }
_describe() { for c in $completions; do c=${c//\\:/%}; c=${c%%:*}; print -r -- ${c//\%/:}; done }
source <(nodectl completion zsh)
words=("${(@s: :)1}") CURRENT=${#words}
_nodectl`
	fishCompletes = `nodectl completion fish | source
complete -C $argv[1] | string replace -r '\t.*' ''`
)

// The shells themselves complete commands, flags and the names of what there is.
func TestShellsComplete(t *testing.T) {
	if testing.Short() {
		t.Skip("starts shells")
	}
	const bashCompletion = "/usr/share/bash-completion/bash_completion"
	dir, err := os.MkdirTemp("", "nodectl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	host := newFakeAgent().serve(t, dir)
	for shell, args := range map[string][]string{
		"bash": {"--norc", "-c", bashCompletes, "bash"}, "zsh": {"-f", "-c", zshCompletes, "zsh"}, "fish": {"--no-config", "-c", fishCompletes},
	} {
		t.Run(shell, func(t *testing.T) {
			program := testenv.Program(t, shell, shell)
			if _, err := os.Stat(bashCompletion); shell == "bash" && err != nil {
				testenv.Program(t, bashCompletion, "bash-completion")
			}
			for line, want := range map[string]string{
				"nodectl sto": "stop stopp store", "nodectl stop ": "kube-system/coredns-x/dns web", "nodectl start ": "job", "nodectl run bu": "busybox:latest",
				"nodectl why kube": "kube-system/coredns-x kube-system/coredns-x/dns", "nodectl inspectp ": "default/old kube-system/coredns-x",
				"nodectl run --pull ": "always missing never", "nodectl volume rm da": "data", "nodectl container st": "start stats stop",
			} {
				cmd := exec.Command(program, append(args, line)...)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				cmd.Env = append(os.Environ(), "NODEAGENT_HOST="+host, "HOME="+dir, "GORACE=atexit_sleep_ms=0")
				out, _ := cmd.Output() // bash's compopt fails outside of a real completion
				fields := strings.Fields(string(out))
				if got := strings.Join(fields, " "); !sameWords(got, want) {
					t.Errorf("%q: %q, want %q: %s", line, got, want, stderr.String())
				}
			}
		})
	}
}

// sameWords compares texts as sets of words.
func sameWords(a, b string) bool {
	set := func(text string) map[string]bool {
		words := map[string]bool{}
		for _, word := range strings.Fields(text) {
			words[word] = true
		}
		return words
	}
	one, other := set(a), set(b)
	for word := range other {
		if !one[word] {
			return false
		}
	}
	return len(one) == len(other)
}

// The manual pages are what mandoc finds nothing to say against, and do not depend on where and when they are written.
func TestManualPages(t *testing.T) {
	mandoc := testenv.Program(t, "mandoc", "mandoc")
	dir := t.TempDir()
	cmd := exec.Command("nodectl", "man", dir)
	cmd.Env = append(os.Environ(), "NODEAGENT_HOST=unix:///elsewhere", "SOURCE_DATE_EPOCH=86400", "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 100 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	if out, err := exec.Command(mandoc, append([]string{"-Tlint", "-Wwarning"}, pages...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
	page, err := os.ReadFile(filepath.Join(dir, "nodectl-run.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"1970-01-02"`, ".SH OPTIONS", `\fB\-\-detach\-keys\fR`, `.BR nodectl (1)`, "unix:///run/nodeagent/nodeagent.sock"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("no %q in the page of run", want)
		}
	}
}
