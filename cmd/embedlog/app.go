package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// app is one run of the command: what the global flags say, and where to read and
// write.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	data    string
	address address // instead of data
	format  string
	quiet   bool
	noColor bool
	yes     bool
}

func (a *app) asJSON() bool { return a.format == "json" }

// execute runs one command line.
func (a *app) execute(ctx context.Context, args []string) error {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	return root.ExecuteContext(ctx)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "embedlog",
		Short: "Work on an embedlog database: topics, records, groups, views",
		Long: `embedlog works on a database of embedlog: topics, records, consumer groups.

With --data it opens the directory itself. When a program holds it with
Options.Socket, the same commands talk to that program; otherwise they say who
holds it. With --address they go to a Kafka listener, such as that of
` + "`embedlog serve`" + `, or to any Kafka broker.`,
		Example: `  embedlog topic create orders -p 4
  printf 'ann:450\nbob:200\n' | embedlog produce orders -K :
  embedlog consume orders --from-beginning -e -f '%p %o %k %v\n'
  embedlog consume orders --group billing
  embedlog group describe billing
  embedlog topic list --address localhost:9092
  embedlog consume orders --address log.example.com:9093 --tls --user alice`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if os.Getenv("NO_COLOR") != "" {
				a.noColor = true
			}
			if a.format != "text" && a.format != "json" {
				return usagef("--format is text or json, not %q", a.format)
			}
			if a.data == "" {
				return usagef("--data is empty; it names the database's directory")
			}
			return a.reach(cmd)
		},
		// Without this a word that is no command would be an argument of the root.
		Args: func(cmd *cobra.Command, args []string) error { return noSuchCommand(cmd, args) },
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.data, "data", dataDefault(), "the database's directory (EMBEDLOG_DATA)")
	a.address.flags(flags)
	flags.StringVar(&a.format, "format", "text", "text for people, json for programs")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no remarks on stderr")
	flags.BoolVar(&a.noColor, "no-color", false, "no colours (NO_COLOR)")
	flags.BoolVar(&a.yes, "yes", false, "do not ask before something is destroyed")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%s: %w; usage: %s", cmd.CommandPath(), err, cmd.UseLine())
	})
	root.SetUsageTemplate(usageTemplate(root.UsageTemplate()))
	root.AddGroup(
		&cobra.Group{ID: "data", Title: "Records, groups and views:"},
		&cobra.Group{ID: "security", Title: "Who may do what through the Kafka listener:"},
		&cobra.Group{ID: "cluster", Title: "Nodes that keep copies:"},
		&cobra.Group{ID: "care", Title: "Looking after a directory:"},
	)
	for _, c := range []*cobra.Command{a.topic(), a.produce(), a.consume(), a.group(), a.view()} {
		c.GroupID = "data"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{a.user(), a.acl()} {
		c.GroupID = "security"
		root.AddCommand(c)
	}
	cluster := a.cluster()
	cluster.GroupID = "cluster"
	root.AddCommand(cluster)
	for _, c := range a.care() {
		c.GroupID = "care"
		root.AddCommand(c)
	}
	serve := a.serve()
	serve.GroupID = "care"
	root.AddCommand(serve)
	root.AddCommand(a.version())
	root.InitDefaultCompletionCmd()
	a.completeArguments(root)
	return root
}

func dataDefault() string {
	if dir := os.Getenv("EMBEDLOG_DATA"); dir != "" {
		return dir
	}
	return "./embedlog-data"
}

// parent is a command that has only subcommands.
func parent(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(children...)
	return c
}

func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf("did you mean %q?", near[0])
	} else {
		var names []string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names = append(names, c.Name())
			}
		}
		hint = "there are: " + strings.Join(names, ", ")
	}
	return usagef("%s has no command %q; %s", cmd.CommandPath(), args[0], hint)
}

// takes makes a command refuse other than min to max arguments (max -1: any
// number) with its right form. what names them.
func takes(min, max int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= min && (max < 0 || len(args) <= max) {
			return nil
		}
		return usagef("%s needs %s; usage: %s", cmd.CommandPath(), what, cmd.UseLine())
	}
}

// confirm asks before something is destroyed, when there is somebody to ask.
func (a *app) confirm(question string) error {
	if a.yes || !isTerminal(a.stdin) {
		return nil
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &exitError{exitFailure, errors.New("nothing was done")}
}
