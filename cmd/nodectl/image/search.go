package image

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// searchFlags are the flags of search.
type searchFlags struct {
	filters []string
	format  string
	limit   int32
	noTrunc bool
}

// NewSearch is `nodectl search`.
func NewSearch(cli *command.CLI) *cobra.Command {
	var flags searchFlags
	cmd := &cobra.Command{
		Use:   "search [OPTIONS] TERM",
		Short: "Search a registry for images",
		Args:  command.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return flags.run(cmd.Context(), cli, args[0]) },
	}
	f := cmd.Flags()
	command.AddFilter(f, &flags.filters, "f", "Filter output based on conditions provided")
	f.StringVar(&flags.format, "format", "", "Pretty-print search using a Go template")
	f.Int32Var(&flags.limit, "limit", 0, "Max number of search results")
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Don't truncate output")
	return cmd
}

func (f *searchFlags) run(ctx context.Context, cli *command.CLI, term string) error {
	wanted, err := searchFilter(f.filters)
	if err != nil {
		return err
	}
	client, err := cli.Registries()
	if err != nil {
		return err
	}
	resp, err := client.Search(ctx, &nodev1.SearchRequest{Term: term, Limit: f.limit, Auth: credentials(cli, searchDomain(term))})
	if err != nil {
		return err
	}
	list := format.List{Format: f.format, Header: searchHeader, Default: `{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}`}
	for _, found := range resp.GetRepositories() {
		if wanted(found) {
			list.Rows = append(list.Rows, searchRow{found, !f.noTrunc, f.format == "json"})
		}
	}
	return list.Write(cli.Out)
}

// searchDomain is the registry that a term is looked for at.
func searchDomain(term string) string {
	host, _, ok := strings.Cut(term, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "docker.io"
	}
	return host
}

// searchFilter reads filters.
func searchFilter(values []string) (func(*nodev1.FoundRepository) bool, error) {
	filters, err := command.ParseFilters(values, "is-official", "is-automated", "stars")
	if err != nil {
		return nil, err
	}
	official, officialGiven, err := filters.Bool("is-official")
	if err != nil {
		return nil, err
	}
	automated, automatedGiven, err := filters.Bool("is-automated")
	if err != nil {
		return nil, err
	}
	stars := int64(0)
	for _, value := range filters["stars"] {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("invalid filter 'stars=%s'", value)
		}
		stars = max(stars, n)
	}
	return func(r *nodev1.FoundRepository) bool {
		return (!officialGiven || official == r.GetOfficial()) && (!automatedGiven || automated == r.GetAutomated()) && r.GetStars() >= stars
	}, nil
}

var searchHeader = format.Header{"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL", "IsAutomated": "AUTOMATED"}

// longestDescription is how many characters of one are shown.
const longestDescription = 45

// searchRow is a repository; its methods are the fields of templates.
type searchRow struct {
	found       *nodev1.FoundRepository
	trunc, json bool
}

// Name is the repository's.
func (r searchRow) Name() string { return r.found.GetName() }

// Description is its owner's, on one line.
func (r searchRow) Description() string {
	text := strings.NewReplacer("\n", " ", "\r", " ").Replace(r.found.GetDescription())
	if r.trunc {
		return format.Ellipsis(text, longestDescription)
	}
	return text
}

// StarCount is how many like it.
func (r searchRow) StarCount() string { return strconv.FormatInt(r.found.GetStars(), 10) }

// IsAutomated marks none: Docker Hub does not tell of that any more.
func (r searchRow) IsAutomated() string {
	if r.json {
		return "false"
	}
	return ""
}

// IsOfficial marks those of Docker Hub's library.
func (r searchRow) IsOfficial() string {
	switch {
	case r.json:
		return strconv.FormatBool(r.found.GetOfficial())
	case r.found.GetOfficial():
		return "[OK]"
	}
	return ""
}
