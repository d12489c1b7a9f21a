package query

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"regexp"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/vfs"
)

// What a task keeps beside the log is in files, or in a directory, whose names begin with the id of its topic of progress: see newSaver.
var stateName = regexp.MustCompile(`^(.+)-[0-9]+\.(checkpoint|checkpoint\.tmp|store)$`)

// removeState removes what is kept of topics that are not there any more: of generations that were replaced, and of graphs that were deleted. Of a graph that
// does not run, but has its topics, everything stays. What cannot be removed is left for another time.
func (g *Graph) removeState() {
	if g.opts.CheckpointInterval < 0 && g.opts.Store == nil {
		return
	}
	if err := g.removedState(); err != nil && g.opts.Logger != nil {
		g.opts.Logger.Warn("what views kept of topics that are gone cannot be removed", "graph", g.name, "err", err)
	}
}

func (g *Graph) removedState() error {
	files, _, err := g.db.StateDir()
	if err != nil || files == nil { // the database is in memory
		return err
	}
	list, err := files.List(".")
	if err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, info := range g.db.Topics() {
		ids[info.ID.String()] = true
	}
	removed := false
	for _, f := range list {
		m := stateName.FindStringSubmatch(f.Name)
		if m == nil || ids[m[1]] || f.Dir != (m[2] == "store") {
			continue
		}
		if id, err := base64.RawURLEncoding.DecodeString(m[1]); err != nil || len(id) != len(embedlog.TopicID{}) {
			continue // it is somebody else's
		}
		removed = true
		if err := removeAll(files, f.Name, f.Dir); err != nil {
			return err
		}
	}
	if removed {
		return files.SyncDir(".")
	}
	return nil
}

// removeAll removes a file, or a directory with all that is in it.
func removeAll(files vfs.FS, name string, dir bool) error {
	if dir {
		list, err := files.List(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, f := range list {
			if err := removeAll(files, name+"/"+f.Name, f.Dir); err != nil {
				return err
			}
		}
	}
	if err := files.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
