package main

import (
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/sock"
)

func (a *app) backup() *cobra.Command {
	return &cobra.Command{
		Use:   "backup DIRECTORY",
		Short: "Copy the database as it is now, while it is used",
		Long: `backup copies the database into a directory, as it is at one moment, while
programs go on using it, and reads the copy back before it counts. A complete
backup that is there already is replaced when the new one is complete; what has
not changed is not copied again. Interrupted or killed, it goes on where it was
the next time.`,
		Args: takes(1, 1, "a directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// The program that writes it may stand elsewhere.
			to, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			bar := a.bar(0, "backup")
			var done sock.BackedUp
			err = a.with(cmd.Context(), false, func(c *client) (err error) {
				done, err = callProgress[sock.BackedUp](cmd.Context(), c, sock.OpBackup, sock.Backup{To: to},
					func(p sock.Progress) { bar.set(p.What, p.Done, p.Total) })
				return err
			})
			bar.done()
			if err != nil {
				return err
			}
			if a.asJSON() {
				return a.json(done)
			}
			for _, trimmed := range done.Trimmed {
				a.note("retention deleted something of %s before it was copied", trimmed)
			}
			return a.say("backed up %s in %s, %s of them copied, to %s", plural(done.Partitions, "partition"),
				bytesText(done.Bytes), bytesText(done.Bytes-done.Reused), args[0])
		},
	}
}

func (a *app) restore() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Make the database from a backup, in an empty --data",
		Long: `restore verifies a backup, writes the database that it holds into --data, which
must be empty or not be there, and verifies what was written. With --check it
only verifies the backup.`,
		Args: takes(1, 1, "a backup's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			bar := a.bar(0, "restore")
			o := &embedlog.RestoreOptions{Progress: func(p embedlog.BackupProgress) { bar.set(p.Stage+" "+p.File, p.Done, p.Total) }}
			var r embedlog.RestoreReport
			var err error
			done := "restored"
			if check {
				r, err = embedlog.VerifyBackup(cmd.Context(), args[0], o)
				done = "verified"
			} else {
				r, err = embedlog.Restore(cmd.Context(), args[0], a.data, o)
			}
			bar.done()
			if err != nil {
				return err
			}
			if a.asJSON() {
				return a.json(sock.Restored{Done: done, Taken: r.Taken, Partitions: r.Partitions, Files: r.Files, Bytes: r.Bytes})
			}
			return a.say("%s %s, %s, as of %s", done, plural(r.Partitions, "partition"), bytesText(r.Bytes), r.Taken.Local().Format(time.DateTime))
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "only verify the backup")
	return cmd
}
