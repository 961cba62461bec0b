package pod

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// The forms of output that crictl has.
const (
	outputJSON     = "json"
	outputYAML     = "yaml"
	outputTable    = "table"
	outputTemplate = "go-template"
	outputText     = "text"
)

// checkOutput refuses a form that a command does not have.
func checkOutput(output string, known ...string) error {
	if !slices.Contains(known, output) {
		return fmt.Errorf("unsupported output format %q: it must be one of %v", output, known)
	}
	return nil
}

// message is an answer of CRI in JSON, with the fields that are zero.
func message(m proto.Message) (json.RawMessage, error) {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	// protojson varies its blanks on purpose.
	err = json.Compact(&b, raw)
	return b.Bytes(), err
}

// writeAs writes a value in a form that crictl has.
func writeAs(cli *command.CLI, output, template string, value any) error {
	switch output {
	case outputYAML:
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		if raw, err = yaml.JSONToYAML(raw); err != nil {
			return err
		}
		_, err = cli.Out.Write(raw)
		return err
	case outputTemplate:
		if template == "" {
			return errors.New("--output go-template needs a --template")
		}
		return format.Value(cli.Out, template, value)
	}
	raw, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cli.Out, string(raw))
	return err
}

// watch does something each second, on a terminal from its top, until ctx is
// done; without again it does it once.
func watch(ctx context.Context, cli *command.CLI, again bool, do func() error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if again && terminal.Is(cli.Out) {
			fmt.Fprint(cli.Out, "\x1b[2J\x1b[H")
		}
		if err := do(); err != nil || !again {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
