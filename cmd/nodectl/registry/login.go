// Package registry holds the commands of nodectl that are about registries:
// login and logout. Credentials are where docker keeps them, in its
// configuration file or with its credential helpers; the agent keeps none.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// maxSecret bounds a password from standard input, in bytes.
const maxSecret = 1 << 20

// login is one run of login.
type login struct {
	cli            *command.CLI
	user, password string
	fromStdin      bool
	// server is the key that docker's configuration has for the registry.
	server string
}

// NewLogin is `nodectl login`.
func NewLogin(cli *command.CLI) *cobra.Command {
	l := &login{cli: cli}
	cmd := &cobra.Command{
		Use:   "login [OPTIONS] [SERVER]",
		Short: "Authenticate to a registry",
		Args:  command.RangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			changed := cmd.Flags().Changed
			switch {
			case changed("password-stdin") && changed("password"):
				return errors.New("conflicting options: cannot specify both --password and --password-stdin")
			case changed("password-stdin") && !changed("username"):
				return errors.New("the --password-stdin option requires --username to be set")
			case changed("username") && strings.TrimSpace(l.user) == "":
				return errors.New("username is empty")
			case changed("password") && strings.TrimSpace(l.password) == "":
				return errors.New("password is empty")
			}
			l.server = serverKey(args)
			return l.run(cmd.Context())
		},
	}
	cmd.Flags().StringVarP(&l.user, "username", "u", "", "Username")
	cmd.Flags().StringVarP(&l.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	cmd.Flags().BoolVar(&l.fromStdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return cmd
}

func (l *login) run(ctx context.Context) error {
	if err := l.readStdin(); err != nil {
		return err
	}
	store, err := openStore()
	if err != nil {
		return err
	}
	if l.user == "" && l.password == "" {
		done, err := l.again(ctx, store)
		if err != nil || done {
			return err
		}
	}
	if err := l.ask(); err != nil {
		return err
	}
	return l.verify(ctx, store, &nodev1.Auth{Username: l.user, Password: l.password, ServerAddress: l.server})
}

// readStdin reads the password from standard input when asked to.
func (l *login) readStdin() error {
	if l.password != "" {
		fmt.Fprintln(l.cli.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	if !l.fromStdin {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(l.cli.In, maxSecret))
	if err != nil {
		return err
	}
	l.password = string(data)
	for _, end := range []string{"\r\n", "\n", "\r"} {
		if cut, ok := strings.CutSuffix(l.password, end); ok {
			l.password = cut
			break
		}
	}
	if strings.TrimSpace(l.password) == "" {
		return errors.New("password is empty")
	}
	return nil
}

// again tries what is stored; done says that it is good.
func (l *login) again(ctx context.Context, s *store) (done bool, err error) {
	have, err := s.get(l.server)
	if err != nil || have.Username == "" || have.Password == "" {
		return false, nil
	}
	fmt.Fprintf(l.cli.Err, "Authenticating with existing credentials... [Username: %s]\n\n", have.Username)
	fmt.Fprint(l.cli.Err, "Info → To login with a different account, run 'nodectl logout' followed by 'nodectl login'\n\n\n")
	err = l.verify(ctx, s, &nodev1.Auth{Username: have.Username, Password: have.Password, ServerAddress: l.server})
	switch {
	case err == nil:
		return true, nil
	case command.Code(err) == codes.Unauthenticated:
		fmt.Fprintln(l.cli.Err, "Stored credentials invalid or expired")
	case command.Code(err) == codes.Unavailable:
		return false, err
	default:
		fmt.Fprintln(l.cli.Err, "Login did not succeed, error:", l.cli.Text(err))
	}
	l.user = ""
	return false, nil
}

// ask asks a person for what is not known.
func (l *login) ask() (err error) {
	if l.user != "" && l.password != "" {
		return nil
	}
	if !terminal.Is(l.cli.In) {
		return errors.New("cannot perform an interactive login from a non-TTY device")
	}
	if l.user == "" {
		fmt.Fprint(l.cli.Out, "Username: ")
		if l.user, err = terminal.ReadLine(l.cli.In); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if l.user = strings.TrimSpace(l.user); l.user == "" {
			return errors.New("username is required")
		}
	}
	if l.password != "" {
		return nil
	}
	l.password, err = terminal.ReadSecret(l.cli.In, l.cli.Out, "Password: ")
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if l.password == "" {
		return errors.New("password is required")
	}
	return nil
}

// verify has the agent find out whether credentials are good, and stores
// them.
func (l *login) verify(ctx context.Context, s *store, auth *nodev1.Auth) error {
	client, err := l.cli.Registries()
	if err != nil {
		return err
	}
	resp, err := client.Login(ctx, &nodev1.LoginRequest{Auth: auth})
	if err != nil {
		return err
	}
	plain, err := s.put(auth, resp.GetIdentityToken())
	if err != nil {
		return fmt.Errorf("failed to save credentials: %w", err)
	}
	if plain {
		fmt.Fprintf(l.cli.Err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\n"+
			"Configure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", s.path)
	}
	fmt.Fprintln(l.cli.Out, "Login Succeeded")
	return nil
}

// serverKey is the key that docker's configuration has for a registry.
func serverKey(args []string) string {
	if len(args) == 0 || args[0] == "" || args[0] == "docker.io" || args[0] == command.DockerHub {
		return command.DockerHub
	}
	return hostname(args[0])
}
