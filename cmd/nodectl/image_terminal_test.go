package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPushDrawsBarsOnATerminal(t *testing.T) {
	o := startOnTerminal(t, "push", "127.0.0.1:5000/box:1")
	o.shows("The push refers to repository [127.0.0.1:5000/box]")
	o.shows("eeeeeeeeeeee: Preparing")
	// Two lines up to the first layer, one to the second.
	o.shows("\x1b[2A\x1b[2K\rcccccccccccc: Pushing [=")
	o.shows("\x1b[1A\x1b[2K\reeeeeeeeeeee: Layer already exists")
	o.shows("\x1b[2A\x1b[2K\rcccccccccccc: Pushed")
	o.shows("1: digest: " + digest + " size: 1024")
	o.ends(0)
}

// A password is asked for without being shown, and the terminal is as it was.
func TestLoginAsksOnATerminal(t *testing.T) {
	home := t.TempDir()
	t.Setenv("DOCKER_CONFIG", home)
	o := startOnTerminal(t, "login", "127.0.0.1:5000")
	o.shows("Username: ")
	o.write("me\n")
	o.shows("Password: ")
	if o.mode().Lflag&unix.ECHO != 0 {
		t.Error("the terminal shows what is typed")
	}
	o.write("secret\n")
	o.shows("Login Succeeded")
	o.ends(0)
	o.mu.Lock()
	defer o.mu.Unlock()
	if strings.Contains(o.screen.String(), "secret") {
		t.Errorf("the password is shown: %q", o.screen.String())
	}
	data, err := os.ReadFile(filepath.Join(home, "config.json"))
	if err != nil || !strings.Contains(string(data), "bWU6c2VjcmV0") {
		t.Errorf("%s, %v", data, err)
	}
}

// Ctrl-C at the password gives the terminal back its echo.
func TestLoginInterrupted(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	o := startOnTerminal(t, "login", "-u", "me", "127.0.0.1:5000")
	o.shows("Password: ")
	if o.mode().Lflag&unix.ECHO != 0 {
		t.Error("the terminal shows what is typed")
	}
	o.write("sec\x03")
	o.ends(130)
}

// Archives are not written to terminals, nor read from them.
func TestArchivesOnATerminal(t *testing.T) {
	for _, test := range []struct{ want, args string }{
		{"Error: cowardly refusing to save to a terminal. Use the -o flag or redirect", "save busybox"},
		{"Error: cowardly refusing to save to a terminal. Use the -o flag or redirect", "export web"},
		{"Error: requested load from stdin, but stdin is empty", "load"},
	} {
		o := startOnTerminal(t, strings.Fields(test.args)...)
		o.shows(test.want)
		o.ends(1)
	}
}

// The view of images fits a terminal: a legend at the right, what is in use
// marked by a chip, and a name that is too wide on a line of its own.
func TestImagesOnATerminal(t *testing.T) {
	o := startOnTerminal(t, "images")
	o.shows(strings.Repeat(" ", 61) + "i Info → \x1b[38;5;0m\x1b[48;5;14m U \x1b[0m In Use")
	o.shows("\x1b[1mIMAGE\x1b[0m")
	o.shows("\x1b[34;1mbusybox:latest\x1b[0m         aaaaaaaaaaaa       6.26MB            2MB   \x1b[38;5;0m")
	o.ends(0)
	t.Setenv("NO_COLOR", "1")
	o = startOnTerminal(t, "images", "-a")
	o.shows("i Info →  U  In Use")
	o.shows("<untagged>             bbbbbbbbbbbb       1.23GB             0B\r\n")
	o.ends(0)
}
