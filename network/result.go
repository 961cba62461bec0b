package network

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
)

// checkResult refuses what a plugin printed as the result of an ADD when one of
// its lists has a null in it: nobody who works with results, libcni least of
// all, expects that.
func checkResult(printed []byte) error {
	type family struct {
		Routes []any `json:"routes"`
	}
	var result struct {
		Interfaces []any   `json:"interfaces"`
		IPs        []any   `json:"ips"`
		Routes     []any   `json:"routes"`
		IP4        *family `json:"ip4"`
		IP6        *family `json:"ip6"`
	}
	if err := json.Unmarshal(printed, &result); err != nil {
		return fmt.Errorf("result: %w: %w", err, errdefs.ErrInternal)
	}
	lists := map[string][]any{"interfaces": result.Interfaces, "ips": result.IPs, "routes": result.Routes}
	for name, old := range map[string]*family{"ip4.routes": result.IP4, "ip6.routes": result.IP6} {
		if old != nil {
			lists[name] = old.Routes
		}
	}
	for name, list := range lists {
		for i, one := range list {
			if one == nil {
				return fmt.Errorf("result: %s[%d] is null: %w", name, i, errdefs.ErrInternal)
			}
		}
	}
	return nil
}
