package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpColumns are those of terminals; people read there.
const helpColumns = 80

func init() {
	cobra.AddTemplateFunc("ownFlags", ownFlags)
	cobra.AddTemplateFunc("globalFlags", globalFlags)
}

// usageTemplate is cobra's, with flags as they are shown here.
func usageTemplate(cobras string) string {
	return strings.NewReplacer(
		".LocalFlags.FlagUsages", "ownFlags .", ".InheritedFlags.FlagUsages", "globalFlags .",
	).Replace(cobras)
}

// ownFlags are a command's own. Those about an address stand apart in the root's.
func ownFlags(c *cobra.Command) string {
	if c.HasParent() {
		return c.LocalFlags().FlagUsagesWrapped(helpColumns)
	}
	about := func(name string) bool { return slices.Contains(addressFlags, name) }
	return usages(c.LocalFlags(), func(name string) bool { return !about(name) }) +
		"\nFlags with --address:\n" + usages(c.LocalFlags(), about)
}

// globalFlags are those of every command. One that cannot go to an address does not
// show how it would, and the others do not repeat it all.
func globalFlags(c *cobra.Command) string {
	any := c.HasSubCommands() || reaches[words(c)] == byAnyDoor
	shown := usages(c.InheritedFlags(), func(name string) bool {
		return !slices.Contains(addressFlags, name) && (any || name != "address")
	})
	if any {
		shown += "  TLS and passwords of an --address: see `embedlog --help`\n"
	}
	return shown
}

func usages(all *pflag.FlagSet, keep func(name string) bool) string {
	some := pflag.NewFlagSet("", pflag.ContinueOnError)
	all.VisitAll(func(f *pflag.Flag) {
		if keep(f.Name) {
			some.AddFlag(f)
		}
	})
	return some.FlagUsagesWrapped(helpColumns)
}
