//go:build linux

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// network is the namespaces, joined by a bridge in one of them.
type network struct {
	prefix string // of the namespaces' names, no other run's
	made   []string
}

// client is the number of the namespace of the Kafka clients; nodes have their own.
const client int32 = 9

func address(node int32) string { return fmt.Sprintf("10.77.0.%d", node) }

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (n *network) name(node int32) string { return fmt.Sprintf("%s-%d", n.prefix, node) }

func (n *network) hub() string { return n.prefix + "-hub" }

// build makes the namespaces of the nodes and the clients'.
func (n *network) build(members ...int32) error {
	add := func(name string) error {
		if err := run("ip", "netns", "add", name); err != nil {
			return err
		}
		n.made = append(n.made, name)
		return run("ip", "-n", name, "link", "set", "lo", "up")
	}
	if err := add(n.hub()); err != nil {
		return err
	}
	if err := run("ip", "-n", n.hub(), "link", "add", "bridge", "type", "bridge"); err != nil {
		return err
	}
	if err := run("ip", "-n", n.hub(), "link", "set", "bridge", "up"); err != nil {
		return err
	}
	for _, m := range members {
		ns := n.name(m)
		if err := add(ns); err != nil {
			return err
		}
		port := fmt.Sprintf("port%d", m)
		for _, args := range [][]string{
			{"-n", n.hub(), "link", "add", port, "type", "veth", "peer", "name", "up0", "netns", ns},
			{"-n", n.hub(), "link", "set", port, "master", "bridge", "up"},
			{"-n", ns, "address", "add", address(m) + "/24", "dev", "up0"},
			{"-n", ns, "link", "set", "up0", "up"},
		} {
			if err := run("ip", args...); err != nil {
				return err
			}
		}
		if err := n.rules(m, nil, 0); err != nil {
			return err
		}
	}
	return nil
}

// rules has a node hear nothing from some, and lose so many packets of a hundred in both directions.
func (n *network) rules(node int32, deaf []int32, loss int) error {
	var b strings.Builder
	// The first line makes the table where there is none, so that the second one can remove it.
	b.WriteString("table inet fault {}\ndelete table inet fault\ntable inet fault {\n")
	lossy := ""
	if loss > 0 {
		lossy = fmt.Sprintf("iifname \"up0\" numgen random mod 100 < %d counter drop\n", loss)
	}
	b.WriteString("chain in { type filter hook input priority 0;\n")
	for _, from := range deaf {
		fmt.Fprintf(&b, "ip saddr %s counter drop\n", address(from))
	}
	b.WriteString(lossy + "}\n")
	b.WriteString("chain out { type filter hook output priority 0;\n" + strings.ReplaceAll(lossy, "iifname", "oifname") + "}\n}\n")
	cmd := exec.Command("nsenter", "--net=/run/netns/"+n.name(node), "--", "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

// remove removes the namespaces; what they hold goes with them.
func (n *network) remove() error {
	var bad []error
	for _, name := range slices.Backward(n.made) {
		bad = append(bad, run("ip", "netns", "delete", name))
	}
	n.made = nil
	return errors.Join(bad...)
}
