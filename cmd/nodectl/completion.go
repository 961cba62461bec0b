package main

import (
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/pod"
	"github.com/spf13/cobra"
)

// completeArguments lets shells complete what commands take, by the names of
// the commands.
func completeArguments(root *cobra.Command, cli *command.CLI) {
	running := cli.ContainerNames(func(c *nodev1.Container) bool { return c.GetState() == "running" || c.GetState() == "paused" })
	still := cli.ContainerNames(func(c *nodev1.Container) bool { return c.GetState() == "created" || c.GetState() == "exited" })
	paused := cli.ContainerNames(func(c *nodev1.Container) bool { return c.GetState() == "paused" })
	anyContainer, images := cli.ContainerNames(nil), cli.ImageNames()
	functions := map[string]cobra.CompletionFunc{
		"attach": first(running), "commit": first(anyContainer), "cp": first(anyContainer), "diff": first(anyContainer), "exec": first(running),
		"export": first(anyContainer), "kill": running, "logs": first(anyContainer), "pause": running, "port": first(running),
		"rename": first(anyContainer), "restart": anyContainer, "start": still, "stats": running, "stop": running, "top": first(running),
		"unpause": paused, "update": anyContainer, "wait": anyContainer, "why": first(both(anyContainer, pod.Completion(cli))),
		"create": first(images), "history": first(images), "push": first(images), "rmi": images, "run": first(images), "save": images, "tag": first(images),
	}
	for _, cmd := range append(root.Commands(), below(root, "container")...) {
		complete(cmd, functions[cmd.Name()])
	}
	functions["rm"], functions["inspect"] = images, images
	for _, cmd := range below(root, "image") {
		complete(cmd, functions[cmd.Name()])
	}
	completeNetworks(root, cli, anyContainer)
	volumes := cli.VolumeNames()
	for _, cmd := range below(root, "volume") {
		complete(cmd, map[string]cobra.CompletionFunc{"inspect": volumes, "rm": volumes}[cmd.Name()])
	}
	completeFlags(root, cli)
	for _, cmd := range append(below(root, "container"), root.Commands()...) {
		if cmd.Name() == "rm" || cmd.Name() == "inspect" {
			complete(cmd, anyContainer)
		}
	}
}

// completeNetworks does so for networks: connect and disconnect take a container
// after one.
func completeNetworks(root *cobra.Command, cli *command.CLI, containers cobra.CompletionFunc) {
	networks := cli.NetworkNames()
	then := func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return containers(cmd, nil, begin)
		}
		return first(networks)(cmd, args, begin)
	}
	for _, cmd := range below(root, "network") {
		complete(cmd, map[string]cobra.CompletionFunc{"connect": then, "disconnect": then, "inspect": networks, "rm": networks}[cmd.Name()])
	}
}

// flagValues are those of flags that take one of a few.
var flagValues = map[string][]string{
	"pull":    {"always", "missing", "never"},
	"restart": {"always", "no", "on-failure", "unless-stopped"},
	"signal":  {"SIGABRT", "SIGCONT", "SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH"},
}

// completeFlags completes the values of flags that name something, or one of a
// few.
func completeFlags(root *cobra.Command, cli *command.CLI) {
	for _, cmd := range append(below(root, "container"), root.Commands()...) {
		for name, values := range flagValues {
			if cmd.Flags().Lookup(name) != nil {
				command.Complete(cmd, name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
			}
		}
		for name, fn := range map[string]cobra.CompletionFunc{"network": cli.NetworkNames(), "pod": pod.Completion(cli)} {
			if cmd.Flags().Lookup(name) != nil {
				command.Complete(cmd, name, fn)
			}
		}
	}
}

// both completes what either does.
func both(a, b cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		some, _ := a(cmd, args, begin)
		more, directive := b(cmd, args, begin)
		return append(some, more...), directive
	}
}

// complete sets a command's function, unless it has one.
func complete(cmd *cobra.Command, fn cobra.CompletionFunc) {
	if cmd.ValidArgsFunction == nil && fn != nil {
		cmd.ValidArgsFunction = fn
	}
}

// below are the commands of a group.
func below(root *cobra.Command, group string) []*cobra.Command {
	for _, cmd := range root.Commands() {
		if cmd.Name() == group {
			return cmd.Commands()
		}
	}
	return nil
}

// first completes the first argument alone.
func first(fn cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return fn(cmd, args, begin)
	}
}
