// Program nodectl is the person's way to the node: docker's commands against
// the nodeagent's socket.
package main

import (
	"context"
	"os"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/system"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
)

// The linker sets these.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// run runs one command line and returns the exit code.
func run(args []string) int {
	terminal.Guard()
	cli := command.New()
	defer cli.Close()
	root := newRoot(cli, system.Build{Version: version, GitCommit: commit})
	root.SetArgs(args)
	return cli.Report(root.ExecuteContext(context.Background()))
}
