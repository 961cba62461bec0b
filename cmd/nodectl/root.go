package main

import (
	"fmt"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/container"
	"github.com/nodeagent/nodeagent/cmd/nodectl/debug"
	"github.com/nodeagent/nodeagent/cmd/nodectl/image"
	"github.com/nodeagent/nodeagent/cmd/nodectl/network"
	"github.com/nodeagent/nodeagent/cmd/nodectl/pod"
	"github.com/nodeagent/nodeagent/cmd/nodectl/registry"
	"github.com/nodeagent/nodeagent/cmd/nodectl/store"
	"github.com/nodeagent/nodeagent/cmd/nodectl/system"
	"github.com/nodeagent/nodeagent/cmd/nodectl/volume"
	"github.com/spf13/cobra"
)

// newRoot puts the commands together.
func newRoot(cli *command.CLI, build system.Build) *cobra.Command {
	root := &cobra.Command{
		Use:           "nodectl [OPTIONS] COMMAND [ARG...]",
		Short:         "Run containers on this node, and look at what runs",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          command.NoArgs,
		RunE:          showHelp,
		Version:       build.Version,
	}
	root.SetOut(cli.Out)
	root.SetErr(cli.Err)
	root.SetVersionTemplate(fmt.Sprintf("nodectl version %s, build %s\n", build.Version, build.GitCommit))
	root.SetFlagErrorFunc(command.FlagError)
	root.TraverseChildren = true
	root.Flags().BoolP("version", "v", false, "Print version information and quit")
	addGlobalFlags(root)
	root.PersistentFlags().StringVarP(&cli.Host, "host", "H", cli.Host, "The nodeagent's socket, unix://PATH")
	root.AddCommand(
		container.NewAttach(cli), container.NewCreate(cli), container.NewExec(cli), container.NewKill(cli),
		container.NewLogs(cli), container.NewPort(cli), visible(container.NewPs(cli)), container.NewRestart(cli), container.NewRemove(cli),
		container.NewRun(cli), container.NewStart(cli), container.NewStop(cli), container.NewWait(cli),
		container.NewPause(cli), container.NewUnpause(cli), container.NewRename(cli), container.NewTop(cli),
		container.NewDiff(cli), container.NewStats(cli), container.NewUpdate(cli), container.NewCopy(cli), system.NewEvents(cli),
		container.NewCommit(cli), container.NewExport(cli), registry.NewLogin(cli), registry.NewLogout(cli),
		image.NewHistory(cli), image.NewImport(cli), image.NewLoad(cli), image.NewPush(cli), image.NewSave(cli), image.NewSearch(cli),
		image.NewList(cli, "images"), image.NewPull(cli), image.NewPulls(cli), image.NewRemove(cli, "rmi"), image.NewTag(cli),
		system.NewInspect(cli, ""), system.NewVersion(cli, build), system.NewInfo(cli, build),
		pod.NewPods(cli), pod.NewInspect(cli), pod.NewRun(cli), pod.NewStop(cli), pod.NewRemove(cli), pod.NewCRIStats(cli),
		pod.NewMetrics(cli), pod.NewMetricsNamed(cli, "metricsp", false), pod.NewMetricsNamed(cli, "metricdescs", true),
		debug.NewWhy(cli), debug.NewOps(cli), debug.NewDoctor(cli),
		containerGroup(cli), volumeGroup(cli), imageGroup(cli), networkGroup(cli), storeGroup(cli), registryGroup(cli), systemGroup(cli, build),
		group("context", "Manage contexts", system.NewContexts(cli)),
	)
	root.AddCommand(newMan(build))
	setHelp(root)
	completeArguments(root, cli)
	return root
}

// visible takes the aliases away that a command has in its group only.
func visible(cmd *cobra.Command) *cobra.Command {
	cmd.Aliases = nil
	return cmd
}

// containerGroup is `nodectl container`.
func containerGroup(cli *command.CLI) *cobra.Command {
	list := container.NewPs(cli)
	list.Use, list.Aliases = "ls [OPTIONS]", []string{"ps", "list"}
	return group("container", "Manage containers",
		container.NewAttach(cli), container.NewCreate(cli), container.NewExec(cli), container.NewKill(cli),
		container.NewLogs(cli), container.NewPort(cli), list, container.NewRestart(cli), container.NewRemove(cli),
		container.NewRun(cli), container.NewStart(cli), container.NewStop(cli), container.NewWait(cli),
		container.NewPause(cli), container.NewUnpause(cli), container.NewRename(cli), container.NewTop(cli),
		container.NewDiff(cli), container.NewStats(cli), container.NewUpdate(cli), container.NewCopy(cli), system.NewInspect(cli, "container"),
		container.NewCommit(cli), container.NewExport(cli), container.NewPrune(cli),
	)
}

// imageGroup is `nodectl image`.
func imageGroup(cli *command.CLI) *cobra.Command {
	list := image.NewList(cli, "ls")
	list.Aliases = []string{"list"}
	remove := image.NewRemove(cli, "rm")
	remove.Aliases = []string{"remove"}
	return group("image", "Manage images",
		image.NewHistory(cli), image.NewImport(cli), system.NewInspect(cli, "image"), image.NewLoad(cli), list, image.NewPrune(cli),
		image.NewPull(cli), image.NewPush(cli), remove, image.NewSave(cli), image.NewTag(cli),
	)
}

// registryGroup is `nodectl registry`.
func registryGroup(cli *command.CLI) *cobra.Command {
	return group("registry", "Look at registries", registry.NewExplain(cli))
}

// networkGroup is `nodectl network`.
func networkGroup(cli *command.CLI) *cobra.Command {
	return group("network", "Manage networks",
		network.NewConnect(cli), network.NewCreate(cli), network.NewDisconnect(cli), system.NewInspect(cli, "network"),
		network.NewList(cli), network.NewPrune(cli), network.NewRemove(cli),
	)
}

// systemGroup is `nodectl system`.
func systemGroup(cli *command.CLI, build system.Build) *cobra.Command {
	return group("system", "Manage the node", system.NewDf(cli), system.NewPrune(cli), system.NewInfo(cli, build), system.NewEvents(cli))
}

// volumeGroup is `nodectl volume`.
func volumeGroup(cli *command.CLI) *cobra.Command {
	return group("volume", "Manage volumes",
		volume.NewCreate(cli), volume.NewList(cli), system.NewInspect(cli, "volume"), volume.NewRemove(cli), volume.NewPrune(cli))
}

// storeGroup is `nodectl store`.
func storeGroup(cli *command.CLI) *cobra.Command {
	return group("store", "Look after what is on the disk", store.NewVerify(cli))
}

// group is a command that only has commands below it.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name + " COMMAND",
		Short: short,
		Args:  command.NoArgs,
		RunE:  showHelp,
	}
	cmd.AddCommand(commands...)
	return cmd
}

// showHelp is what a command does that only has commands below it: as docker, it
// tells on standard error, since nothing was asked for.
func showHelp(cmd *cobra.Command, _ []string) error {
	cmd.SetOut(cmd.ErrOrStderr())
	return cmd.Help()
}
