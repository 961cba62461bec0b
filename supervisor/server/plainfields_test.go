package server

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
)

// What libcontainer can be told has been judged, field by field: what it means for a plain exec, what makes an exec one
// for libcontainer, and what means nothing to any exec. A new field must be judged before libcontainer is updated.
func TestPlainExecsKnowAllFields(t *testing.T) {
	for _, of := range []struct {
		value                  any
		used, judged, unneeded string
	}{
		{
			configs.Config{},
			"Umask Capabilities Rlimits OomScoreAdj NoNewKeyring Cgroups Seccomp",
			"Namespaces NoPivotRoot ParentDeathSignal AppArmorProfile ProcessLabel IntelRdt MemoryPolicy RootlessEUID RootlessCgroups " +
				"Scheduler Personality IOPriority ExecCPUAffinity",
			// Those of user and time namespaces, and what makes a container.
			"UIDMappings GIDMappings TimeOffsets " +
				"Rootfs Readonlyfs RootPropagation Mounts Devices NetDevices MountLabel Hostname Domainname Networks Routes MaskPaths " +
				"ReadonlyPaths Sysctl Hooks Version Labels NoNewPrivileges",
		},
		{
			libcontainer.Process{},
			"Args Env UID GID AdditionalGroups Cwd Stdin Stdout Stderr Capabilities NoNewPrivileges Rlimits",
			"AppArmorProfile Label ConsoleSocket Scheduler IOPriority CPUAffinity",
			// What newProcess never sets, the size of a terminal, and what speaks of libcontainer itself.
			"ExtraFiles ConsoleWidth ConsoleHeight PidfdSocket Init LogLevel SubCgroupPaths",
		},
	} {
		known := strings.Fields(of.used + " " + of.judged + " " + of.unneeded)
		kind := reflect.TypeOf(of.value)
		for i := range kind.NumField() {
			if f := kind.Field(i); f.IsExported() && !slices.Contains(known, f.Name) {
				t.Errorf("%s.%s: what does it mean for an exec?", kind, f.Name)
			}
		}
		for _, name := range known {
			if _, ok := kind.FieldByName(name); !ok {
				t.Errorf("%s has no field %s any more", kind, name)
			}
		}
	}
}

// Of each variable the last value counts, and what libcontainer would refuse or look up is left to it.
func TestPlainEnvironment(t *testing.T) {
	for text, want := range map[string]string{
		"A=1 HOME=/ A=2 B=": "HOME=/ A=2 B=", "HOME=/a HOME=": "HOME=/a", "HOME=": "", "A=1": "", "HOME=/ A": "", "HOME=/ =x": "",
		"HOME=/ A=x\x00y": "", "HOME=/ A=x=y": "HOME=/ A=x=y",
	} {
		got, ok := plainEnvironment(strings.Split(text, " "))
		if !ok {
			got = nil
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
