package image

import (
	"errors"
	"fmt"
	"io"
	"os"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
	"github.com/spf13/cobra"
)

// NewLoad is `nodectl load`.
func NewLoad(cli *command.CLI) *cobra.Command {
	var (
		input, platform string
		quiet           bool
	)
	cmd := &cobra.Command{
		Use:   "load [OPTIONS]",
		Short: "Load an image from a tar archive or STDIN",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, size, err := loadInput(cli, input)
			if err != nil {
				return err
			}
			defer in.Close()
			client, err := cli.Images()
			if err != nil {
				return err
			}
			stream, err := client.Load(cmd.Context())
			if err != nil {
				return err
			}
			err = stream.Send(&nodev1.LoadRequest{Message: &nodev1.LoadRequest_Options{Options: &nodev1.LoadOptions{Platform: platform}}})
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			meter := newMeter(cli.Out, "Loading archive", size, quiet)
			archive, err := command.ForImages(meter.of(in))
			if err != nil {
				return err
			}
			err = command.SendChunks(archive, func(data []byte) error {
				return stream.Send(&nodev1.LoadRequest{Message: &nodev1.LoadRequest_Data{Data: data}})
			})
			meter.end()
			if err != nil {
				return err
			}
			resp, err := stream.CloseAndRecv()
			if err != nil {
				return err
			}
			printLoaded(cli.Out, resp)
			return nil
		},
	}
	cmd.Flags().StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	cmd.Flags().StringVar(&platform, "platform", "", `Load only the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

// loadInput opens the archive and tells its size; zero when that is not
// known.
func loadInput(cli *command.CLI, name string) (io.ReadCloser, int64, error) {
	if name == "" {
		if terminal.Is(cli.In) {
			return nil, 0, errors.New("requested load from stdin, but stdin is empty")
		}
		return cli.In, 0, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && fi.IsDir() {
		err = fmt.Errorf("read %s: is a directory", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

func printLoaded(out io.Writer, resp *nodev1.LoadResponse) {
	for _, img := range resp.GetImages() {
		for _, tag := range img.GetTags() {
			fmt.Fprintln(out, "Loaded image: "+Familiar(tag))
		}
		if len(img.GetTags()) == 0 {
			fmt.Fprintln(out, "Loaded image ID: "+img.GetId())
		}
	}
}
