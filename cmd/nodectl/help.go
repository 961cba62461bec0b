package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
)

const (
	helpTemplate  = `{{.UsageString}}`
	usageTemplate = `Usage:  {{.UseLine}}

{{if .Long}}{{.Long}}{{else}}{{.Short}}{{end}}
{{- if .Aliases}}

Aliases:
  {{.NameAndAliases}}
{{- end}}
{{- $commands := .Commands}}
{{- range $group := .Groups}}

{{.Title}}:
{{- range $commands}}{{if and .IsAvailableCommand (eq .GroupID $group.ID)}}
  {{rpad .Name .NamePadding}} {{.Short}}
{{- end}}{{end}}
{{- end}}
{{- if .HasAvailableLocalFlags}}

Options:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{- end}}
{{- if .HasAvailableInheritedFlags}}

Global Options:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{- end}}
{{- if .HasAvailableSubCommands}}

Run '{{.CommandPath}} COMMAND --help' for more information on a command.
{{- end}}
`
)

// The groups that a command's help lists the commands below it in.
const (
	groupCommon     = "common"
	groupManagement = "management"
	groupNode       = "node"
	groupCommands   = "commands"
)

// common are the commands that docker lists first, and ofNode those it does not have.
var (
	common = []string{"exec", "images", "info", "login", "logout", "ps", "pull", "push", "run", "search", "version"}
	ofNode = []string{"doctor", "inspectp", "ops", "pods", "pulls", "rmp", "runp", "stopp", "why"}
)

// arrange puts the commands below one into groups: docker's at the root, one below it.
func arrange(cmd *cobra.Command) {
	if !cmd.HasSubCommands() {
		return
	}
	if !cmd.HasParent() {
		cmd.AddGroup(&cobra.Group{ID: groupCommon, Title: "Common Commands"}, &cobra.Group{ID: groupManagement, Title: "Management Commands"},
			&cobra.Group{ID: groupNode, Title: "Node Commands"})
		cmd.SetCompletionCommandGroupID(groupCommands)
	}
	cmd.AddGroup(&cobra.Group{ID: groupCommands, Title: "Commands"})
	for _, sub := range cmd.Commands() {
		switch {
		case cmd.HasParent():
			sub.GroupID = groupCommands
		case slices.Contains(common, sub.Name()):
			sub.GroupID = groupCommon
		case sub.HasSubCommands():
			sub.GroupID = groupManagement
		case slices.Contains(ofNode, sub.Name()):
			sub.GroupID = groupNode
		default:
			sub.GroupID = groupCommands
		}
		arrange(sub)
	}
}

// setHelp gives all commands their help.
func setHelp(root *cobra.Command) {
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate(helpTemplate)
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about the command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return fmt.Errorf("unknown help topic: %s", strings.Join(args, " "))
			}
			return about.Help()
		},
	})
	arrange(root)
	addHelp(root)
}

// addHelp gives each command --help, and -h where that means nothing else.
func addHelp(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true
	if cmd.Flags().ShorthandLookup("h") == nil {
		cmd.Flags().BoolP("help", "h", false, "Print usage")
	} else {
		cmd.Flags().Bool("help", false, "Print usage")
	}
	for _, sub := range cmd.Commands() {
		addHelp(sub)
	}
}

// addGlobalFlags adds docker's flags before the command. There is one context, and no log of nodectl's own to say more or
// less in; what is said of them is checked as docker does.
func addGlobalFlags(root *cobra.Command) {
	flags := root.Flags()
	dir := flags.String("config", config.Dir(), "Location of client config files")
	flags.Lookup("config").DefValue = "~/.docker" // of whoever reads it
	context := flags.StringP("context", "c", "", `Name of the context to use; there is "default"`)
	level := flags.StringP("log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	flags.BoolP("debug", "D", false, "Enable debug mode")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if *context != "" && *context != "default" {
			return fmt.Errorf("context %q: context not found", *context)
		}
		if _, err := logrus.ParseLevel(*level); err != nil {
			return fmt.Errorf("unable to parse logging level: %s", *level)
		}
		config.SetDir(*dir)
		return nil
	}
}
