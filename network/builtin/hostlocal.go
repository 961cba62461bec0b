package builtin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
)

// maxResolvConf bounds what is read of a resolver's configuration.
const maxResolvConf = 1 << 20

// supportsHostLocal refuses what cannot be parsed, as the plugin would.
func supportsHostLocal(conf []byte) error {
	_, _, err := allocator.LoadIPAMConfig(conf, "")
	if err != nil {
		return fmt.Errorf("host-local: parse configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// WithRanges is a configuration to which the runtime has added a range.
func WithRanges(conf []byte, subnet netip.Prefix) ([]byte, error) {
	var all map[string]any
	if err := json.Unmarshal(conf, &all); err != nil {
		return nil, err
	}
	all["runtimeConfig"] = map[string]any{"ipRanges": [][]map[string]netip.Prefix{{{"subnet": subnet}}}}
	return json.Marshal(all)
}

// loadIPAM parses the configuration.
func loadIPAM(c *Call) (*allocator.IPAMConfig, error) {
	conf, _, err := allocator.LoadIPAMConfig(c.Conf, c.Args)
	if err != nil {
		return nil, fmt.Errorf("parse configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return conf, nil
}

// poolOf finds the folder of the network's addresses. It reads no more of the
// configuration than that, so that addresses are given back whatever else
// ADD disliked.
func (p *Plugins) poolOf(c *Call) (*pool, error) {
	var conf struct {
		Name string `json:"name"`
		IPAM struct {
			DataDir string `json:"dataDir"`
		} `json:"ipam"`
	}
	if err := json.Unmarshal(c.Conf, &conf); err != nil {
		return nil, fmt.Errorf("parse configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	// The name becomes a folder's.
	if err := utils.ValidateNetworkName(conf.Name); err != nil {
		return nil, fmt.Errorf("network name %q: %w: %w", conf.Name, err, errdefs.ErrInvalidArgument)
	}
	dir := conf.IPAM.DataDir
	if dir == "" {
		dir = defaultDataDir
	}
	return p.pools.of(filepath.Join(dir, conf.Name)), nil
}

func (p *Plugins) hostLocalAdd(ctx context.Context, c *Call) (*current.Result, error) {
	conf, err := loadIPAM(c)
	if err != nil {
		return nil, err
	}
	pool, err := p.poolOf(c)
	if err != nil {
		return nil, err
	}
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: conf.Routes}
	if conf.ResolvConf != "" {
		dns, err := readResolvConf(conf.ResolvConf)
		if err != nil {
			return nil, err
		}
		result.DNS = *dns
	}
	held, err := pool.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer held.release()
	if result.IPs, err = allocateAll(held, conf, c); err != nil {
		// Whatever was taken before the failure goes back.
		return nil, firstError(err, held.ReleaseByID(c.ContainerID, c.IfName))
	}
	return result, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// allocateAll takes an address of each range set, the wanted one where one is
// wanted.
func allocateAll(held *lease, conf *allocator.IPAMConfig, c *Call) ([]*current.IPConfig, error) {
	wanted := map[string]net.IP{}
	for _, ip := range conf.IPArgs {
		wanted[ip.String()] = ip
	}
	var configs []*current.IPConfig
	for i := range conf.Ranges {
		set := &conf.Ranges[i]
		var want net.IP
		for key, ip := range wanted {
			if set.Contains(ip) {
				want = ip
				delete(wanted, key)
				break
			}
		}
		config, err := allocator.NewIPAllocator(set, held, i).Get(c.ContainerID, c.IfName, want)
		if err != nil {
			return nil, fmt.Errorf("take an address for network %s: %w: %w", conf.Name, err, errdefs.ErrResourceExhausted)
		}
		configs = append(configs, config)
	}
	if len(wanted) > 0 {
		var list []string
		for key := range wanted {
			list = append(list, key)
		}
		return nil, fmt.Errorf("wanted addresses %s are in no range of network %s: %w", strings.Join(list, ", "), conf.Name, errdefs.ErrInvalidArgument)
	}
	return configs, nil
}

func (p *Plugins) hostLocalDel(ctx context.Context, c *Call) (*current.Result, error) {
	pool, err := p.poolOf(c)
	if err != nil {
		return nil, err
	}
	held, err := pool.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer held.release()
	return nil, held.ReleaseByID(c.ContainerID, c.IfName)
}

func (p *Plugins) hostLocalCheck(ctx context.Context, c *Call) (*current.Result, error) {
	pool, err := p.poolOf(c)
	if err != nil {
		return nil, err
	}
	held, err := pool.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer held.release()
	if len(held.GetByID(c.ContainerID, c.IfName)) == 0 {
		if err := held.scan(); err != nil {
			return nil, err
		}
		if len(held.GetByID(c.ContainerID, c.IfName)) == 0 {
			return nil, fmt.Errorf("container %s has no address: %w", c.ContainerID, errdefs.ErrNotFound)
		}
	}
	return nil, nil
}

// hostLocalGC gives back the addresses of all attachments the runtime does
// not list.
func (p *Plugins) hostLocalGC(ctx context.Context, c *Call) (*current.Result, error) {
	pool, err := p.poolOf(c)
	if err != nil {
		return nil, err
	}
	var list struct {
		Name  string                `json:"name"`
		Valid *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
	}
	if err := json.Unmarshal(c.Conf, &list); err != nil || list.Valid == nil {
		return nil, fmt.Errorf("no valid list of attachments: %w", errdefs.ErrInvalidArgument)
	}
	held, err := pool.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer held.release()
	valid := *list.Valid
	if p.Neighbours != nil {
		others, err := p.Neighbours(list.Name)
		if err != nil {
			return nil, err
		}
		valid = append(valid, others...)
	}
	keep := map[string]bool{}
	for _, a := range valid {
		keep[holderName(a.ContainerID, a.IfName)] = true
		keep[strings.TrimSpace(a.ContainerID)] = true
	}
	return nil, held.sweep(keep)
}

// readResolvConf reads a resolver's configuration as the plugin does.
func readResolvConf(path string) (*types.DNS, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read resolvConf: %w", err)
	}
	defer f.Close()
	dns := &types.DNS{}
	lines := bufio.NewScanner(io.LimitReader(f, maxResolvConf))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, fields[1])
		case "domain":
			dns.Domain = fields[1]
		case "search":
			dns.Search = append(dns.Search, fields[1:]...)
		case "options":
			dns.Options = append(dns.Options, fields[1:]...)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read resolvConf: %w", err)
	}
	return dns, nil
}
