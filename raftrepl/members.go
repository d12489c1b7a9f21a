package raftrepl

import (
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/log"
)

// firstMembers is the configuration that a group begins with: the same bytes on every
// member.
func firstMembers(nodes []int32) []byte {
	sorted := slices.Clone(nodes)
	slices.Sort(sorted)
	var c raft.Configuration
	for _, n := range slices.Compact(sorted) {
		c.Servers = append(c.Servers, server(n, raft.Voter))
	}
	return raft.EncodeConfiguration(c)
}

func server(node int32, s raft.ServerSuffrage) raft.Server {
	return raft.Server{Suffrage: s, ID: memberID(node), Address: raft.ServerAddress(memberID(node))}
}

// decodeMembers reads a configuration from a peer or the disk. The library's own function
// panics on what it cannot read.
func decodeMembers(b []byte) (c raft.Configuration, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("members cannot be read: %v: %w", r, log.ErrCorrupt)
		}
	}()
	c = raft.DecodeConfiguration(b)
	if len(c.Servers) > maxMembers {
		return c, fmt.Errorf("%d members: %w", len(c.Servers), log.ErrCorrupt)
	}
	for _, s := range c.Servers {
		if memberNode(s.ID) < 0 || string(s.Address) != string(s.ID) || s.Suffrage > raft.Staging {
			return c, fmt.Errorf("member %q at %q: %w", s.ID, s.Address, log.ErrCorrupt)
		}
	}
	return c, nil
}

// maxMembers bounds what is believed of a configuration.
const maxMembers = 1000
