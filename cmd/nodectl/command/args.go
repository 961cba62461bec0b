package command

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// NoArgs refuses arguments.
func NoArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasParent():
		return usage("%[1]s: unknown command: %[1]s %[2]s\n\nRun '%[1]s --help' for more information", cmd.Name(), args[0])
	case cmd.HasSubCommands():
		return usage("%s: unknown command: %s %s\n\nUsage:  %s\n\nRun '%s --help' for more information",
			cmd.Root().Name(), cmd.CommandPath(), args[0], cmd.UseLine(), cmd.CommandPath())
	}
	return usage("%s: '%s' accepts no arguments\n\nUsage:  %s\n\nRun '%s --help' for more information",
		cmd.Root().Name(), cmd.CommandPath(), cmd.UseLine(), cmd.CommandPath())
}

// MinArgs refuses fewer than n arguments.
func MinArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return wrongArgs(cmd, fmt.Sprintf("at least %d %s", n, arguments(n)), "See")
	}
}

// ExactArgs refuses any but n arguments.
func ExactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return wrongArgs(cmd, fmt.Sprintf("%d %s", n, arguments(n)), "Run")
	}
}

// RangeArgs refuses fewer than low and more than high arguments.
func RangeArgs(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && len(args) <= high {
			return nil
		}
		if low == 0 {
			return wrongArgs(cmd, fmt.Sprintf("at most %d %s", high, arguments(high)), "Run")
		}
		return wrongArgs(cmd, fmt.Sprintf("at least %d and at most %d %s", low, high, arguments(high)), "Run")
	}
}

// wrongArgs says how many arguments are wanted; docker says "See" after some
// of these and "Run" after others.
func wrongArgs(cmd *cobra.Command, want, verb string) error {
	return usage("%s: '%s' requires %s\n\nUsage:  %s\n\n%s '%s --help' for more information",
		cmd.Root().Name(), cmd.CommandPath(), want, cmd.UseLine(), verb, cmd.CommandPath())
}

// FlagError words an error in a flag as docker does; nodectl then ends with 125.
func FlagError(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return &Exit{Code: ExitEngine, Err: &Usage{Text: fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information",
		err, cmd.UseLine(), cmd.CommandPath())}}
}

// InvalidValue is a flag's value that docker refuses while it reads flags.
type InvalidValue struct {
	// Flag is as usage texts have it, such as "-m, --memory".
	Flag, Value string
	Err         error
}

// Error says what is wrong as pflag does.
func (e *InvalidValue) Error() string {
	return fmt.Sprintf("invalid argument %q for %q flag: %v", e.Value, e.Flag, e.Err)
}

// ValueError words what is wrong with the values of flags: an InvalidValue as
// FlagError does, others as they are.
func ValueError(cmd *cobra.Command, err error) error {
	var value *InvalidValue
	if errors.As(err, &value) {
		return FlagError(cmd, err)
	}
	return err
}

// EngineError makes an error end nodectl with 125 unless it says with what, and
// tells where to read more, as docker does for run and create.
func EngineError(cmd *cobra.Command, err error) error {
	var exit *Exit
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return &Exit{Code: ExitEngine, Err: Hint(cmd, err)}
}

// Hint adds to an error where to read more.
func Hint(cmd *cobra.Command, err error) error {
	return fmt.Errorf("%w\n\nRun '%s --help' for more information", err, cmd.CommandPath())
}

func usage(format string, args ...any) error {
	return &Usage{Text: fmt.Sprintf(format, args...)}
}

func arguments(n int) string {
	if n == 1 {
		return "argument"
	}
	return "arguments"
}

// Pairs reads values of flags that are NAME=VALUE; one without a value has an
// empty one.
func Pairs(values []string) map[string]string {
	if len(values) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, text := range values {
		name, value, _ := strings.Cut(text, "=")
		out[name] = value
	}
	return out
}

// Filters are the values of --filter, NAME=VALUE, by name.
type Filters map[string][]string

// AddFilter adds the flag --filter. Values that are not NAME=VALUE are refused as flags are.
func AddFilter(flags *pflag.FlagSet, values *[]string, short, usage string) {
	flags.VarP((*filterFlag)(values), "filter", short, usage)
}

// filterFlag is the values of --filter.
type filterFlag []string

// String is the default, which is none.
func (f *filterFlag) String() string { return "" }

// Type is shown in the help.
func (f *filterFlag) Type() string { return "filter" }

// Set takes one value; an empty one is none.
func (f *filterFlag) Set(text string) error {
	switch {
	case text == "":
	case !strings.Contains(text, "="):
		return errors.New("bad format of filter (expected name=value)")
	default:
		*f = append(*f, text)
	}
	return nil
}

// AddLabels adds the flag --label. Labels without a name, or with blanks in it, are refused as flags are.
func AddLabels(flags *pflag.FlagSet, values *[]string, short, usage string) {
	flags.VarP((*labelFlag)(values), "label", short, usage)
}

// labelFlag is the values of --label.
type labelFlag []string

// String is the default, which is none.
func (l *labelFlag) String() string { return "" }

// Type is shown in the help.
func (l *labelFlag) Type() string { return "list" }

// Set takes one label: NAME or NAME=VALUE.
func (l *labelFlag) Set(text string) error {
	name, _, _ := strings.Cut(text, "=")
	name = strings.TrimLeft(name, " \t")
	switch {
	case name == "":
		return fmt.Errorf("invalid label '%s': empty name", text)
	case strings.ContainsAny(name, " \t"):
		return fmt.Errorf("label '%s' contains whitespaces", name)
	}
	*l = append(*l, text)
	return nil
}

// ParseFilters reads --filter flags and refuses names that are not known.
func ParseFilters(values []string, known ...string) (Filters, error) {
	f := Filters{}
	for _, v := range values {
		name, value, _ := strings.Cut(v, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("invalid filter '%s'", name)
		}
		f[name] = append(f[name], strings.TrimSpace(value))
	}
	return f, nil
}

// Any says whether no filter has this name, or one of its values matches.
func (f Filters) Any(name string, match func(value string) bool) bool {
	values, ok := f[name]
	return !ok || slices.ContainsFunc(values, match)
}

// Bool is what a filter that is true or false asks for; given is false where
// nobody did.
func (f Filters) Bool(name string) (want, given bool, err error) {
	for _, value := range f[name] {
		on, err := strconv.ParseBool(value)
		if err != nil || given && on != want {
			return false, false, fmt.Errorf("invalid filter '%s=%s'", name, value)
		}
		want, given = on, true
	}
	return want, given, nil
}

// Until is the time before which something must have been made; nil where
// nobody named one. An empty one is refused: what is pruned would be all.
func (f Filters) Until() (*timestamppb.Timestamp, error) {
	switch values := f["until"]; len(values) {
	case 0:
		return nil, nil
	case 1:
		return ParseTime(values[0])
	}
	return nil, errors.New("more than one until filter specified")
}

// Labels says whether labels have all that the filters of this name ask for,
// as NAME or NAME=VALUE.
func (f Filters) Labels(labels map[string]string) bool {
	for _, want := range f["label"] {
		name, value, exact := strings.Cut(want, "=")
		have, ok := labels[name]
		if !ok || (exact && have != value) {
			return false
		}
	}
	return true
}
