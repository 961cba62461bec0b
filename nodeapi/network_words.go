package nodeapi

import (
	"errors"
	"net"
	"net/netip"
	"regexp"

	"github.com/containerd/errdefs"
)

// aliasPattern is what may be looked up as a name.
var aliasPattern = regexp.MustCompile(`^[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?$`)

// addressOf reads an address of a family; empty is the zero Addr.
func addressOf(text string, v4 bool) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil, addr.Zone() != "", addr.Is4In6():
	case v4 != addr.Is4():
	case addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast():
	default:
		return addr, nil
	}
	family := "IPv4"
	if !v4 {
		family = "IPv6"
	}
	return netip.Addr{}, failf(errdefs.ErrInvalidArgument, "invalid endpoint settings: invalid %s address: %s", family, text)
}

// checkMAC refuses what no interface can have.
func checkMAC(text string) error {
	if text == "" {
		return nil
	}
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return failf(errdefs.ErrInvalidArgument, "invalid MAC address: %s", text)
	}
	return nil
}

// personal gives an error its own words alone, when a mechanism worded it for a
// person; others stay as they are.
func personal(err error) error {
	var w interface {
		error
		Words() (text string, kind error)
	}
	if !errors.As(err, &w) {
		return err
	}
	text, kind := w.Words()
	return failf(kind, "%s", text)
}
