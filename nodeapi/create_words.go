package nodeapi

import (
	"regexp"
	"strings"
)

// createWords are what docker says in place of what mechanisms do, which speak of CRI's fields.
var createWords = []struct {
	ours  *regexp.Regexp
	their string
}{
	{regexp.MustCompile(`no user "([^"]*)" in the image's /etc/passwd`), "unable to find user $1: no matching entries in passwd file"},
	{regexp.MustCompile(`unable to find group \S+: no group "([^"]*)" in the image's /etc/group`), "unable to find group $1: no matching entries in group file"},
	{regexp.MustCompile(`no group "([^"]*)" in the image's /etc/group`), "unable to find group $1: no matching entries in group file"},
	{regexp.MustCompile(`linux\.security_context\.capabilities\.add_capabilities\[\d+\]: there is no capability "(?:CAP_)?([^"]*)"`),
		`invalid CapAdd: unknown capability: "CAP_$1"`},
	{regexp.MustCompile(`linux\.security_context\.capabilities\.drop_capabilities\[\d+\]: there is no capability "(?:CAP_)?([^"]*)"`),
		`invalid CapDrop: unknown capability: "CAP_$1"`},
	{regexp.MustCompile(`devices\[\d+\]\.host_path: lstat (\S+): (.*)`), `error gathering device information while adding custom device "$1": $2`},
	{regexp.MustCompile(`devices\[\d+\]\.host_path: (\S+) is not a device`), `error gathering device information while adding custom device "$1": not a device node`},
	{regexp.MustCompile(`linux\.security_context\.seccomp\.localhost_ref: profile \S+ (has .*)`), "Decoding seccomp profile failed: it $1"},
	{regexp.MustCompile(`linux\.security_context\.seccomp\.localhost_ref: profile /\S+: (.*)`), "Decoding seccomp profile failed: $1"},
	{regexp.MustCompile(`mounts: mount image volume on \S+: mounts\[\d+\]\.image\.image: image (\S+)`), `invalid mount config for type "image": no such image: $1`},
	{regexp.MustCompile(`command: neither the configuration nor the image says what to run`), "no command specified"},
	{regexp.MustCompile(`linux\.security_context\.apparmor: AppArmor is off on this host`), "AppArmor security options are set, and AppArmor is not enabled on this host"},
	{regexp.MustCompile(`linux\.sysctls\[([^\]]*)\]: would change the host, whose namespace the pod shares`), `sysctl "$1" not allowed in host network namespace`},
	{regexp.MustCompile(`linux\.sysctls\[([^\]]*)\]: is not kept apart by a namespace`), `sysctl "$1" is not in a separate kernel namespace`},
}

// createWay matches the names of steps that stand before what is wrong.
var createWay = regexp.MustCompile(`^((user|specification|linux\.security_context\.run_as_username): )+`)

// createFailure is why a container could not be made as a person reads it, once and without the way to it, which the log
// has.
func (m *making) createFailure(err error) (why string, found bool) {
	text := err.Error()
	for _, before := range []string{" in pod " + m.podID + ": ", "run pod " + namespace + "/" + m.name + ": "} {
		if _, after, ok := strings.Cut(text, before); ok {
			text, found = after, true
		}
	}
	if !found {
		return "", false
	}
	text = createWay.ReplaceAllString(text, "")
	for _, words := range createWords {
		text = words.ours.ReplaceAllString(text, words.their)
	}
	return text, true
}
