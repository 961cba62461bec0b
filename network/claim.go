package network

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/nodeagent/nodeagent/network/netns"
)

// claimLimit bounds the wait for others who choose subnets, which takes them
// milliseconds.
const claimLimit = 5 * time.Second

// ClaimSubnets keeps the subnets that the host has no route to from being
// chosen by two, of this process or another, until release is called: the one
// who chooses makes the route. Who waits too long goes on without, since
// whoever holds it need not be one of ours.
func ClaimSubnets() (release func()) {
	ctx, cancel := context.WithTimeout(context.Background(), claimLimit)
	defer cancel()
	release, err := netns.Claim(ctx)
	if err != nil {
		logrus.WithError(err).Warn("choose subnets while others may")
		return func() {}
	}
	return release
}
