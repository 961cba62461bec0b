package terminal

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"
)

// guardVariable makes nodectl a guard; its value is the mode of the terminal
// to put back.
const guardVariable = "_NODECTL_TERMINAL_MODE"

// guard is a process that outlives nodectl, whatever kills it, and puts the
// terminal back then.
type guard struct {
	cmd  *exec.Cmd
	pipe *os.File
}

// startGuard starts a guard over a terminal whose mode is as it should be.
func startGuard(terminal *os.File) (*guard, error) {
	mode, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(mode)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{os.Args[0]}
	cmd.Env = []string{guardVariable + "=" + string(text)}
	cmd.Stdin, cmd.ExtraFiles = terminal, []*os.File{r}
	// Ctrl-C and its like are for others.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return &guard{cmd: cmd, pipe: w}, nil
}

// dismiss ends the guard, which leaves the terminal alone. A nil guard is
// dismissed already.
func (g *guard) dismiss() {
	if g == nil {
		return
	}
	_, _ = g.pipe.Write([]byte{1})
	_ = g.pipe.Close()
	_ = g.cmd.Wait()
}

// Guard makes this process a guard where it was started as one, and does not
// return then.
func Guard() {
	text := os.Getenv(guardVariable)
	if text == "" {
		return
	}
	// Who is not in the foreground may not change the terminal otherwise.
	signal.Ignore(unix.SIGTTOU, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	var mode unix.Termios
	if json.Unmarshal([]byte(text), &mode) != nil {
		os.Exit(1)
	}
	pipe := os.NewFile(3, "pipe")
	if n, _ := io.ReadFull(pipe, make([]byte, 1)); n == 0 {
		_ = unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, &mode)
	}
	os.Exit(0)
}
