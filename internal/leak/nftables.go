package leak

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// nfObject is a kind of thing that nftables keeps: how to list it, and the attributes that name it, in the order in
// which they are shown (linux/netfilter/nf_tables.h).
type nfObject struct {
	kind  string
	get   int
	names []uint16
}

var nfObjects = []nfObject{
	{"table", unix.NFT_MSG_GETTABLE, []uint16{unix.NFTA_TABLE_NAME}},
	{"chain", unix.NFT_MSG_GETCHAIN, []uint16{unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME}},
	{"rule in chain", unix.NFT_MSG_GETRULE, []uint16{unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN}},
	{"set", unix.NFT_MSG_GETSET, []uint16{unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME}},
}

// nfHeader is the size, in bytes, of struct nfgenmsg: family, version and resource.
const nfHeader = 4

// rules lists tables, chains and sets of nftables, and each rule by its chain; iptables-nft's are among them. It reads
// names only, so that what rules consist of needs no understanding.
func rules() ([]string, error) {
	var lines []string
	for _, object := range nfObjects {
		request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|object.get, unix.NLM_F_DUMP)
		request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_UNSPEC, Version: nl.NFNETLINK_V0})
		messages, err := request.Execute(unix.NETLINK_NETFILTER, 0)
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL) {
			return nil, nil // a kernel without nftables
		}
		if err != nil {
			return nil, fmt.Errorf("list nftables %ss: %w", object.kind, err)
		}
		for _, message := range messages {
			if len(message) < nfHeader {
				continue
			}
			name, err := object.name(message[nfHeader:])
			if err != nil {
				return nil, err
			}
			lines = append(lines, fmt.Sprintf("%s %s of family %d", object.kind, name, message[0]))
		}
	}
	return lines, nil
}

// name joins the naming attributes of a message.
func (o nfObject) name(attributes []byte) (string, error) {
	found, err := nl.ParseRouteAttr(attributes)
	if err != nil {
		return "", fmt.Errorf("parse nftables %s: %w", o.kind, err)
	}
	parts := make([]string, len(o.names))
	for _, attribute := range found {
		for i, want := range o.names {
			if attribute.Attr.Type&nl.NLA_TYPE_MASK == want {
				parts[i] = unix.ByteSliceToString(attribute.Value)
			}
		}
	}
	return strings.Join(parts, " "), nil
}
