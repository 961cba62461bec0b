// Command bigimages builds the images that pulls are measured with and writes the path of their OCI layout, and what
// each of them is, to standard output.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nodeagent/nodeagent/internal/testenv/bigimages"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bigimages:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cache := flag.String("cache", ".cache/bigimages", "folder kept between runs")
	flag.Parse()
	layout, err := bigimages.Build(ctx, *cache)
	if err != nil {
		return err
	}
	fmt.Println(layout)
	for _, ref := range []string{bigimages.A, bigimages.B, bigimages.C} {
		size, err := bigimages.Sizes(layout, ref)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d layers, %.0f MB compressed, %.0f MB, %d entries\n", ref, size.Layers, float64(size.Compressed)/1e6, float64(size.Bytes)/1e6, size.Files)
	}
	return nil
}
