package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// knownCapabilities are all capabilities by name and in the kernel's order.
var knownCapabilities = func() []string {
	var names []string
	for _, c := range capability.ListKnown() {
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	return names
}()

// defaultCapabilities are what an unprivileged container starts from; the
// same set as Docker's and its successors'.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD",
	"CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// allCapabilities are a copy of host, or all known ones when it is nil.
func allCapabilities(host []string) []string {
	if host == nil {
		host = knownCapabilities
	}
	return slices.Clone(host)
}

// capabilities sets the process's sets. ALL in a list is taken first, then
// single ones are added, then single ones dropped. The inheritable set holds
// what ambient ones need and is otherwise empty: a container must not pass
// capabilities on to files that carry inheritable bits (CVE-2022-29162).
func (b *builder) capabilities() error {
	const field = "linux.security_context.capabilities."
	all := allCapabilities(b.in.Host.Capabilities)
	if b.privileged {
		b.setCapabilities(all, nil)
		return nil
	}
	c := b.sec.GetCapabilities()
	add, addAll, err := b.capabilityList(field+"add_capabilities", c.GetAddCapabilities())
	if err != nil {
		return err
	}
	drop, dropAll, err := capabilityNames(field+"drop_capabilities", c.GetDropCapabilities())
	if err != nil {
		return err
	}
	ambient, ambientAll, err := b.capabilityList(field+"add_ambient_capabilities", c.GetAddAmbientCapabilities())
	if err != nil {
		return err
	}
	if ambientAll {
		ambient = all
	}
	set := make(map[string]bool, len(all))
	switch {
	case dropAll:
	case addAll:
		setAll(set, all, true)
	default:
		setAll(set, defaultCapabilities, true)
	}
	setAll(set, add, true)
	setAll(set, ambient, true)
	setAll(set, drop, false)
	b.setCapabilities(inOrder(set), slices.DeleteFunc(slices.Clone(ambient), func(name string) bool { return !set[name] }))
	return nil
}

func (b *builder) setCapabilities(caps, ambient []string) {
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding:    caps,
		Effective:   slices.Clone(caps),
		Permitted:   slices.Clone(caps),
		Inheritable: slices.Clone(ambient),
		Ambient:     slices.Clone(ambient),
	}
}

// capabilityList is capabilityNames for capabilities that the host must have.
func (b *builder) capabilityList(field string, list []string) (names []string, all bool, err error) {
	names, all, err = capabilityNames(field, list)
	if err != nil || b.in.Host.Capabilities == nil {
		return names, all, err
	}
	for _, name := range names {
		if !slices.Contains(b.in.Host.Capabilities, name) {
			return nil, false, unsupported(field, "this host cannot give %s", name)
		}
	}
	return names, all, nil
}

// capabilityNames gives a list's names in full, each once, and whether ALL is in it.
func capabilityNames(field string, list []string) (names []string, all bool, err error) {
	for i, entry := range list {
		name := strings.ToUpper(entry)
		if name == "ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if !slices.Contains(knownCapabilities, name) {
			return nil, false, invalid(fmt.Sprintf("%s[%d]", field, i), "there is no capability %.300q", entry)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, all, nil
}

func setAll(set map[string]bool, names []string, to bool) {
	for _, name := range names {
		set[name] = to
	}
}

// inOrder lists what is set in the kernel's order.
func inOrder(set map[string]bool) []string {
	out := make([]string, 0, len(set))
	for _, name := range knownCapabilities {
		if set[name] {
			out = append(out, name)
		}
	}
	return out
}
