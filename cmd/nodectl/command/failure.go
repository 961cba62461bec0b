package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The exit codes of run and its like, besides the container's own.
const (
	ExitEngine       = 125 // the agent or a flag failed
	ExitNotInvocable = 126 // the command cannot be invoked
	ExitNotFound     = 127 // the command is not found
)

// Exit is an error that says with which code nodectl ends. Err may be nil:
// nothing is printed then.
type Exit struct {
	Code int
	Err  error
}

// Error returns what is printed.
func (e *Exit) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// Unwrap returns the error it was made of.
func (e *Exit) Unwrap() error { return e.Err }

// Usage is an error in how a command was called, printed as it is.
type Usage struct {
	Text string
}

// Error returns the text.
func (u *Usage) Error() string { return u.Text }

// ErrLost is the end of a stream that has not said all.
var ErrLost = errors.New("the connection to the nodeagent was lost")

// Report prints an error as docker does and returns the exit code.
func (c *CLI) Report(err error) int {
	if err == nil {
		return 0
	}
	code := 1
	var exit *Exit
	if errors.As(err, &exit) {
		code = exit.Code
		if err = exit.Err; err == nil {
			return code
		}
	}
	var usage *Usage
	if errors.As(err, &usage) {
		fmt.Fprintln(c.Err, usage.Text)
		return code
	}
	if text := c.Text(err); text != "" {
		fmt.Fprintln(c.Err, "Error: "+text)
	}
	return code
}

// Text is an error's words without what gRPC puts around them.
func (c *CLI) Text(err error) string {
	if Code(err) == codes.Unavailable {
		if why := c.unreachable(); why != nil {
			return why.Error()
		}
		if strings.Contains(err.Error(), "reading server preface") {
			return fmt.Sprintf("the nodeagent at %s takes connections and does not answer: it hangs, or is stopped", c.Host)
		}
		if brokenOff(err) {
			return ErrLost.Error()
		}
	}
	if errors.Is(err, context.Canceled) || Code(err) == codes.Canceled {
		return "interrupted"
	}
	text := err.Error()
	var peer interface{ GRPCStatus() *status.Status }
	if errors.As(err, &peer) {
		s := peer.GRPCStatus()
		said := s.Message()
		if said == "" {
			said = s.Code().String()
		}
		// There may be words of ours around it.
		text = strings.Replace(text, s.Err().Error(), said, 1)
	}
	return text
}

// brokenOff says whether gRPC's words are about a connection that ended in the midst
// of a call, which is how an agent that is killed looks at first.
func brokenOff(err error) bool {
	for _, words := range []string{"error reading from server", "transport is closing", "connection reset by peer", "broken pipe"} {
		if strings.Contains(err.Error(), words) {
			return true
		}
	}
	return false
}

// Code is the gRPC code of an error from the agent; Unknown for all others.
func Code(err error) codes.Code {
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return codes.Unknown
}

// Each does act for each argument and goes on past those that fail, whose
// errors are printed at once. done, when not nil, gets those that did not.
func (c *CLI) Each(args []string, act func(arg string) error, done func(arg string)) error {
	failed := false
	for _, arg := range args {
		if err := act(arg); err != nil {
			failed = true
			c.Report(err)
			// No argument fares better when nobody answers.
			if Code(err) == codes.Unavailable && c.unreachable() != nil {
				break
			}
			continue
		}
		if done != nil {
			done(arg)
		}
	}
	if failed {
		return &Exit{Code: 1}
	}
	return nil
}

// PrintArg prints an argument on a line, for use with Each.
func (c *CLI) PrintArg(arg string) { fmt.Fprintln(c.Out, arg) }
