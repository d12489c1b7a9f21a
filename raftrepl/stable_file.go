package raftrepl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// fileVotes keeps votes in one file that is replaced whole: for a file system that is
// not the operating system's, in memory or simulated.
//
//	0  8  "embedvot"
//	8  4  number of votes, and those
//	   4  CRC32C of all before
type fileVotes struct {
	fs   vfs.FS
	name string
}

const (
	votesMagic    = "embedvot"
	maxVotesBytes = 64 << 20
)

var votesTable = crc32.MakeTable(crc32.Castagnoli)

// OpenVotesIn is OpenVotes for a file system of package vfs.
func OpenVotesIn(fsys vfs.FS, name string) (*Votes, error) {
	return openVotes(&fileVotes{fsys, name})
}

func (b *fileVotes) load() ([]vote, error) {
	f, err := b.fs.Open(b.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Info()
	if err != nil {
		return nil, err
	}
	if info.Size > maxVotesBytes {
		return nil, fmt.Errorf("%s: %d bytes: %w", b.name, info.Size, log.ErrCorrupt)
	}
	buf := make([]byte, info.Size)
	if _, err := f.ReadAt(buf, 0); err != nil && err != io.EOF {
		return nil, err
	}
	list, err := decodeVotes(buf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.name, err)
	}
	// What is read may be a rename that no sync of the directory has made durable yet.
	return list, b.fs.SyncDir(".")
}

func decodeVotes(b []byte) (list []vote, err error) {
	if len(b) < len(votesMagic)+8 || string(b[:8]) != votesMagic ||
		crc32.Checksum(b[:len(b)-4], votesTable) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return nil, log.ErrCorrupt
	}
	n, rest := binary.BigEndian.Uint32(b[8:]), b[12:len(b)-4]
	for range n {
		var g vote
		if g, rest, err = decodeVote(rest); err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	if len(rest) > 0 {
		return nil, log.ErrCorrupt
	}
	return list, nil
}

func encodeVotes(all []vote) []byte {
	b := binary.BigEndian.AppendUint32([]byte(votesMagic), uint32(len(all)))
	for i := range all {
		b = all[i].appendTo(b)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, votesTable))
}

func (b *fileVotes) store(_, all []vote) error {
	kept := all[:0:0]
	for _, g := range all {
		if g.known() {
			kept = append(kept, g)
		}
	}
	tmp := b.name + ".tmp"
	if err := b.fs.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := b.fs.Create(tmp)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(encodeVotes(kept), 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := b.fs.Rename(tmp, b.name); err != nil {
		return err
	}
	return b.fs.SyncDir(".")
}

func (b *fileVotes) close() error { return nil }
