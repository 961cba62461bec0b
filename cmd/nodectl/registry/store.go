package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/interrupt"
	"golang.org/x/sys/unix"
)

// store is where docker keeps credentials. docker's own library reads and
// changes them; what it would write is merged into the file, so that fields
// which this version of it does not know are kept.
type store struct {
	// path is the configuration file.
	path string
	file *configfile.ConfigFile
}

// openStore reads docker's configuration; a missing one is empty.
func openStore() (*store, error) {
	file, err := config.Load(config.Dir())
	if err != nil {
		return nil, fmt.Errorf("loading config file: %w", err)
	}
	if !file.ContainsAuth() {
		file.CredentialsStore = credentials.DetectDefaultStore(file.CredentialsStore)
	}
	return &store{path: filepath.Join(config.Dir(), config.ConfigFileName), file: file}, nil
}

// hostname is a server's name without scheme and path.
func hostname(server string) string { return credentials.ConvertToHostname(server) }

// helper is the credential helper for a server; empty for the file.
func (s *store) helper(server string) string {
	if helper, ok := s.file.CredentialHelpers[server]; ok {
		return helper
	}
	return s.file.CredentialsStore
}

// get returns what is stored for a server.
func (s *store) get(server string) (types.AuthConfig, error) { return s.file.GetAuthConfig(server) }

// put stores credentials, or the token that a registry gave in place of the
// password. plain says that a password is readable in the file.
func (s *store) put(auth *nodev1.Auth, identityToken string) (plain bool, err error) {
	entry := types.AuthConfig{Username: auth.GetUsername(), Password: auth.GetPassword(), ServerAddress: auth.GetServerAddress()}
	if identityToken != "" {
		entry.Password, entry.IdentityToken = "", identityToken
	}
	if helper := s.helper(entry.ServerAddress); helper != "" {
		err = s.aside(func() error { return credentials.NewNativeStore(s.file, helper).Store(entry) })
	} else {
		s.file.GetAuthConfigs()[entry.ServerAddress] = entry
		plain = entry.Password != ""
	}
	if err != nil {
		return false, err
	}
	return plain, s.save([]string{entry.ServerAddress})
}

// erase forgets what is stored under some keys. It fails when it cannot be
// done for any.
func (s *store) erase(keys []string) error {
	failed := 0
	var errs error
	changed := false
	for _, key := range keys {
		var err error
		_, stored := s.file.GetAuthConfigs()[key]
		if helper := s.helper(key); helper != "" {
			err = s.aside(func() error { return credentials.NewNativeStore(s.file, helper).Erase(key) })
		}
		if err != nil {
			failed++
			errs = errors.Join(errs, err)
			continue
		}
		delete(s.file.GetAuthConfigs(), key)
		changed = changed || stored
	}
	if failed == len(keys) {
		return errs
	}
	if !changed {
		return nil
	}
	return s.save(keys)
}

// aside lets the library write the file somewhere else, where it is dropped.
func (s *store) aside(do func() error) error {
	dir, err := os.MkdirTemp("", "nodectl-config-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s.file.Filename = filepath.Join(dir, config.ConfigFileName)
	defer func() { s.file.Filename = s.path }()
	return do()
}

// save writes the entries of some keys into the file as it is now, and
// nothing else.
func (s *store) save(keys []string) error {
	var ours bytes.Buffer
	if err := s.file.SaveToWriter(&ours); err != nil {
		return err
	}
	wanted, err := fields(ours.Bytes())
	if err != nil {
		return err
	}
	path, err := target(s.path)
	if err != nil {
		return err
	}
	current, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	merged, err := merge(current, wanted, keys)
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return replace(path, merged)
}

// merge takes entries over from what docker's library would write.
func merge(current []byte, wanted map[string]json.RawMessage, keys []string) ([]byte, error) {
	have, err := fields(current)
	if err != nil {
		return nil, err
	}
	auths, err := fields(have["auths"])
	if err != nil {
		return nil, err
	}
	wantedAuths, err := fields(wanted["auths"])
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		delete(auths, key)
		if entry, ok := wantedAuths[key]; ok {
			auths[key] = entry
		}
	}
	if have["auths"], err = json.Marshal(auths); err != nil {
		return nil, err
	}
	if _, ok := have["credsStore"]; !ok && wanted["credsStore"] != nil {
		have["credsStore"] = wanted["credsStore"]
	}
	out, err := json.MarshalIndent(have, "", "\t")
	return append(out, '\n'), err
}

// fields reads an object; nothing is an empty one.
func fields(raw []byte) (map[string]json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	if len(bytes.TrimSpace(raw)) == 0 {
		return out, nil
	}
	err := json.Unmarshal(raw, &out)
	if out == nil {
		out = map[string]json.RawMessage{}
	}
	return out, err
}

// target follows links: the file they lead to is replaced, there or not.
func target(path string) (string, error) {
	for range 40 {
		link, err := os.Readlink(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	return "", fmt.Errorf("%s: too many links", path)
}

// replace writes a file whole or not at all. A new one is its owner's alone;
// one that is there keeps owner and mode.
func replace(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return err
	}
	remove := func() { _ = os.Remove(f.Name()) } // what was renamed is not there any more
	defer remove()
	defer interrupt.Undo(remove)()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err == nil {
		_ = os.Chmod(f.Name(), fs.FileMode(st.Mode&0o777))
		_ = os.Chown(f.Name(), int(st.Uid), int(st.Gid))
	}
	return os.Rename(f.Name(), path)
}
