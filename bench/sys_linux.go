package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// madvPopulateWrite is MADV_POPULATE_WRITE (Linux 5.14): make the pages present
// and writable now, so that no store takes a fault. The syscall package has no name for it.
const madvPopulateWrite = 23

// mapWritable maps the whole file, shared, with all its pages present and writable.
func mapWritable(f *os.File, n int64) ([]byte, error) {
	m, err := syscall.Mmap(int(f.Fd()), 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	if err := syscall.Madvise(m, madvPopulateWrite); err != nil {
		return nil, fmt.Errorf("populate %s: %w (Linux 5.14 or newer is needed)", f.Name(), err)
	}
	return m, nil
}

// mapReadable maps the first n bytes of the file for reading.
func mapReadable(f *os.File, n int64) ([]byte, error) {
	m, err := syscall.Mmap(int(f.Fd()), 0, int(n), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	return m, nil
}

func unmap(m []byte) error { return syscall.Munmap(m) }

func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return err
		}
	}
}

// processorTime is what this process has taken of the processors, user and system.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentBytes is the memory of this process that is in RAM.
func residentBytes() (int64, error) { return residentOf(os.Getpid()) }

// residentOf is the memory of a process that is in RAM.
func residentOf(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0, fmt.Errorf("/proc/%d/statm: %w", pid, err)
	}
	return resident * int64(os.Getpagesize()), nil
}

// machine describes what the figures were measured on.
func machine(dir string) string {
	model, kernel := "unknown processor", "unknown kernel"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(b))
	}
	return fmt.Sprintf("%s, Linux %s, files on %s", model, kernel, fileSystem(dir))
}

func fileSystem(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return "an unknown file system"
	}
	switch uint32(s.Type) {
	case 0xef53:
		return "ext4"
	case 0x58465342:
		return "xfs"
	case 0x01021994:
		return "tmpfs (memory: the durable rows mean nothing)"
	case 0x9123683e:
		return "btrfs"
	case 0x794c7630:
		return "overlayfs"
	}
	return fmt.Sprintf("file system %#x", uint32(s.Type))
}

// openConnections are the established TCP connections of a process: its own end and the other's,
// as the kernel writes them.
func openConnections(pid int) (list [][2]string, err error) {
	sockets := map[string]bool{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		// One that was closed meanwhile is none.
		if to, err := os.Readlink(dir + "/" + f.Name()); err == nil && strings.HasPrefix(to, "socket:[") {
			sockets[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	const established = "01"
	for _, name := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, name))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			// sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode
			if f := strings.Fields(line); len(f) > 9 && f[3] == established && sockets[f[9]] {
				list = append(list, [2]string{f[1], f[2]})
			}
		}
	}
	return list, nil
}
