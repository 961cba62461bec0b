package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewImport is `nodectl import`.
func NewImport(cli *command.CLI) *cobra.Command {
	var options nodev1.ImportOptions
	cmd := &cobra.Command{
		Use:   "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
		Short: "Import the contents from a tarball to create a filesystem image",
		Args:  command.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				options.Ref = args[1]
			}
			in, err := importInput(cli, args[0], &options)
			if err != nil {
				return err
			}
			defer in.Close()
			client, err := cli.Images()
			if err != nil {
				return err
			}
			stream, err := client.Import(cmd.Context())
			if err != nil {
				return err
			}
			err = stream.Send(&nodev1.ImportRequest{Message: &nodev1.ImportRequest_Options{Options: &options}})
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			archive, err := command.ForImages(in)
			if err != nil {
				return err
			}
			err = command.SendChunks(archive, func(data []byte) error {
				return stream.Send(&nodev1.ImportRequest{Message: &nodev1.ImportRequest_Data{Data: data}})
			})
			if err != nil {
				return err
			}
			resp, err := stream.CloseAndRecv()
			if err != nil {
				return err
			}
			fmt.Fprintln(cli.Out, resp.GetId())
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&options.Changes, "change", "c", nil, "Apply Dockerfile instruction to the created image")
	f.StringVarP(&options.Message, "message", "m", "", "Set commit message for imported image")
	f.StringVar(&options.Platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	return cmd
}

// importInput opens the tar. The agent gets that of a URL by itself.
func importInput(cli *command.CLI, source string, options *nodev1.ImportOptions) (io.ReadCloser, error) {
	named := source
	var in io.ReadCloser
	switch {
	case source == "-":
		in = cli.In
	case strings.HasPrefix(source, "https://"), strings.HasPrefix(source, "http://"):
		options.Url = source
		in = io.NopCloser(strings.NewReader(""))
	default:
		f, err := os.Open(source)
		if err != nil {
			return nil, err
		}
		in, named = f, "-"
	}
	if options.Message == "" {
		options.Message = "Imported from " + named
	}
	return in, nil
}
