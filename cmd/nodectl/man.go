package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/system"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newMan is `nodectl man`.
func newMan(build system.Build) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages of all commands, for man(1), into a folder",
		Args:   command.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writePages(cmd.Root(), args[0], builtAt().Format(time.DateOnly), "nodeagent "+build.Version)
		},
	}
}

// builtAt is the time that pages bear: the one that a build is to take for now
// so that it can be repeated, or now.
func builtAt() time.Time {
	if seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		return time.Unix(seconds, 0).UTC()
	}
	return time.Now().UTC()
}

// writePages writes the page of a command and of all below it.
func writePages(cmd *cobra.Command, dir, date, source string) error {
	name := filepath.Join(dir, pageName(cmd)+".1")
	if err := os.WriteFile(name, []byte(page(cmd, date, source)), 0o644); err != nil {
		return err
	}
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := writePages(sub, dir, date, source); err != nil {
			return err
		}
	}
	return nil
}

// pageName is "nodectl-image-ls" for `nodectl image ls`.
func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// exitStatus is told on the page of nodectl itself.
const exitStatus = `0 when all was done; 1 when something was not: of several objects those that can be done are done, and each that cannot is
told of. run, create, start and exec end with the code of the container's process, or with 125 when the agent or an option
is at fault, 126 when the program cannot be run, and 127 when it is not found.`

// page is a command's manual page, in the language of man(7).
func page(cmd *cobra.Command, date, source string) string {
	var p strings.Builder
	fmt.Fprintf(&p, ".TH %s 1 \"%s\" %s nodectl\n", quote(strings.ToUpper(pageName(cmd))), date, quote(source))
	fmt.Fprintf(&p, ".SH NAME\n%s \\- %s\n", roff(pageName(cmd)), roff(cmd.Short))
	fmt.Fprintf(&p, ".SH SYNOPSIS\n.B %s\n", roff(cmd.CommandPath()))
	if usage := strings.TrimSpace(strings.TrimPrefix(cmd.UseLine(), cmd.CommandPath())); usage != "" {
		p.WriteString(roff(usage) + "\n")
	}
	if cmd.Long != "" {
		p.WriteString(".SH DESCRIPTION\n" + paragraphs(cmd.Long))
	}
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&p, ".SH ALIASES\n%s\n", roff(cmd.NameAndAliases()))
	}
	if cmd.HasAvailableSubCommands() {
		p.WriteString(".SH COMMANDS\n")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(&p, ".TP\n.BR %s (1)\n%s\n", roff(pageName(sub)), roff(sub.Short))
			}
		}
	}
	options(&p, "OPTIONS", cmd.NonInheritedFlags())
	options(&p, "GLOBAL OPTIONS", cmd.InheritedFlags())
	if cmd.HasParent() {
		fmt.Fprintf(&p, ".SH SEE ALSO\n.BR %s (1)\n", roff(pageName(cmd.Parent())))
	} else {
		p.WriteString(".SH EXIT STATUS\n" + paragraphs(exitStatus))
	}
	return p.String()
}

// options lists flags.
func options(p *strings.Builder, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(p, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		p.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(p, "\\fB%s\\fR, ", roff("-"+f.Shorthand))
		}
		fmt.Fprintf(p, "\\fB%s\\fR", roff("--"+f.Name))
		if value != "" {
			fmt.Fprintf(p, " \\fI%s\\fR", roff(strings.TrimSuffix(value, "32")))
		}
		def := f.DefValue
		if f.Name == "host" {
			def = command.DefaultHost // whatever names another while this is written
		}
		if value != "" && def != "" && def != "[]" && def != "0" && def != "0s" {
			usage += " (default " + def + ")"
		}
		p.WriteString("\n" + roff(usage) + "\n")
	})
}

// paragraphs are those of a text, apart by empty lines; lines that are set in
// stay as they are.
func paragraphs(text string) string {
	var p strings.Builder
	for i, part := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			p.WriteString(".PP\n")
		}
		kept := false
		for line := range strings.Lines(part) {
			line = strings.TrimRight(line, "\n")
			if set := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"); set != kept {
				kept = set
				p.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[set])
			}
			p.WriteString(roff(strings.ReplaceAll(line, "\t", "    ")) + "\n")
		}
		if kept {
			p.WriteString(".fi\n")
		}
	}
	return p.String()
}

// roff escapes text: backslashes, what stands for a hyphen and is a minus, and
// what would be a request at the beginning of a line.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ", "\t", " ").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

// quote makes text one argument of a request.
func quote(text string) string { return `"` + strings.ReplaceAll(roff(text), `"`, `\(dq`) + `"` }
