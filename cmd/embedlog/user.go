package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/x/embedlog/internal/sock"
)

func (a *app) user() *cobra.Command {
	return parent("user", "Create, list and delete users of the Kafka listener",
		a.userSet("create", "Create a user, with a password from stdin", false),
		a.userSet("set-password", "Give a user another password, from stdin", true),
		a.userList(), a.userDelete())
}

func (a *app) userSet(verb, short string, exists bool) *cobra.Command {
	done := map[bool]string{false: "created user %s", true: "user %s has another password"}[exists]
	return &cobra.Command{
		Use:     verb + " USER",
		Short:   short,
		Example: "  embedlog user " + verb + " alice < password.txt",
		Args:    takes(1, 1, "a user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := a.password(args[0])
			if err != nil {
				return err
			}
			u, err := send[sock.User](cmd.Context(), a, false, sock.OpSetUser, sock.SetUser{User: args[0], Password: password, Exists: exists})
			if err != nil {
				return err
			}
			if a.asJSON() {
				return a.json(u)
			}
			return a.say(done, u.User)
		},
	}
}

// password reads a password: from the terminal without showing it, twice, or the
// first line of stdin. There is no flag for it, because everybody on the machine sees
// those.
func (a *app) password(user string) (string, error) {
	if !isTerminal(a.stdin) {
		line, err := bufio.NewReader(io.LimitReader(a.stdin, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return "", usagef("no password on stdin")
		}
		return line, nil
	}
	ask := func(question string) (string, error) {
		fmt.Fprint(a.stderr, question)
		b, err := term.ReadPassword(int(a.stdin.(*os.File).Fd()))
		fmt.Fprintln(a.stderr)
		return string(b), err
	}
	first, err := ask("Password of " + user + ": ")
	if err != nil {
		return "", err
	}
	again, err := ask("Again: ")
	switch {
	case err != nil:
		return "", err
	case first != again:
		return "", usagef("the two passwords differ")
	case first == "":
		return "", usagef("the password is empty")
	}
	return first, nil
}

func (a *app) userList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the users",
		Args:    takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			users, err := send[[]sock.User](cmd.Context(), a, false, sock.OpUsers, struct{}{})
			if err != nil {
				return err
			}
			t := newTable("USER", "MECHANISMS")
			for _, u := range users {
				if a.asJSON() {
					if err := a.json(u); err != nil {
						return err
					}
				}
				var mechanisms []string
				for _, c := range u.Credentials {
					mechanisms = append(mechanisms, c.Mechanism)
				}
				t.add(u.User, strings.Join(mechanisms, ","))
			}
			switch {
			case a.asJSON():
				return nil
			case len(users) == 0:
				a.note("no users; `embedlog user create NAME` makes one")
				return nil
			}
			return a.show(t)
		},
	}
}

func (a *app) userDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete USER...",
		Short: "Delete users; connections that they have stay",
		Args:  takes(1, -1, "a user"),
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := a.confirm("Delete " + strings.Join(names, ", ") + "?"); err != nil {
				return err
			}
			for _, name := range names {
				_, err := send[struct{}](cmd.Context(), a, false, sock.OpDeleteUser, sock.UserName{User: name})
				if err != nil {
					return err
				}
				if a.asJSON() {
					err = a.json(map[string]string{"deleted": name})
				} else {
					err = a.say("deleted user %s", name)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}
