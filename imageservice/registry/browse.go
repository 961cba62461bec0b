package registry

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

const (
	// browseTimeout bounds looking around at a registry.
	browseTimeout = time.Minute
	// pageSize is how many names are asked for at once, maxPages how often,
	// maxListed how many are taken.
	pageSize  = 1000
	maxPages  = 1000
	maxListed = 200_000
	// hub is where Docker Hub has its search.
	hub = "docker.io"
)

// Tags lists the tags of a repository, in the registry's order.
func (c *Client) Tags(ctx context.Context, repository reference.Named, creds Credentials) ([]string, error) {
	var all []string
	path := reference.Path(repository)
	err := c.browse(ctx, reference.Domain(repository), creds, func(ctx context.Context, a *attempt, host docker.RegistryHost) error {
		all = nil
		ctx = docker.WithScope(ctx, "repository:"+path+":pull")
		return a.pages(ctx, host, repositoryURL(host, path, "tags/list"), func(resp *http.Response) (int, error) {
			var page struct {
				Tags []string `json:"tags"`
			}
			if err := readJSON(resp, &page); err != nil {
				return 0, err
			}
			for _, tag := range page.Tags {
				if _, err := reference.WithTag(repository, tag); err == nil {
					all = append(all, tag)
				}
			}
			return len(all), nil
		})
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Found is a repository that a search found.
type Found struct {
	// Name is in the form that a person types.
	Name, Description   string
	Stars               int64
	Official, Automated bool
}

// Search finds at most limit repositories of a registry whose name has a
// word. A registry without a search is asked for its catalogue.
func (c *Client) Search(ctx context.Context, domain, word string, limit int, creds Credentials) ([]Found, error) {
	var found []Found
	err := c.browse(ctx, domain, creds, func(ctx context.Context, a *attempt, host docker.RegistryHost) (err error) {
		if found, err = a.index(ctx, host, word, limit); err == nil {
			return nil
		}
		found, err = a.catalogue(ctx, host, domain, word, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// browse does something at the first host of a registry where it works.
func (c *Client) browse(ctx context.Context, domain string, creds Credentials, do func(context.Context, *attempt, docker.RegistryHost) error) error {
	ctx, cancel := context.WithTimeout(ctx, browseTimeout)
	defer cancel()
	a := &attempt{client: c, creds: creds, registry: domain}
	defer a.close()
	hosts, err := a.hosts(domain)
	if err != nil {
		return a.explain(err)
	}
	err = fmt.Errorf("no host of %s may be pulled from: %w", domain, errdefs.ErrFailedPrecondition)
	for _, host := range hosts {
		if !host.Capabilities.Has(docker.HostCapabilityPull) {
			continue
		}
		if err = do(ctx, a, host); err == nil {
			return nil
		}
	}
	return a.explain(err)
}

// pages gets a list in pages. take gets each and returns how many are listed.
func (a *attempt) pages(ctx context.Context, host docker.RegistryHost, first string, take func(*http.Response) (int, error)) error {
	next := first + "?n=" + strconv.Itoa(pageSize)
	for range maxPages {
		resp, err := a.send(ctx, host, request{method: http.MethodGet, url: next})
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return statusError(resp)
		}
		link := resp.Header.Get("Link")
		n, err := take(resp)
		if err != nil {
			return err
		}
		if link == "" || n >= maxListed {
			return nil
		}
		if next, err = nextPage(next, link); err != nil || next == "" {
			return err
		}
	}
	return nil
}

// nextPage reads a Link header, which leads to the same host.
func nextPage(current, link string) (string, error) {
	target, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !ok || !strings.Contains(rest, "next") {
		return "", nil
	}
	from, err := url.Parse(current)
	if err != nil {
		return "", err
	}
	to, err := from.Parse(target)
	if err != nil {
		return "", fmt.Errorf("the registry gave a link that does not parse: %w", errdefs.ErrUnavailable)
	}
	to.Scheme, to.Host, to.User = from.Scheme, from.Host, nil
	return to.String(), nil
}

// index asks a registry's search, as Docker Hub has it.
func (a *attempt) index(ctx context.Context, host docker.RegistryHost, word string, limit int) ([]Found, error) {
	if host.Host == "registry-1.docker.io" {
		host.Host = "index.docker.io"
	}
	query := url.Values{"q": {word}, "n": {strconv.Itoa(limit)}}
	resp, err := a.send(ctx, host, request{method: http.MethodGet, url: host.Scheme + "://" + host.Host + "/v1/search?" + query.Encode()})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp)
	}
	var page struct {
		Results []struct {
			Name        string `json:"name"`
			Description string `json:"description"`
			Stars       int64  `json:"star_count"`
			Official    bool   `json:"is_official"`
			Automated   bool   `json:"is_automated"`
		} `json:"results"`
	}
	if err := readJSON(resp, &page); err != nil {
		return nil, err
	}
	var found []Found
	for _, r := range page.Results[:min(len(page.Results), limit)] {
		found = append(found, Found{Name: printable(r.Name), Description: printable(r.Description), Stars: r.Stars, Official: r.Official, Automated: r.Automated})
	}
	return found, nil
}

// catalogue looks through all names of a registry. Those at Docker Hub, or at
// what stands for it, are official below library.
func (a *attempt) catalogue(ctx context.Context, host docker.RegistryHost, domain, word string, limit int) ([]Found, error) {
	var found []Found
	ctx = docker.WithScope(ctx, "registry:catalog:*")
	word = strings.ToLower(word)
	seen := 0
	address := host.Scheme + "://" + host.Host + strings.TrimSuffix(host.Path, "/") + "/_catalog"
	err := a.pages(ctx, host, address, func(resp *http.Response) (int, error) {
		var page struct {
			Repositories []string `json:"repositories"`
		}
		if err := readJSON(resp, &page); err != nil {
			return 0, err
		}
		seen += len(page.Repositories)
		for _, name := range page.Repositories {
			named, err := reference.ParseNormalizedNamed(domain + "/" + name)
			if err != nil || !strings.Contains(name, word) {
				continue
			}
			found = append(found, Found{Name: reference.FamiliarName(named), Official: domain == hub && strings.HasPrefix(name, "library/")})
		}
		return seen, nil
	})
	if err != nil && errdefs.IsNotFound(a.explain(err)) {
		return nil, fmt.Errorf("%s has neither a search nor a catalogue: %w", domain, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	// As a search would: official ones first, then what is named so.
	slices.SortStableFunc(found, func(x, y Found) int {
		return cmp.Or(rank(x, word)-rank(y, word), strings.Compare(x.Name, y.Name))
	})
	return found[:min(len(found), limit)], nil
}

// rank puts better answers first.
func rank(f Found, word string) int {
	n := 4
	if f.Official {
		n -= 2
	}
	if f.Name == word || strings.HasSuffix(f.Name, "/"+word) {
		n--
	}
	return n
}
