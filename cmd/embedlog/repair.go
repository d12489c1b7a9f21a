package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/x/embedlog"
)

// repairLine is what --format json prints of a repair.
type repairLine struct {
	Logs    int              `json:"logs"` // looked at
	Damaged []repairedLog    `json:"damaged"`
	Orphans []repairedOrphan `json:"orphans"`
	// Identity: FORMAT was damaged or missing and made anew.
	Identity bool   `json:"identity"`
	DryRun   bool   `json:"dry_run"`
	Report   string `json:"report,omitempty"` // the file that was written
}

type repairedLog struct {
	Name     string   `json:"name"`
	Path     string   `json:"path"`
	Missing  bool     `json:"missing"`  // its files were gone: it was made anew, empty
	LostEnd  bool     `json:"lost_end"` // offsets at its end will be given again
	Damage   []string `json:"damage"`
	SetAside []string `json:"set_aside"`
	Error    string   `json:"error,omitempty"` // why it could not be repaired
}

type repairedOrphan struct {
	Path  string `json:"path"`
	Topic string `json:"topic,omitempty"`
}

func (a *app) repair() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "repair [--dry-run]",
		Short: "Make a damaged database writable by giving up what cannot be read",
		Long: `repair makes a damaged database, which nobody has open, usable again by giving
up what cannot be read. Records before and behind damage keep their offsets;
damaged files stay beside the repaired ones as <name>.corrupt-<n>; a report is
written into the directory. It never happens by itself. --dry-run says what it
would do, and exits with 3 if that is anything.`,
		Args: takes(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !dryRun {
				if err := a.confirm("Give up what cannot be read of " + a.data + "? (--dry-run shows what that is)"); err != nil {
					return err
				}
			}
			bar := a.bar(0, "repair")
			r, err := embedlog.Repair(cmd.Context(), a.data, &embedlog.RepairOptions{
				DryRun:   dryRun,
				Progress: func(done, total int, path string) { bar.set("repair "+path, int64(done), int64(total)) },
			})
			bar.done()
			if errors.Is(err, embedlog.ErrLocked) {
				return &exitError{exitLocked, lockedBy(a.data, err, "a database is repaired when nobody has it open")}
			}
			if err != nil && len(r.Damaged) == 0 && !r.Identity {
				return err
			}
			if showErr := a.showRepair(r, dryRun); showErr != nil {
				return showErr
			}
			if err == nil && dryRun && (len(r.Damaged) > 0 || r.Identity) {
				err = &exitError{code: exitDamage}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	return cmd
}

func (a *app) showRepair(r embedlog.RepairReport, dryRun bool) error {
	if !a.asJSON() {
		if len(r.Damaged)+len(r.Orphans) == 0 && !r.Identity {
			return a.say("nothing to repair in %s", plural(r.Logs, "log"))
		}
		_, err := fmt.Fprint(a.stdout, r.String())
		return err
	}
	line := repairLine{Logs: r.Logs, Damaged: []repairedLog{}, Orphans: []repairedOrphan{}, DryRun: dryRun, Identity: r.Identity, Report: r.File}
	for _, l := range r.Damaged {
		one := repairedLog{Name: l.Name, Path: l.Path, Missing: l.Missing, LostEnd: l.LostEnd, Damage: []string{}, SetAside: []string{}}
		for _, d := range l.Damage {
			one.Damage = append(one.Damage, d.Error())
		}
		one.SetAside = append(one.SetAside, l.SetAside...)
		if l.Err != nil {
			one.Error = l.Err.Error()
		}
		line.Damaged = append(line.Damaged, one)
	}
	for _, o := range r.Orphans {
		line.Orphans = append(line.Orphans, repairedOrphan{o.Path, o.Topic})
	}
	return a.json(line)
}
