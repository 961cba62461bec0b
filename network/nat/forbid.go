package nat

import (
	"fmt"

	"github.com/google/nftables"
)

// familyNames are those of families that pods' packets pass.
var familyNames = map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet"}

// Forbidding describes the chains of anybody that drop what is forwarded
// unless one of their rules accepts it. Pods talk to the outside only as far as
// those let them; no table of our own can change that.
func Forbidding() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var found []string
	for _, chain := range chains {
		family, ok := familyNames[chain.Table.Family]
		if !ok || chain.Hooknum == nil || *chain.Hooknum != *nftables.ChainHookForward {
			continue
		}
		if chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
			found = append(found, fmt.Sprintf("chain %s of nftables table %s %s drops forwarded packets that its rules do not accept", chain.Name, family, chain.Table.Name))
		}
	}
	return found, nil
}
