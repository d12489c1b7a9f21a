package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// logDir is a partition's directory, found without opening the database.
type logDir struct {
	name      string // "orders/3", or what was typed
	path      string
	topic     string // empty for the metadata and for directories
	partition int
}

// findLogs finds the directories that words name: TOPIC, TOPIC/PARTITION, "meta",
// or a directory that holds a log. It reads names and takes no lock, so it works
// beside a running program and on a database that does not open.
func (a *app) findLogs(words []string) ([]logDir, error) {
	var all []logDir
	for _, word := range words {
		found, err := a.findLog(word)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func (a *app) findLog(word string) ([]logDir, error) {
	if word == "meta" {
		path := filepath.Join(a.data, "meta")
		if _, err := os.Stat(path); err == nil {
			return []logDir{{name: "meta", path: path}}, nil
		}
	}
	topics, err := a.topicDirs()
	if err != nil {
		return nil, err
	}
	name, number, one := strings.Cut(word, "/")
	if dir, ok := topics[name]; ok {
		found, err := partitionDirs(name, dir)
		if err != nil || !one {
			return found, err
		}
		i := slices.IndexFunc(found, func(d logDir) bool { return strconv.Itoa(d.partition) == number })
		if i < 0 {
			return nil, notFoundf("topic %s has no partition %s on the disk", name, number)
		}
		return found[i : i+1], nil
	}
	if logs, _ := filepath.Glob(filepath.Join(word, "*.log")); len(logs) > 0 {
		return []logDir{{name: word, path: word}}, nil
	}
	return nil, notFoundf("%s is no topic in %s, and no directory with a log", word, a.data)
}

// topicDirs maps topics to their directories by the file "topic" in each.
func (a *app) topicDirs() (map[string]string, error) {
	topics := make(map[string]string)
	dirs, err := os.ReadDir(filepath.Join(a.data, "topics"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, d := range dirs {
		dir := filepath.Join(a.data, "topics", d.Name())
		if name := topicName(filepath.Join(dir, "topic")); name != "" {
			topics[name] = dir
		}
		if !strings.Contains(d.Name(), ".") {
			topics[d.Name()] = dir // by its id
		}
	}
	return topics, nil
}

// topicName reads the name in a topic's file; "" when there is none.
func topicName(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, _ := f.Read(b) // a short read is a short name
	for line := range strings.Lines(string(b[:n])) {
		if name, ok := strings.CutPrefix(line, "name "); ok {
			return strings.TrimSuffix(name, "\n")
		}
	}
	return ""
}

func partitionDirs(topic, dir string) ([]logDir, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []logDir
	for _, d := range list {
		if n, err := strconv.Atoi(d.Name()); err == nil && n >= 0 && d.IsDir() {
			found = append(found, logDir{fmt.Sprintf("%s/%d", topic, n), filepath.Join(dir, d.Name()), topic, n})
		}
	}
	slices.SortFunc(found, func(x, y logDir) int { return x.partition - y.partition })
	return found, nil
}
