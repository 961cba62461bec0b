// Command testimages builds the images that critest and the tests name and writes the path of their OCI image layout
// to standard output. With -push it uploads them to a registry, such as http://127.0.0.1:5000, as well; with -certs it
// writes a certs.d folder whose hosts.toml files send the registries that the images name to that registry.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "testimages:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cache := flag.String("cache", ".cache/testimages", "folder kept between runs")
	push := flag.String("push", "", "URL of a registry to push to")
	certs := flag.String("certs", "", "folder to write hosts.toml files to; needs -push")
	flag.Parse()
	layout, err := images.Build(ctx, *cache)
	if err != nil {
		return err
	}
	fmt.Println(layout)
	if *push == "" {
		return nil
	}
	if err := images.Push(ctx, layout, *push); err != nil {
		return err
	}
	if *certs == "" {
		return nil
	}
	return images.WriteMirrors(*certs, *push)
}
