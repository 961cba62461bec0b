package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// lists are the commands that list something, with a field of each.
var lists = []struct{ command, field, header string }{
	{"ps -a", "ID", "CONTAINER ID"}, {"container ls", "Names", "NAMES"}, {"images", "Repository", "REPOSITORY"}, {"image ls -a", "ID", "IMAGE ID"},
	{"pods", "Namespace", "NAMESPACE"}, {"ops", "Stage", "STAGE"}, {"volume ls", "Driver", "DRIVER"}, {"network ls", "Name", "NAME"},
	{"stats --no-stream", "Name", "NAME"}, {"stats --pods --no-stream", "Name", "POD"}, {"history busybox", "CreatedBy", "CREATED BY"},
	{"search box", "Name", "NAME"}, {"system df", "Type", "TYPE"}, {"pulls", "", ""},
}

// Every list takes json, a template, and a table of a template's.
func TestEveryListHasFormats(t *testing.T) {
	dir, err := os.MkdirTemp("", "nodectl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	host := newFakeAgent().serve(t, dir)
	run := func(line string, more ...string) string {
		cmd := exec.Command("nodectl", append(strings.Fields(line), more...)...)
		cmd.Env = append(os.Environ(), "NODEAGENT_HOST="+host, "HOME="+dir, "GORACE=atexit_sleep_ms=0")
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s %q: %v", line, more, err)
		}
		return string(out)
	}
	for _, list := range lists {
		lines := 0
		for line := range strings.Lines(run(list.command, "--format", "json")) {
			var row map[string]any
			if err := json.Unmarshal([]byte(line), &row); err != nil {
				t.Errorf("%s: %v: %s", list.command, err, line)
			}
			if _, ok := row[list.field]; !ok && list.field != "" {
				t.Errorf("%s: no %s in %s", list.command, list.field, line)
			}
			lines++
		}
		if list.field == "" {
			continue
		}
		if lines == 0 {
			t.Errorf("%s lists nothing", list.command)
		}
		if strings.HasPrefix(list.command, "stats") {
			continue // it takes a second each time
		}
		plain := run(list.command, "--format", "{{."+list.field+"}}")
		if got := strings.Count(plain, "\n"); got != lines {
			t.Errorf("%s: %d lines in place of %d: %s", list.command, got, lines, plain)
		}
		table := run(list.command, "--format", `table {{.`+list.field+`}}\t{{upper (truncate (print "x" .`+list.field+`) 4)}}\t{{json .`+list.field+`}}`)
		if !strings.HasPrefix(table, list.header) || strings.Count(table, "\n") != lines+1 {
			t.Errorf("%s: %s", list.command, table)
		}
		if again := run(list.command, "--format", "table"); !strings.Contains(again, "\n") {
			t.Errorf("%s --format table: %s", list.command, again)
		}
	}
}

// placeholders are those that docker's reference names, by command.
var placeholders = map[string]string{
	"ps -a":                        `.ID .Image .Command .CreatedAt .RunningFor .Ports .State .Status .Size .Names .Labels .Mounts .Networks .LocalVolumes .Platform`,
	"images":                       `.ID .Repository .Tag .Digest .CreatedSince .CreatedAt .Size .VirtualSize .Containers .SharedSize .UniqueSize`,
	"stats --no-stream":            `.Container .Name .ID .CPUPerc .MemUsage .NetIO .BlockIO .MemPerc .PIDs`,
	"volume ls":                    `.Name .Driver .Scope .Mountpoint .Labels .Links .Size .Status .Availability .Group`,
	"network ls":                   `.ID .Name .Driver .Scope .IPv4 .IPv6 .Internal .Labels .CreatedAt`,
	"history busybox":              `.ID .CreatedAt .CreatedSince .CreatedBy .Size .Comment`,
	"search box":                   `.Name .Description .StarCount .IsOfficial .IsAutomated`,
	"system df":                    `.Type .TotalCount .Active .Size .Reclaimable`,
	"events --since 1h --until 1s": `.Type .Status .ID .Action .From .Scope .Time .TimeNano .Actor .Actor.ID .Actor.Attributes`,
	"version":                      `.Client.Version .Client.GoVersion .Client.GitCommit .Client.Os .Client.Arch .Server.Version`,
	"info":                         `.ServerVersion .Containers .ContainersRunning .ContainersPaused .ContainersStopped .Images .Driver .Name .NCPU .MemTotal .OperatingSystem .OSType .Architecture .KernelVersion .CgroupDriver .CgroupVersion`,
	"inspect web":                  `.Id .Created .Path .Args .State.Status .State.Running .State.Pid .State.ExitCode .Image .LogPath .Name .RestartCount .Driver .Mounts .Config.Env .Config.Labels .HostConfig.NetworkMode .NetworkSettings.Ports`,
	"image inspect busybox":        `.Id .RepoTags .RepoDigests .Created .Config.Cmd .Architecture .Os .Size .RootFS.Layers`,
}

// Each placeholder of docker's is one here, and those with an argument too.
func TestPlaceholdersAreDockers(t *testing.T) {
	dir := t.TempDir()
	host := newFakeAgent().serve(t, "/tmp")
	for command, fields := range placeholders {
		var source []string
		for _, field := range strings.Fields(fields) {
			source = append(source, "{{"+field+"}}")
		}
		if command == "ps -a" || command == "volume ls" || command == "network ls" {
			source = append(source, `{{.Label "tier"}}`)
		}
		cmd := exec.Command("nodectl", append(strings.Fields(command), "--format", strings.Join(source, " "))...)
		cmd.Env = append(os.Environ(), "NODEAGENT_HOST="+host, "HOME="+dir, "GORACE=atexit_sleep_ms=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", command, err, out)
		}
	}
}

// On a terminal ps shows kubelet's containers, unless a script's form is asked for.
func TestPsShowsPodsToPeople(t *testing.T) {
	for args, pods := range map[string]bool{"ps": true, "ps -a": true, "ps --pods=false": false, "ps -q": false, "ps -l": false, "ps --format table": false} {
		o := startOnTerminal(t, strings.Fields(args)...)
		o.ends(0)
		o.shows(webID[:12])
		if pods {
			o.shows(podID[:12])
			continue
		}
		o.mu.Lock()
		text := o.screen.String()
		o.mu.Unlock()
		if strings.Contains(text, podID[:12]) || strings.Contains(text, "POD") {
			t.Errorf("%s shows pods: %s", args, text)
		}
	}
}
