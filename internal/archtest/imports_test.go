package archtest

import (
	"strings"
	"testing"
)

// refusal keeps a package from importing another, and says why. A folder stands for itself and all below it.
type refusal struct {
	// from are the folders the rule is for; "" means all of them.
	from []string
	// except are folders the rule is not for.
	except []string
	// to are the beginnings of the import paths refused. Those of this project are written without the module's path.
	to     []string
	reason string
	// tests tells that the rule holds for test files too.
	tests bool
}

var (
	mechanisms = []string{"network", "cgroups", "snapshotter", "supervisor", "volume"}
	combiners  = []string{"sandbox", "imageservice"}
	servers    = []string{"cri", "nodeapi"}
)

// refusals is the import table of docs/architecture.md.
var refusals = []refusal{
	{from: []string{"network"}, to: []string{"cgroups", "snapshotter", "supervisor"}, reason: mechanismsApart},
	{from: []string{"cgroups"}, to: []string{"network", "snapshotter", "supervisor"}, reason: mechanismsApart},
	{from: []string{"snapshotter"}, to: []string{"network", "cgroups", "supervisor"}, reason: mechanismsApart},
	{from: []string{"supervisor"}, to: []string{"network", "cgroups", "snapshotter"}, reason: mechanismsApart},
	{from: []string{"volume"}, to: []string{"network", "cgroups", "snapshotter", "supervisor"}, reason: mechanismsApart},
	{from: mechanisms, to: append(append([]string{"cmd"}, combiners...), servers...), reason: "a mechanism does not know who uses it"},
	{from: []string{"sandbox"}, to: []string{"imageservice"}, reason: "pods and images know each other by the small interfaces that the user declares"},
	{from: []string{"imageservice"}, to: []string{"sandbox"}, reason: "pods and images know each other by the small interfaces that the user declares"},
	{from: combiners, to: append([]string{"cmd"}, servers...), reason: "what is served does not know who serves it"},
	{from: servers, to: []string{"cmd"}, reason: "programs are at the top"},
	{from: []string{"cri"}, to: []string{"nodeapi"}, reason: "the two servers stand side by side"},
	{from: []string{"nodeapi"}, to: []string{"cri"}, reason: "the two servers stand side by side"},
	{from: []string{"internal"}, except: []string{"internal/testenv", "internal/archtest"}, to: append(append(append([]string{"cmd", "test"}, mechanisms...), combiners...), servers...),
		reason: "the small leaves below everything know nothing of this project"},
	{from: []string{"cmd/nodectl"}, to: append(append([]string{}, mechanisms...), append(combiners, servers...)...), reason: "the CLI talks only to the agent's socket"},
	{from: []string{"sandbox/spec"}, except: []string{"sandbox/spec/hostdevice"}, to: []string{"sandbox", "os/exec", "net/http"}, reason: "the specification is a pure function of what it is given"},
	{from: []string{""}, except: []string{"supervisor/server", "cmd/nodesupervisor", "internal/deps"}, to: []string{"github.com/opencontainers/runc/libcontainer"},
		reason: "libcontainer is heavy, needs cgo and starts processes: one package has it"},
	{from: []string{""}, except: []string{"cri", "nodeapi", "api", "cmd/nodectl", "internal/testenv", "test", "hack"},
		to: []string{"google.golang.org/grpc/codes", "google.golang.org/grpc/status"}, reason: "errors become codes at the edge, once, and kinds again in the client"},
	{from: []string{""}, except: []string{"internal/testenv", "test", "hack"}, to: []string{"internal/testenv"}, reason: "what tests stand on is not part of the programs"},
	{from: []string{""}, to: []string{"github.com/opencontainers/runc/libcontainer/cgroups"}, reason: "the module opencontainers/cgroups took its place", tests: true},
}

const mechanismsApart = "mechanisms are combined by sandbox and imageservice, and never know each other"

func TestImports(t *testing.T) {
	for _, one := range sources(t) {
		for _, rule := range refusals {
			if one.test && !rule.tests || !within(one.dir(), rule.from) || within(one.dir(), rule.except) {
				continue
			}
			for _, imported := range one.imports() {
				if rule.refuses(imported) {
					t.Errorf("%s imports %s: %s", one.path, imported, rule.reason)
				}
			}
		}
	}
}

// The table is of no use when it refuses nothing.
func TestTableRefuses(t *testing.T) {
	for _, test := range []struct{ from, to string }{
		{"network", module + "cgroups"}, {"network/builtin", module + "supervisor/server"}, {"sandbox", module + "imageservice"},
		{"cri", "github.com/opencontainers/runc/libcontainer/specconv"}, {"sandbox", "google.golang.org/grpc/codes"},
		{"internal/undo", module + "sandbox"}, {"cmd/nodectl/command", module + "supervisor"},
	} {
		refused := false
		for _, rule := range refusals {
			refused = refused || within(test.from, rule.from) && !within(test.from, rule.except) && rule.refuses(test.to)
		}
		if !refused {
			t.Errorf("%s may import %s", test.from, test.to)
		}
	}
}

// refuses tells whether the rule is about this import path.
func (r refusal) refuses(imported string) bool {
	local, own := strings.CutPrefix(imported, module)
	for _, to := range r.to {
		target := imported
		if !strings.Contains(strings.SplitN(to, "/", 2)[0], ".") {
			if !own && strings.Contains(strings.SplitN(imported, "/", 2)[0], ".") {
				continue
			}
			target = local
		}
		if target == strings.TrimSuffix(to, "/") || strings.HasPrefix(target, strings.TrimSuffix(to, "/")+"/") {
			return true
		}
	}
	return false
}

// within tells whether the folder is one of those, or below.
func within(dir string, folders []string) bool {
	for _, folder := range folders {
		if folder == "" || dir == folder || strings.HasPrefix(dir, folder+"/") {
			return true
		}
	}
	return false
}
