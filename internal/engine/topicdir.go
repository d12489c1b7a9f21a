package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/x/embedlog/internal/vfs"
)

// A topic's directory, topics/<id>, holds a file "topic" and a directory for each
// partition. The file is durable before the first partition is made, and says which
// of them were acknowledged and which are only being made:
//
//	format 1
//	topic <22 characters>
//	name orders
//	made 4         partitions 0 to 3 were acknowledged
//	making 8       4 to 7 are being made; the same as made when none are
//	crc32c <8 hex digits>
//
// The metadata decides. The file is for people, and for telling what a crash left
// over from what somebody lost the metadata of.
const topicFileName = "topic"

// orphanSuffix marks a directory that the metadata does not know. It stays beside
// the others: to rename within one directory is one change to a power cut.
const orphanSuffix = ".orphan"

type topicFile struct {
	id           TopicID
	name         string
	made, making int
}

func (f *topicFile) encode() []byte {
	return encodeFields(
		field{"format", "1"},
		field{"topic", f.id.String()},
		field{"name", f.name},
		field{"made", strconv.Itoa(f.made)},
		field{"making", strconv.Itoa(f.making)},
	)
}

func decodeTopicFile(b []byte) (*topicFile, error) {
	values, err := decodeFields(b, "format", "topic", "name", "made", "making")
	if err != nil {
		return nil, err
	}
	_, err0 := parseNumber(values[0], 1)
	id, err1 := ParseTopicID(values[1])
	made, err2 := parseNumber(values[3], maxPartitions)
	making, err3 := parseNumber(values[4], maxPartitions)
	if err := errors.Join(err0, err1, err2, err3, checkTopicName(values[2])); err != nil {
		return nil, err
	}
	if values[0] != "1" || making < made || making == 0 {
		return nil, errors.New("numbers that do not fit each other")
	}
	return &topicFile{id: id, name: values[2], made: int(made), making: int(making)}, nil
}

func topicDir(id TopicID) string { return topicsName + "/" + id.String() }

func partitionDir(id TopicID, n int) string { return topicDir(id) + "/" + strconv.Itoa(n) }

// parsePartitionName reads the name of a partition's directory.
func parsePartitionName(name string) (n int, ok bool) {
	v, err := parseNumber(name, maxPartitions-1)
	return int(v), err == nil
}

// readTopicFile returns nil when there is no whole file.
func readTopicFile(fsys vfs.FS, id TopicID) (*topicFile, error) {
	b, err := readSmall(fsys, topicDir(id)+"/"+topicFileName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := decodeTopicFile(b)
	if err != nil || f.id != id {
		return nil, nil // damaged: the metadata has it all
	}
	return f, nil
}

func (f *topicFile) write(fsys vfs.FS) error {
	return replaceFile(fsys, topicDir(f.id), topicFileName, f.encode())
}

// makeTopicDir makes the directory of a topic that does not exist yet, durable, with
// a file that says so. Its partitions follow.
func makeTopicDir(fsys vfs.FS, f *topicFile) error {
	if err := fsys.Mkdir(topicDir(f.id)); err != nil {
		return err
	}
	if err := fsys.SyncDir(topicsName); err != nil {
		return err
	}
	return f.write(fsys)
}

// removePartitionDir removes a partition's directory and all in it. Nothing is
// durable before the directory above is synced.
func removePartitionDir(ctx context.Context, fsys vfs.FS, dir string) error {
	infos, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, info := range infos {
		if err := ctx.Err(); err != nil {
			return err
		}
		if info.Dir {
			return fmt.Errorf("%s/%s: a directory that is not ours", dir, info.Name)
		}
		if err := removeFile(fsys, dir+"/"+info.Name); err != nil {
			return err
		}
	}
	return removeFile(fsys, dir)
}

// removeTopicDir removes a topic's directory and all in it, durably. The topic file
// goes last, and only when nothing else can come back: what is left of an
// interrupted removal still says what it is.
func removeTopicDir(ctx context.Context, fsys vfs.FS, id TopicID) error {
	dir := topicDir(id)
	infos, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fsys.SyncDir(topicsName) // somebody may have removed it and not come to this
	}
	if err != nil {
		return err
	}
	for _, info := range infos {
		switch {
		case info.Dir:
			err = removePartitionDir(ctx, fsys, dir+"/"+info.Name)
		case info.Name != topicFileName:
			err = removeFile(fsys, dir+"/"+info.Name)
		}
		if err != nil {
			return err
		}
	}
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	if err := removeFile(fsys, dir+"/"+topicFileName); err != nil {
		return err
	}
	if err := removeFile(fsys, dir); err != nil {
		return err
	}
	return fsys.SyncDir(topicsName)
}

// setAside gives a directory below parent a name that says that the metadata does
// not know it.
func setAside(fsys vfs.FS, parent, name string) (as string, err error) {
	for n := 1; ; n++ {
		as = name + orphanSuffix
		if n > 1 {
			as += "-" + strconv.Itoa(n)
		}
		_, err := fsys.Stat(joinPath(parent, as))
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err := fsys.Rename(joinPath(parent, name), joinPath(parent, as)); err != nil {
			return "", err
		}
		return as, fsys.SyncDir(parent)
	}
}
