package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

// completeArguments makes the shell complete topics and groups where a command's
// form has them.
func (a *app) completeArguments(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		a.completeArguments(c)
	}
	if cmd.Flags().Lookup("group") != nil {
		_ = cmd.RegisterFlagCompletionFunc("group", a.completeNames(a.groupNames)) // fails only if done twice
	}
	for _, flag := range []string{"key-type", "value-type"} {
		if cmd.Flags().Lookup(flag) != nil {
			_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(rowTypes, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	if !cmd.HasParent() {
		_ = cmd.RegisterFlagCompletionFunc("mechanism", cobra.FixedCompletions(mechanisms, cobra.ShellCompDirectiveNoFileComp))
	}
	form, known := cmd.Use, cmd.ValidArgsFunction != nil || cmd.HasSubCommands()
	switch {
	case known:
	case strings.Contains(form, "TOPIC") && cmd.Name() != "create":
		cmd.ValidArgsFunction = a.completeNames(a.topicNames)
	case strings.Contains(form, "VIEW"):
		cmd.ValidArgsFunction = firstOnly(a.completeNames(a.viewNames), strings.Contains(form, "VIEW..."))
	case strings.Contains(form, "GRAPH"):
		cmd.ValidArgsFunction = firstOnly(a.completeNames(a.graphNames), false)
	case strings.Contains(form, "GROUP"):
		cmd.ValidArgsFunction = a.completeNames(a.groupNames)
	}
}

// firstOnly completes the first argument alone, unless more is.
func firstOnly(f cobra.CompletionFunc, more bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, have []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(have) > 0 && !more {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(cmd, have, typed)
	}
}

// completeNames offers the names that are not there yet. The shell waits: whatever
// takes long or fails offers nothing.
func (a *app) completeNames(list func(context.Context) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, have []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), 500*time.Millisecond)
		defer cancel()
		a.address.silent = true
		if a.reach(cmd) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, err := list(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(have, n) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) topicNames(ctx context.Context) (names []string, err error) {
	info, err := send[sock.Info](ctx, a, false, sock.OpInfo, struct{}{})
	for _, t := range info.Topics {
		if !t.Internal {
			names = append(names, t.Topic)
		}
	}
	return names, err
}

func (a *app) groupNames(ctx context.Context) (names []string, err error) {
	groups, err := send[[]sock.GroupBrief](ctx, a, false, sock.OpGroups, struct{}{})
	for _, g := range groups {
		names = append(names, g.Group)
	}
	return names, err
}
