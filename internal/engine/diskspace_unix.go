//go:build linux || darwin || freebsd

package engine

import (
	"math"

	"golang.org/x/sys/unix"
)

// diskSpace is the size of the file system that dir is on, and what users who are
// not root can still write. -1 is not known.
func diskSpace(dir string) (total, usable int64) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return -1, -1
	}
	// What is kept for root can make it negative.
	free := max(int64(st.Bavail), 0)
	return blocks(uint64(st.Blocks), uint64(st.Bsize)), blocks(uint64(free), uint64(st.Bsize))
}

// blocks are n blocks in bytes, or the largest number where that is more.
func blocks(n, size uint64) int64 {
	if size != 0 && n > math.MaxInt64/size {
		return math.MaxInt64
	}
	return int64(n * size)
}
